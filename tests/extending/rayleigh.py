"""A family: the Rayleigh distribution, and its natural form."""

import math

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pyro_probmix.distributions import ExponentialFamily, register_family


class Rayleigh(dist.Weibull):
    """Length of a vector of two independent Normals of mean zero and standard deviation σ."""

    arg_constraints = {"sigma": constraints.positive}

    def __init__(self, sigma, validate_args=None):
        self.sigma = sigma
        super().__init__(math.sqrt(2) * sigma, torch.full_like(sigma, 2.0), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        return Rayleigh(self.sigma.expand(batch_shape), validate_args=self._validate_args)


@register_family(Rayleigh)
class RayleighFamily(ExponentialFamily):
    """η = −1/(2σ²), T(y) = y², A(η) = log σ², h(y) = y."""

    def to_natural(self, sigma):
        return (-0.5 / sigma**2,)

    def from_natural(self, eta):
        return ((-0.5 / eta).sqrt(),)

    def log_normalizer(self, sigma):
        return 2 * sigma.log()

    def sufficient_statistics(self, y):
        return (y**2,)

    def expected_sufficient_statistics(self, sigma):
        return (2 * sigma**2,)

    def log_base_measure(self, y):
        return y.log()

    def expected_log_base_measure(self, sigma):
        return sigma.log() + (math.log(2) - 0.5772156649015329) / 2
