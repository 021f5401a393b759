"""``ema_decay``: the average of the parameters over the steps is what is validated and kept."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import pyro_probmix as pm
from pyro_probmix.training import compiled
from pyro_probmix.training.averaging import MovingAverage
from tests.models import cases
from tests.training.networks import FailingBeyond
from tests.training.replica_cases import assert_as_fit, assert_same, data, fit_replicas, initial, maker

DECAY, STEPS = 0.75, 7


def model() -> Any:
    torch.manual_seed(1)
    return cases.make_model("ManifoldProbMix", "normal")


def fit(own: Any, epochs: int, **arguments: Any) -> pm.History:
    return pm.fit(own, data(), **{"epochs": epochs, "learning_rate": 0.1, "progress": False} | arguments)


def averages() -> list[Tensor]:
    """After each step, in closed form: a mean of four, which the later ones let fade."""
    steps = []
    for epochs in range(1, STEPS + 1):  # of one step each
        one = model()
        fit(one, epochs)
        steps.append(parameters_to_vector(one.parameters()).detach())
    found = [sum(steps[:t]) / t for t in range(1, 5)]
    for t in range(5, STEPS + 1):
        later = [(1 - DECAY) * DECAY ** (t - k) * steps[k - 1] for k in range(5, t + 1)]
        found.append(DECAY ** (t - 4) * found[3] + sum(later))
    return found


def test_what_is_kept_is_the_average_of_the_steps() -> None:
    averaged, plain = model(), model()
    history = fit(averaged, STEPS, ema_decay=DECAY)
    torch.testing.assert_close(parameters_to_vector(averaged.parameters()), averages()[-1], rtol=1e-12, atol=1e-12)
    assert history == fit(plain, STEPS), "the steps themselves are not changed"


def test_what_is_validated_is_the_average_of_the_steps() -> None:
    averaged, expected = model(), model()
    x, y = data(5)
    history = fit(averaged, STEPS, ema_decay=DECAY, validation=(x, y))
    losses = []
    for average in averages():
        vector_to_parameters(average, expected.parameters())
        losses.append(-expected.eval().predictive(x, num_samples=32).log_prob(y).mean().item())
    assert history.validation_loss == pytest.approx(losses, rel=1e-12)
    assert history.best_epoch == losses.index(min(losses))
    best = averages()[history.best_epoch]
    torch.testing.assert_close(parameters_to_vector(averaged.parameters()), best, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("validated", [True, False])
def test_replicas_are_averaged_as_fit_averages(validated: bool, compile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each over its own steps, also once others have stopped and gone."""
    monkeypatch.setattr(compiled, "TRACED_FROM", 2)
    monkeypatch.setattr(compiled, "COMPILED_FROM", math.inf)
    monkeypatch.setenv("CXX", sys.executable)  # no compiler is needed
    own = [data(r, size) for r, size in enumerate((9, 12, 7, 11))]
    held_out = [data(10 + r, 5) for r in range(4)] if validated else None
    options: dict[str, Any] = {"epochs": [5, 1, 9, 2], "batch_size": 4, "ema_decay": 0.95}
    replicas = fit_replicas(maker("ManifoldProbMix"), own, validation=held_out, compile=compile, **options)
    assert_as_fit(replicas, maker("ManifoldProbMix"), own, held_out, **options)


@pytest.mark.parametrize("where", ["output", "gradient"])
def test_training_that_fails_leaves_the_last_finite_step(where: str) -> None:
    """And not the average, which is what those that go on are left with."""

    def make_model(r: int) -> Any:
        return pm.ERM(FailingBeyond([0.09, math.inf][r], where), pm.nn.NormalLikelihood(scale=1.0))

    own = [data(r) for r in range(2)]
    plain, averaged = (fit_replicas(make_model, own, epochs=12, ema_decay=decay) for decay in (None, DECAY))
    assert averaged.failed == plain.failed
    assert list(plain.failed) == [0]
    assert plain.failed[0] > 1
    assert_same(averaged.models[0], plain.models[0], rtol=0)
    assert not torch.equal(averaged.models[1].decoder.linear.weight, plain.models[1].decoder.linear.weight)
    alone = initial(make_model, 0)
    with pytest.raises(ValueError, match="expected finite losses and gradients"):
        pm.fit(
            alone,
            own[0],
            epochs=12,
            learning_rate=0.02,
            ema_decay=DECAY,
            seed=plain.seeds[0],
            progress=False,
        )
    assert_same(alone, plain.models[0])


