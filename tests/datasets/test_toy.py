"""The toy problems follow equations 25 and 26 and leave the global random state alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pyro_probmix.datasets import TOY_RADII, TOY_REGIONS, toy_classification, toy_regression

TOYS = [toy_regression, toy_classification]


@pytest.mark.parametrize("subset", ["train", "test"])
def test_regression_follows_equation_25(subset):
    data = toy_regression(n=20_000, seed=3, subset=subset)
    low, high = TOY_REGIONS[subset]
    x = data.x[:, 0]
    assert stats.kstest(x, stats.uniform(low, high - low).cdf).pvalue > 1e-6
    assert stats.kstest(data.y - x**3, stats.norm(0, 3).cdf).pvalue > 1e-6
    assert abs(stats.spearmanr(x, data.y - x**3).statistic) < 0.04


def test_classification_follows_equation_26():
    data = toy_classification(n=30_000, seed=3)
    for label, radius in enumerate(TOY_RADII):
        points = data.x[data.y == label]
        # Squared distance from the origin over the noise variance: noncentral χ² with two degrees of freedom.
        squared = (points**2).sum(axis=1) / 0.09
        assert stats.kstest(squared, stats.ncx2(2, radius**2 / 0.09).cdf).pvalue > 1e-6
        angle = np.arctan2(points[:, 1], points[:, 0])
        assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-6


@pytest.mark.parametrize("n", [1, 100, 101])
def test_classes_are_equally_large(n):
    counts = np.bincount(toy_classification(n=n).y, minlength=3)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("toy", TOYS)
def test_seed_decides_the_draw_and_subsets_differ(toy):
    a, b, c, d = toy(seed=1), toy(seed=1), toy(seed=2), toy(seed=1, subset="test")
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.y, b.y)
    assert not np.array_equal(a.x, c.x)
    assert abs(np.corrcoef(a.x[:, 0], d.x[:, 0])[0, 1]) < 0.4


@pytest.mark.faults("random state disturbed")
@pytest.mark.parametrize("toy", TOYS)
def test_global_random_state_is_untouched(toy, global_state):
    before = global_state()
    toy()
    np.testing.assert_array_equal(before, global_state())


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize(("arguments", "message"), [({"n": 0}, "n: expected"), ({"subset": "dev"}, "subset: expected")])
def test_bad_arguments(toy, arguments, message):
    with pytest.raises(ValueError, match=message):
        toy(**arguments)
