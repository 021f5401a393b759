"""The small real data sets that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from pyro_probmix._checks import check_choice
from pyro_probmix._imports import imported
from pyro_probmix.datasets.dataset import Dataset

__all__ = ["BUNDLED", "load_bundled"]

BUNDLED = ("breast-cancer", "diabetes", "digits", "iris", "wine")
"""The names of :func:`load_bundled`."""


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
    load = getattr(imported("sklearn.datasets"), f"load_{name.replace('-', '_')}")
    bunch = load(scaled=False) if name == "diabetes" else load()
    x = np.asarray(bunch.data, dtype=np.float64)
    features = tuple(map(str, bunch.feature_names))
    if name == "diabetes":
        return Dataset(name, x, np.asarray(bunch.target, dtype=np.float64), "regression", features)
    classes = tuple(map(str, bunch.target_names))
    return Dataset(name, x, np.asarray(bunch.target, dtype=np.int64), "classification", features, classes)
