"""Scores of methods as they are given, checked and paired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_probmix._checks import check_finite

__all__ = ["of_splits", "paired_scores"]

Array = NDArray[np.float64]


def paired_scores(scores: Mapping[str, Any], test_fraction: float | None) -> dict[str, Array]:
    """A number for each row or split, of every method."""
    found = {name: _read(f"scores[{name!r}]", values) for name, values in scores.items()}
    (first, own), *others = found.items()
    for name, values in others:
        if _sizes(values) != _sizes(own):
            raise ValueError(f"scores[{name!r}]: expected {_told(own)}, as {first!r} has, got {_told(values)}")
    if isinstance(own, list) and test_fraction is None:
        raise ValueError(
            f"test_fraction: expected the share of the rows that a split tests on, for scores of {_told(own)}, "
            "or 0 if these share no rows; got None"
        )
    return {
        name: np.array([rows.mean() for rows in values]) if isinstance(values, list) else values
        for name, values in found.items()
    }


def _read(name: str, values: Any) -> Array | list[Array]:
    """One array of scores, or one for each split."""
    if isinstance(values, Mapping):
        metrics = ", ".join(map(repr, values))
        raise TypeError(f"{name}: expected the scores of one metric, got those of {metrics}; take one of them by name")
    if isinstance(values, (list, tuple)) and of_splits(values):
        found = [_numbers(f"{name}[{k}]", part) for k, part in enumerate(values)]
        for k, rows in enumerate(found):
            if rows.ndim != 1 or not rows.size:
                raise ValueError(f"{name}[{k}]: expected the scores of at least one row, got shape {rows.shape}")
        return found
    scores = _numbers(name, values)
    if scores.ndim not in (1, 2) or not scores.size:
        raise ValueError(f"{name}: expected shape (n,) or, for splits, (J, n), got {scores.shape}")
    return scores if scores.ndim == 1 else list(scores)


def of_splits(values: Any) -> bool:
    """Whether the scores are those of the rows of splits."""
    if isinstance(values, (list, tuple)):
        return any(np.ndim(part) for part in values)
    return bool(np.ndim(values) == 2)


def _numbers(name: str, values: Any) -> Array:
    if isinstance(values, (list, tuple)):
        values = [part.item() if isinstance(part, Tensor) and part.numel() == 1 else part for part in values]
    try:
        found = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except ValueError:  # of lists that differ in length
        found = np.array(None)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected an array of numbers, got {type(values).__name__} {values!r:.60}")
    found = found.astype(np.float64)
    check_finite(name, torch.from_numpy(found))
    return found


def _sizes(values: Array | list[Array]) -> tuple[int, ...]:
    """Of the splits; of an array alone its own, which no splits have."""
    return tuple(map(len, values)) if isinstance(values, list) else (-len(values),)


def _told(values: Array | list[Array]) -> str:
    if not isinstance(values, list):
        return f"shape {values.shape}"
    sizes = ", ".join(str(len(rows)) for rows in values[:5]) + (", ..." if len(values) > 5 else "")
    return f"{len(values)} splits of {sizes} rows"
