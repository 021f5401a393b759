"""A user's CSV becomes features and a target by documented rules, or is refused by name, row and column."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_probmix.datasets import load_csv


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "table.csv"
        path.write_text(text)
        return path

    return write


def test_numbers_booleans_and_text_become_columns(write):
    path = write("size,new,town,price\n1.5,True,Rome,10\n2.5,False,Bonn,20.5\n3.5,True,Rome,30\n")
    data = load_csv(path, "price")
    assert data.name == "table.csv"
    assert data.task == "regression"
    assert data.feature_names == ("size", "new", "town=Bonn", "town=Rome")
    np.testing.assert_array_equal(data.x, [[1.5, 1, 0, 1], [2.5, 0, 1, 0], [3.5, 1, 0, 1]])
    np.testing.assert_array_equal(data.y, [10, 20.5, 30])


@pytest.mark.parametrize(
    ("values", "task", "y"),
    [
        (["0.5", "1", "2"], "regression", [0.5, 1, 2]),
        (["3", "1", "2"], "regression", [3, 1, 2]),
        (["1.0", "0.0", "1.0"], "regression", [1, 0, 1]),
        (["4", "2", "4"], "classification", [1, 0, 1]),
        (["no", "yes", "no"], "classification", [0, 1, 0]),
        (["True", "False", "True"], "classification", [1, 0, 1]),
    ],
)
def test_rule_for_the_task(values, task, y, write):
    path = write("\n".join(["x,t", *(f"{i},{value}" for i, value in enumerate(values))]))
    data = load_csv(path, "t")
    assert data.task == task
    np.testing.assert_array_equal(data.y, y)
    assert data.y.dtype == (np.float64 if task == "regression" else np.int64)


def test_task_overrides_the_rule(write):
    path = write("x,t\n0,10\n1,30\n2,20\n3,10\n")
    data = load_csv(path, "t", task="classification")
    assert data.class_names == ("10", "20", "30")
    np.testing.assert_array_equal(data.y, [0, 2, 1, 0])
    path = write("x,t\n0,1\n1,0\n")
    assert load_csv(path, "t", task="regression").y.dtype == np.float64


REFUSED = {
    "unknown target": ("a,b\n1,2\n", "c", {}, "target: expected a column of.*a, b, got 'c'"),
    "nothing but the target": ("a\n1\n", "a", {}, "expected a column besides the target 'a', got none"),
    "missing values": (
        "a,b,c\n1,2,x\n,3,\n4,5,z\n6,,w\n",
        "b",
        {},
        r"column\(s\) a, b, c, rows \[1, 3\] \(2 rows",
    ),
    "infinite values": ("a,b\n1,2\ninf,3\n", "b", {}, r"column\(s\) a, rows \[1\]"),
    "text regression": (
        "a,b\n1,u\n2,v\n",
        "b",
        {"task": "regression"},
        "expected numbers in 'b', the target of a regression, got",
    ),
    "unknown task": ("a,b\n1,2\n", "b", {"task": "ranking"}, 'task: expected one of.*got "ranking"'),
    "one class": ("a,b\n1,u\n2,u\n", "b", {}, "at least two"),
    "no rows": ("a,b\n", "b", {}, "expected rows below the header, got none"),
    "empty file": ("", "b", {}, "expected a CSV table with a header, got another"),
    "ragged": ("a,b\n1,2\n1,2,3,4\n", "b", {}, "expected a CSV table with a header, got another"),
    "more fields than names": ("a,b,y\n9,1,2,3.5\n8,4,5,6\n", "y", {}, "got rows that have more fields than it"),
    "identifiers": (
        "a,b\n" + "".join(f"id{i},{i}\n" for i in range(101)),
        "b",
        {},
        "100 categories at most in the text column 'a', got 101",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, write):
    text, target, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        load_csv(write(text), target, **options)


def test_a_comma_at_the_end_of_a_row_is_no_field(write):
    table = load_csv(write("a,y\n9,1.5,\n8,4,\n"), "y")
    np.testing.assert_array_equal(table.x, [[9], [8]])
    np.testing.assert_array_equal(table.y, [1.5, 4])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: expected a file, got none"):
        load_csv(tmp_path / "nowhere.csv", "y")


def test_without_pandas_the_error_names_the_extra(write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pyro-probmix\[experiments\]"):
        load_csv(write("a,b\n1,2\n"), "b")


def test_a_column_of_numbers_and_words_has_each_category_once(tmp_path):
    """However long the file is."""
    path, n, columns = tmp_path / "mixed.csv", 20_000, 64
    front = ",".join("1" * (columns - 2))
    rows = [f"{front},{i % 3},0.5" for i in range(n - 1)] + [f"{front},x,0.5"]
    path.write_text("\n".join([",".join([f"f{i}" for i in range(columns - 2)] + ["c", "y"]), *rows]) + "\n")
    names = [name for name in load_csv(path, "y").feature_names if name.startswith("c=")]
    assert names == ["c=0", "c=1", "c=2", "c=x"]
