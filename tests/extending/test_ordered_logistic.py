"""The probabilities of ordered classes against Pyro's own, and cutpoints that are found again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

import pyro_probmix as pm


def cutpoints_of(likelihood: Any) -> Tensor:
    return torch.cat([likelihood.first, softplus(likelihood.gaps)]).detach().cumsum(0)


def test_probabilities_are_those_of_pyro(extensions: SimpleNamespace) -> None:
    likelihood = extensions.ordered_logistic.OrderedLogisticLikelihood(5).double()
    torch.nn.init.normal_(likelihood.gaps)
    raw = torch.randn(7, 1, dtype=torch.float64)
    expected = dist.OrderedLogistic(raw.squeeze(-1), cutpoints_of(likelihood)).probs
    torch.testing.assert_close(likelihood(raw).probs, expected)
    assert likelihood(raw).support.upper_bound == likelihood.support.upper_bound == 4


def test_cutpoints_are_found_again(extensions: SimpleNamespace) -> None:
    x, cutpoints = torch.randn(4000, 1), torch.tensor([-1.5, 0.0, 2.0])
    y = dist.OrderedLogistic(2 * x[:, 0], cutpoints).sample()
    likelihood = extensions.ordered_logistic.OrderedLogisticLikelihood(4)
    network = torch.nn.Linear(1, 1, bias=False)
    pm.fit(pm.ERM(network, likelihood), (x, y), epochs=300, learning_rate=0.05, progress=False)
    torch.testing.assert_close(cutpoints_of(likelihood), cutpoints, rtol=0, atol=0.2)
    assert abs(network.weight.item() - 2.0) < 0.2
