"""A likelihood: classes that have an order, such as grades."""

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch.distributions import constraints

import pyro_probmix as pm


class OrderedLogisticLikelihood(pm.nn.Likelihood):
    """The class is where the raw output plus logistic noise falls among cutpoints, which are learned."""

    def __init__(self, num_classes):
        super().__init__(1, torch.Size(), constraints.integer_interval(0, num_classes - 1))
        self.first = torch.nn.Parameter(torch.tensor([-1.0]))
        self.gaps = torch.nn.Parameter(torch.ones(num_classes - 2))

    def distribution(self, raw):
        cutpoints = torch.cat([self.first, self.first + F.softplus(self.gaps).cumsum(0)])
        below = torch.sigmoid(cutpoints - raw)  # the probabilities of this class and those below it
        return dist.Categorical(F.pad(below, (0, 1), value=1.0) - F.pad(below, (1, 0)))
