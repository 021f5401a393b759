"""The likelihood that is chosen by held-out rows, among those of one base measure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import pyro_probmix as pm
from pyro_probmix.estimators import choosing, targets
from tests.estimators.cases import SMALL, fitted_again

LEARNT: dict[str, Any] = SMALL | {"epochs": 30, "learning_rate": 0.02}


def draws(law: Any, size: int = 300) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, 2)), law.rvs(size=size, random_state=rng)


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (stats.t(2.1), {"student_t", "mixture"}),
        (stats.lognorm(2.0), {"lognormal"}),
        (stats.gamma(0.5), {"gamma"}),
        (stats.beta(0.5, 0.5), {"beta"}),
        (stats.nbinom(1.0, 0.1), {"negative_binomial"}),
    ],
)
def test_targets_of_a_law_choose_it(law: Any, expected: Any) -> None:
    X, y = draws(law)
    model = pm.ProbMixRegressor("erm", likelihood="auto", **LEARNT).fit(X, y)
    assert model.likelihood_ in expected
    assert model.likelihood_scores_[model.likelihood_] == min(model.likelihood_scores_.values())
    again = fitted_again(model)
    assert again.likelihood_scores_ == model.likelihood_scores_
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert not hasattr(model.set_params(likelihood="normal").fit(X, y), "likelihood_scores_")


@pytest.mark.parametrize(
    ("y", "densities"),
    [
        (np.arange(40) % 7, False),
        (np.arange(40) % 7 * 2, True),  # a gap of two: no counts
        (np.arange(40), True),  # hardly a value comes twice
        (np.arange(40) % 7 - 1, True),
        (np.arange(40) % 7 + 0.5, True),
        (np.stack([np.arange(40) % 7, np.arange(40) % 7 * 0.1], -1), True),
    ],
)
def test_counts_compete_with_counts_and_densities_with_densities(y: Any, densities: bool) -> None:
    found = targets.candidates(y.astype(float))
    assert {targets.LIKELIHOODS[name].is_density for name in found} == {densities}
    assert all(targets.LIKELIHOODS[name].takes(y).all() for name in found)


def test_scores_are_in_the_units_of_the_target(skewed: Any) -> None:
    X, y = skewed
    model = pm.ProbMixRegressor("erm", likelihood="auto", **SMALL).fit(X, y, eval_set=(X[:30], y[:30]))
    assert set(model.likelihood_scores_) == {"normal", "student_t", "mixture", "lognormal", "gamma"}
    expected = -model.log_likelihood(X[:30], y[:30])
    assert model.likelihood_scores_[model.likelihood_] == pytest.approx(expected, rel=1e-9)
    other = pm.ProbMixRegressor("erm", likelihood="auto", **SMALL).fit(X, 10 * y, eval_set=(X[:30], 10 * y[:30]))
    for name, score in model.likelihood_scores_.items():
        assert other.likelihood_scores_[name] == pytest.approx(score + np.log(10), rel=1e-6)


def test_rounded_targets_are_not_spikes() -> None:
    X, y = draws(stats.norm(0, 1), 200)
    model = pm.ProbMixRegressor("erm", likelihood="auto", **LEARNT | {"epochs": 100}).fit(X, y.round())
    highest = 1 / (0.5 * np.sqrt(2 * np.pi))  # of a Normal whose scale is half the gap of one
    assert min(model.likelihood_scores_.values()) > -np.log(highest)


def test_what_the_method_does_not_take_is_left_out(skewed: Any) -> None:
    model = pm.ProbMixRegressor("probmix", likelihood="auto", **SMALL).fit(*skewed)
    assert set(model.likelihood_scores_) == {"normal", "lognormal", "gamma"}


def test_members_vote_with_their_own_rows(monkeypatch: Any, skewed: Any) -> None:
    seen: list[int] = []
    held_out_nll = choosing.held_out_nll

    def record(target: Any, members: Any, num_samples: int) -> float:
        seen.append(sum(len(rows) for rows in members.held_out))
        return held_out_nll(target, members, num_samples)

    monkeypatch.setattr(choosing, "held_out_nll", record)
    pm.ProbMixRegressor("erm", likelihood="auto", num_members=3, **SMALL).fit(*skewed)
    assert seen == [3 * 24] * 5


def test_rows_to_choose_by_are_of_the_same_kind() -> None:
    X, y = np.zeros((40, 1)), np.arange(40.0) % 5
    with pytest.raises(ValueError, match=r"eval_set y: expected counts .* got others in 1 of 2 rows \(row 1\)"):
        pm.ProbMixRegressor(likelihood="auto", **SMALL).fit(X, y, eval_set=(X[:2], [1.0, 0.5]))


def test_there_must_be_rows_to_choose_by(skewed: Any) -> None:
    with pytest.raises(ValueError, match=r'validation_fraction: expected more than 0, or an eval_set, for .* "auto"'):
        pm.ProbMixRegressor(likelihood="auto", **SMALL | {"validation_fraction": 0}).fit(*skewed)
