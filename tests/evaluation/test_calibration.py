"""Recalibration: the optimum of held-out NLL, densities that are right again, and what is refused."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from scipy.optimize import minimize
from sklearn.exceptions import NotFittedError
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.distributions import cdf, index_select

N = 400
CALIBRATIONS = {
    "TemperatureScaling": pm.TemperatureScaling,
    "VarianceScaling": pm.VarianceScaling,
    "IsotonicRecalibration": pm.IsotonicRecalibration,
    "ConformalInterval": lambda: pm.ConformalInterval(0.9),
}


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def overconfident(rows: int = N, factor: float = 2.0) -> tuple[Any, Tensor]:
    """A Normal density whose scale is too small by a factor, and labels."""
    loc, scale = draws(rows), (0.3 * draws(rows)).exp()
    return dist.Normal(loc, scale / factor), dist.Normal(loc, scale).sample()


# Temperature scaling.


def classes(rows: int = N, sharpness: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits that are too large by a factor, and labels."""
    logits = 1.5 * draws(rows, 4)
    return sharpness * logits, dist.Categorical(logits=logits).sample()


def test_a_temperature_has_the_lowest_held_out_nll() -> None:
    logits, y = classes()
    temperature = pm.TemperatureScaling().fit(dist.Categorical(logits=logits), y).temperature

    smoothed = torch.eye(4, dtype=torch.float64)[y] * (1 - 1 / (N + 1)) + 1 / (4 * (N + 1))

    def nll(log_t: np.ndarray) -> float:
        return float(-(smoothed * (logits / math.exp(log_t[0])).log_softmax(-1)).sum(-1).mean())

    found = minimize(nll, [0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    assert temperature == pytest.approx(math.exp(found.x[0]), rel=1e-5)
    assert 2 < temperature < 4.5


def test_a_temperature_mends_the_calibration_and_keeps_the_accuracy() -> None:
    (logits, y), (other, label) = classes(2000), classes(2000)
    scaling = pm.TemperatureScaling().fit(dist.Categorical(logits=logits), y)
    p = dist.Categorical(logits=other)
    before, after = (pm.evaluate(q, label, ["nll", "ece", "accuracy"]) for q in (p, scaling(p)))
    assert after["ece"] < 0.4 * before["ece"]
    assert after["nll"] < before["nll"]
    assert after["accuracy"] == before["accuracy"]


@pytest.mark.parametrize("name", ["Categorical", "OneHotCategorical", "Bernoulli", "labels", "pool", "one-hot pool"])
def test_any_law_of_classes_is_made_of_scaled_log_probabilities(name: str) -> None:
    logits, y = classes(50)
    onehot = torch.eye(4, dtype=torch.float64)[y]
    p, y = {
        "Categorical": (dist.Categorical(logits=logits), y),
        "OneHotCategorical": (dist.OneHotCategorical(logits=logits), onehot),
        "Bernoulli": (dist.Bernoulli(logits=logits[:, 0]), (y == 0).double()),
        "labels": (dist.Bernoulli(logits=logits).to_event(1), onehot),
        "pool": (pm.LinearPool(dist.Categorical(logits=logits.reshape(50, 2, 2))), y % 2),
        "one-hot pool": (
            pm.LinearPool([dist.OneHotCategorical(logits=logits), dist.OneHotCategorical(logits=-logits)]),
            onehot,
        ),
    }[name]
    scaling = pm.TemperatureScaling().fit(p, y)
    q, temperature = scaling(p), scaling.temperature
    assert (q.batch_shape, q.event_shape) == (p.batch_shape, p.event_shape)
    log_probs = pm.distributions.class_log_probabilities(p) / temperature
    torch.testing.assert_close(pm.distributions.class_log_probabilities(q), log_probs.log_softmax(-1))
    assert type(pickle.loads(pickle.dumps(scaling))(p)) is type(q)


def test_a_temperature_of_labels_that_are_all_right_makes_them_not_certain() -> None:
    p = dist.Categorical(logits=torch.eye(3, dtype=torch.float64))
    q = pm.TemperatureScaling().fit(p, torch.arange(3))(p)
    torch.testing.assert_close(q.probs.diagonal(), torch.full((3,), 3 / 4 + 1 / 4 / 3, dtype=torch.float64))


def test_temperatures_are_held_where_nll_falls_for_ever() -> None:
    p, y = dist.Categorical(logits=torch.eye(3)), torch.arange(3)
    assert pm.TemperatureScaling().fit(p, (y + 1) % 3).temperature == 100
    assert pm.TemperatureScaling().fit(dist.Categorical(logits=torch.zeros(3, 3)), y).temperature == 1


def test_an_impossible_class_stays_impossible() -> None:
    logits = torch.tensor([[0.0, 1.0, -math.inf]]).expand(4, 3)
    y = torch.tensor([0, 1, 1, 0])
    q = pm.TemperatureScaling().fit(dist.Categorical(logits=logits), y)(dist.Categorical(logits=logits))
    assert q.probs[0, 2] == 0
    assert q.probs[0, 0] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(
        ValueError, match=r"y: expected labels of positive probability, got others in 1 of 4 rows \(row 3\)"
    ):
        pm.TemperatureScaling().fit(dist.Categorical(logits=logits), torch.tensor([0, 1, 1, 2]))


# Variance scaling.


def test_the_scale_of_a_normal_is_the_root_mean_square_of_its_residuals() -> None:
    p, y = overconfident()
    scale = pm.VarianceScaling().fit(p, y).scale
    torch.testing.assert_close(scale, ((y - p.loc) / p.scale).square().mean().sqrt(), rtol=1e-6, atol=0)


def mixture(rows: int = N) -> tuple[Any, Tensor]:
    loc, weights = 3 * draws(rows, 5), draws(rows, 5).softmax(-1)
    wide = pm.LinearPool(dist.Normal(loc, 1.0), weights)
    return pm.LinearPool(dist.Normal(0.6 * loc, 0.6), weights), wide.sample()


def test_a_mixture_of_normals_stays_one_and_has_the_lowest_nll() -> None:
    p, y = mixture()
    scaling = pm.VarianceScaling().fit(p, y)
    q = scaling(p)
    assert isinstance(q.components, dist.Normal)
    mean = p.mean.unsqueeze(-1)
    torch.testing.assert_close(q.components.loc, mean + scaling.scale * (p.components.loc - mean))
    torch.testing.assert_close(q.mean, p.mean)
    torch.testing.assert_close(q.variance, scaling.scale.square() * p.variance)

    def nll(log_s: np.ndarray) -> float:
        s = math.exp(log_s[0])
        return float(-(p.log_prob(p.mean + (y - p.mean) / s) - math.log(s)).mean())

    found = minimize(nll, [0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    assert float(scaling.scale) == pytest.approx(math.exp(found.x[0]), rel=1e-5)


def test_outputs_have_a_scale_each() -> None:
    loc = draws(N, 2)
    y = loc + torch.tensor([2.0, 0.5]).double() * draws(N, 2)
    p = dist.Normal(loc, 1.0).to_event(1)
    scaling = pm.VarianceScaling().fit(p, y)
    torch.testing.assert_close(scaling.scale, (y - loc).square().mean(0).sqrt(), rtol=1e-6, atol=0)
    torch.testing.assert_close(scaling(p).base_dist.scale, scaling.scale.expand(N, 2))
    pool = pm.LinearPool(dist.Normal(loc.unsqueeze(1) + draws(N, 3, 2), 1.0).to_event(1))
    scaled = pm.VarianceScaling().fit(pool, y)(pool)
    torch.testing.assert_close(scaled.mean, pool.mean)


def test_a_law_without_a_mean_is_stretched_about_its_median() -> None:
    loc = draws(N)
    p, y = dist.Cauchy(loc, 0.5), dist.Cauchy(loc, 1.0).sample()
    scaling = pm.VarianceScaling().fit(p, y)
    assert float(scaling.scale) == pytest.approx(2, rel=0.3)
    q = scaling(p)
    torch.testing.assert_close(q.log_prob(y), dist.Cauchy(loc, 0.5 * scaling.scale).log_prob(y))


def test_a_law_of_positive_numbers_is_stretched() -> None:
    p = dist.Gamma(torch.full((N,), 4.0).double(), 1.0)
    y = p.mean + 1.3 * (p.sample() - p.mean)
    scale = pm.VarianceScaling().fit(p, y.clamp(min=1e-3)).scale
    assert 1.1 < float(scale) < 1.5


# Isotonic recalibration.


def skewed(rows: int) -> tuple[Any, Tensor]:
    """A Normal density of labels that are none."""
    loc = draws(rows)
    return dist.Normal(loc, 1.0), loc + dist.Gamma(1.5, 1.0).sample((rows,)).double() - 1


def test_isotonic_recalibration_makes_levels_right() -> None:
    (p, y), (other, new) = skewed(2000), skewed(4000)
    q = pm.IsotonicRecalibration().fit(p, y)(other)
    before, after = (scipy.stats.kstest(cdf(law, new).numpy(), "uniform").statistic for law in (other, q))
    assert before > 0.15
    assert after < 0.04
    assert pm.evaluate(q, new, ["nll"])["nll"] < pm.evaluate(other, new, ["nll"])["nll"] - 0.1


def test_the_map_is_the_empirical_distribution_function_at_its_quantiles() -> None:
    """But for one label more, which is spread evenly."""
    p, y = skewed(1000)
    calibration = pm.IsotonicRecalibration(num_bins=8).fit(p, y)
    u = np.sort(cdf(p, y).numpy())
    knots, levels = calibration.knots.numpy(), calibration.levels.numpy()
    share = np.searchsorted(u, knots, side="right") / 1000
    np.testing.assert_allclose(levels, (1000 * share + knots) / 1001, atol=2e-3)
    assert len(pm.IsotonicRecalibration().fit(p, y).knots) == 21  # twice the cube root of 1000, and one


@pytest.mark.parametrize("value", [0.0, 40.0, -40.0])
def test_labels_of_one_quantile_give_a_density_still(value: float) -> None:
    """Such as those whose F is 0 or 1 to the last digit."""
    p = dist.Normal(torch.zeros(50).double(), 1.0)
    q = pm.IsotonicRecalibration().fit(p, torch.full((50,), value).double())(p)
    assert bool(q.log_prob(p.sample()).isfinite().all())
    assert bool((q.icdf(torch.tensor([0.1, 0.5, 0.9]).double()[:, None]).diff(dim=0) > 0).all())


def test_scores_of_a_pool_in_single_precision_are_finite() -> None:
    """Whose weights sum to one but for rounding, which would leave mass at infinity."""
    loc = torch.randn(40, 50)
    p, y = pm.LinearPool(dist.Normal(loc, 0.2)), loc[:, 0]
    q = pm.IsotonicRecalibration().fit(p, y)(p)
    scores = pm.evaluate(q, y, ["nll", "crps", "rmse"])
    assert all(map(math.isfinite, scores.values()))
    assert scores["crps"] == pytest.approx(float(pm.evaluation.crps(q, y, method="samples").mean()), rel=0.02)


def test_independent_outputs_have_a_map_each() -> None:
    (p, y), (_, z) = skewed(N), skewed(N)
    both = dist.Normal(torch.stack([p.loc, p.loc], -1), 1.0).to_event(1)
    q = pm.IsotonicRecalibration().fit(both, torch.stack([y, p.loc + 2 * (z - p.loc)], -1))(both)
    one = pm.IsotonicRecalibration().fit(p, y)(p)
    assert q.event_shape == (2,)
    torch.testing.assert_close(cdf(q, both.mean)[:, 0], one.cdf(p.loc))
    joint = dist.MultivariateNormal(both.mean, torch.eye(2).double())
    with pytest.raises(ValueError, match=r"p: expected one output a row, or independent ones, got .*; take marginals"):
        pm.IsotonicRecalibration().fit(joint, both.mean)


# What they have in common.


@pytest.mark.parametrize("name", ["VarianceScaling", "IsotonicRecalibration"])
def test_results_are_densities_with_rows_and_pickles(name: str) -> None:
    p, y = mixture(40)
    q, rows = CALIBRATIONS[name]().fit(p, y)(p), torch.tensor([5, 0])
    torch.testing.assert_close(index_select(q, 0, rows).log_prob(y[rows]), q.log_prob(y)[rows])
    torch.testing.assert_close(pickle.loads(pickle.dumps(q)).log_prob(y), q.log_prob(y))
    u = cdf(q, q.sample((100,))).flatten()
    assert scipy.stats.kstest(u.numpy(), "uniform").pvalue > 1e-6


@pytest.mark.parametrize("name", ["VarianceScaling", "IsotonicRecalibration", "ConformalInterval"])
def test_masked_labels_do_not_count(name: str) -> None:
    p, y = overconfident(60)
    seen = torch.arange(60) % 3 > 0
    masked = CALIBRATIONS[name]().fit(p.mask(seen), torch.where(seen, y, math.nan))
    plain = CALIBRATIONS[name]().fit(index_select(p, 0, seen.nonzero()[:, 0]), y[seen])
    assert masked.num_rows == plain.num_rows == 40
    for key, value in vars(plain).items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(vars(masked)[key], value, rtol=1e-7, atol=0)
    if name != "ConformalInterval":
        assert torch.equal(masked(p.mask(seen)).log_prob(y) == 0, ~seen)


@pytest.mark.parametrize("name", ["VarianceScaling", "IsotonicRecalibration", "ConformalInterval"])
def test_masked_outputs_do_not_count(name: str) -> None:
    p, y = dist.Normal(torch.zeros(60, 2).double(), 1.0), draws(60, 2)
    seen = torch.rand(60, 2) > 0.3
    masked = CALIBRATIONS[name]().fit(p.mask(seen).to_event(1), torch.where(seen, y, math.nan))
    first = CALIBRATIONS[name]().fit(dist.Normal(torch.zeros(int(seen[:, 1].sum())).double(), 1.0), y[seen[:, 1], 1])
    for key, value in vars(first).items():
        if isinstance(value, Tensor) and name != "IsotonicRecalibration":  # whose bins are of the fewest labels
            torch.testing.assert_close(vars(masked)[key][1], value, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_arrays_are_labels_and_fit_returns_itself(name: str) -> None:
    p, y = overconfident(30)
    if name == "TemperatureScaling":
        p, y = dist.Bernoulli(logits=p.loc), (y > 0).double()
    calibration = CALIBRATIONS[name]()
    assert repr(calibration) == f"{name}()"
    assert calibration.fit(p, y.numpy()) is calibration
    assert repr(calibration) == f"{name}(fitted on 30 rows)"


@pytest.mark.parametrize("name", ["VarianceScaling", "IsotonicRecalibration"])
def test_single_precision_and_gradients_stay(name: str) -> None:
    p, y = overconfident(30)
    loc = p.loc.float().requires_grad_()
    calibration = CALIBRATIONS[name]().fit(dist.Normal(loc, 1.0), y.float())
    log_prob = calibration(dist.Normal(loc, 1.0)).log_prob(y.float())
    assert log_prob.dtype == torch.float32
    assert torch.autograd.grad(log_prob.sum(), loc)[0].isfinite().all()
    assert not any(value.requires_grad for value in vars(calibration).values() if isinstance(value, Tensor))


NORMAL, CLASSES = dist.Normal(torch.zeros(3), 1.0), dist.Categorical(torch.ones(3, 2))
REFUSED: dict[str, tuple[str, Any, Any, type[Exception], str]] = {
    "classes": ("VarianceScaling", CLASSES, torch.zeros(3), TypeError, "of numbers, got Categorical, of classes; Temp"),
    "classes for isotonic": (
        "IsotonicRecalibration",
        CLASSES,
        torch.zeros(3),
        TypeError,
        "got Categorical, of classes",
    ),
    "classes for intervals": ("ConformalInterval", CLASSES, torch.zeros(3), TypeError, "have no interval"),
    "numbers": (
        "TemperatureScaling",
        NORMAL,
        torch.zeros(3),
        TypeError,
        "of classes, got Normal, of numbers; Variance",
    ),
    "counts": ("VarianceScaling", dist.Poisson(torch.ones(3)), torch.ones(3), TypeError, "got Poisson, of counts"),
    "counts for isotonic": (
        "IsotonicRecalibration",
        dist.Poisson(torch.ones(3)),
        torch.ones(3),
        TypeError,
        "of counts",
    ),
    "angles": ("ConformalInterval", dist.VonMises(torch.ones(3), 1.0), torch.ones(3), TypeError, "of angles"),
    "no law": ("VarianceScaling", torch.ones(3), torch.ones(3), TypeError, "p: expected a distribution, got Tensor"),
    "shape": ("VarianceScaling", NORMAL, torch.zeros(3, 1), ValueError, r"y: expected shape \(3,\), got \(3, 1\)"),
    "NaN": ("ConformalInterval", NORMAL, torch.tensor([0.0, math.nan, 0.0]), ValueError, "y: expected finite values"),
    "empty": ("VarianceScaling", dist.Normal(torch.zeros(0), 1.0), torch.zeros(0), ValueError, "at least one label"),
    "all masked": ("IsotonicRecalibration", NORMAL.mask(False), torch.zeros(3), ValueError, "at least one label"),
    "no residual": (
        "VarianceScaling",
        NORMAL,
        torch.zeros(3),
        ValueError,
        "y: expected labels that differ from the pred",
    ),
    "several labels of a pool": (
        "TemperatureScaling",
        pm.LinearPool(dist.Bernoulli(torch.full((3, 2, 4), 0.5)).to_event(1)),
        torch.zeros(3, 4),
        ValueError,
        "p: expected one label a row, or independent ones, got LinearPool",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_fitted_is_named_and_leaves_nothing(case: str) -> None:
    name, p, y, error, message = REFUSED[case]
    calibration = CALIBRATIONS[name]()
    with pytest.raises(error, match=message):
        calibration.fit(p, y)
    with pytest.raises(NotFittedError, match=rf"{name}: expected to be fitted before it is called; call fit\(p, y\)"):
        calibration(NORMAL)


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_other_outputs_than_in_fit_are_refused(name: str) -> None:
    p, y = overconfident(30)
    if name == "TemperatureScaling":
        scaling = pm.TemperatureScaling().fit(dist.Categorical(logits=draws(30, 3)), (y > 0).long())
        with pytest.raises(
            ValueError, match=r"p: expected 3 classes and outputs of shape \(\), as in fit, got 2 classes"
        ):
            scaling(dist.Categorical(logits=draws(30, 2)))
        return
    calibration = CALIBRATIONS[name]().fit(p, y)
    with pytest.raises(ValueError, match=r"p: expected outputs of shape \(\), as in fit, got outputs of shape \(2,\)"):
        calibration(dist.Normal(draws(30, 2), 1.0).to_event(1))


def test_labels_that_some_scales_make_impossible_give_a_scale_without_a_warning() -> None:
    y = torch.linspace(-1, 1, 50)
    scale = pm.VarianceScaling().fit(dist.Uniform(-3 * torch.ones(50), 3.0), y).scale
    assert float(scale) == pytest.approx(1 / 3, rel=1e-3)
