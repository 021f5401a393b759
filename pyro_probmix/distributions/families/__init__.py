"""One row a family: its natural form, registered by importing this package."""

from pyro_probmix.distributions.families import (
    circular,
    counts,
    discrete,
    gamma,
    inflated,
    matrix,
    multivariate,
    normal,
    scale,
    simplex,
    supports,
    trees,
    wrappers,
)

__all__ = [
    "circular",
    "counts",
    "discrete",
    "gamma",
    "inflated",
    "matrix",
    "multivariate",
    "normal",
    "scale",
    "simplex",
    "supports",
    "trees",
    "wrappers",
]
