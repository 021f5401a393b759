"""Comparisons of scores: paired, with the standard error of what the scores are of."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import pyro_probmix as pm

rng = np.random.default_rng(0)
A, B = rng.normal(1.0, 0.3, 40), rng.normal(1.1, 0.3, 40)


def test_independent_rows_are_the_paired_t_test():
    found = pm.compare_scores({"a": A, "b": B}, reference="a").differences["b"]
    expected = stats.ttest_rel(B, A)
    assert found.difference == pytest.approx(B.mean() - A.mean(), rel=1e-12)
    assert found.std_error == pytest.approx(stats.sem(B - A), rel=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.9)
    found = pm.compare_scores({"a": A, "b": B}, reference="a", level=0.9).differences["b"]
    np.testing.assert_allclose((found.lower, found.upper), interval, rtol=1e-9)
    assert found.median == np.median(B - A)


def test_splits_that_share_rows_are_corrected():
    found = pm.compare_scores({"a": A, "b": B}, reference="a", test_fraction=0.1).differences["b"]
    assert found.std_error == pytest.approx(np.sqrt((1 / 40 + 1 / 9) * (B - A).var(ddof=1)), rel=1e-12)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs((B - A).mean()) / found.std_error, 39), rel=1e-9)
    apart = pm.compare_scores({"a": A, "b": B}, reference="a", test_fraction=0).differences["b"]
    assert apart.std_error == pytest.approx(stats.sem(B - A), rel=1e-12)


@pytest.mark.parametrize(("horizon", "lags"), [(1, 8), (4, 8), (10, 18)])
def test_rows_in_the_order_of_time_are_diebold_and_marianos(horizon, lags):
    found = pm.compare_scores({"a": A, "b": B}, reference="a", ordered=True, horizon=horizon).differences["b"]
    d, n = B - A, len(A)
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    kernel = np.clip(1 - distance / (lags + 1), 0, None)  # Bartlett's, as Newey and West have it
    variance = (d - d.mean()) @ kernel @ (d - d.mean()) / n**2
    h = lags + 1
    statistic = d.mean() / np.sqrt(variance) * np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    assert found.std_error == pytest.approx(d.mean() / statistic, rel=1e-10)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(statistic), n - 1), rel=1e-9)


def rejections(draw, repetitions: int, **options) -> float:
    """How often methods that are equally good are told apart at 5 %."""
    pairs = (draw() for _ in range(repetitions))
    found = (pm.compare_scores({"a": a, "b": b}, reference="a", **options).differences["b"] for a, b in pairs)
    return np.mean([difference.p_value < 0.05 for difference in found])


def test_the_correction_keeps_the_level_where_splits_share_rows():
    """Two methods that are equally good on average, tested on random fifths of the same hundred rows."""
    draws = np.random.default_rng(1)

    def splits():
        rows = np.argsort(draws.random((15, 100)))[:, :20]
        return [scores[rows] for scores in draws.normal(size=(2, 100))]

    assert 0.03 < rejections(splits, 600, test_fraction=0.2) < 0.08
    assert rejections(splits, 200, test_fraction=0) > 0.25


def test_rows_that_depend_on_each_other_are_told_apart_less_often():
    """Differences with the autocorrelation of overlapping horizons."""
    draws = np.random.default_rng(2)

    def rows():
        noise = np.convolve(draws.normal(size=203), np.ones(4), mode="valid")
        return noise, np.zeros(200)

    assert rejections(rows, 400, ordered=True, horizon=4) < 0.11
    assert rejections(rows, 400) > 0.2


def test_wins_ties_and_losses_follow_the_direction():
    scores = {"a": [0.5, 0.5, 0.5, 0.5], "b": [0.6, 0.5, 0.7, 0.4]}
    lower = pm.compare_scores(scores, reference="a").differences["b"]
    assert (lower.wins, lower.ties, lower.losses) == (1, 1, 2)
    for options in ({"metric": "accuracy"}, {"lower_is_better": False}):
        higher = pm.compare_scores(scores, reference="a", **options).differences["b"]
        assert (higher.wins, higher.ties, higher.losses) == (2, 1, 1)
        assert higher.difference == lower.difference


def test_the_reference_is_the_best_mean():
    scores = {"a": [0.5, 0.6], "b": [0.7, 0.1], "c": [0.9, 0.2]}
    found = pm.compare_scores(scores, "nll")
    assert (found.reference, list(found.differences)) == ("b", ["a", "c"])
    assert pm.compare_scores(scores, "accuracy").reference == "a"
    assert found.means == pytest.approx({"a": 0.55, "b": 0.4, "c": 0.55})
    assert found.medians == pytest.approx({"a": 0.55, "b": 0.4, "c": 0.55})


def test_rows_of_splits_are_averaged_in_each():
    """Splits of different sizes, lists, arrays and tensors of any precision that have a gradient."""
    first, second = [[1.0, 3.0], [4.0, 4.0, 1.0]], [np.array([1, 1]), torch.ones(3, dtype=torch.bfloat16)]
    second[1].requires_grad_()
    found = pm.compare_scores({"a": first, "b": second}, test_fraction=0.5)
    assert (found.means, found.size, found.unit) == ({"a": 2.5, "b": 1.0}, 2, "splits")
    square = pm.compare_scores({"a": torch.ones(2, 3), "b": np.zeros((2, 3))}, test_fraction=0.5)
    assert square.means == {"a": 1.0, "b": 0.0}
    numbers = pm.compare_scores({"a": [torch.tensor(1.0), torch.tensor(2.0)], "b": [True, False]})
    assert (numbers.means, numbers.unit) == ({"a": 1.5, "b": 0.5}, "rows")


def test_methods_that_score_alike_are_not_told_apart():
    found = pm.compare_scores({"a": A, "b": A}, reference="a").differences["b"]
    assert (found.p_value, found.std_error, found.lower, found.upper, found.ties) == (1.0, 0.0, 0.0, 0.0, 40)
    always = pm.compare_scores({"a": np.ones(5), "b": np.zeros(5)}, reference="a").differences["b"]
    assert (always.p_value, always.difference, always.wins) == (0.0, -1.0, 5)


def test_the_comparison_prints_a_table_and_makes_a_frame():
    found = pm.compare_scores({"ERM": A, "ProbMix": B}, "crps", ordered=True, level=0.9)
    first, second, *rows = str(found).splitlines()
    assert first == "CRPS (units of the target), lower is better: differences from ERM on 40 rows"
    assert second == "standard errors for rows in the order of time, 8 lags; 90 % confidence"
    assert [row.split()[0] for row in rows] == ["method", "ERM", "ProbMix"]
    assert rows[2].split()[3] == f"{B.mean() - A.mean():.4g}"
    frame = found.to_frame()
    assert list(frame.index) == ["ERM", "ProbMix"]
    assert frame.loc["ProbMix", "difference"] == found.differences["ProbMix"].difference
    assert np.isnan(frame.loc["ERM", "difference"])
    assert frame.loc["ERM", "mean"] == A.mean()


def test_scores_of_densities_are_compared_as_they_are():
    y = torch.tensor(rng.normal(size=30))
    scores = {f"N(0, {s})": -dist.Normal(0.0, s).log_prob(y) for s in (1.0, 1.5, 5.0)}
    found = pm.compare_scores(scores, "nll")
    assert found.reference == "N(0, 1.0)"
    assert found.differences["N(0, 5.0)"].lower > 0


HALF = [[1.0, 2.0], [3.0, 4.0]]
REFUSED = {
    "no mapping": ([A, B], {}, TypeError, "scores: expected a mapping of names to scores, got list"),
    "one method": ({"a": A}, {}, ValueError, "scores: expected at least two methods, got 1"),
    "no array": ({"a": {"nll": A}, "b": B}, {}, TypeError, r"scores\['a'\]: .* one metric, got those of 'nll'"),
    "texts": ({"a": ["1", "2"], "b": [1, 2]}, {}, TypeError, r"scores\['a'\]: expected an array of numbers"),
    "one number": ({"a": 1.0, "b": 2.0}, {}, ValueError, r"scores\['a'\]: expected shape \(n,\) or.*got \(\)"),
    "no rows": ({"a": [], "b": []}, {}, ValueError, r"scores\['a'\]: expected shape .* got \(0,\)"),
    "three dimensions": ({"a": np.ones((2, 2, 2)), "b": HALF}, {}, ValueError, r"scores\['a'\]: expected shape"),
    "other rows": ({"a": A, "b": B[1:]}, {}, ValueError, r"\['b'\]: expected shape \(40,\), as 'a' has, got shape"),
    "other splits": (
        {"a": HALF, "b": [[1.0], [2.0, 3.0]]},
        {"test_fraction": 0.5},
        ValueError,
        r"scores\['b'\]: expected 2 splits of 2, 2 rows, as 'a' has, got 2 splits of 1, 2 rows",
    ),
    "an empty split": (
        {"a": [[1.0], []], "b": [[1.0], []]},
        {"test_fraction": 0.5},
        ValueError,
        r"scores\['a'\]\[1\]: expected the scores of at least one row",
    ),
    "rows of splits alone": ({"a": HALF, "b": HALF}, {}, ValueError, "test_fraction: expected the share"),
    "NaN": ({"a": A, "b": np.where(A > 1, np.nan, A)}, {}, ValueError, r"scores\['b'\]: expected finite values, got N"),
    "NaN in a split": (
        {"a": HALF, "b": [[1.0, 2.0], [3.0, np.inf]]},
        {"test_fraction": 0.5},
        ValueError,
        r"scores\['b'\]\[1\]: expected finite values",
    ),
    "one split": ({"a": [1], "b": [2]}, {"test_fraction": 0.1}, ValueError, "expected at least two splits, got 1"),
    "one row": ({"a": [1], "b": [2]}, {}, ValueError, "scores: expected at least two rows, got 1"),
    "fraction": ({"a": A, "b": B}, {"test_fraction": 1.0}, ValueError, r"test_fraction: expected a number in \[0, 1\)"),
    "level": ({"a": A, "b": B}, {"level": 95}, ValueError, r"level: expected a number in \(0, 1\), got 95"),
    "reference": ({"a": A, "b": B}, {"reference": "c"}, ValueError, 'reference: expected one of "a", "b", got "c"'),
    "metric": ({"a": A, "b": B}, {"metric": "nlll"}, ValueError, 'metric: expected one of "nll"'),
    "rows of a root": ({"a": A, "b": B}, {"metric": "rmse"}, ValueError, 'metric: expected one that averages.*"rmse"'),
    "no direction": ({"a": A, "b": B}, {"metric": "coverage"}, ValueError, "metric: expected one of"),
    "direction twice": ({"a": A, "b": B}, {"metric": "nll", "lower_is_better": True}, ValueError, "lower_is_better"),
    "ordered splits": ({"a": A, "b": B}, {"test_fraction": 0.1, "ordered": True}, ValueError, "ordered: expected F"),
    "horizon alone": ({"a": A, "b": B}, {"horizon": 3}, ValueError, "horizon: expected 1 for rows that are not ord"),
    "horizon": ({"a": A, "b": B}, {"horizon": 21, "ordered": True}, ValueError, "at most half of the 40 rows, got 21"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_scores_that_cannot_be_compared_are_refused(case):
    scores, options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        pm.compare_scores(scores, **options)
