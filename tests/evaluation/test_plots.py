"""Plots draw what they are given, on the axes that they are given, and leave Matplotlib's global state alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes

import pyro_probmix as pm
from pyro_probmix.evaluation import plots
from pyro_probmix.evaluation.plots.boxes import limits_around, log_axis

X = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [5.0, 5.0], [5.0, 6.0], [6.0, 5.0]])
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
HISTORY = pm.History([2.0, 1.5, 1.0], [2.5, math.nan, 1.2], best_epoch=2)
SCORES = {"ERM": [1.0, 1.5, 2.0, 2.5], "ProbMix": [0.5, 1.0, 1.5, 1e6], "none": []}


def class_model(num_classes: int = 3) -> pm.ERM:
    likelihood = pm.nn.CategoricalLikelihood(num_classes)
    return pm.ERM(pm.nn.MLP(2, [8], likelihood.num_outputs), likelihood)


def nearest(k: int = 1) -> pm.NearestNeighborGraph:
    return pm.NearestNeighborGraph(X, num_neighbors=k)


DENSITY, LABELS = dist.Normal(torch.zeros(50), 1.0), torch.linspace(-2.0, 2.0, 50)
PLOTS: dict[str, Callable[..., Axes]] = {
    "box_plots": lambda **options: plots.box_plots(SCORES, "nll", **options),
    "coverage": lambda **options: plots.coverage(DENSITY, LABELS, [0.5], **options),
    "density_bands": lambda **options: plots.density_bands(DENSITY, LABELS, **options),
    "pit_histogram": lambda **options: plots.pit_histogram(DENSITY, LABELS, **options),
    "quantile_calibration": lambda **options: plots.quantile_calibration(DENSITY, LABELS, **options),
    "reliability_diagram": lambda **options: plots.reliability_diagram(
        dist.Bernoulli(torch.full((6,), 0.3)), X[:, 0] > 1, **options
    ),
    "sharpness": lambda **options: plots.sharpness(DENSITY, **options),
    "class_probabilities": lambda **options: plots.class_probabilities(class_model(), X, CLASSES, **options),
    "sampling_graph": lambda **options: plots.sampling_graph(nearest(), X, **options),
    "training_curves": lambda **options: plots.training_curves(HISTORY, **options),
    "History.plot": HISTORY.plot,
}


def test_every_plot_is_tested_here() -> None:
    assert set(PLOTS) == {*plots.__all__, "History.plot"}


@pytest.fixture(params=PLOTS)
def plot(request: pytest.FixtureRequest) -> Callable[..., Axes]:
    return PLOTS[request.param]


@pytest.fixture
def ax() -> Iterator[Axes]:
    yield pyplot.subplots()[1]
    pyplot.close("all")


def test_axes_are_made_where_none_are_given(plot: Callable[..., Axes]) -> None:
    before = matplotlib.rcParams.copy()
    ax = plot()
    assert pyplot.get_fignums() == [ax.figure.number]
    assert matplotlib.rcParams == before
    assert ax.get_xlabel()
    assert ax.has_data()
    ax.figure.canvas.draw()


def test_given_axes_are_drawn_on_and_nothing_else_changes(plot: Callable[..., Axes], ax: Axes) -> None:
    other = pyplot.figure()
    ax.set_xlabel("mine")
    before = matplotlib.rcParams.copy()
    assert plot(ax=ax) is ax
    assert ax.get_xlabel() == "mine"
    assert pyplot.gcf() is other
    assert len(pyplot.get_fignums()) == 2
    assert matplotlib.rcParams == before
    assert not other.axes


def test_axes_of_another_kind_are_refused(plot: Callable[..., Axes]) -> None:
    with pytest.raises(TypeError, match=r"ax: expected Axes of Matplotlib, or None for new ones, got ndarray"):
        plot(ax=pyplot.subplots(1, 2)[1])


def test_what_to_install_is_said_where_matplotlib_is_missing(plot: Callable[..., Axes], monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ModuleNotFoundError, match=r'needs matplotlib: pip install "pyro-probmix\[tables\]"'):
        plot()


def test_a_training_has_its_finite_losses_and_its_best_epoch() -> None:
    risk, validation, best = HISTORY.plot().lines
    np.testing.assert_array_equal(risk.get_xydata(), [[0, 2.0], [1, 1.5], [2, 1.0]])
    np.testing.assert_array_equal(validation.get_xydata(), [[0, 2.5], [2, 1.2]])
    np.testing.assert_array_equal(best.get_xydata(), [[2, 1.2]])
    assert risk.get_linestyle() != validation.get_linestyle()
    ax = pm.History([2.0, 1.5]).plot()
    assert [line.get_label() for line in ax.lines] == ["training risk"]


def test_several_trainings_have_names_and_colours() -> None:
    ax = plots.training_curves({"ERM": HISTORY, "ProbMix": pm.History([1.0], [1.0])})
    labels = {line.get_label(): line.get_color() for line in ax.lines}
    assert list(labels)[::3] == ["ERM: training risk", "ProbMix: training risk"]
    assert len(set(labels.values())) == 2


def best_median(ax: Axes) -> float:
    """Where the one thick line is, which is across a box."""
    (thick,) = [line for line in ax.lines if line.get_linewidth() > 2]
    return thick.get_xdata()[0]


def test_boxes_have_the_medians_and_the_best_is_marked() -> None:
    ax = plots.box_plots(SCORES, "nll")
    assert [text.get_text() for text in ax.get_yticklabels()] == list(SCORES)
    assert {line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2} >= {1.75, 1.25}
    assert best_median(ax) == 1.25
    ax = plots.box_plots({"a": [0.7, 0.9], "b": [0.5, 0.6]}, "accuracy")
    assert best_median(ax) == pytest.approx(0.8)
    assert "higher is better" in ax.get_xlabel()


def test_a_score_far_out_is_an_arrow_with_its_value_and_does_not_stretch_the_axis() -> None:
    ax = plots.box_plots({"ERM": [1.0, 1.1, *[1.4] * 20, 1.7, 1.8, 9e6, 3e5, -40.0], "b": [1.0, 1.8]})
    low, high = ax.get_xlim()
    assert -1 < low < 1
    assert 1.8 < high < 5
    assert [text.get_text() for text in ax.texts] == ["-40.0", r"$9\cdot10^{6}$"]
    assert [line.get_marker() for line in ax.lines if line.get_marker() in ("<", ">")] == ["<", ">"]
    points = next(line for line in ax.lines if line.get_marker() == "o")
    assert sorted(set(points.get_xdata())) == [1.0, 1.1, 1.4, 1.7, 1.8]


def test_limits_hold_the_boxes_and_what_is_near() -> None:
    assert limits_around([1.0, 3.0]) == pytest.approx((0.9, 3.1))
    assert limits_around([1.0, 3.0], [3.5, 4.1]) == pytest.approx((0.875, 4.0))
    assert limits_around([2.0, 2.0])[0] < 2 < limits_around([2.0, 2.0])[1]
    assert limits_around([1.0, 100.0], [5e3], log=True) == pytest.approx((10**-0.1, 10**2.4))


def test_ticks_of_a_log_axis_are_plain_and_apart(ax: Axes) -> None:
    for limits, some in (((0.139, 0.776), {"0.2", "0.5"}), ((4.0, 12000.0), {"10", "100", "1000"})):
        log_axis(ax, limits)
        ax.figure.canvas.draw()
        ticks = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
        shown = {label.get_text() for value, label in ticks if limits[0] <= value <= limits[1]}
        assert some <= shown
        assert len(shown) <= 6
        assert not "".join(label.get_text() for label in ax.get_xticklabels(minor=True))


def test_scores_that_are_far_apart_have_a_log_axis_if_they_are_positive() -> None:
    assert plots.box_plots({"a": [1.0, 10.0, 100.0]}).get_xscale() == "log"
    assert plots.box_plots({"a": [-1.0, 10.0, 100.0]}).get_xscale() == "linear"
    assert plots.box_plots({"a": [1.0, 10.0]}).get_xscale() == "linear"


def test_axes_made_for_the_same_boxes_are_the_same() -> None:
    every = [[1.0, 10.0], [100.0, 50.0], []]
    first, second = (plots.box_plots({"a": values}, among=every) for values in every[:2])
    assert first.get_xlim() == second.get_xlim()
    assert first.get_xscale() == second.get_xscale() == "log"


def test_the_plane_shows_the_class_probabilities() -> None:
    model = class_model()
    ax = plots.class_probabilities(model, X, CLASSES, class_names=["a", "b", "c"])
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == pytest.approx((-0.6, 6.6, -0.6, 6.6))
    corners = torch.tensor([[left, bottom], [right, bottom], [left, top], [right, top]]).float()
    probabilities = model.predictive(corners).probs.detach().numpy()
    shades = 1 - 0.6 * (1 - np.array([matplotlib.colors.to_rgb(c) for c in ("#0072B2", "#E69F00", "#009E73")]))
    found = np.asarray(image.get_array())[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(found, probabilities @ shades, atol=1e-5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]
    offsets = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections if c.get_label() in "abc"])
    np.testing.assert_allclose(offsets, X[[0, 3, 1, 4, 2, 5]])


def test_classes_of_an_estimator_have_its_names() -> None:
    labels = np.array(["oak", "ash"])[CLASSES.numpy() % 2]
    estimator = pm.ProbMixClassifier(epochs=2, hidden_features=(4,), num_neighbors=None, num_members=1).fit(
        X.numpy(), labels
    )
    ax = plots.class_probabilities(estimator, X.numpy(), labels)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ash", "oak"]


def segments(ax: Axes) -> set[frozenset[int]]:
    rows = {tuple(point): row for row, point in enumerate(X.tolist())}
    return {frozenset(rows[tuple(end)] for end in line.tolist()) for line in ax.collections[0].get_segments()}


def test_the_lines_are_the_edges_of_the_graph() -> None:
    graph = nearest(2)
    edges = {frozenset((i, int(j))) for i, row in enumerate(graph.neighbors) for j in row}
    assert segments(plots.sampling_graph(graph, X)) == edges
    everything = segments(plots.sampling_graph(pm.CompleteGraph(6), X))
    assert everything == {frozenset((i, j)) for i in range(6) for j in range(i)}


def test_no_edge_is_too_dark_by_rounding() -> None:
    """0.1 and 26 times 0.9 / 26 are 1 + 2e-16, which Matplotlib refuses."""
    shades = plots.sampling_graph(nearest(), X, num_batches=13).collections[0].get_alpha()
    assert shades.max() == 1


def test_a_graph_of_which_no_pair_is_drawn_has_its_points() -> None:
    ax = plots.sampling_graph(pm.CompleteGraph(2), X[:2], num_batches=1)
    assert [len(drawn.get_offsets()) for drawn in ax.collections] == [2]


def test_an_edge_is_the_darker_the_oftener_it_is_drawn() -> None:
    graph = pm.WeightedGraph(torch.tensor([[0, 1], [2, 3]]), torch.tensor([9.0, 1.0]), 6)
    before = torch.get_rng_state()
    ax = plots.sampling_graph(graph, X, CLASSES)
    often, seldom = ax.collections[0].get_alpha()
    keys = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    assert keys["pair that is mixed"].get_alpha() is None  # seen in the legend, however faint the lines
    assert torch.equal(torch.get_rng_state(), before)
    assert often > 3 * seldom


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.box_plots({}), ValueError, "scores: expected at least one, got none"),
        (lambda: plots.box_plots({"a": []}), ValueError, "scores: expected at least one, got none"),
        (
            lambda: plots.box_plots({"a": [1.0, math.nan]}),
            ValueError,
            r"scores\['a'\]: expected finite values, .*row 1",
        ),
        (lambda: plots.box_plots({"a": [[1.0]]}), ValueError, r"scores\['a'\]: expected shape \(N,\), got \(1, 1\)"),
        (lambda: plots.box_plots({"a": ["one"]}), TypeError, r"scores\['a'\]: expected numbers, got others: can't"),
        (lambda: plots.box_plots({"a": [1.0]}, "nil"), ValueError, 'metric: expected one of "nll", .*, got "nil"'),
        (lambda: plots.training_curves({}), ValueError, "history: expected at least one, got none"),
        (lambda: plots.training_curves([1.0]), TypeError, "history: expected History, or several by name, got list"),
        (lambda: plots.training_curves({"a": 1}), TypeError, r"history\['a'\]: expected History, .*, got int"),
        (
            lambda: plots.class_probabilities(class_model(), X[:, :1], CLASSES),
            ValueError,
            r"x: expected shape \(N, 2\), got \(6, 1\)",
        ),
        (
            lambda: plots.class_probabilities(class_model(), X, CLASSES[:2]),
            ValueError,
            r"y: expected shape \(6,\), got \(2,\)",
        ),
        (
            lambda: plots.class_probabilities(class_model(2), X, CLASSES),
            ValueError,
            "y: expected integers from 0 to 1, got int64 from 0 to 2",
        ),
        (lambda: plots.class_probabilities(class_model(7), X), ValueError, "y: expected at most 6 classes, .*, got 7"),
        (
            lambda: plots.class_probabilities(class_model(), X, class_names=["a"]),
            ValueError,
            "class_names: expected 3 names, got 1",
        ),
        (
            lambda: plots.class_probabilities(torch.nn.Linear(2, 3), X),
            TypeError,
            "model: expected a ready model or a fitted estimator, got Linear",
        ),
        (
            lambda: plots.class_probabilities(pm.ERM(torch.nn.Linear(2, 2), pm.nn.NormalLikelihood()), X),
            TypeError,
            "p: expected a distribution over classes, got Normal",
        ),
        (lambda: plots.sampling_graph(X, X), TypeError, "graph: expected a sampling graph, got Tensor"),
        (lambda: plots.sampling_graph(nearest(), X[:3]), ValueError, r"x: expected shape \(6, 2\), got \(3, 2\)"),
        (
            lambda: plots.sampling_graph(nearest(), X / 0),
            ValueError,
            r"x: expected finite values, got NaN or inf in 6 of 6 rows",
        ),
        (
            lambda: plots.sampling_graph(nearest(), X, num_batches=0),
            ValueError,
            "num_batches: expected an integer >= 1, got 0",
        ),
    ],
)
def test_bad_input_is_named_and_nothing_is_drawn(call: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
    assert not pyplot.get_fignums()
