"""Committed results are finished cells, and show the same text as when they were committed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pyro_probmix.experiments import ABLATIONS, TABLES, TUNED_TABLES, ablate, reproduce, select_table

FOLDER = Path(__file__).resolve().parents[2] / "tutorials" / "results"
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
    assert (tmp_path / f"{table.name}.md").read_bytes() == (FOLDER / f"{table.name}.md").read_bytes()


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_committed_ablation_is_rendered_byte_for_byte(name, tmp_path):
    numbers = committed(name, tmp_path)
    assert ablate(name, out=tmp_path, progress=False) == (ABLATIONS[name], numbers)
    assert (tmp_path / f"{name}.md").read_bytes() == (FOLDER / f"{name}.md").read_bytes()
