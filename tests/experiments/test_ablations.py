"""The toy problems of the paper: ten settings by nine methods, and pictures of one draw."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from scipy import integrate

from pyro_probmix.datasets import load
from pyro_probmix.experiments import ABLATIONS, METHODS, PICTURES, ablate, compare, draw_picture, settings_for
from pyro_probmix.experiments.paper.ablations import ABLATION_SETTINGS, COLUMNS

QUICK = {"splits": 2, "epochs": 2, "num_samples": 3, "hidden_features": (8, 4), "progress": False}
SETTINGS = tuple(ABLATION_SETTINGS)


@pytest.mark.parametrize(("name", "metric"), [("ablation-regression", "mse"), ("ablation-classification", "accuracy")])
def test_an_ablation_end_to_end(name, metric, tmp_path):
    ablation, cells = ablate(name, out=tmp_path, methods=["probmix", "local_manifold_probmix"], **QUICK)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"cells", f"{name}.json", f"{name}.md", f"{name}.png"}
    written = json.loads((tmp_path / f"{name}.json").read_text())
    assert written["cells"] == cells
    assert tuple(cells) == SETTINGS
    assert all(len(found["probmix"][metric]) == 2 for found in cells.values())
    assert written["settings"]["datasets"]["alpha=0.5, beta=0.01"]["alpha"] == 0.5
    assert len({tuple(found["probmix"]["nll"]) for found in cells.values()}) == 10
    assert "splits = 2, epochs = 2" in (tmp_path / f"{name}.md").read_text()
    assert not ablation.claims(cells)[0].holds + ablation.claims(cells)[0].fails
    lines = []
    assert ablate(name, out=tmp_path, methods=["probmix"], report=lines.append, **QUICK)[1] == cells
    assert all(line.endswith("(kept)") for line in lines)


@pytest.mark.slow
def test_where_results_are_read_no_longer_no_worker_is_left(tmp_path):
    """While the error is held, with all that was in use: what they own is released before the process ends."""

    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as held:
        ablate("ablation-regression", out=tmp_path, report=stop, **QUICK | {"jobs": 2})
    left = {"ExecutorManagerThread", "QueueFeederThread"} & {thread.name for thread in threading.enumerate()}
    assert not left, held


def test_the_settings_are_the_papers():
    settings = ABLATION_SETTINGS.values()
    assert len(settings) == 10
    assert {s.alpha for s in settings} == {0.01, 0.05, 0.1, 0.5, 1.0}
    assert {s.beta for s in settings} == {0.0, 0.01}
    assert {(s.hidden_features, s.epochs, s.batch_size, s.learning_rate, s.splits) for s in settings} == {
        ((128, 64), 500, None, 0.01, 10)
    }
    assert len(COLUMNS) == 9


def stored(best: str, metrics: tuple[str, str], better: float) -> dict:
    """Cells in which one method is better than all others under every setting."""
    return {
        setting: {
            method: {
                metric: [better if method == best else 0.5, better if method == best else 0.6] for metric in metrics
            }
            for method in COLUMNS
        }
        for setting in SETTINGS
    }


def test_the_claims_are_counted_by_setting():
    regression, classification = ABLATIONS["ablation-regression"], ABLATIONS["ablation-classification"]
    cells = stored("local_manifold_probmix", ("mse", "nll"), 0.1)
    del cells[SETTINGS[0]]["erm"]
    assert [len(claim.holds) for claim in regression.claims(cells)] == [9, 9]
    accuracy, _ = classification.claims(stored("probmix", ("accuracy", "nll"), 0.9))
    _, nll = classification.claims(stored("manifold_probmix", ("accuracy", "nll"), 0.1))
    _, other = classification.claims(stored("erm", ("accuracy", "nll"), 0.1))  # with which they are not compared
    assert (len(accuracy.holds), len(accuracy.fails)) == (10, 0)
    assert (len(nll.holds), len(nll.fails)) == (0, 10)
    assert (len(other.holds), len(other.fails)) == (10, 0)


def test_tables_bold_the_best_mean():
    ablation = ABLATIONS["ablation-regression"]
    cells = stored("mixup", ("mse", "nll"), 0.1)
    del cells[SETTINGS[1]]
    text = ablation.markdown(cells, "These are notes.")
    assert text.count("**0.1 ± 0**") == 18
    assert text.count("not run") == 18
    assert "These are notes." in text
    console = Console(record=True, width=100, force_terminal=True, file=io.StringIO())
    for panel in ablation.terminal(cells):
        console.print(panel)
    assert console.export_text(styles=True).count("\x1b[1m0.1\x1b[0m") == 18


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_one_draw(name, tmp_path):
    path = draw_picture(name, out=tmp_path / "new", epochs=2, hidden_features=(8, 4), num_samples=3, progress=False)
    assert path == tmp_path / "new" / f"{name}.png"
    assert np.ptp(imread(path)) > 0.5


def test_a_pictured_density_is_a_density_in_the_units_of_the_data():
    data = load("toy-regression")
    settings = replace(settings_for(data), splits=1, epochs=50, hidden_features=(8, 4), num_samples=3)
    picture = compare(data, ["manifold_probmix"], settings, progress=False).pictures["manifold_probmix"]
    inside = (picture.grid[:, 0] > -2) & (picture.grid[:, 0] < 2)
    heights = torch.linspace(-120, 270, 400)[:, None]
    density = picture.p.log_prob(heights.expand(-1, 401)).exp().numpy()[:, inside]
    np.testing.assert_allclose(integrate.trapezoid(density, heights.numpy(), axis=0), 1, atol=0.02)
    mean = integrate.trapezoid(density * heights.numpy(), heights.numpy(), axis=0)
    assert np.abs(mean - picture.grid[inside, 0] ** 3).max() < 15


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (
            ablate,
            {"name": "table1"},
            'name: expected one of "ablation-regression", "ablation-classification", got "table1"',
        ),
        (ablate, {"name": "ablation-regression", "seed": -1}, "seed: expected an integer >= 0, got -1"),
        (ablate, {"name": "ablation-regression", "methods": ["mixop"]}, "methods: expected some of erm, .*, got mixop"),
        (draw_picture, {"name": "figure1"}, 'name: expected one of "figure2", "figure3", "figure14", got "figure1"'),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(function, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        function(out=tmp_path / "out", progress=False, **arguments)
    assert not (tmp_path / "out").exists()


def test_the_columns_are_methods_without_a_star():
    assert set(METHODS) - set(COLUMNS) == {name for name in METHODS if name.endswith("separate_variance")}
