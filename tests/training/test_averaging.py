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
from pyro_probmix.training import _compiled
from pyro_probmix.training._averaging import MovingAverage
from tests.models import cases
from tests.training.replica_cases import assert_as_fit, assert_same, data, fit_replicas, maker

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
    monkeypatch.setattr(_compiled, "TRACED_FROM", 2)
    monkeypatch.setattr(_compiled, "COMPILED_FROM", math.inf)
    monkeypatch.setenv("CXX", sys.executable)  # no compiler is needed
    own = [data(r, size) for r, size in enumerate((9, 12, 7, 11))]
    held_out = [data(10 + r, 5) for r in range(4)] if validated else None
    options: dict[str, Any] = {"epochs": [5, 1, 9, 2], "batch_size": 4, "ema_decay": DECAY}
    replicas = fit_replicas(maker("ManifoldProbMix"), own, validation=held_out, compile=compile, **options)
    assert_as_fit(replicas, maker("ManifoldProbMix"), own, held_out, **options)


def test_training_that_fails_leaves_the_last_finite_step() -> None:
    """As without averages."""
    x, y = data()
    own = [(x, y), (x, 1e200 * y)]

    def make_model(r: int) -> Any:
        network = nn.Linear(3, 1).double()
        nn.init.zeros_(network.weight)
        return pm.ERM(network, pm.nn.NormalLikelihood(scale=1.0))

    plain, averaged = (fit_replicas(make_model, own, learning_rate=1e300, ema_decay=decay) for decay in (None, DECAY))
    assert averaged.failed == plain.failed
    assert 1 in plain.failed
    assert_same(averaged.models[1], plain.models[1], rtol=0)
    alone = make_model(1)
    with pytest.raises(ValueError, match="expected finite losses and gradients"):
        pm.fit(alone, own[1], learning_rate=1e300, ema_decay=DECAY, epochs=4, progress=False)
    assert all(torch.isfinite(p).all() for p in alone.parameters())


def test_averages_have_single_precision_at_least() -> None:
    """In bfloat16 the weight of a step would be lost."""
    parameter = torch.ones(3, dtype=torch.bfloat16)
    average = MovingAverage([parameter], 0.999)
    for step in range(2000):
        parameter.fill_(1.0 if step < 1000 else 2.0)
        average.update()
    (found,) = average.values
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, torch.full((3,), 2 - 0.999**1000), rtol=1e-4, atol=0)
    with average.applied():
        assert torch.equal(parameter, found.bfloat16())
    assert torch.equal(parameter, torch.full((3,), 2.0, dtype=torch.bfloat16))


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, math.nan])
def test_bad_decays(decay: float) -> None:
    message = f"ema_decay: expected a number between 0 and 1, got {decay}"
    with pytest.raises(ValueError, match=message):
        fit(model(), 1, ema_decay=decay)
    with pytest.raises(ValueError, match=message):
        fit_replicas(maker(), [data()], ema_decay=decay)
