"""A table's report shows its columns as they were read, not the features that are made of them."""

from __future__ import annotations

import pytest

from pyro_probmix.datasets import load_table
from pyro_probmix.experiments import ExperimentSettings, compare
from pyro_probmix.reports import REPORT
from pyro_probmix.tables import TableWarning
from tests.reports.test_evaluation_report import check


def test_columns_are_shown_by_kind(tmp_path):
    rows = [f"{k},{10.5 + k * k % 7},{'north' if k % 3 else '<b>south</b>'},{k % 5}" for k in range(1, 61)]
    (tmp_path / "homes.csv").write_text("\n".join(["id,area,street,price", *rows]))
    with pytest.warns(TableWarning, match='columns dropped: "id"'):
        data = load_table(tmp_path / "homes.csv", "price", task="regression").dataset()
    assert data.columns == {"area": "number", "street": "category", "id": "left out: counts the rows"}
    settings = ExperimentSettings(splits=2, epochs=2, num_samples=3, hidden_features=(8, 4))
    compare(data, ["erm"], settings, out=tmp_path / "out", progress=False)
    page = check(tmp_path / "out" / REPORT)
    for text in ("1 number, 1 category, 1 left out: counts the rows", "street", "homes.csv"):
        assert text in page.text
    assert "street=north" not in page.text
