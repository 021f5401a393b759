"""One row a family: its natural form, registered by importing this package."""

from pyro_probmix.distributions.families import counts, discrete, normal, positive, simplex, wrappers

__all__ = ["counts", "discrete", "normal", "positive", "simplex", "wrappers"]
