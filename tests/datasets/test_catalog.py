"""One front: every name loads, everything else is refused with the legal names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from pyro_probmix.datasets import BUNDLED, NAMES, UCI, Dataset, load, load_bundled

SKLEARN = {
    "breast-cancer": load_breast_cancer,
    "diabetes": lambda: load_diabetes(scaled=False),
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
}


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_are_scikit_learns(name):
    data, bunch = load(name), SKLEARN[name]()
    np.testing.assert_array_equal(data.x, bunch.data)
    np.testing.assert_array_equal(data.y, bunch.target)
    assert data.task == ("regression" if name == "diabetes" else "classification")
    assert data.num_classes == (0 if name == "diabetes" else len(bunch.target_names))
    assert data.feature_names == tuple(bunch.feature_names)


@pytest.mark.parametrize("name", UCI)
def test_uci_sets_by_name(name, data_dir):
    assert load(name, data_dir).name == name


@pytest.mark.parametrize("name", ["toy-regression", "toy-classification"])
def test_toys_by_name(name):
    assert load(name).name == name
    assert len(load(name)) == 100


def test_csv_by_path(tmp_path):
    path = tmp_path / "MY.CSV"
    path.write_text("a,b\n1,2\n2,0\n5,4\n")
    assert load(str(path), target="b").y.tolist() == [2, 0, 4]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "csv.gz", "parquet", "xlsx"])
def test_tables_by_path(suffix, tmp_path):
    path = tmp_path / f"table.{suffix}"
    frame = pd.DataFrame({"a": [1, 2, 5], "b": [2.5, 0, 4]})
    if suffix in ("parquet", "xlsx"):
        frame.to_parquet(path) if suffix == "parquet" else frame.to_excel(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    assert load(str(path), target="b").y.tolist() == [2.5, 0, 4]


REFUSED = {
    "unknown": (
        "bosten",
        {},
        "name: expected one of " + ", ".join(NAMES) + ', or a path ending in .csv, .tsv, .*, got "bosten"',
    ),
    "target of a named set": ("iris", {"target": "y"}, "target, task: expected none"),
    "task of a named set": ("yacht", {"task": "regression"}, "target, task: expected none"),
    "csv without target": ("a.csv", {}, "target: expected the target column of a.csv, --target NAME"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    name, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        load(name, **options)


def test_unknown_bundled_name():
    with pytest.raises(ValueError, match=r'name: expected one of "breast-cancer".*, got "boston"'):
        load_bundled("boston")


X, Y = np.zeros((3, 2)), np.zeros(3)
BAD_DATA = {
    "column target": ((X, Y[:, None], "regression"), r"y \(n,\), got \(3, 2\) and \(3, 1\)"),
    "lengths": ((X, Y[:2], "regression"), r"got \(3, 2\) and \(2,\)"),
    "nan": ((np.array([[0.0], [np.nan], [np.inf]]), Y, "regression"), r"rows \[1, 2\]"),
    "nan target": ((X, np.array([0, 1, np.nan]), "regression"), r"rows \[2\]"),
    "task": ((X, Y, "ranking"), "task: expected one of"),
    "names": ((X, Y, "regression", ("a",)), "expected feature_names of 2 columns, got 1"),
    "splitting": (
        (X, Y, "regression", (), (), "first"),
        'splitting: expected one of "random", "drawn", "last", got "first"',
    ),
    "float labels": ((X, Y, "classification", (), ("a", "b")), "expected integer labels y"),
    "label range": ((X, np.array([0, 1, 2]), "classification", (), ("a", "b")), r"got 0\.\.2"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused(case):
    arguments, message = BAD_DATA[case]
    with pytest.raises(ValueError, match=message):
        Dataset("bad", *arguments)
