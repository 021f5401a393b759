"""Pools of scalars of any families, normalised numerically."""

from pyro_probmix.distributions.numerical.distribution import NUM_NODES, NumericalDistribution
from pyro_probmix.distributions.numerical.pools import HolderPool, NumericalPool, numerical_pool

__all__ = ["NUM_NODES", "HolderPool", "NumericalDistribution", "NumericalPool", "numerical_pool"]
