"""Figures of experiments are scaled for what they show, and say what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_probmix.datasets import load
from pyro_probmix.experiments import ABLATIONS, METHODS, TABLES, TUNED_TABLES, Comparison, compare, settings_for
from pyro_probmix.experiments.figures import draw, draw_densities
from pyro_probmix.experiments.paper.ablations import ABLATION_SETTINGS
from pyro_probmix.experiments.paper.figures import draw_ablation, draw_table
from pyro_probmix.experiments.runner import Result

Draw = Callable[..., Figure]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Call a function that writes a figure; return the figure, without rendering it."""
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **options: saved.append(self))

    def call(function: Callable[..., None], *arguments: object) -> Figure:
        function(*arguments, tmp_path / "figure.png")
        return saved[-1]

    return call


def panel(figure: Figure, title: str) -> Axes:
    (found,) = [axis for axis in figure.axes if title in axis.get_title()]
    return found


def texts(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_the_axis_of_a_table_is_ours_and_the_papers_far_means_are_told(drawn: Draw) -> None:
    cells = {"bostonHousing": {method: {"nll": [2.5, 2.6 + k / 100]} for k, method in enumerate(METHODS)}}
    axis = panel(drawn(draw_table, TABLES["table1"], cells), "bostonHousing")
    low, high = axis.get_xlim()
    assert 2.4 < low < 2.5
    assert 2.7 < high < 2.9
    assert texts(axis)[0] == "3.37"
    assert len(texts(axis)) == 9  # all but two of the paper's


def test_the_best_published_is_told_where_it_is_far(drawn: Draw) -> None:
    cells = {"power-plant": {method: {"nll": [2.75, 2.76]} for method in TUNED_TABLES["table1"].columns}}
    axis = panel(drawn(draw_table, TUNED_TABLES["table1"], cells), "power-plant")
    assert axis.get_xlim()[0] > 2.7
    assert "2.60" in texts(axis)


def test_a_table_of_numbers_far_apart_is_logarithmic_with_units(drawn: Draw) -> None:
    table = TABLES["table2"]
    cells = {
        "lstm RCL": {method: {"nll": [4.0 * 4**k, 5.0 * 4**k]} for k, method in enumerate(table.columns)},
        "lstm GME": {method: {"nll": [500.0, 600.0]} for method in table.columns},
    }
    figure = drawn(draw_table, table, cells)
    assert {axis.get_xscale() for axis in figure.axes} == {"log"}
    assert "nats" in figure.get_suptitle()
    assert "logarithmic" in figure.get_suptitle()
    assert "dollars" in TABLES["table4"].title


def test_a_metric_the_paper_scaled_says_so_above_its_panel(drawn: Draw) -> None:
    cells = {"kin8nm": {"erm": {"rmse": [0.07, 0.08]}}}
    assert panel(drawn(draw_table, TABLES["table3"], cells), "kin8nm").get_title() == "kin8nm (× 100)"


def test_one_draw_does_not_stretch_the_axes_of_an_ablation(drawn: Draw) -> None:
    ablation = ABLATIONS["ablation-regression"]
    scores = {"mse": [2000.0, 3000.0], "nll": [10.0, 20.0, 200.0, 400.0]}
    cells = {setting: {"erm": scores, "probmix": dict(scores)} for setting in ABLATION_SETTINGS}
    cells["alpha=0.05, beta=0"]["probmix"]["nll"] = [10.0, 20.0, 20.0, 20.0, 30.0, 9.4e6]
    figure = drawn(draw_ablation, ablation, cells)
    assert len(figure.axes) == 20
    errors, losses = figure.axes[:10], figure.axes[10:]
    for row in (errors, losses):
        assert len({axis.get_xlim() for axis in row}) == 1
    assert {axis.get_xscale() for axis in errors} == {"linear"}
    assert {axis.get_xscale() for axis in losses} == {"log"}
    assert losses[0].get_xlim()[1] < 1e4
    assert [text for axis in figure.axes for text in texts(axis)] == [r"$9.4\cdot10^{6}$"]
    assert losses[1].get_title() == "α = 0.05, β = 0"
    assert [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel()] == [
        "MSE (squared units of the target), lower is better",
        "NLL (nats), lower is better",
    ]


def small(name: str, methods: tuple[str, ...], splits: int) -> Comparison:
    data = load(name)
    settings = replace(settings_for(data), splits=splits, epochs=2, num_samples=3, hidden_features=(8, 4))
    return compare(data, methods, settings, progress=False)


def test_the_panels_of_a_toy_say_what_was_tested_and_which_draw_is_seen(drawn: Draw) -> None:
    comparison = small("toy-regression", ("erm", "mixup", "local_mixup"), 2)
    figure = drawn(draw, comparison)
    assert figure.get_suptitle() == "toy-regression, the first of 2 draws"
    nll = comparison.values("local_mixup", "nll")[0]
    assert f"test NLL {nll:.2f} nats, MSE" in panel(figure, "Local Mixup").get_title()
    (legend,) = [axis.get_legend() for axis in figure.axes if axis.get_legend()]
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown[:3] == ["95 % band", "50 % band", "median"]
    assert {"training data", "test data", "test region"} <= set(shown)
    offsets = {c.get_label(): c.get_offsets() for c in panel(figure, "ERM").collections}
    np.testing.assert_allclose(offsets["training data"][:, 1], comparison.pictures["erm"].train[1])
    figure = drawn(draw_densities, comparison)
    assert "predictive density, per unit of y" in [axis.get_xlabel() for axis in figure.axes[0].figure.findobj(Axes)]


def test_shades_of_classes_have_a_key_and_full_figures_have_room_for_it(drawn: Draw) -> None:
    figure = drawn(draw, small("toy-classification", ("erm",), 1))
    assert figure.get_suptitle() == "toy-classification, one draw"
    keys = [axis for axis in figure.findobj(Axes) if axis.get_xlabel() == "class probability"]
    assert [text.get_text() for text in keys[0].get_yticklabels()] == ["ring 0.5", "ring 1.5", "ring 2.5"]


def test_other_data_have_boxes_of_their_splits(drawn: Draw) -> None:
    metrics = {"erm": {"nll": [1.0, 2.0]}, "probmix": {"nll": [0.5, 1e9]}}
    results = {method: Result(found) for method, found in metrics.items()}
    data = load("diabetes")
    comparison = Comparison(data, replace(settings_for(data), splits=2), ("erm", "probmix"), seed=0, results=results)
    (axis,) = drawn(draw, comparison).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["ERM", "ProbMix"]
    assert axis.get_xlabel() == "NLL (nats), lower is better"
