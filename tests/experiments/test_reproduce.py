"""A reproduction computes each cell once, keeps what is finished, and says how ours compare with the paper's."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from pyro_probmix.experiments import (
    METHODS,
    TABLES,
    ExperimentSettings,
    draw_picture,
    paper_settings,
    reproduce,
    select_datasets,
)
from pyro_probmix.experiments.store import CellStore
from pyro_probmix.training import compiled

RESULTS = "uci_paper.json"

QUICK = {"splits": 2, "epochs": 2, "num_samples": 3, "hidden_features": (8, 4), "progress": False}
TWO = ("probmix", "local_manifold_probmix_separate_variance")


@pytest.fixture
def trained():
    """The cells that are trained, and not kept: what a run reports."""

    class Trained(list):
        def __call__(self, line):
            if not line.endswith("(kept)"):
                self.append(line.partition(":")[0])

    return Trained()


def on_yacht(*methods):
    return [f"yacht, {METHODS[method].label}" for method in methods]


def run(name, data_dir, out, **options):
    options = {"datasets": ["yacht"], "methods": TWO, **QUICK, **options}
    return reproduce(name, data_dir, out=out, **options)


def test_a_reproduction_end_to_end(data_dir, tmp_path):
    lines = []
    _, cells = run("table1", data_dir, tmp_path / "new" / "folder", methods=tuple(METHODS), report=lines.append)
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["cells", "table1.md", "table1.png", RESULTS]
    written = json.loads((folder / RESULTS).read_text())
    assert list(written) == ["settings", "runs", "cells"]
    assert written["cells"] == cells
    assert list(cells) == ["yacht"]
    assert list(cells["yacht"]) == list(METHODS)
    for metrics in cells["yacht"].values():
        assert list(metrics) == ["nll", "crps", "rmse"]
        assert all(len(values) == 2 and all(map(math.isfinite, values)) for values in metrics.values())
    assert written["settings"]["protocol"] == "paper"
    assert written["settings"]["datasets"]["yacht"]["epochs"] == 2
    assert written["settings"]["datasets"]["yacht"]["seed"] == 0
    run_of_one = written["runs"]["yacht"]["erm"]
    assert list(run_of_one) == ["versions", "device", "compile", "seconds"]
    assert "torch" in run_of_one["versions"]
    assert len(lines) == len(METHODS)
    assert (folder / "table1.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    text = (folder / "table1.md").read_text()
    assert "splits = 2, epochs = 2" in text
    assert "| yacht | ours |" in text
    assert "not run" in text


def test_what_is_finished_is_not_computed_again(data_dir, tmp_path, trained):
    _, first = run("table1", data_dir, tmp_path, report=trained)
    assert trained == on_yacht(*TWO)
    _, again = run("table1", data_dir, tmp_path, report=trained)
    _, rmse = run("table3", data_dir, tmp_path, report=trained)
    assert again == rmse == first
    assert len(trained) == 2
    _, more = run("table1", data_dir, tmp_path, methods=["erm"], report=trained)
    assert trained[2:] == on_yacht("erm")
    assert list(more["yacht"]) == ["erm", *TWO]


@pytest.mark.faults("workers that repeat draws")
@pytest.mark.parametrize("protocol", ["paper", "tuned"])
def test_jobs_change_the_time_alone(protocol, data_dir, tmp_path):
    """Whether processes share the replicas of one cell, up to rounding, or take cells in turn."""
    options = {"protocol": protocol, "methods": ["erm", "manifold_probmix"], "splits": 3}
    _, one = run("table1", data_dir, tmp_path / "1", **options)
    _, shared = run("table1", data_dir, tmp_path / "2", jobs=2, **options | {"methods": ["manifold_probmix"]})
    _, two = run("table1", data_dir, tmp_path / "3", jobs=2, **options)
    for metric, values in one["yacht"]["manifold_probmix"].items():
        assert shared["yacht"]["manifold_probmix"][metric] == pytest.approx(values, rel=1e-4)
    assert two == one
    _, again = run("table1", data_dir, tmp_path / "1", jobs=2, report=(lines := []).append, **options)
    assert again == one
    assert lines[0].endswith("(kept)")


def test_compiled_cells_are_the_cells(data_dir, tmp_path, monkeypatch):
    graphs = []
    monkeypatch.setenv("CXX", sys.executable)  # no compiler is needed
    monkeypatch.setattr(compiled, "COMPILED_FROM", 0)
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graphs.append(graph) or graph)
    _, plain = run("table1", data_dir, tmp_path / "1")
    assert not graphs
    _, ours = run("table1", data_dir, tmp_path / "2", compile=True)
    assert graphs
    assert ours == plain
    told = [
        json.loads((tmp_path / n / "cells/uci_paper/yacht/probmix.json").read_text())["run"]["compile"] for n in "12"
    ]
    assert told == [False, True]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 3}, r"epochs 2, not 3"),
        ({"seed": 1, "splits": 3}, r"seed 0, not 1; splits 2, not 3"),
        ({"beta": 0.5}, r"beta 1e-05, not 0.5"),
        ({"epochs": 3, "datasets": ["bostonHousing"]}, r"epochs 2, not 3"),
    ],
)
@pytest.mark.parametrize("alone", [False, True], ids=["with cells", "results alone"])
def test_what_is_finished_is_not_overwritten(alone, change, told, data_dir, tmp_path, trained):
    """By cells of other settings, whether it is in files of its own or in the file of all."""
    run("table1", data_dir, tmp_path)
    if alone:
        shutil.rmtree(tmp_path / "cells")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(
        ValueError, match=rf"json: expected .* on yacht of these settings, got others \({told}\); choose another"
    ):
        run("table1", data_dir, tmp_path, report=trained, **change)
    assert not trained
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.fixture
def store(tmp_path):
    settings = {"yacht": ExperimentSettings()}
    return CellStore(tmp_path, "name", "paper", ("erm", "mixup"), settings, {"yacht": "sum"}, 0, {})


def test_the_first_of_two_processes_keeps_a_cell(store, tmp_path):
    """Both have seen an empty folder; the later one loses its cell, or is told of other settings."""
    store.save("yacht", "erm", {"nll": [1.0]}, 1.0)
    store.save("yacht", "erm", {"nll": [2.0]}, 1.0)
    assert store.load() == {"yacht": {"erm": {"nll": [1.0]}}}
    with pytest.raises(ValueError, match=r"of these settings, got others \(seed 0, not 1\)"):
        replace(store, seed=1).save("yacht", "erm", {"nll": [3.0]}, 1.0)
    assert store.collect() == {"yacht": {"erm": {"nll": [1.0]}}}
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_cell_from_before_a_setting_has_its_default(store, tmp_path):
    store.save("yacht", "erm", {"nll": [1.0]}, 1.0)
    path = tmp_path / "cells" / "name" / "yacht" / "erm.json"
    content = json.loads(path.read_text())
    del content["settings"]["network"]
    path.write_text(json.dumps(content))
    assert store.load() == {"yacht": {"erm": {"nll": [1.0]}}}
    with pytest.raises(ValueError, match=r"of these settings, got others \(network mlp, not lstm\)"):
        replace(store, settings={"yacht": ExperimentSettings(network="lstm")}).load()


def test_a_table_has_the_cells_that_another_process_finished_while_it_was_written(store):
    store.save("yacht", "erm", {"nll": [1.0]}, 1.0)
    shown = []

    def write(cells):
        shown.append(list(cells["yacht"]))
        store.save("yacht", "mixup", {"nll": [2.0]}, 1.0)

    assert list(store.collect(write)["yacht"]) == ["erm", "mixup"]
    assert shown == [["erm"], ["erm", "mixup"]]


def test_a_folder_that_cannot_be_is_noticed_before_training(data_dir, tmp_path, trained):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "in" / "it"):
        with pytest.raises(OSError, match="file"):
            run("table1", data_dir, out, report=trained)
        with pytest.raises(OSError, match="file"):
            draw_picture("figure2", out=out)
    assert not trained
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_published_results_are_finished_cells(data_dir, tmp_path, trained):
    """A folder with the file of results alone: what it has is kept, what it lacks is added."""
    run("table1", data_dir, tmp_path, methods=TWO[:1])
    runs = json.loads((tmp_path / RESULTS).read_text())["runs"]
    shutil.rmtree(tmp_path / "cells")
    run("table1", data_dir, tmp_path, report=trained)
    assert trained == on_yacht(TWO[1])
    content = json.loads((tmp_path / RESULTS).read_text())
    assert list(content["cells"]["yacht"]) == list(TWO)
    assert content["runs"]["yacht"][TWO[0]] == runs["yacht"][TWO[0]]


def test_a_stopped_run_goes_on_where_it_was(data_dir, tmp_path, trained):
    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("table1", data_dir, tmp_path, report=stop)
    kept = json.loads((tmp_path / RESULTS).read_text())["cells"]
    assert list(kept["yacht"]) == [TWO[0]]
    _, resumed = run("table1", data_dir, tmp_path, report=trained)
    _, whole = run("table1", data_dir, tmp_path / "whole")
    assert trained == on_yacht(TWO[1])
    assert resumed == whole
    assert resumed["yacht"][TWO[0]] == kept["yacht"][TWO[0]]


def test_a_damaged_cell_is_refused(data_dir, tmp_path):
    run("table1", data_dir, tmp_path)
    path = tmp_path / "cells" / "uci_paper" / "yacht" / f"{TWO[0]}.json"
    content = path.read_bytes()
    for damaged in (content[:40], b"\xff" + content):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{TWO[0]}.json: expected the file of a cell, got another .*; remove it"):
            run("table1", data_dir, tmp_path)
    path.unlink()
    for damaged in ("{}", '{"settings": {"datasets": {}}, "runs": {}, "cells": {"yacht": {"erm": {}}}}'):
        (tmp_path / RESULTS).write_text(damaged)
        with pytest.raises(
            ValueError, match=r"uci_paper.json: expected the file of results, got another \(KeyError.*; remove it"
        ):
            run("table1", data_dir, tmp_path)


def test_a_cell_that_another_process_finishes_meanwhile_is_collected(data_dir, tmp_path, monkeypatch):
    """It is written between our look at the cells and our file of all, which overwrites the other's."""
    _, cells = run("table1", data_dir, tmp_path)
    path = tmp_path / "cells" / "uci_paper" / "yacht" / f"{TWO[0]}.json"
    content, move = path.read_text(), os.replace
    path.unlink()
    (tmp_path / RESULTS).unlink()

    def late(source, destination):
        move(source, destination)
        if destination.name == RESULTS:
            path.write_text(content)

    monkeypatch.setattr("os.replace", late)
    assert run("table1", data_dir, tmp_path, methods=TWO[1:])[1] == cells
    assert json.loads((tmp_path / RESULTS).read_text())["cells"] == cells


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "table9"}, 'name: expected one of "table1", "table2", "table3", "table4", got "table9"'),
        ({"methods": ["mixop"]}, "methods: expected some of erm, .*, got mixop"),
        ({"datasets": ["boston"]}, "datasets: expected some of bostonHousing, .*, got boston"),
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
        ({"epochs": 0}, "epochs: expected an integer >= 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, message, data_dir, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(arguments.pop("name", "table1"), data_dir, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_missing_data_set_is_told_before_any_training(data_dir, tmp_path, trained):
    (tmp_path / "uci" / "yacht").mkdir(parents=True)
    (tmp_path / "uci" / "yacht" / "data.txt").write_bytes((data_dir / "uci" / "yacht" / "data.txt").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"kin8nm/data\.txt"):
        run("table1", tmp_path, tmp_path / "out", datasets=["yacht", "kin8nm"], report=trained)
    assert not trained
    assert not (tmp_path / "out").exists()


def test_the_settings_are_the_papers():
    for name in select_datasets(",".join(TABLES["table1"].paper)):
        settings = paper_settings(name)
        assert (settings.hidden_features, settings.learning_rate, settings.splits) == ((128, 32), 0.005, 20)
        assert (settings.validation_fraction, settings.num_neighbors) == (0.2, 5)
        assert (settings.alpha, settings.beta) == (paper_settings("yacht").alpha, paper_settings("yacht").beta)
        assert settings.epochs == (200 if name in {"kin8nm", "naval-propulsion-plant", "power-plant"} else 1000)


def stored(**datasets: dict[str, float]) -> dict:
    """Cells with the given means over two splits; every other column is worse."""
    return {
        name.replace("_", "-"): {
            method: {"nll": [found.get(method, 9.0) - 0.1, found.get(method, 9.0) + 0.1]} for method in METHODS
        }
        for name, found in datasets.items()
    }


def test_the_claims_are_counted_on_what_has_been_run():
    cells = stored(
        yacht={"probmix": 0.2, "erm": 0.5}, energy={"erm": 1.0, "manifold_probmix": 1.05}, concrete={"erm": 1.0}
    )
    cells["kin8nm"] = {"erm": {"nll": [-1.14, -1.14]}}
    below, best, near, manifold = TABLES["table1"].claims(cells)
    assert below.holds == ("ERM on energy", "ERM on concrete", "ProbMix on yacht", "ERM on kin8nm")
    assert len(below.fails) == 3 * len(METHODS) + 1 - 4
    assert (best.holds, best.fails) == (("yacht",), ("energy", "concrete"))
    assert (near.holds, near.fails) == (("energy", "yacht"), ("concrete",))
    assert (manifold.holds, manifold.fails) == (("energy",), ("concrete", "yacht"))
    assert str(best).endswith("1 of 3; not energy, concrete")


def test_the_tables_show_ours_beside_the_papers():
    cells = stored(yacht={"probmix": 0.2})
    text = TABLES["table1"].markdown(cells, "These are notes.")
    table = text.partition("The best mean")[0].splitlines()
    rows = {line.split(" | ")[0]: line for line in table if line.startswith("|")}
    assert "| **0.20 ± 0.14** |" in rows["| yacht"]
    assert rows["| bostonHousing"].count("not run") == len(METHODS)
    assert "**2.52 ± 0.21**" in text
    assert "These are notes." in text
    console = Console(record=True, width=80, force_terminal=True, file=io.StringIO())
    for panel in TABLES["table1"].terminal(cells):
        console.print(panel)
    bold = console.export_text(styles=True)
    assert "\x1b[1m0.20\x1b[0m  (1.39)" in bold
    assert "…" not in bold


def test_a_table_sets_the_main_method_against_the_best_of_the_others():
    cells = stored(yacht={"probmix": 0.5, "manifold_probmix": 0.3, "local_manifold_probmix": 0.2})
    cells["energy"] = {"erm": {"nll": [1.0, 2.0]}}
    cells["concrete"] = {"erm": {"nll": [1.0, 2.0, 1.0]}, "manifold_probmix": {"nll": [1.5, 1.1, 500.0]}}
    text = TABLES["table1"].markdown(cells, "These are notes.")
    pairs = """
| data set | Manifold ProbMix minus | difference | splits won |
|---|---|--:|--:|
| concrete | ERM | median +0.5 | 1 of 3 |
| yacht | ProbMix | -0.200 ± 0.000 | 2 of 2 |

The other method is the best"""
    assert pairs in text
    (median,) = (line for line in text.splitlines() if "ours, median" in line)
    assert median.startswith("| | ours, median | **1.00** |")
    assert "1.50" in median
    assert not any(TABLES["table1"].pairs({}).values())
    assert "minus" not in TABLES["table1"].markdown({}, "These are notes.")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_a_terminal_of_80_characters(name):
    table, numbers = TABLES[name], [-1234.5, 1234.56, 9999.99]
    cells = {row: {method: {table.metric: numbers} for method in METHODS} for row in table.rows}
    console = Console(record=True, width=80, file=io.StringIO())
    for panel in table.terminal(cells):
        console.print(panel)
    text = console.export_text()
    assert "…" not in text
    assert text.count("Local ProbMix  ") > 1
    assert "naval" in text or "transformer RCL" in text


def test_a_metric_the_paper_scaled_is_scaled_alike():
    cells = {"kin8nm": {"erm": {"rmse": [0.07, 0.08]}}, "yacht": {"erm": {"rmse": [0.7, 0.8]}}}
    table = TABLES["table3"]
    assert table.means(cells, "kin8nm") == pytest.approx({"erm": 7.5})
    assert table.means(cells, "yacht") == pytest.approx({"erm": 0.75})
    assert table.paper["kin8nm"]["erm"] == [7.41, 0.34]
    assert np.shape(table.values(cells, "kin8nm", "erm")) == (2,)


@pytest.mark.parametrize("network", ["lstm", "transformer"])
def test_a_stock_is_trained_on_by_either_network(network, data_dir, tmp_path):
    options = {"datasets": [f"{network} GOOG"], "methods": ["manifold_mixup", "local_manifold_probmix"], "epochs": 1}
    table, cells = run("table2", data_dir, tmp_path, **{**options, "batch_size": None})
    assert json.loads((tmp_path / "stocks.json").read_text())["cells"] == cells
    assert list(cells) == [f"{network} GOOG"]
    assert list(cells[f"{network} GOOG"]) == options["methods"]
    assert "probmix" in table.columns
    assert not any(name.endswith("separate_variance") for name in table.columns)
    assert len(table.paper) == 8
    assert not any("the paper's" in claim.text for claim in table.claims(cells))
    settings = json.loads((tmp_path / "stocks.json").read_text())["settings"]["datasets"][f"{network} GOOG"]
    assert (settings["network"], settings["learning_rate"]) == (network, 0.0005)
    text = (tmp_path / "table2.md").read_text()
    assert "order of the methods" in text.replace("\n", " ")
    assert f"| {network} GOOG | ours |" in text
