"""What a fit is given, as members take it: prepared features, labels and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array

from pyro_probmix._checks import name_rows
from pyro_probmix.estimators.members import Network, Rows
from pyro_probmix.estimators.targets import as_tensor
from pyro_probmix.tables import Preparation

__all__ = ["Prepared", "as_weights", "is_frame", "named_by_text"]


@dataclass(frozen=True)
class Prepared:
    """Rows of a fit, prepared.

    Args:
        preparation: of features.
        network: what members are made of.
        x: features of shape ``(n, num_features)``.
        other: those of other rows to validate on, if any.
        device: where members are.
        soft: whether labels are probabilities.
    """

    preparation: Preparation
    network: Network
    x: NDArray[np.float64]
    other: NDArray[np.float64] | None
    device: Any
    soft: bool = False

    def rows(self, y: NDArray[Any], weight: NDArray[np.float64] | None) -> Rows:
        """The training rows with these targets or labels."""
        return self._rows(self.x, y, weight)

    def eval_rows(self, y: NDArray[Any], weight: NDArray[np.float64] | None = None) -> Rows:
        """The rows to validate on."""
        assert self.other is not None
        return self._rows(self.other, y, weight)

    def _rows(self, x: NDArray[np.float64], y: NDArray[Any], weight: NDArray[np.float64] | None) -> Rows:
        dtype = getattr(torch, self.network.dtype)
        features, labels = as_tensor(x, self.device).to(dtype), as_tensor(y, self.device)
        labels = labels.to(dtype) if labels.is_floating_point() else labels
        weights = None if weight is None else as_tensor(weight, self.device).to(dtype)
        return Rows(features, labels, weights, self.soft)


def as_weights(sample_weight: Any, size: int) -> NDArray[np.float64]:
    """The weights of so many rows, refused where they are none."""
    name = "sample_weight"
    weight = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name=name)
    if weight.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), one a row, got {weight.shape}")
    if (weight < 0).any():
        raise ValueError(
            f"{name}: expected numbers of at least 0, got others in {name_rows(torch.as_tensor(weight < 0))}"
        )
    if not weight.any():
        raise ValueError(f"{name}: expected weights that are not all zero")
    return weight


def is_frame(X: Any) -> bool:
    """Whether it is a data frame of pandas."""
    return hasattr(X, "iloc") and hasattr(X, "columns")


def named_by_text(X: Any) -> Any:
    """The data frame, its columns named by text, as scikit-learn asks of names."""
    if all(isinstance(name, str) for name in X.columns):
        return X
    return X.set_axis([str(name) for name in X.columns], axis=1)
