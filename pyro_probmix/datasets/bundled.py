"""The small real data sets that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import datasets as sklearn_datasets

from pyro_probmix._checks import check_choice
from pyro_probmix.datasets.dataset import Dataset

__all__ = ["BUNDLED", "load_bundled"]

BUNDLED: dict[str, Callable[..., Any]] = {
    "breast-cancer": sklearn_datasets.load_breast_cancer,
    "diabetes": sklearn_datasets.load_diabetes,
    "digits": sklearn_datasets.load_digits,
    "iris": sklearn_datasets.load_iris,
    "wine": sklearn_datasets.load_wine,
}
"""scikit-learn's loaders by data set name."""


def load_bundled(name: str) -> Dataset:
    """A data set bundled with scikit-learn: diabetes is a regression, the others are classifications.

    Args:
        name: one of the names in :data:`BUNDLED`.

    Raises:
        ValueError: if the name is unknown.

    >>> data = load_bundled("iris")
    >>> data.x.shape, data.class_names
    ((150, 4), ('setosa', 'versicolor', 'virginica'))
    """
    check_choice("name", name, BUNDLED)
    bunch = BUNDLED[name](scaled=False) if name == "diabetes" else BUNDLED[name]()
    x = np.asarray(bunch.data, dtype=np.float64)
    features = tuple(map(str, bunch.feature_names))
    if name == "diabetes":
        return Dataset(name, x, np.asarray(bunch.target, dtype=np.float64), "regression", features)
    classes = tuple(map(str, bunch.target_names))
    return Dataset(name, x, np.asarray(bunch.target, dtype=np.int64), "classification", features, classes)
