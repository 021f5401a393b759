"""A comparison depends on its seed alone, reports own units, and keeps what is finished."""

from __future__ import annotations

import errno
import io
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from scipy import stats

from pyro_probmix import models
from pyro_probmix.datasets import load
from pyro_probmix.experiments import (
    FIGURE,
    METHODS,
    RESULTS,
    Comparison,
    ExperimentSettings,
    compare,
    settings_for,
)
from pyro_probmix.experiments.runner import Result, metrics_for, score
from pyro_probmix.experiments.splits import make_split
from pyro_probmix.reports import REPORT

THREE = ("erm", "local_mixup", "manifold_probmix")
SMALL = {"splits": 2, "epochs": 2, "num_samples": 3, "hidden_features": (8, 4)}


def small(name: str, methods=THREE, **options) -> Comparison:
    data = load(name)
    return compare(data, methods, replace(settings_for(data), **SMALL), progress=False, **options)


def numbers(comparison: Comparison) -> dict:
    return comparison.to_json()["methods"]


def test_results_depend_on_the_seed_alone():
    one = numbers(small("diabetes"))
    before = torch.get_rng_state(), torch.get_num_threads()
    assert numbers(small("diabetes")) == one
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert numbers(small("diabetes", ("manifold_probmix",)))["manifold_probmix"] == one["manifold_probmix"]
    assert numbers(small("diabetes", seed=1)) != one


