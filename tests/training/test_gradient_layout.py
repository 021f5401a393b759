"""Gradients have the layout of their parameters, as fused optimisers of PyTorch 2.13 need and do not check."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.models import seeded


class Transposed(nn.Module):
    """x W, the gradient of W being computed as that of its transpose, which is then what has gaps."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features).T)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def make_model(r: int = 0) -> Any:
    with seeded(r, torch.device("cpu")):
        network = nn.Sequential(Transposed(3, 4), nn.Tanh(), Transposed(4, 2))
        return pm.ProbMix(network, pm.nn.NormalLikelihood(), coefficient=dist.Beta(1.0, 1.0))


def parameters(model: Any) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]


@pytest.mark.faults("gradients of other strides")
def test_fused_steps_are_the_plain_ones() -> None:
    x, y = torch.randn(12, 3), torch.randn(12)
    assert not next(make_model().parameters()).is_contiguous()
    trained = []
    for fused in (True, False):
        model = make_model()

        def adam(p: list[Tensor], fused: bool = fused) -> torch.optim.Optimizer:
            return torch.optim.Adam(p, lr=0.05, fused=fused)

        pm.fit(model, (x, y), epochs=5, optimizer=adam, progress=False)
        trained.append(parameters(model))
    torch.testing.assert_close(*trained)
    assert not torch.allclose(trained[0][0], parameters(make_model())[0])


@pytest.mark.faults("gradients of other strides")
def test_replicas_step_as_fit_does() -> None:
    data = [(torch.randn(12, 3), torch.randn(12)) for _ in range(2)]
    options = {"epochs": 5, "learning_rate": 0.05, "progress": False}
    replicas = pm.fit_replicas(make_model, data, **options)
    for r, seed in enumerate(replicas.seeds):
        model = make_model(r)
        pm.fit(model, data[r], seed=seed, **options)
        torch.testing.assert_close(parameters(replicas.models[r]), parameters(model), atol=1e-5, rtol=1e-5)
