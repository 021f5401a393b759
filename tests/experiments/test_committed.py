"""Committed results are finished cells, and show the same text as when they were committed."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from pyro_probmix.experiments import (
    ABLATIONS,
    CALIBRATION,
    TABLES,
    TUNED_TABLES,
    ExperimentSettings,
    ablate,
    paper_settings,
    recalibrate,
    reproduce,
    select_table,
)
from pyro_probmix.experiments.calibration.table import calibration_settings
from pyro_probmix.experiments.paper.ablations import ABLATION_SETTINGS
from pyro_probmix.experiments.paper.protocols import stock_settings, tuned_settings

FOLDER = Path(__file__).resolve().parents[2] / "tutorials" / "results"
SETTINGS = {
    "uci_paper": paper_settings,
    "uci_tuned": tuned_settings,
    "calibration": calibration_settings,
    "stocks": lambda row: stock_settings(row.split()[0]),
    **dict.fromkeys(ABLATIONS, ABLATION_SETTINGS.__getitem__),
}
CHOICES = [*((name, "paper") for name in TABLES), *((name, "tuned") for name in TUNED_TABLES)]


def committed(results: str, out: Path) -> dict:
    """The numbers of a file of results, which is copied into a folder of its own."""
    shutil.copy(FOLDER / f"{results}.json", out)
    return json.loads((out / f"{results}.json").read_text())["cells"]


@pytest.mark.parametrize(("name", "protocol"), CHOICES)
def test_a_committed_table_is_rendered_byte_for_byte(name, protocol, data_dir, tmp_path):
    table = select_table(name, protocol)
    numbers, lines = committed(table.results, tmp_path), []
    options = {"protocol": protocol, "datasets": list(table.paper)[:1], "out": tmp_path, "progress": False}
    assert reproduce(name, data_dir, report=lines.append, **options) == (table, numbers)
    assert len(lines) == len(table.columns)
    assert all(line.endswith("(kept)") for line in lines)
    for file in (f"{table.name}.md", f"{table.results}.json"):
        assert (tmp_path / file).read_bytes() == (FOLDER / file).read_bytes()


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_committed_ablation_is_rendered_byte_for_byte(name, tmp_path):
    numbers = committed(name, tmp_path)
    assert ablate(name, out=tmp_path, progress=False) == (ABLATIONS[name], numbers)
    for file in (f"{name}.md", f"{name}.json"):
        assert (tmp_path / file).read_bytes() == (FOLDER / file).read_bytes()


def test_the_committed_calibration_is_rendered_byte_for_byte(data_dir, tmp_path):
    numbers, lines = committed("calibration", tmp_path), []
    options = {"datasets": CALIBRATION.rows[-1:], "out": tmp_path, "progress": False, "report": lines.append}
    assert recalibrate(data_dir, **options) == (CALIBRATION, numbers)
    assert len(lines) == len(CALIBRATION.columns)
    assert all(line.endswith("(kept)") for line in lines)
    for file in ("calibration.md", "calibration.json"):
        assert (tmp_path / file).read_bytes() == (FOLDER / file).read_bytes()


def assert_settings(found: dict, expected: ExperimentSettings) -> None:
    """What the file says of a row is what the protocol says today, or the default where it says nothing."""
    of_today, default = (json.loads(json.dumps(asdict(settings))) for settings in (expected, ExperimentSettings()))
    assert {**default, **found} == {**of_today, "seed": 0, "data": found["data"]}


@pytest.mark.parametrize(("results", "settings"), SETTINGS.items())
def test_a_committed_cell_was_trained_as_the_protocol_says(results, settings):
    content = json.loads((FOLDER / f"{results}.json").read_text())
    for row, found in content["cells"].items():
        expected = settings(row)
        assert_settings(content["settings"]["datasets"][row], expected)
        assert all(len(values) == expected.splits for metrics in found.values() for values in metrics.values())
