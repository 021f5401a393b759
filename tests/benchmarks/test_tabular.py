"""The benchmark on tables runs where nothing but this package is installed, and says what it leaves out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyro.distributions as dist
import torch

from tests.benchmarks.tables import CLASSIFICATION, REGRESSION, SourceTable
from tests.benchmarks.tabular import METRICS, cell, summary

SCRIPT = Path(__file__).with_name("tabular.py")


def marginal(split):
    """The law of the targets, whatever the features."""
    y, size = torch.as_tensor(split.y), len(split.test_y)
    return dist.Normal(y.mean().expand(size), y.std().expand(size))


def test_a_cell_has_scores_of_each_split_and_a_summary_tells_who_is_best():
    found = cell(REGRESSION["diabetes"], marginal, False, rows=442)
    assert {len(found[name]) for name in (*METRICS["regression"], "seconds")} == {3}
    worse = {**found, "nll": [value + 1 for value in found["nll"]]}
    lines = summary({"diabetes": {"wide": worse, "right": found}}, METRICS["regression"]).splitlines()
    assert lines[0].split() == ["wide", "right"]
    assert lines[2].split() == ["best", "on", "0", "1"]


def test_half_of_the_tables_are_for_choosing():
    for tables in (REGRESSION, CLASSIFICATION):
        assert 2 * sum(table.choosing for table in tables.values()) == len(tables)
    assert isinstance(REGRESSION["diabetes"], SourceTable)


def test_what_is_not_installed_is_left_out_by_name(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--tables", "diabetes", "--methods", "ngboost"]
    hidden = f"import runpy, sys; sys.modules['ngboost'] = None; sys.argv = {command[1:]!r}; "
    code = f"{hidden}runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "diabetes, ngboost: left out, for ngboost is not installed\n"
    assert not list(tmp_path.iterdir())
    (tmp_path / "diabetes.probmix.json").write_text(
        json.dumps({"rows": 442, "nll": [5.0], "crps": [30.0], "coverage@0.9": [0.9], "seconds": [1.0]})
    )
    done = subprocess.run([*command, "--show"], capture_output=True, text=True, check=True)
    assert "probmix" in done.stdout
