"""Rescaled prediction: its published formula, what it leaves alone, and what it gains on real data."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from sklearn.datasets import load_digits

import pyro_probmix as pm
from tests.models.cases import CLASSES, make_data, make_model


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_theta_is_the_conditional_mean_of_lambda(alpha: float) -> None:
    model = make_model("Mixup", "categorical", coefficient=dist.Beta(alpha, alpha))
    theta = pm.rescaled(model, *make_data("categorical")).decoder.theta
    torch.manual_seed(0)
    draws = model.coefficient.expand((200_000,)).sample()
    upper = draws[draws >= 0.5]
    assert abs(float(upper.mean()) - theta) < 5 * float(upper.std()) / len(upper) ** 0.5


@pytest.mark.parametrize("likelihood", ["normal", "normals", "categorical"])
def test_prediction_is_the_published_formula(likelihood: str) -> None:
    """f(θ̄x + (1 − θ̄)x̄)/θ̄ + (1 − 1/θ̄)ȳ for means and logits; raw scales are those of the network."""
    model = make_model("Mixup", likelihood, coefficient=dist.Beta(1.0, 1.0))  # θ̄ = 3/4
    x, y = make_data(likelihood)
    new = torch.randn(4, x.shape[1], dtype=x.dtype)
    raw = model.decoder(0.75 * new + 0.25 * x.mean(0))
    if likelihood == "categorical":
        means, size = torch.stack([(y == k).double().mean() for k in range(CLASSES)]), CLASSES
    else:
        means, size = y.mean(0).reshape(-1), max(1, y[0].numel())
    expected = torch.cat((raw[:, :size] / 0.75 + (1 - 1 / 0.75) * means, raw[:, size:]), -1)
    rescaled = pm.rescaled(model, x, y)
    torch.testing.assert_close(rescaled.decoder(new), expected)
    value = y[:4]
    torch.testing.assert_close(rescaled.predictive(new).log_prob(value), model.likelihood(expected).log_prob(value))


def test_affine_network_through_the_means_is_left_alone() -> None:
    """A least-squares fit passes through (x̄, ȳ): nothing is to be taken back."""
    torch.manual_seed(0)
    x, y = torch.randn(50, 2, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    solution = torch.linalg.lstsq(torch.cat((x, torch.ones(50, 1, dtype=x.dtype)), 1), y.unsqueeze(-1)).solution
    line = torch.nn.Linear(2, 1).double()
    with torch.no_grad():
        line.weight.copy_(solution[:2].T)
        line.bias.copy_(solution[2])
    model = pm.Mixup(line, pm.nn.NormalLikelihood(scale=1.0), coefficient=dist.Beta(0.3, 0.3))
    torch.testing.assert_close(pm.rescaled(model, x, y).decoder(x), line(x))


def test_it_improves_the_likelihood_of_a_mixup_trained_classifier_on_digits() -> None:
    """On held-out handwritten digits, for each of three splits."""
    bunch = load_digits()
    x, y = torch.tensor(bunch.data, dtype=torch.float32) / 16, torch.tensor(bunch.target)
    for seed in range(3):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        train, test = order[:1200], order[1200:]
        torch.manual_seed(seed)
        likelihood = pm.nn.CategoricalLikelihood(10)
        model = pm.Mixup(pm.nn.MLP(64, [64], 10), likelihood, coefficient=dist.Beta(1.0, 1.0))
        pm.fit(model, (x[train], y[train]), epochs=150, seed=seed, progress=False)
        before, after = (
            pm.evaluate(m.predictive(x[test]), y[test])["nll"] for m in (model, pm.rescaled(model, x[train], y[train]))
        )
        assert after < before


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: make_model("ProbMix"), TypeError, "model: expected a Mixup model, whose input is interpolated"),
        (
            lambda: make_model("Mixup", coefficient=dist.Beta(1.0, 2.0)),
            ValueError,
            r"model: expected λ of a symmetric Beta\(α, α\)",
        ),
        (lambda: make_model("Mixup", "poisson"), TypeError, "model: expected a Normal or a Categorical likelihood"),
    ],
)
def test_other_models_are_refused(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pm.rescaled(make(), *make_data())  # type: ignore[operator]


def test_theta_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"theta: expected a number in \(0, 1\], got 0"):
        pm.nn.RescaledNetwork(torch.nn.Linear(1, 1), 0, torch.zeros(1), torch.zeros(1))
