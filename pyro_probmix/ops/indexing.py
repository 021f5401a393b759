"""Indices of a batch, as a tensor of its shape takes them, for any tensor that has further dimensions on the right."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_probmix.ops.values import can_be_read

__all__ = ["batch_indexer"]


def batch_indexer(name: str, index: Any, shape: torch.Size) -> Callable[[Tensor, int], Tensor]:
    """The function that takes ``index`` of the batch, of that shape, in a tensor with more dimensions on its right.

    What a tensor takes is taken, and slices with negative steps besides.

    Args:
        name: of the index, for an error.
        index: an integer, slice, mask, sequence or tensor of integers, ``...`` or None, or a tuple of them.
        shape: of the batch.

    Returns:
        A function of a tensor and of how many of its dimensions are not the batch's; the others broadcast with it.

    Raises:
        IndexError: if something of the index is out of range, or of another shape than the batch.
        TypeError: if something is no index.

    Example:
        >>> take = batch_indexer("index", slice(None, None, -2), torch.Size([5]))
        >>> take(torch.arange(5), 0), take(torch.arange(10).reshape(5, 2), 1)[0]
        (tensor([4, 2, 0]), tensor([8, 9]))
    """
    items = [_item(name, item) for item in (index if isinstance(index, tuple) else (index,))]
    items = _every(name, items, shape)
    flipped = []
    dim = 0
    for i, item in enumerate(items):
        size = shape[dim] if item is not None else 0
        if isinstance(item, slice) and item.step is not None and item.step < 0:
            flipped.append(dim)
            items[i] = _mirrored(item, size)
        elif isinstance(item, int):
            if not -size <= item < size:
                raise _out_of_range(name, item, size, dim, shape)
        elif isinstance(item, Tensor):
            _check_tensor(name, item, shape, dim)
        dim += _dims(item)

    def take(tensor: Tensor, right: int) -> Tensor:
        event = tensor.shape[tensor.dim() - right :]
        full = tensor.expand(shape + event)
        if flipped:
            full = full.flip(flipped)
        own = [item.to(full.device) if isinstance(item, Tensor) else item for item in items]
        return full[(*own, *[slice(None)] * right)].contiguous()

    try:
        where = next((item.device for item in items if isinstance(item, Tensor)), "cpu")
        take(torch.zeros((), dtype=torch.bool, device=where), 0)
    except IndexError as error:  # of indices that do not broadcast
        raise IndexError(f"{name}: expected one for batch shape {tuple(shape)}, got {index!r}: {error}") from None
    return take


def _item(name: str, item: Any) -> Any:
    """A part of an index as None, an ellipsis, a slice, an integer or a tensor."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    expected = f"{name}: expected integers, slices, masks or sequences of these, got "
    if isinstance(item, bool):
        raise TypeError(f"{expected}{item}")
    if not (isinstance(item, Tensor) and item.dim()):  # of one integer in a row, PyTorch makes that integer
        with contextlib.suppress(TypeError):
            return operator.index(item)
    try:
        tensor = item if isinstance(item, Tensor) else torch.as_tensor(item, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{expected}{item!r}") from None
    if tensor.numel() == 0 and not isinstance(item, Tensor):
        tensor = tensor.long()
    if tensor.is_floating_point() or tensor.is_complex() or (tensor.dtype == torch.bool and not tensor.dim()):
        raise TypeError(f"{expected}{type(item).__name__} of {tensor.dtype}")
    return tensor if tensor.dtype == torch.bool else tensor.long()


def _dims(item: Any) -> int:
    """How many dimensions of the batch a part of an index is for."""
    if item is None or item is Ellipsis:
        return 0
    return item.dim() if isinstance(item, Tensor) and item.dtype == torch.bool else 1


def _every(name: str, items: list[Any], shape: torch.Size) -> list[Any]:
    """The parts of an index with a slice for each dimension that they leave out."""
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise IndexError(f"{name}: expected one ellipsis at most, got {len(dots)}")
    left = len(shape) - sum(map(_dims, items))
    if left < 0:
        expected = f"at most {len(shape)} dimensions, of batch shape {tuple(shape)}"
        raise IndexError(f"{name}: expected {expected}, got {len(shape) - left}")
    at = dots[0] if dots else len(items)
    return [*items[:at], *[slice(None)] * left, *items[at + 1 :]]


def _mirrored(item: slice, size: int) -> slice:
    """A slice with a negative step, for what has been flipped."""
    start, stop, step = item.indices(size)
    return slice(size - 1 - start, size - 1 - stop, -step)


def _check_tensor(name: str, item: Tensor, shape: torch.Size, dim: int) -> None:
    if item.dtype == torch.bool:
        expected = shape[dim : dim + item.dim()]
        if item.shape != expected:
            raise IndexError(f"{name}: expected a mask of shape {tuple(expected)}, got {tuple(item.shape)}")
        return
    size = shape[dim]
    if item.numel() and can_be_read(item):  # else a device would fail, and with it all that is on it
        bad = (item < -size) | (item >= size)
        if bool(bad.any()):
            raise _out_of_range(name, int(item[bad][0]), size, dim, shape)


def _out_of_range(name: str, value: int, size: int, dim: int, shape: torch.Size) -> IndexError:
    along = "" if len(shape) == 1 else f" along dimension {dim}"
    expected = f"positions from {-size} to {size - 1}" if size else "none, of an empty batch"
    return IndexError(f"{name}: expected {expected}{along} of batch shape {tuple(shape)}, got {value}")
