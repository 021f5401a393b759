"""One row a family: its natural form, registered by importing this package."""

from pyro_probmix.distributions.families import (
    bounded,
    circular,
    counts,
    discrete,
    gamma,
    inflated,
    matrix,
    multivariate,
    normal,
    positive,
    scale,
    simplex,
    supports,
    transformed,
    trials,
    wrappers,
)

__all__ = [
    "bounded",
    "circular",
    "counts",
    "discrete",
    "gamma",
    "inflated",
    "matrix",
    "multivariate",
    "normal",
    "positive",
    "scale",
    "simplex",
    "supports",
    "transformed",
    "trials",
    "wrappers",
]
