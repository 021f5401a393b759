"""The container every loader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pyro_probmix._checks import check_choice

__all__ = ["Dataset", "Splitting", "Task"]

Task = Literal["regression", "classification"]
Splitting = Literal["random", "drawn", "last"]


@dataclass(frozen=True, eq=False)
class Dataset:
    r"""Features and targets of a prediction problem, as they were read.

    Args:
        name: name of the data set.
        x: features, float64 of shape ``(n, d)``.
        y: targets of shape ``(n,)``: float64 for a regression, int64 labels ``0..num_classes - 1`` for a
            classification.
        task: ``"regression"`` or ``"classification"``.
        feature_names: one name per column of ``x``; empty if the source has none.
        class_names: one name per class; empty for a regression.
        splitting: how experiments divide it into training and test rows: ``"random"``; ``"drawn"``, a toy problem,
            anew each time; or ``"last"``, a stock, whose last days are tested on.
        columns: how each column of a table was read, or why it was left out, by its name; empty without a table.

    Raises:
        ValueError: if the shapes or the task do not fit, the splitting is unknown, or a value is NaN or infinite (the
            rows are named).

    >>> x, y = np.zeros((3, 2)), np.array([0, 1, 1])
    >>> data = Dataset("tiny", x, y, "classification", class_names=("a", "b"))
    >>> len(data), data.num_features, data.num_classes
    (3, 2, 2)
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64] | NDArray[np.int64]
    task: Task
    feature_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    splitting: Splitting = "random"
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("task", self.task, get_args(Task))
        check_choice("splitting", self.splitting, get_args(Splitting))
        if self.x.ndim != 2 or self.y.shape != self.x.shape[:1]:
            raise ValueError(f"{self.name}: expected x (n, d) and y (n,), got {self.x.shape} and {self.y.shape}")
        if self.feature_names and len(self.feature_names) != self.num_features:
            got = len(self.feature_names)
            raise ValueError(f"{self.name}: expected feature_names of {self.num_features} columns, got {got}")
        bad = np.flatnonzero(~(np.isfinite(self.x).all(axis=1) & np.isfinite(self.y)))
        if bad.size:
            rows = f"{bad[:5].tolist()} ({bad.size} rows in all)"
            raise ValueError(f"{self.name}: expected finite values, got NaN or infinite values in rows {rows}")
        if self.task == "classification":
            if not np.issubdtype(self.y.dtype, np.integer):
                raise ValueError(f"{self.name}: expected integer labels y, got dtype {self.y.dtype}")
            if self.num_classes < 2 or self.y.min() < 0 or self.y.max() >= self.num_classes:
                raise ValueError(
                    f"{self.name}: expected labels y in 0..{self.num_classes - 1} of at least two class_names, "
                    f"got {self.y.min()}..{self.y.max()}"
                )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def num_features(self) -> int:
        """Number of columns of ``x``."""
        return int(self.x.shape[1])

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for a regression."""
        return len(self.class_names)
