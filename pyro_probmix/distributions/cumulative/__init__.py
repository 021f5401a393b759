"""Shares of the mass of scalar distributions: distribution functions and quantiles of any of them."""

from pyro_probmix.distributions.cumulative.scalar import scalar_cdf, scalar_icdf

__all__ = ["scalar_cdf", "scalar_icdf"]
