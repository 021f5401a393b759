"""Plots of calibration show how often what a density predicts comes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from scipy import stats

import pyro_probmix as pm
from pyro_probmix.evaluation import plots
from tests.evaluation.drawn import X, Y, line, polygon


@pytest.fixture
def uniform() -> tuple[Any, torch.Tensor]:
    """A density and labels that are its quantiles, evenly."""
    p = dist.Normal(torch.arange(200.0), 3.0)
    return p, p.icdf((torch.arange(200) + 0.5) / 200)


def bars(ax: Axes) -> list[float]:
    return [patch.get_height() for patch in ax.patches if patch.get_width() < 0.9]


def test_the_histogram_of_the_transform_and_its_band(uniform: tuple[Any, torch.Tensor]) -> None:
    p, y = uniform
    ax = plots.pit_histogram(p, y, bins=8)
    assert bars(ax) == [25.0] * 8
    (band,) = [patch for patch in ax.patches if patch.get_width() > 0.9]
    low, high = stats.binom.interval(0.95, 200, 1 / 8)
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((low, high))
    wide = bars(plots.pit_histogram(dist.Normal(p.mean, 6.0), y, bins=8))
    assert max(wide[0], wide[-1]) < low < high < wide[3]


def test_labels_that_are_masked_are_left_out(uniform: tuple[Any, torch.Tensor]) -> None:
    p, y = uniform
    seen = torch.arange(200) >= 100
    ax = plots.pit_histogram(p.mask(seen), y, bins=2)
    assert bars(ax) == [0.0, 100.0]
    ax = plots.quantile_calibration(p.mask(seen), y, [0.5, 0.75])
    np.testing.assert_allclose(line(ax, "labels"), [[0.5, 0.0], [0.75, 0.5]])
    ax = plots.coverage(p.mask(seen), y, [0.5])
    np.testing.assert_allclose(line(ax, "labels"), [[0.5, 0.5]])


def test_shares_against_levels_and_their_band(uniform: tuple[Any, torch.Tensor]) -> None:
    p, y = uniform
    densities = {"right": p, "wide": dist.Normal(p.mean, 6.0)}
    levels = [0.9, 0.1, 0.5]
    below = plots.quantile_calibration(densities, y, levels)
    within = plots.coverage(densities, y, levels)
    for ax in (below, within):
        np.testing.assert_allclose(line(ax, "right"), [[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]], atol=1e-9)
        low, high = polygon(ax, "95 % if calibrated")[0.5]
        assert (low, high) == pytest.approx(np.array(stats.binom.interval(0.95, 200, 0.5)) / 200)
    for level, share in line(within, "wide"):
        assert share == pytest.approx(pm.evaluate(densities["wide"], y, f"coverage@{level}")[f"coverage@{level}"])
    np.testing.assert_allclose(
        line(below, "wide")[:, 1],
        [(y < densities["wide"].icdf(torch.tensor(q))).double().mean() for q in sorted(levels)],
    )
    right, wide = (one for one in within.lines if one.get_label() in densities)
    assert right.get_color() != wide.get_color()
    assert right.get_marker() != wide.get_marker()
    assert right.get_linestyle() != wide.get_linestyle()


def test_widths_are_those_of_the_intervals() -> None:
    p = dist.Normal(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
    ax = plots.sharpness({"a": p, "b": dist.Normal(torch.zeros(3), 1.0)}, level=0.5)
    assert ax.get_xlabel() == "width of the central 50 % interval (units of the target)"
    points = [one for one in ax.lines if one.get_marker() == "o"]
    np.testing.assert_allclose(points[0].get_xdata(), 2 * stats.norm.ppf(0.75) * np.arange(1, 4), rtol=1e-6)


def test_a_reliability_diagram_has_shares_and_numbers_by_bin() -> None:
    probabilities = torch.tensor([0.55] * 10 + [0.58] * 10 + [0.92] * 40)
    p = dist.Categorical(torch.stack([probabilities, 1 - probabilities], -1))
    y = torch.tensor([0] * 12 + [1] * 8 + [0] * 39 + [1])
    ax = plots.reliability_diagram(p, y, bins=5)
    np.testing.assert_allclose(ax.containers[0].lines[0].get_xydata(), [[0.565, 0.6], [0.92, 0.975]], atol=1e-6)
    assert [text.get_text() for text in ax.texts] == ["20", "40"]
    np.testing.assert_allclose([patch.get_height() for patch in ax.patches], [1 / 3, 2 / 3])
    several = plots.reliability_diagram({"one-hot": dist.OneHotCategorical(p.probs)}, torch.eye(2)[y], bins=5)
    np.testing.assert_allclose(several.containers[0].lines[0].get_xydata(), ax.containers[0].lines[0].get_xydata())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: plots.pit_histogram(dist.Normal(X, 1.0), Y, bins=0),
            ValueError,
            "bins: expected an integer >= 1, got 0",
        ),
        (lambda: plots.pit_histogram(X, Y), TypeError, "p: expected a distribution, got Tensor"),
        (lambda: plots.pit_histogram(dist.Normal(X, 1.0), Y[:2]), ValueError, r"y: expected shape \(4,\), got \(2,\)"),
        (lambda: plots.quantile_calibration(dist.Normal(X, 1.0), Y, [0.0]), ValueError, "levels: .*got 0.0"),
        (lambda: plots.quantile_calibration({}, Y), ValueError, "p: expected at least one, got none"),
        (lambda: plots.quantile_calibration({"a": 1}, Y), TypeError, r"p\['a'\]: expected Distribution, .*, got int"),
        (lambda: plots.coverage(dist.Normal(X, 1.0), Y, [math.nan]), ValueError, "levels: .*got nan"),
        (lambda: plots.coverage(dist.Normal(X, 1.0), Y * math.nan), ValueError, "y: expected finite values"),
        (
            lambda: plots.coverage(dist.Bernoulli(torch.full((4,), 0.5)), Y > 0),
            ValueError,
            'metrics: .*"coverage@0.1"',
        ),
        (
            lambda: plots.sharpness(dist.Normal(X, 1.0), 1.5),
            ValueError,
            r"level: expected a number in \(0, 1\), got 1.5",
        ),
        (
            lambda: plots.reliability_diagram(dist.Normal(X, 1.0), Y),
            TypeError,
            "p: expected a distribution over classes, got Normal",
        ),
        (lambda: plots.reliability_diagram(dist.Categorical(torch.ones(4, 2)), Y), ValueError, "y: "),
        (
            lambda: plots.reliability_diagram(dist.Categorical(torch.ones(4, 2)), Y > 0, bins=2.5),
            TypeError,
            "bins: expected an integer",
        ),
    ],
)
def test_bad_input_is_named_and_nothing_is_drawn(call: Callable[[], Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
    assert not pyplot.get_fignums()
