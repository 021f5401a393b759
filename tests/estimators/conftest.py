"""Rows that the tests of estimators fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris


@pytest.fixture(scope="module")
def diabetes() -> tuple[Any, Any]:
    X, y = load_diabetes(return_X_y=True)
    return X[:120], y[:120]


@pytest.fixture(scope="module")
def iris() -> tuple[Any, Any]:
    X, y = load_iris(return_X_y=True)
    return X[::3], y[::3]


@pytest.fixture(scope="module")
def skewed() -> tuple[Any, Any]:
    """Features, and positive targets of noise that grows with them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    return X, np.exp(0.5 * X[:, 0] + 0.3 * rng.normal(size=120))
