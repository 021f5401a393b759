"""Scores before and after recalibration: on rows of their own, of all methods and ensembles, told as they are."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

import pyro_probmix as pm
from pyro_probmix.datasets import load
from pyro_probmix.experiments import CALIBRATION, recalibrate
from pyro_probmix.experiments.calibration.scores import score_recalibrated
from pyro_probmix.experiments.calibration.table import calibration_settings
from pyro_probmix.experiments.splits import make_split

QUICK = {"splits": 2, "epochs": 2, "num_samples": 3, "hidden_features": (8, 4), "members": 2, "progress": False}
METRICS = {
    "bostonHousing": ["nll", "crps", "rmse", "qce", "coverage@0.9", "width@0.9"],
    "breast-cancer": ["nll", "brier", "accuracy", "ece"],
}


def test_a_calibration_end_to_end(data_dir, tmp_path):
    methods = ["erm", "manifold_probmix", "erm_ensemble", "ensemble"]
    table, cells = recalibrate(data_dir, out=tmp_path, datasets=list(METRICS), methods=methods, **QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {f"calibration.{s}" for s in ("json", "md", "png")} | {"cells"}
    assert json.loads((tmp_path / "calibration.json").read_text())["cells"] == cells
    for row, metrics in METRICS.items():
        assert list(cells[row]) == methods
        ways = ["variance", "isotonic"] if row == "bostonHousing" else ["temperature"]
        names = [*metrics, *(f"{metric} after {way}" for way in ways for metric in metrics)]
        if row == "bostonHousing":
            names += ["coverage@0.9 after conformal", "width@0.9 after conformal"]
        for found in cells[row].values():
            assert list(found) == names
            assert all(len(values) == 2 and all(map(math.isfinite, values)) for values in found.values())
        assert len({tuple(found["nll"]) for found in cells[row].values()}) == 4
    text = (tmp_path / "calibration.md").read_text()
    assert "splits = 2, epochs = 2" in text
    assert "| concrete | ERM | not run |" in text
    assert np.ptp(imread(tmp_path / "calibration.png")) > 0.5
    lines = []
    again = recalibrate(data_dir, out=tmp_path, datasets=list(METRICS), methods=methods, report=lines.append, **QUICK)
    assert again == (table, cells)
    assert all(line.endswith("(kept)") for line in lines)


def test_rows_that_recalibrate_are_no_others():
    """Not those that are trained on, scale, choose the epoch, or test."""
    data = load("diabetes")
    split = make_split(data, 0, seed=0, calibration_fraction=0.25)
    parts = {name: split.own_units(*getattr(split, name)) for name in ("train", "validation", "calibration", "test")}
    sizes = {name: len(y) for name, (_, y) in parts.items()}
    assert sizes == {"train": 238, "validation": 60, "calibration": 100, "test": 44}
    every = np.concatenate([np.column_stack(part) for part in parts.values()])
    assert len(np.unique(every.round(3), axis=0)) == len(data)
    kept = np.concatenate([parts["train"][0], parts["validation"][0]])
    np.testing.assert_allclose(split.x_scaler.mean_, kept.mean(0), rtol=1e-5)
    members = [make_split(data, 0, seed=0, calibration_fraction=0.25, fold=fold) for fold in range(4)]
    assert all(torch.equal(member.calibration[0], split.calibration[0]) for member in members)


def test_scores_after_are_those_of_densities_recalibrated_on_their_rows():
    split = make_split(load("diabetes"), 0, seed=0, calibration_fraction=0.25)
    likelihood = pm.nn.NormalLikelihood()
    models = [pm.ERM(pm.nn.MLP(10, [4], likelihood.num_outputs), likelihood) for _ in range(2)]
    with torch.no_grad():
        found = score_recalibrated(models, split, num_samples=3)
        held, p = (pm.linear_pool([m.predictive(x) for m in models]) for x in (split.calibration[0], split.test[0]))
        y = split.test[1]
        scaled = pm.VarianceScaling().fit(held, split.calibration[1])(p)
        lower, upper = pm.ConformalInterval(0.9).fit(held, split.calibration[1])(p)
    nll = pm.evaluate(scaled, y, ["nll"])["nll"] + math.log(split.y_scale)
    assert found["nll after variance"] == pytest.approx(nll)
    assert found["nll after variance"] < found["nll"]
    assert found["width@0.9 after conformal"] == pytest.approx(float((upper - lower).mean()) * split.y_scale, rel=1e-5)
    assert found["coverage@0.9 after conformal"] == pytest.approx(float(((lower <= y) & (y <= upper)).float().mean()))


def stored(after: float) -> dict:
    """Cells in which the second ensemble is best, and recalibration multiplies errors."""
    cells = {}
    for row, task in CALIBRATION.tasks.items():
        metrics = ["nll", "crps", "rmse", "qce", "coverage@0.9"]
        ways = ["variance", "isotonic", "conformal"]
        if task == "classification":
            metrics, ways = ["nll", "brier", "accuracy", "ece"], ["temperature"]
        cells[row] = {}
        for place, method in enumerate(CALIBRATION.columns):
            found = {metric: [1.0 - 0.1 * place] * 2 for metric in metrics}
            found |= {f"{metric} after {way}": [after * (1.0 - 0.1 * place)] * 2 for metric in metrics for way in ways}
            cells[row][method] = found
    return cells


def test_claims_are_counted_from_the_numbers():
    def counts(cells: dict) -> list[tuple[int, int]]:
        return [(len(claim.holds), len(claim.fails)) for claim in CALIBRATION.claims(cells)]

    assert counts(stored(0.9))[:6] == [(12, 0)] * 6
    assert counts(stored(1.1))[:6] == [(0, 12)] * 6
    assert counts(stored(1.1))[7:] == [(4, 0)] * 4
    cells = stored(0.9)
    del cells["digits"]["erm"], cells["concrete"]
    assert counts(cells)[:6] == [(6, 0)] * 4 + [(11, 0)] * 2
    assert counts(cells)[7:] == [(2, 0)] * 4


def test_the_table_has_a_number_before_and_after_and_bolds_the_best():
    text = CALIBRATION.markdown(stored(0.5), "These are notes.")
    assert "| bostonHousing | ERM | 1.000 → 0.500 / 0.500 | 1.00 → 0.50 / 0.50 | 1.00 → 0.50 / 0.50 | " in text
    assert "| digits | ERM | 1.000 → 0.500 | 1.000 → 0.500 | **1.000** | 1.000 → 0.500 | - |" in text
    assert "| 0.500 → **0.250** / **0.250** |" in text
    assert "These are notes." in text
    console = Console(record=True, width=80, file=io.StringIO())
    for panel in CALIBRATION.terminal(stored(0.5)):
        console.print(panel)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["ERM", "none", "1.000", "1.00", "1.00", "1.000", "1.00"] in lines
    assert ["variance", "0.500", "0.50", "0.50", "0.500", "0.50"] in lines
    assert ["conformal", "0.50"] in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"datasets": ["boston"]}, "datasets: expected some of bostonHousing, .*, got boston"),
        ({"methods": ["local_erm"]}, "methods: expected some of erm, .*, got local_erm"),
        ({"calibration_fraction": 0}, r"calibration_fraction: expected a number in \(0, 1\), got 0"),
        ({"calibration_fraction": 1.0}, r"calibration_fraction: expected a number in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, message, data_dir, tmp_path):
    with pytest.raises(ValueError, match=message):
        recalibrate(data_dir, out=tmp_path / "out", **QUICK | arguments)
    assert not (tmp_path / "out").exists()


def test_all_methods_have_one_protocol():
    assert len({calibration_settings(row) for row in CALIBRATION.rows}) == 1