@pytest.mark.faults("workers that repeat draws")
def test_splits_and_methods_have_their_own_random_numbers():
    found = numbers(small("diabetes", ("probmix", "local_probmix")))
    values = [value for metrics in found.values() for value in metrics["nll"]]
    assert len(set(values)) == 4


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("toy-regression", ["nll", "crps", "rmse", "mse"]),
        ("toy-classification", ["nll", "accuracy", "brier", "ece"]),
        ("diabetes", ["nll", "crps", "rmse"]),
        ("iris", ["nll", "accuracy", "brier", "ece"]),
    ],
)
def test_files_of_a_comparison(name, metrics, tmp_path):
    comparison = small(name, out=tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [FIGURE, REPORT, RESULTS]
    found = json.loads((folder / RESULTS).read_text())
    assert list(found) == ["dataset", "settings", "methods"]
    assert found["dataset"] == name
    assert list(found["methods"]) == list(THREE)
    for values in found["methods"].values():
        assert list(values) == metrics
        assert all(len(v) == 2 and all(math.isfinite(number) for number in v) for v in values.values())
    assert found["settings"]["epochs"] == 2
    assert found["settings"]["seed"] == 0
    assert {"alpha", "beta", "learning_rate", "num_neighbors", "hidden_features", "versions"} <= set(found["settings"])
    assert (folder / FIGURE).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    height, width, _ = imread(folder / FIGURE).shape
    assert 1000 < width <= 3000
    assert 300 < height < 1500
    assert np.ptp(imread(folder / FIGURE)) > 0.5
    assert set(comparison.pictures) == (set(THREE) if name.startswith("toy") else set())


def test_the_first_split_of_a_toy_is_pictured_in_its_own_units():
    picture = small("toy-regression", ("manifold_probmix",)).pictures["manifold_probmix"]
    assert picture.grid.shape == (401, 1)
    assert picture.p.batch_shape == (401,)
    assert len(picture.train[0]) == len(picture.test[0]) == 100
    assert np.abs(picture.train[1] - picture.train[0][:, 0] ** 3).max() < 15
    picture = small("toy-classification", ("erm",)).pictures["erm"]
    assert picture.p.probs.shape == (121**2, 3)


def test_metrics_are_in_the_units_of_the_data():
    data = load("diabetes")
    split = make_split(data, 0, seed=0)
    model = SimpleNamespace(predictive=lambda x, num_samples: dist.Normal(torch.zeros(len(x)), 1.5))
    found = score([model], split, 1, metrics_for(data))
    y = split.own_units(*split.test)[1]
    loc, scale = split.y_scaler.mean_[0], split.y_scaler.scale_[0]
    np.testing.assert_allclose(found["nll"], -stats.norm(loc, 1.5 * scale).logpdf(y).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["rmse"], np.sqrt(np.mean((y - loc) ** 2)), rtol=1e-5)


def test_methods_are_paired():
    """Those of one architecture begin with the same parameters, split by split."""
    data = load("diabetes")
    still = replace(settings_for(data), learning_rate=1e-30, **SMALL)
    found = numbers(compare(data, ("erm", "mixup", "local_manifold_mixup", "probmix"), still, progress=False))
    first, *others = (metrics["nll"] for metrics in found.values())
    assert all(other == first for other in others)
    assert first[0] != first[1]


@pytest.fixture
def hopeless():
    """The name of a method that cannot be trained."""
    name = "hopeless"

    @models.register_method(name)
    class Hopeless(models.ERM):
        @classmethod
        def from_network(cls, network, likelihood, **_):
            torch.nn.init.constant_(network[0].weight, math.nan)
            return cls(network, likelihood)

    yield name
    del models.METHODS[name]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_finished_is_kept_when_a_method_fails(jobs, hopeless, tmp_path):
    told = r"hopeless on diabetes: expected finite losses, got others on splits 1 \(epoch 0\), 2 \(epoch 0\)"
    with pytest.raises(ValueError, match=told):
        small("diabetes", ("erm", "mixup", hopeless), out=tmp_path, jobs=jobs)
    found = json.loads((tmp_path / RESULTS).read_text())["methods"]
    assert list(found) == ["erm", "mixup", hopeless]
    assert found[hopeless]["nll"] == [None, None]
    kept = [name for name in ("erm", "mixup") if None not in found[name]["nll"]]
    assert kept if jobs == 2 else kept == ["erm", "mixup"]  # of two at work, one ends before the third begins
    assert all(math.isfinite(number) for name in kept for number in found[name]["nll"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [RESULTS]


@pytest.mark.faults("workers that repeat draws")
def test_processes_change_the_time_alone():
    one = small("toy-classification")
    two = small("toy-classification", jobs=2)
    assert numbers(two) == numbers(one)
    assert list(two.pictures) == list(one.pictures)
    for method, picture in two.pictures.items():
        assert torch.equal(picture.p.probs, one.pictures[method].p.probs)


def test_saving_is_atomic(tmp_path, monkeypatch):
    comparison = small("diabetes", ("erm",), out=tmp_path)
    before = (tmp_path / RESULTS).read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        comparison.save(tmp_path / RESULTS)
    assert (tmp_path / RESULTS).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [FIGURE, REPORT, RESULTS]


def filled(name: str, values: dict[str, dict[str, list[float]]]) -> Comparison:
    results = {method: Result(metrics) for method, metrics in values.items()}
    splits = len(next(iter(next(iter(values.values())).values())))
    return Comparison(load(name), ExperimentSettings(splits=splits), tuple(values), seed=0, results=results)


def printed(comparison: Comparison, styles: bool = False) -> str:
    console = Console(record=True, width=80, force_terminal=True, file=io.StringIO())
    for table in comparison.tables():
        console.print(table)
    return console.export_text(styles=styles)


def test_the_table_has_mean_deviation_and_bold_best():
    comparison = filled(
        "iris",
        {
            "erm": {"nll": [0.1, 0.3], "accuracy": [0.8, 1.0]},
            "local_probmix": {"nll": [0.12, 0.14], "accuracy": [0.7, 0.9]},
        },
    )
    text, bold = printed(comparison), printed(comparison, styles=True)
    assert "iris" in text
    assert "2 splits" in text
    assert "NLL (nats)" in text
    assert "0.200 ± 0.141" in text
    assert "0.130 ± 0.014" in text
    assert "…" not in text
    assert "\x1b[1m0.130 ± 0.014" in bold
    assert "\x1b[1m0.900 ± 0.141" in bold
    assert "\x1b[1m0.200" not in bold
    assert any("one of its 5 nearest" in note for note in comparison.notes())


def test_the_main_method_is_set_against_the_best_that_is_no_variant_of_it():
    nll = {
        "erm": [2.0, 3.0, 2.0, 3.1],
        "probmix": [4.0, 4.1, 4.0, 4.2],
        "manifold_probmix": [1.0, 2.0, 1.5, 3.2],
        "local_manifold_probmix": [0.1, 0.2, 0.1, 0.1],
    }
    comparison = filled("diabetes", {name: {"nll": values} for name, values in nll.items()})
    pair = comparison.pair("nll")
    assert (pair.method, pair.other) == ("manifold_probmix", "erm")
    d = np.subtract(nll["manifold_probmix"], nll["erm"])
    assert pair.found.difference == pytest.approx(d.mean())
    assert pair.found.std_error == pytest.approx(np.sqrt((1 / 4 + 1 / 9) * d.var(ddof=1)))
    assert "Manifold ProbMix minus" in printed(comparison)
    assert "-0.60 ± 0.31   3 of 4" in printed(comparison)
    assert any("standard error" in note for note in comparison.notes())
    apart = filled("toy-regression", {name: {"nll": values} for name, values in nll.items()})
    assert apart.pair("nll").found.std_error == pytest.approx(stats.sem(d))
    del nll["manifold_probmix"], nll["local_manifold_probmix"]
    pair = filled("diabetes", {name: {"nll": values} for name, values in nll.items()}).pair("nll")
    assert (pair.method, pair.other, pair.wins) == ("erm", "probmix", "4 of 4")


def test_methods_that_cannot_be_paired_are_not():
    one = filled("diabetes", {"erm": {"nll": [2.0, 3.0]}})
    once = filled("diabetes", {"erm": {"nll": [2.0]}, "probmix": {"nll": [3.0]}})
    for comparison in (one, once):
        assert comparison.pair("nll") is None
        assert len(comparison.tables()) == 1
        assert not any("Differences" in note for note in comparison.notes())


def test_of_a_column_that_one_split_decides_medians_are_shown():
    spread = {
        "erm": [2.0, 3.0, 2.5, 2.4, 900.0],
        "manifold_probmix": [2.6, 3.1, 2.9, 2.3, 2.2],
    }
    rmse = [4.0, 5.0, 4.5, 4.4, 4.1]
    comparison = filled("diabetes", {name: {"nll": values, "rmse": rmse} for name, values in spread.items()})
    text = printed(comparison, styles=True)
    assert "median" in text.partition("ERM")[0]
    assert "\x1b[1m2.50 [2.40, 3.00]" in text
    assert "2.60 [2.30, 2.90]" in text
    assert "4.40 ± 0.39" in text
    assert "median +0.1            2 of 5" in printed(comparison)
    told = "over 5 splits; of NLL (nats) the median [quartiles], for few numbers decide the means."
    assert comparison.notes()[0] == f"Mean ± standard deviation {told}"


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("toy-regression", {"nll": [-1234.5, 10.0], "crps": [1.5, 900.0], "rmse": [1234.5, 2.0], "mse": [1e5, 4.0]}),
        ("iris", {"nll": [0.1, 0.2], "accuracy": [0.9, 1.0], "brier": [0.1, 0.2], "ece": [0.1, 0.2]}),
    ],
)
def test_the_table_of_all_methods_fits_a_terminal(name, metrics):
    text = printed(filled(name, dict.fromkeys(METHODS, metrics)))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(sum(line.startswith(f"  {m.label} ") for line in text.splitlines()) >= 1 for m in METHODS.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ["erm", "mixop"]}, "methods: expected some of erm, .*, got mixop"),
        ({"jobs": 0}, "jobs: expected an integer >= 1, got 0"),
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
        (
            {"settings": ExperimentSettings(num_neighbors=80)},
            "num_neighbors: expected fewer than the 80 training rows, got 80",
        ),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        compare(load("toy-regression"), out=tmp_path / "out", progress=False, **arguments)
    assert not (tmp_path / "out").exists()
