"""The two toy problems of the paper, drawn from a generator of their own."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from pyro_probmix._checks import check_choice, check_integer
from pyro_probmix.datasets.dataset import Dataset

__all__ = ["TOY_RADII", "TOY_REGIONS", "Subset", "toy_classification", "toy_regression"]

Subset = Literal["train", "test"]

TOY_REGIONS: dict[Subset, tuple[float, float]] = {"train": (-4.0, 4.0), "test": (4.0, 6.0)}
"""Where the features of the toy regression lie."""

TOY_RADII = (0.5, 1.5, 2.5)
"""Radii of the three rings of the toy classification."""


def toy_regression(n: int = 100, seed: int = 0, subset: Subset = "train") -> Dataset:
    r"""Cubic regression with a test set outside the training region.

    .. math:: y_i = x_i^3 + \epsilon_i, \qquad \epsilon_i \sim \mathcal{N}(0, 9),

    with :math:`x_i \sim \mathcal{U}(-4, 4)` for training and :math:`x_i \sim \mathcal{U}(4, 6)` for testing.

    Args:
        n: number of examples.
        seed: seed of the draw; the two subsets of a seed are independent. Global random state is untouched.
        subset: ``"train"`` or ``"test"``.

    Returns:
        A regression with ``x`` of shape ``(n, 1)``.

    Raises:
        ValueError: if ``n`` is not positive or ``subset`` unknown.

    Source: El-Laham et al. (2025), equation 25.

    >>> train, test = toy_regression(), toy_regression(subset="test")
    >>> train.x.shape, bool(train.x.max() < 4 < test.x.min())
    ((100, 1), True)
    """
    rng = _generator(n, seed, subset)
    x = rng.uniform(*TOY_REGIONS[subset], size=(n, 1))
    y = x[:, 0] ** 3 + rng.normal(scale=3.0, size=n)
    return Dataset("toy-regression", x, y, "regression", feature_names=("x",), splitting="drawn")


def toy_classification(n: int = 100, seed: int = 0, subset: Subset = "train") -> Dataset:
    r"""Three noisy rings, one a class.

    .. math:: x_i = r_{y_i} (\cos\omega_i, \sin\omega_i)^\top + \epsilon_i, \qquad
        \omega_i \sim \mathcal{U}[0, 2\pi], \quad \epsilon_i \sim \mathcal{N}(0, 0.09\, I_2),

    with radii 0.5, 1.5 and 2.5. Classes are equally large up to one example; the test set has the same law.

    Args:
        n: number of examples.
        seed: seed of the draw; the two subsets of a seed are independent. Global random state is untouched.
        subset: ``"train"`` or ``"test"``.

    Returns:
        A classification with ``x`` of shape ``(n, 2)`` and three classes.

    Raises:
        ValueError: if ``n`` is not positive or ``subset`` unknown.

    Source: El-Laham et al. (2025), equation 26.

    >>> data = toy_classification(n=90)
    >>> data.x.shape, np.bincount(data.y).tolist()
    ((90, 2), [30, 30, 30])
    """
    rng = _generator(n, seed, subset)
    y = rng.permutation(np.arange(n) % len(TOY_RADII))
    angle = rng.uniform(0.0, 2.0 * np.pi, size=n)
    ring = np.take(TOY_RADII, y)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = ring + rng.normal(scale=0.3, size=(n, 2))
    class_names = tuple(f"ring {radius}" for radius in TOY_RADII)
    return Dataset("toy-classification", x, y, "classification", ("x1", "x2"), class_names, "drawn")


def _generator(n: int, seed: int, subset: Subset) -> np.random.Generator:
    check_integer("n", n)
    check_choice("subset", subset, get_args(Subset))
    return np.random.default_rng([seed, get_args(Subset).index(subset)])
