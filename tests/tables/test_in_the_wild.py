"""Tables as exports and public sets have them are read rightly, or refused by row and cell."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

from pyro_probmix.datasets import load_table
from pyro_probmix.tables import Preparation, TableWarning

LAST = "Concrete compressive strength(MPa, megapascals)"
COUNT = np.arange(120.0)

# Target, options, names of features, first targets, and what is said.
READ = {
    "qmark_target.csv": (
        "y",
        {"na": ["?"]},
        ["x", "z"],
        [0.5, 1.5],
        r'"y": rows without a target are dropped: 3 cells',
    ),
    "dash_missing.csv": ("y", {}, ["x", "z", "z=(missing)"], [0.5, 1.5], '"z": 3 cells "-" as missing'),
    "currency.csv": ("y", {}, ["x"], [100, 101], '"y": 120 cells with a currency'),
    "quoted_nums.csv": ("y", {}, ["x"], [0.5, 1.5], None),
    "minus999.csv": ("y", {}, ["x"], [0.5, 1.5], '"y": -999 comes 1 time, far from all other numbers'),
    "header_space.csv": ("y", {}, ["x"], [0.5, 1.5], None),
    "dup_names.csv": ("y", {}, ["x", "x.2"], [0.5, 1.5], 'more than one column named "x"; the others are "x.2"'),
    "index_col.csv": ("y", {}, ["x"], [0.5, 1.5], r'columns dropped: "unnamed 1" \(counts the rows\)'),
    "empty_col.csv": ("y", {}, ["x"], [0.5, 1.5], r'columns dropped: "e" \(empty\)'),
    "bool_yn.csv": ("y", {}, ["x"], [0.5, 1.5], None),
    "two_targets.csv": ("Y1", {}, ["X1", "X2", "Y2"], [4.25, 9.94], r'target "Y1" is determined.*"Y2" \(exactly\)'),
    "semicolons.csv": ("quality", {}, ["fixed acidity", "pH", "alcohol"], [6, 3], "cells separated by ;"),
    "decimal_comma.csv": ("PE", {}, ["Temp"], [486.49, 435.4], '"," as the decimal sign'),
    "blanks.csv": (-1, {"header": False}, [f"column {i}" for i in range(1, 5)], [0.99527917, 0.92539416], "blanks"),
    "no_header.csv": (1, {"header": False}, ["column 1"], [0.5, 1.5], None),
    "long_headers.csv": (
        LAST,
        {},
        [
            "Cement (component 1) (kg in a m^3 mixture)",
            "Water (component 4)(kg in a m^3 mixture)",
            "Age (day)",
        ],
        [29.2, 25.03],
        None,
    ),
}
DATES = ["Date", *(f"Date {wave}({part})" for part in ("year", "week") for wave in ("sin", "cos"))]
READ["dates.csv"] = ("Close", {}, [*DATES, "Open", "Volume"], [100.521528, 91.330171], None)

REFUSED = {
    "qmark_target.csv": ("y", r'"y": expected numbers.*3 cells \(row 9: "\?", row 49: "\?", row 89: "\?"\).*na='),
    "trailing_total.csv": ("y", 'row 92: expected a row like the others, got "Total" in the column "x"'),
    "blanks.csv": (-1, r"names of the columns in the first row, got the number.*--no-header"),
    "no_header.csv": (1, r"names of the columns in the first row, got the number.*--no-header"),
}


def test_each_table_is_read_or_refused_here(wild):
    listed = set(re.findall(r"^\| (\S+\.csv)", (wild / "README.md").read_text(), re.MULTILINE))
    assert {path.name for path in wild.glob("*.csv")} == listed == READ.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", READ)
def test_read(name, wild):
    target, options, features, first, message = READ[name]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", TableWarning)
        table = load_table(wild / name, target, **options)
        preparation = Preparation.fit(table.features)
    assert table.task == "regression"
    assert list(preparation.feature_names) == features
    assert table.target[:2].tolist() == first
    assert np.isfinite(preparation.transform(table.features)).all()
    if message is not None:
        notes = [*table.notes, *preparation.notes]
        assert any(re.search(message, note) for note in notes)
        assert all(str(warning.message) in notes for warning in said)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, wild):
    target, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        load_table(wild / name, target)


def test_a_column_of_yes_and_no_is_zero_and_one(wild):
    table = load_table(wild / "bool_yn.csv", "y")
    x = Preparation.fit(table.features).transform(table.features)[:, 0]
    np.testing.assert_array_equal(x, COUNT % 2 == 0)


def test_a_column_left_out_tells_nothing(wild):
    with pytest.warns(TableWarning, match='"X1"') as said:
        load_table(wild / "two_targets.csv", "Y1", drop=["Y2"])
    assert not any("Y2" in str(warning.message) for warning in said)
