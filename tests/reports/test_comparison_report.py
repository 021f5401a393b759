"""The report of a comparison shows every method, and keeping what it needs changes no result."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_probmix.datasets import Dataset, load
from pyro_probmix.experiments import METHODS, ExperimentSettings, compare, settings_for
from pyro_probmix.experiments.runner import Cell, Runner
from pyro_probmix.reports import REPORT
from tests.reports.test_evaluation_report import HOSTILE, check

SMALL = {"splits": 2, "epochs": 3, "num_samples": 3, "hidden_features": (8, 4)}
THREE = ("erm", "local_mixup", "manifold_probmix")


@pytest.mark.parametrize("name", ["toy-regression", "toy-classification", "diabetes", "iris"])
def test_a_report_of_a_comparison(name, tmp_path):
    data = load(name)
    settings = replace(settings_for(data), **SMALL)
    compare(
        data, THREE, settings, out=tmp_path, progress=False, data_notes=["3 cells are missing"], warnings=["Beware."]
    )
    page = check(tmp_path / REPORT)
    for text in ("Paired differences", "3 cells are missing", "Beware.", "8, 4", str(len(data))):
        assert text in page.text
    alternatives = [image["alt"] for image in page.all("img")]
    for method in THREE:
        label = METHODS[method].label
        assert sum(alt.startswith(f"{label}: ") for alt in alternatives) == (3 if data.task == "regression" else 1)
        assert any(f"{label}: 3 epochs" in alt for alt in alternatives)


@pytest.mark.parametrize("splits", [1, 2])
def test_one_method_has_a_report_too(splits, tmp_path):
    data = load("diabetes")
    compare(data, ["erm"], replace(settings_for(data), **{**SMALL, "splits": splits}), out=tmp_path, progress=False)
    page = check(tmp_path / REPORT)
    assert "Paired differences" not in page.text
    assert "Nothing was warned of." in page.text


def test_names_of_the_data_are_text(tmp_path):
    rng = np.random.default_rng(0)
    data = Dataset(
        HOSTILE, rng.normal(size=(40, 2)), rng.integers(0, 2, 40), "classification", (HOSTILE, "b"), (HOSTILE, "c")
    )
    compare(data, ["erm"], ExperimentSettings(**SMALL), out=tmp_path, progress=False)
    assert check(tmp_path / REPORT).text.count(HOSTILE) >= 3


def test_results_are_the_same_with_a_report(tmp_path):
    data = load("diabetes")
    settings = replace(settings_for(data), **SMALL)
    cells = [Cell("diabetes", "manifold_probmix", data, METHODS["manifold_probmix"], settings, 0, reported=kept)
             for kept in (False, True)]  # fmt: skip
    before = torch.get_rng_state()
    plain, reported = (Runner().train(cell) for cell in cells)
    assert torch.equal(before, torch.get_rng_state())
    assert plain.metrics == reported.metrics
    assert plain.predictions is plain.history is None
    assert reported.history.train_loss
    assert reported.predictions.size == 44
    assert 25 <= reported.predictions.labels.min() <= reported.predictions.labels.max() <= 346
    assert len(pickle.dumps(reported)) < 100_000


def test_jobs_give_the_same_report(tmp_path):
    data = load("iris")
    settings = replace(settings_for(data), **SMALL)
    for jobs in (1, 2):
        compare(data, THREE, settings, jobs=jobs, out=tmp_path / str(jobs), progress=False)
    first, second = ((tmp_path / str(jobs) / REPORT).read_text(encoding="utf-8") for jobs in (1, 2))
    assert first == second
