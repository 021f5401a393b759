"""Tensors, arrays and data frames as the arrays of an export."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["ROW", "Coords", "Groups", "Table", "as_input", "exported", "is_discrete", "table", "whole"]

ROW = "observation"
"""The dimension of the rows of the data."""

Groups = dict[str, dict[str, tuple[list[str], NDArray[Any]]]]
"""Group → variable → names of its dimensions, and its values."""

Coords = dict[str, Any]
"""Dimension → the values along it."""

_EXPECTED = "expected a tensor, an array or a data frame"


class Table(NamedTuple):
    """The values of a tensor, an array or a data frame; a frame's index and the names of its columns."""

    values: NDArray[Any]
    index: Any
    columns: Any


def table(name: str, value: Any) -> Table:
    """``value`` as it is exported; words are arrays of strings."""
    if isinstance(value, Tensor):
        return Table(exported(value), None, None)
    index, columns = getattr(value, "index", None), getattr(value, "columns", None)
    if hasattr(value, "to_numpy"):
        index = None if index is None or index.nlevels > 1 else index.to_numpy()
        columns = None if columns is None else columns.to_numpy().astype(str)
        value = value.to_numpy()
    else:
        index = columns = None
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: {_EXPECTED}, got {type(value).__name__}")
    return Table(value.astype(str) if value.dtype == object else value, index, columns)


def as_input(name: str, value: Any, model: nn.Module) -> Tensor:
    """``value`` as a tensor; numbers of arrays and data frames in the precision of the model, where it is."""
    if isinstance(value, Tensor):
        return value
    tensor = torch.as_tensor(np.require(table(name, value).values, requirements=["C", "W"]), device="cpu")
    like = next(model.parameters(), tensor)
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype)


def exported(values: Tensor, discrete: bool = False) -> NDArray[Any]:
    """In the host's memory, integers where they are counts or classes, and in a precision that NumPy has."""
    values = values.detach().cpu()
    if discrete:
        return values.long().numpy()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def is_discrete(p: Any) -> bool:
    """Whether values of ``p`` are counts or classes."""
    return bool(getattr(p.support, "is_discrete", False))


def whole(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Counts or classes as integers."""
    integers = values.astype(np.int64)
    if not np.array_equal(integers, values):
        got = values[integers != values].flat[0]
        raise ValueError(f"{name}: expected whole numbers, being counts or classes, got {got}")
    return integers
