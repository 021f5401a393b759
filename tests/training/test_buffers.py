"""Networks that change their buffers, in ``fit`` and among replicas."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from tests.models import cases
from tests.training.replica_cases import assert_as_fit, data, fit_replicas, initial


def fit(model: Any, own: Any = None, **arguments: Any) -> pm.History:
    return pm.fit(model, data() if own is None else own, **{"epochs": 5, "progress": False} | arguments)


def make(network: Any, *arguments: Any) -> Any:
    """A model in double precision whose network is made in one random state."""
    torch.manual_seed(3)
    return pm.ERM(network(*arguments), pm.nn.NormalLikelihood()).double()


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


class Averaging(nn.Module):
    """Keeps a mean of its inputs in a buffer that it puts another in place of."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(cases.FEATURES, 2)
        self.average: Tensor
        self.register_buffer("average", torch.zeros(cases.FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.average = 0.9 * self.average + 0.1 * (1 + x.mean(0))
        return self.layer(x)


def test_buffers_that_are_replaced_belong_to_their_epoch(tmp_path: Path) -> None:
    x, y = data()
    whole = make(Averaging)
    history = fit(whole, validation=(x + 3, y + 3), epochs=30, optimizer=partial(torch.optim.SGD, lr=0.05))
    best = make(Averaging)
    fit(best, epochs=history.best_epoch + 1, optimizer=partial(torch.optim.SGD, lr=0.05))
    assert history.best_epoch + 1 < 30
    assert_equal(whole, best)

    resumed = make(Averaging)
    for epochs in (2, 4):
        fit(resumed, epochs=epochs, checkpoint_dir=tmp_path, resume=True)
    uninterrupted = make(Averaging)
    fit(uninterrupted, epochs=4)
    assert_equal(resumed, uninterrupted)


class Caching(nn.Module):
    """Keeps a buffer that grows with its input, or goes."""

    def __init__(self, goes: bool) -> None:
        super().__init__()
        self.layer, self.goes = nn.Linear(cases.FEATURES, 2), goes
        self.cache: Tensor | None
        self.register_buffer("cache", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.cache = None if self.goes else torch.arange(float(len(x)))
        return self.layer(x)


@pytest.mark.parametrize("goes", [False, True])
def test_buffers_of_another_shape_are_left_to_the_network(goes: bool) -> None:
    model, (x, y) = make(Caching, goes), data()
    fit(model, (x, y), validation=(x[:5], y[:5]), epochs=3)
    with pytest.raises(ValueError, match="the parameters are those of the last finite step"):
        fit(model, (x, torch.full_like(y, 1e200)))


@pytest.mark.faults("steps on a non-finite loss")
def test_a_step_that_is_not_taken_leaves_buffers_that_are_replaced() -> None:
    model = make(Averaging)
    x, y = data()
    with pytest.raises(ValueError, match="the parameters are those of the last finite step"):
        fit(model, (x, torch.full_like(y, 1e200)))
    assert_equal(model, make(Averaging))


def test_buffers_and_frozen_parameters_are_each_replicas_own() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.linear.bias.requires_grad_(False)
            self.register_buffer("scale", torch.tensor(scale))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.scale

    def make_model(r: int) -> Any:
        return pm.ERM(Scaled(1.0 + r), pm.nn.NormalLikelihood()).double()

    own = [data(r) for r in range(3)]
    replicas = fit_replicas(make_model, own)
    assert_as_fit(replicas, make_model, own)
    for r, model in enumerate(replicas.models):
        assert torch.equal(model.decoder.linear.bias, initial(make_model, r).decoder.linear.bias)


class Counting(nn.Module):
    """Counts its calls in a buffer, in place or by putting another in its place."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.layer, self.in_place = nn.Linear(cases.FEATURES, 2), in_place
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.in_place:
            self.calls.add_(1)
        elif self.training:
            self.calls = self.calls + 1
        return self.layer(x)


@pytest.mark.parametrize("in_place", [False, True])
def test_buffers_that_change_are_refused(in_place: bool) -> None:
    network = Counting(in_place)
    model = pm.ProbMix(network, pm.nn.NormalLikelihood()).double()
    with pytest.raises(
        ValueError, match=r"expected networks whose buffers stay as they are in training, got decoder.calls"
    ):
        fit_replicas(lambda r: model, [data()])
    assert network.calls.item() == 0


@pytest.mark.parametrize("constant", [torch.tensor([1.0, math.nan]), torch.ones(1).expand(2)], ids=["nan", "expanded"])
def test_buffers_that_stay_are_left_alone(constant: Tensor) -> None:
    def make_model(r: int) -> Any:
        network = nn.Linear(cases.FEATURES, 2)
        network.register_buffer("constant", constant)
        return pm.ProbMix(network, pm.nn.NormalLikelihood())

    x, y = data()
    replicas = fit_replicas(make_model, [(x.float(), y.float())] * 2)
    assert replicas.failed == {}
