"""What a training is asked for, in words that can be kept and compared."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["check_settings", "describe", "describe_network"]

_SHOWN = 4


def describe(value: Any) -> Any:
    """The value as JSON has it; the elements of a large tensor by their sha256, an object by its attributes.

    Example:
        >>> describe(dist.Beta(0.2, 0.2))
        {'class': 'Beta', 'concentration1': [0.20000000298023224], 'concentration0': [0.20000000298023224]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return _describe_tensor(value.detach().cpu())
    if isinstance(value, Mapping):
        return {str(key): describe(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [describe(own) for own in value]
    if isinstance(value, torch.distributions.Distribution):
        return {"class": type(value).__name__, **_parameters(value)}
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if hasattr(value, "__dict__"):
        attributes = {
            key: own for key, own in vars(value).items() if not key.startswith("_") or isinstance(own, Tensor)
        }
        return {"class": type(value).__name__, **describe(attributes)}
    return str(value)


def describe_network(network: torch.nn.Module) -> str:
    """Its layers and what they are made with."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(network))


def check_settings(origin: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse settings that differ, naming the first that does."""
    ours, theirs = _flatten(own), _flatten(saved)
    for name in dict.fromkeys([*theirs, *ours]):
        expected, got = (_show(values[name]) if name in values else "none" for values in (theirs, ours))
        if expected != got:
            lines = zip_longest(expected.splitlines(), got.splitlines(), fillvalue="nothing")
            expected, got = next((e.strip(), g.strip()) for e, g in lines if e != g)
            raise ValueError(f"{name}: expected {expected}, {origin}, got {got}")


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, own in value.items():
        flat.update(_flatten(own, f"{prefix}.{key}" if prefix else key))
    return flat


def _show(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _parameters(p: torch.distributions.Distribution) -> dict[str, Any]:
    names = list(p.arg_constraints)
    if names:
        return {name: describe(getattr(p, name)) for name in names}
    parts = {k: v for k, v in vars(p).items() if isinstance(v, Tensor | float | torch.distributions.Distribution)}
    return {name: describe(part) for name, part in parts.items()}


def _describe_tensor(value: Tensor) -> Any:
    if value.numel() <= _SHOWN:
        return value.flatten().tolist()
    data = value.contiguous().flatten().view(torch.uint8).numpy()
    return f"{value.dtype} {tuple(value.shape)} sha256 {hashlib.sha256(data.tobytes()).hexdigest()[:16]}"
