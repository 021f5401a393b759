"""A vicinity: positive labels vary by a factor, as waiting times or prices do."""

import pyro.distributions as dist
import torch

import pyro_probmix as pm


class GammaVicinity(pm.Vicinity):
    """Gamma kernel of mean y and standard deviation y √β."""

    def __init__(self, beta, fusion="log-linear"):
        super().__init__(fusion)
        self.beta = beta

    def kernel(self, y, support=None):
        shape = torch.full_like(y, 1 / self.beta)
        return dist.Gamma(shape, shape / y)
