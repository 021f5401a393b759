"""Checks of arguments, and what an error says: the argument, what was expected, what came."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "as_module",
    "as_size",
    "at_index",
    "check_choice",
    "check_device",
    "check_finite",
    "check_free",
    "check_integer",
    "check_number",
    "check_tensor",
    "name_rows",
]

_ROWS_NAMED = 5
_VALUES_AT_ONCE = 1 << 24


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that holds NaN or an infinity.

    Integer and boolean tensors always pass. Looking at the values waits for the tensor's device. The error names the
    first bad rows, along the first dimension.

    Example:
        >>> check_finite("x", torch.tensor([0.0, float("nan"), 1.0]))
        Traceback (most recent call last):
        ...
        ValueError: x: expected finite values, got NaN or inf in 1 of 3 rows (row 1)
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    if tensor.ndim == 0:
        if not bool(torch.isfinite(tensor)):
            raise ValueError(f"{name}: expected a finite value, got {tensor.item()}")
        return
    if tensor.numel() == 0:
        return
    # Piece by piece: a file that is mapped into memory need not fit into it.
    pieces = tensor.split(max(1, _VALUES_AT_ONCE * len(tensor) // tensor.numel()))
    if all(bool(torch.isfinite(piece).all()) for piece in pieces):
        return
    bad = torch.cat([(~torch.isfinite(piece)).reshape(len(piece), -1).any(dim=1) for piece in pieces])
    raise ValueError(f"{name}: expected finite values, got NaN or inf in {name_rows(bad)}")


def name_rows(bad: Tensor, names: Any = None) -> str:
    """How many rows are bad, of shape ``(N,)``, and the first of them by their names or positions, for an error.

    Example:
        >>> name_rows(torch.tensor([False, True, True]))
        '2 of 3 rows (rows 1, 2)'
    """
    rows = bad.nonzero().squeeze(1).tolist()
    first = rows[:_ROWS_NAMED] if names is None else [names[row] for row in rows[:_ROWS_NAMED]]
    named = ", ".join(map(str, first)) + (", ..." if len(rows) > _ROWS_NAMED else "")
    return f"{len(rows)} of {len(bad)} rows ({'row' if len(rows) == 1 else 'rows'} {named})"


def at_index(bad: Tensor) -> str:
    """Where in the batch something is wrong, for an error."""
    return f" at batch index {bad.nonzero().squeeze(-1).tolist()[:_ROWS_NAMED]}" if bad.dim() else ""


def check_integer(name: str, value: Any, minimum: int = 1) -> int:
    """The value as an ``int``, of Python or NumPy: a TypeError if it is none, a ValueError if it is too small."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name}: expected an integer >= {minimum}, got {value!r}")
    if number < minimum:
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {number}")
    return number


def check_number(name: str, value: Any, interval: str = "(0, inf)") -> float:
    """The value as a ``float``: a TypeError if it is no number, a ValueError if it is not in the interval.

    That is as mathematics writes it: ``"[0, 1)"`` has its lower end alone. NaN is in none.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number in {interval}, got {value!r}")
    low, high = map(float, interval[1:-1].split(","))
    number = float(value)
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    if not (above and below):
        raise ValueError(f"{name}: expected a number in {interval}, got {value!r}")
    return number


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse a value that is none of the choices, with a ValueError that names them."""
    choices = list(choices)
    if not any(value is choice or value == choice for choice in choices):
        raise ValueError(f"{name}: expected one of {', '.join(map(_quoted, choices))}, got {_quoted(value)}")


def check_device(device: Any) -> None:
    """Refuse a device that is not here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device: expected one that is here, such as cpu, got {device!r}: {error}") from error


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def check_free(name: str, value: str, known: Mapping[str, Any], owner: Any) -> None:
    """Refuse the name of another class or function; one that has been defined anew may have its old name."""
    other = known.get(value, owner)
    places = {f"{thing.__module__}.{thing.__qualname__}" for thing in (other, owner)}
    if len(places) > 1:
        raise ValueError(f'{name}: expected one that is free, got "{value}" of {other!r}')


def check_tensor(name: str, value: Any, shape: Iterable[int] | None = None) -> None:
    """Refuse what is no tensor (TypeError), or one of another shape (ValueError)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    if shape is not None and value.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(value.shape)}")


def as_size(name: str, value: Any) -> torch.Size:
    """Return an integer or a sequence of integers as a ``torch.Size`` without empty dimensions."""
    sizes = value if isinstance(value, (tuple, list)) else (value,)
    return torch.Size([check_integer(name, size) for size in sizes])


def as_module(name: str, value: Any) -> nn.Module:
    """Return ``value`` if it is an ``nn.Module``, or raise naming ``name``."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name}: expected an nn.Module, got {value!r}")
    return value