def test_validation_that_is_never_finite_leaves_the_last_step() -> None:
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 1).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) if self.training else self.linear(x) * math.nan

    def make_model(r: int) -> Any:
        return pm.ERM(Blind(), pm.nn.NormalLikelihood(scale=1.0))

    plain = fit_replicas(make_model, [data()])
    averaged = fit_replicas(make_model, [data()], validation=[data(5)], ema_decay=DECAY)
    assert averaged.failed == {0: 0}
    assert_same(averaged.models[0], plain.models[0], rtol=0)
    alone = initial(make_model, 0)
    with pytest.raises(ValueError, match="expected a finite loss in some epoch"):
        pm.fit(
            alone,
            data(),
            epochs=4,
            learning_rate=0.02,
            validation=data(5),
            ema_decay=DECAY,
            seed=plain.seeds[0],
            progress=False,
        )
    assert_same(alone, plain.models[0])


class Overflowing(nn.Module):
    """A linear network whose first outputs in training are not finite."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.linear, self.times = nn.Linear(3, 1).double(), times

    def forward(self, x: Tensor) -> Tensor:
        self.times -= self.training
        return self.linear(x) * (math.nan if self.training and self.times >= 0 else 1.0)


@pytest.mark.faults("steps on a non-finite loss")
def test_steps_that_are_not_taken_do_not_count() -> None:
    """The average is that of the steps that were: the initial parameters are no part of it."""
    steps = []
    for epochs in range(4, 7):
        one = initial(lambda r: pm.ERM(Overflowing(3), pm.nn.NormalLikelihood(scale=1.0)), 0)
        history = fit(one, epochs, non_finite="skip")
        assert history.skipped_steps == 3
        steps.append(parameters_to_vector(one.parameters()).detach())
    averaged = initial(lambda r: pm.ERM(Overflowing(3), pm.nn.NormalLikelihood(scale=1.0)), 0)
    fit(averaged, 6, non_finite="skip", ema_decay=0.9)
    torch.testing.assert_close(parameters_to_vector(averaged.parameters()), sum(steps) / 3, rtol=1e-12, atol=1e-12)


def test_averages_have_single_precision_at_least() -> None:
    """In bfloat16 the weight of a step would be lost."""
    parameter = torch.ones(3, dtype=torch.bfloat16)
    average = MovingAverage([parameter], 0.999, lambda weight: weight)
    for step in range(2000):
        parameter.fill_(1.0 if step < 1000 else 2.0)
        average.update(torch.tensor([True]))
    (found,) = average.values
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, torch.full((3,), 2 - 0.999**1000), rtol=1e-4, atol=0)
    with average.applied():
        assert torch.equal(parameter, found.bfloat16())
    assert torch.equal(parameter, torch.full((3,), 2.0, dtype=torch.bfloat16))


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, math.nan])
def test_bad_decays(decay: float) -> None:
    message = rf"ema_decay: expected a number in \(0, 1\), got {decay}"
    with pytest.raises(ValueError, match=message):
        fit(model(), 1, ema_decay=decay)
    with pytest.raises(ValueError, match=message):
        fit_replicas(maker(), [data()], ema_decay=decay)


def test_a_decay_is_one_number() -> None:
    with pytest.raises(TypeError, match=r"ema_decay: expected a number in \(0, 1\), got \[0.9, 0.9\]"):
        fit_replicas(maker(), [data()] * 2, ema_decay=[0.9, 0.9])
