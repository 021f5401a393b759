"""A user's table becomes features and a target by documented rules, or is refused by name, row and column."""

from __future__ import annotations

import re
import sys

import numpy as np
import pandas as pd
import pytest

from pyro_probmix.datasets import Table, load_table
from pyro_probmix.tables import Preparation, TableWarning

quiet = pytest.mark.filterwarnings("ignore::pyro_probmix.tables.TableWarning")


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "table.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


HOMES = "size,new,town,price\n1.5,True,Rome,10\n2.5,False,Bonn,20.5\n3.5,True,Rome,30\n"


def test_numbers_booleans_and_text_become_columns(write):
    table = load_table(write(HOMES), "price")
    assert table.name == "table.csv"
    assert table.task == "regression"
    assert table.target_name == "price"
    assert table.features.dtypes.map(str).to_dict() == {"size": "float64", "new": "boolean", "town": "category"}
    assert table.features.index.tolist() == [2, 3, 4]
    np.testing.assert_array_equal(table.target, [10, 20.5, 30])
    data = table.dataset()
    assert data.feature_names == ("size", "new", "town=Bonn", "town=Rome")
    np.testing.assert_array_equal(data.x[:, 1:], [[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(data.y, [10, 20.5, 30])


@pytest.mark.parametrize(
    ("values", "task", "target", "y"),
    [
        (["0.5", "1", "2"], "regression", [0.5, 1, 2], [0.5, 1, 2]),
        (["3", "1", "2"], "regression", [3, 1, 2], [3, 1, 2]),
        (["1.0", "0.0", "1.0"], "regression", [1, 0, 1], [1, 0, 1]),
        (["4", "2", "4"], "classification", [4, 2, 4], [1, 0, 1]),
        (["no", "yes", "no"], "classification", ["no", "yes", "no"], [0, 1, 0]),
        (["True", "False", "True"], "classification", ["True", "False", "True"], [1, 0, 1]),
    ],
)
def test_rule_for_the_task(values, task, target, y, write):
    table = load_table(write("\n".join(["x,t", *(f"{i},{value}" for i, value in enumerate(values))])), "t")
    assert table.task == task
    assert table.target.tolist() == target
    data = table.dataset()
    np.testing.assert_array_equal(data.y, y)
    assert data.y.dtype == (np.float64 if task == "regression" else np.int64)


def test_task_overrides_the_rule(write):
    path = write("x,t\n0,10\n1,30\n2,20\n3,10\n")
    data = load_table(path, "t", task="classification").dataset()
    assert data.class_names == ("10", "20", "30")
    np.testing.assert_array_equal(data.y, [0, 2, 1, 0])
    assert load_table(write("x,t\n0,1\n1,0\n"), "t", task="regression").target.dtype == np.float64


@pytest.mark.parametrize(
    ("target", "name"), [(0, "a b"), (-1, "c"), ("a  b", "a b"), (" c", "c"), (["a b", "c"], ("a b", "c"))]
)
def test_a_target_is_found_by_name_or_position(target, name, write):
    table = load_table(write("a b , x,c\n1,2,3\n4,0,7\n5,2,5\n"), target)
    assert table.target_name == name
    assert table.target.shape == ((3, 2) if isinstance(name, tuple) else (3,))


def test_columns_left_out_and_those_that_name_rows_are_no_features(write):
    table = load_table(write("who,x,z,y\np,1,5,3\nq,2,6,9\nr,3,9,4\n"), "y", ids=["who"], drop=[2])
    assert list(table.features) == ["x"]
    assert table.ids["who"].tolist() == ["p", "q", "r"]


def test_kinds_that_are_given_hold(write):
    kinds = {"zip": "category", "size": "S < M < L"}
    table = load_table(write("zip,size,y\n10001,M,3\n10002,S,9\n10001,L,4\n"), "y", kinds=kinds)
    assert table.dataset().feature_names == ("zip=10001", "zip=10002", "size")
    np.testing.assert_allclose(table.dataset().x[:, 2], np.array([0, -1, 1]) / np.sqrt(2 / 3))


def test_new_rows_are_read_as_those_of_training(write):
    table = load_table(write("zip,when,x,y\n07030,1.2.2020,1,3\n10001,13.2.2020,2,9\n07030,5.3.2020,3,4\n"), "y")
    preparation = Preparation.fit(table.features, table.kinds)
    path = write("x,more,when,zip\n2,?,5.3.2020,10001\nmany,3,5.3.2020,1\n", "new.csv")
    with pytest.warns(TableWarning, match='columns that training did not have are ignored: "more"'):
        new = load_table(path, preparation=preparation)
    assert new.target is None
    with pytest.warns(TableWarning) as said:
        x = preparation.transform(new.features)
    assert [str(warning.message) for warning in said] == [
        '"zip": levels that training did not have: 1 cell (row 3: "1")',
        '"x": taken as missing, as no number: 1 cell (row 3: "many")',
    ]
    names = preparation.feature_names
    assert x[0, [names.index("zip=07030"), names.index("zip=10001")]].tolist() == [0, 1]
    np.testing.assert_allclose(x[:, names.index("when")], preparation.transform(table.features)[2, names.index("when")])
    with pytest.raises(ValueError, match=r'table.csv: expected the columns of training, got none named "zip", "when"'):
        load_table(write("x\n1\n"), preparation=preparation)


def numbered(*cells: str) -> str:
    return "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))


REFUSED = {
    "unknown target": ("a,b\n1,2\n", "c", {}, r'target: expected a column of table.csv \("a", "b"\), got "c"'),
    "nothing but the target": ("a\n1\n", "a", {}, 'expected a column besides the target "a", got none'),
    "infinite values": ("a,b\n1,2\ninf,3\n", "b", {}, r'"a": expected finite numbers, got inf in 1 cell \(row 3'),
    "text regression": ("a,b\n1,u\n2,v\n", "b", {"task": "regression"}, '"b": expected numbers.*row 2: "u"'),
    "unknown task": ("a,b\n1,2\n", "b", {"task": "ranking"}, 'task: expected one of.*got "ranking"'),
    "one class": ("a,b\n1,u\n2,u\n", "b", {}, '"b": expected two to 10 classes of 2 rows, got 1: "u"'),
    "no rows": ("a,b\n", "b", {}, "expected rows below the header, got none"),
    "empty file": ("", "b", {}, "expected a table with a header, got an empty file"),
    "ragged": ("a,b\n1,2\n1,2,3,4\n", "b", {}, "row 3: expected 2 cells, as in the header, got 4"),
    "torn": ("a,b,c\n1,2,3\n1,2\n4,5,6\n", "b", {}, "row 3: expected 3 cells, as in the header, got 2"),
    "more fields than names": ("a,b,y\n9,1,2,3.5\n8,4,5,6\n", "y", {}, "row 2: expected 3 cells.*got 4"),
    "a word among numbers": ("a,b\n1,2\n3,4\nx,5\n", "b", {}, r'table.csv: "a": expected numbers.*\(row 4: "x"\)'),
    "odd cells of the target": (
        "a,b\n" + numbered(*map(str, range(80)), "?"),
        "b",
        {},
        r'"b": expected numbers.*\(row 82: "\?"\)',
    ),
    "many classes": (
        "a,b\n" + numbered(*(f"c{i}" for i in range(30))),
        "b",
        {},
        "two to 15 classes of 30 rows, got 30",
    ),
    "dates as a target": ("a,b\n1,2020-01-01\n2,2021-02-03\n", "b", {}, "numbers or classes as the target, got dates"),
    "no target": ("a,b\n1,2\n2,\n3,9\n", "b", {}, r'"b": expected a target in each row, got 1 cell \(row 3: ""\)'),
    "units": (
        "a,b,c\nm,kg,K\n1,2,3\n2,3,9\n4,1,5\n",
        "b",
        {},
        'row 2: expected cells like those below, got "m", "K", "kg"',
    ),
    "drop of another": ("a,b\n1,2\n", "b", {"drop": ["x"]}, 'drop: expected a column of.*got "x"'),
    "kinds of another": ("a,b\n1,2\n", "b", {"kinds": {"x": "number"}}, 'kinds: expected columns among "a", "b"'),
    "a name much like another": (
        ",".join(f"column {i}" for i in range(30)) + ",price\n" + "1," * 30 + "2\n",
        "prize",
        {},
        r'"column 9", \.\.\. \(31 in all\)\), got "prize"; did you mean "price"\?$',
    ),
    "a kind that does not fit": (
        "town,y\nBonn,1\nRome,2\n",
        "y",
        {"kinds": {"town": "number"}},
        r'kinds: expected numbers in "town", got 2 cells \(row 2: "Bonn", row 3: "Rome"\)',
    ),
    "thousands or decimals": (
        "km;y\n930;1\n7.011;2\n1.333;3\n",
        "y",
        {},
        r'"km": expected numbers of one reading, got "7.011"; where it means 7011, give --decimal , .*--decimal \. ',
    ),
    "all thousands or decimals": ("km;y\n2.930;1\n7.011;2\n", "y", {}, '"km": expected numbers of one reading'),
    "a title": (
        "Homes of 2020,,\n,,\ntown,area,y\nBonn,1,2\nRome,2,5\n",
        "y",
        {},
        r'got "Homes of 2020" alone; row 3 looks like the header: .*--skip-rows 2, skip_rows=2',
    ),
    "a title without separators": ("Homes\ntown;area\nBonn;1\nRome;2\n", "area", {}, "row 2 looks like the header"),
    "negative rows": ("a,b\n1,2\n", "b", {"skip_rows": -1}, "skip_rows: expected an integer of at least 0, got -1"),
    "kind of another make": ("a,b\n1,2\n", "b", {"kinds": {"a": "text"}}, "expected one of \"number\".*got 'text'"),
    "separator": ("a,b\n1,2\n", "b", {"sep": ";;"}, "sep: expected one character.*got ';;'"),
    "encoding": ("a,b\n1,2\n", "b", {"encoding": "utf-99"}, 'encoding: expected one that is known.*got "utf-99"'),
    "classes of two targets": ("a,b,c\n1,2,3\n", ["a", "b"], {"task": "classification"}, "expected a regression"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, write):
    text, target, options, message = REFUSED[case]
    path = write(text)
    with pytest.raises(ValueError, match=message):
        load_table(path, target, **options)
    assert list(path.parent.iterdir()) == [path]


def test_a_title_is_skipped_and_rows_keep_their_numbers(write, tmp_path):
    path = write("Homes\n\ntown;area;y\nBonn;1;2\nRome;7;5\n")
    table = load_table(path, "y", skip_rows=2)
    assert table.features.index.tolist() == [4, 5]
    assert table.features["area"].tolist() == [1, 7]
    book = tmp_path / "homes.xlsx"
    cells = [["Homes", None, None], [None] * 3, ["town", "area", "y"], ["Bonn", 1, 2], ["Rome", 7, 5]]
    pd.DataFrame(cells).to_excel(book, header=False, index=False)
    pd.testing.assert_frame_equal(load_table(book, "y", skip_rows=2).features, table.features)
    with pytest.raises(ValueError, match="row 3 looks like the header"):
        load_table(book, "y")


def test_whole_numbers_that_are_dates_are_read_so(write):
    days = pd.date_range("2019-12-01", periods=40, freq="9D")
    rows = [f"{day:%Y%m%d},{(7 * i) % 11}" for i, day in enumerate(days)]
    path = write("\n".join(["day,y", *rows]) + "\n")
    with pytest.warns(TableWarning, match='"day": whole numbers such as 20200131 read as dates'):
        table = load_table(path, "y")
    assert table.features["day"].tolist() == list(days)
    numbers = load_table(path, "y", kinds={"day": "number"})
    assert numbers.features["day"].iloc[0] == 20191201
    frame = pd.DataFrame({"day": [int(f"{day:%Y%m%d}") for day in days], "y": range(40)})
    with pytest.warns(TableWarning, match="read as dates"):
        preparation = Preparation.fit(frame[["day"]])
    assert preparation.kinds == {"day": "date"}
    np.testing.assert_array_equal(
        preparation.transform(frame[["day"]].iloc[:1]), preparation.transform(frame[["day"]])[:1]
    )
    with pytest.warns(TableWarning, match='"day": taken as missing, as no date: 1 cell'):
        preparation.transform(pd.DataFrame({"day": [20201399]}))


@quiet
def test_a_comma_at_the_end_of_a_row_is_no_field(write):
    table = load_table(write("a,y\n9,1.5,\n8,4,\n"), "y")
    np.testing.assert_array_equal(table.features["a"], [9, 8])
    np.testing.assert_array_equal(table.target, [1.5, 4])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: expected a file, got none"):
        load_table(tmp_path / "nowhere.csv", "y")


@pytest.mark.parametrize(("package", "name"), [("pandas", "t.csv"), ("pyarrow", "t.parquet"), ("openpyxl", "t.xlsx")])
def test_without_a_package_the_error_names_the_extra(package, name, write, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{name} needs {package}: pip install "pyro-probmix\[tables\]"'):
        load_table(write("a,b\n1,2\n", name), "b")


def test_a_column_of_numbers_and_words_is_refused_or_has_each_category_once(write):
    """However long the file is."""
    n, columns = 20_000, 64
    front = ",".join("1" * (columns - 2))
    rows = [f"{front},{i % 3},{i % 5}.5" for i in range(n - 1)] + [f"{front},x,0.5"]
    path = write("\n".join([",".join([f"f{i}" for i in range(columns - 2)] + ["c", "y"]), *rows]) + "\n")
    with pytest.raises(ValueError, match=r'"c": expected numbers.*got 1 cell \(row 20001: "x"\)'):
        load_table(path, "y")
    table = load_table(path, "y", kinds={"c": "category"})
    with pytest.warns(TableWarning, match="columns dropped"):
        assert table.dataset().feature_names == ("c=0", "c=1", "c=2", "c=x")


TOLD = {
    "equal": (lambda y: y, "equal"),
    "a shift": (lambda y: 3 + 2 * y, "exactly"),
    "ranks": (lambda y: np.exp(y), "exactly"),
    "nearly": (lambda y: y + 0.1 * np.random.RandomState(1).normal(size=len(y)), "rank correlation 0.98"),
}


@pytest.mark.parametrize("case", TOLD)
def test_a_column_that_tells_the_target_is_said(case):
    make, how = TOLD[case]
    rng = np.random.RandomState(0)
    X = pd.DataFrame({"x": rng.normal(size=50), "y": rng.normal(size=50)})
    assert load_table(X, "y").notes == ()
    with pytest.warns(TableWarning, match=rf'the target "y" is determined, or nearly so, by "other" \({how}'):
        load_table(X.assign(other=make(X["y"].to_numpy())), "y")


@pytest.mark.parametrize("codes", [["a1", "a2", "b1"], [0.5, 0.7, 2.0]])
def test_a_column_that_tells_the_class_is_said(codes):
    rows = np.random.RandomState(0).randint(3, size=60)
    X = pd.DataFrame({"code": np.array(codes)[rows], "x": rows % 2, "y": np.array(["a", "a", "b"])[rows]})
    with pytest.warns(TableWarning, match=r'the target "y" is determined, or nearly so, by "code" \(exactly\); leave'):
        load_table(X, "y")


def test_what_chance_would_do_tells_nothing():
    rng = np.random.RandomState(0)
    rare = np.where(np.arange(2000) == 7, "ill", "well")
    X = pd.DataFrame({f"x{i}": rng.normal(size=2000) for i in range(5)})
    X = X.assign(
        first=np.r_[np.full(8, 9.0), np.zeros(1992)] + (rare == "ill"), town=rng.choice(["a", "b"], 2000), y=rare
    )
    assert load_table(X, "y").notes == ()
    outlier = np.where(np.arange(2000) == 7, 1e6, rng.normal(size=2000))
    town = np.where(np.arange(2000) == 7, "c", X["town"])
    assert load_table(X.assign(x0=outlier * 2 + rng.normal(size=2000), town=town, y=outlier), "y").notes == ()


def test_labels_keep_their_type():
    X = pd.DataFrame({"x": [1.0, 5.0, 2.0], "y": [True, False, True]})
    assert load_table(X, "y").target.dtype == bool
    table = load_table(X.assign(y=pd.Categorical(["u", "v", "u"])), "y")
    assert isinstance(table, Table)
    assert table.target.tolist() == ["u", "v", "u"]


@pytest.mark.parametrize(
    "cells", [["1", "-999", "4", "-999.0", "2"], [1, -999, 4, -999, 2], [1.0, -999.0, 4.0, np.nan, 2.0]]
)
def test_words_that_are_missing_are_so_as_numbers_too(cells):
    X = pd.DataFrame({"x": cells, "y": [2.0, 1.0, 7.0, 4.0, 3.0]})
    found = load_table(X, "y", na=["-999"]).features["x"]
    assert found.isna().tolist() == [False, True, False, True, False]
    with pytest.warns(TableWarning, match=r'"x": rows without a target are dropped: 2 cells \(row 1: "?-999'):
        table = load_table(X, "x", na=["-999", ""])
    assert table.target.tolist() == [1, 4, 2]
    assert table.features["y"].tolist() == [2, 7, 3]


def test_rows_without_a_cell_are_none(write):
    table = load_table(write("x,y\n1,2\n,\n3,5\n4,4\n , \n"), "y")
    assert table.features.index.tolist() == [2, 4, 5]


@pytest.mark.parametrize("form", ["%m/%d/%Y", "%d/%m/%Y", "%d.%m.%y"])
def test_one_new_date_is_read_as_those_of_training(form, write):
    days = pd.date_range("2020-01-05", periods=60, freq="5D")
    cells = days.strftime(form)
    table = load_table(write("day,y\n" + "".join(f"{cell},{7 * i % 11}\n" for i, cell in enumerate(cells))), "y")
    preparation = Preparation.fit(table.features[table.target >= 0])
    assert preparation.columns[0].form == form
    for i in (0, 7, 15):  # some could be read the other way round
        new = load_table(write(f"day\n{cells[i]}\n", "new.csv"), preparation=preparation)
        assert new.features["day"].tolist() == [days[i]]
    with pytest.warns(TableWarning, match=f'"day": dates read as %d %b %Y, as none is written like .*, {form}$'):
        new = load_table(write("day\n5 Jan 2020\n", "new.csv"), preparation=preparation)
    assert new.features["day"].tolist() == [pd.Timestamp("2020-01-05")]


@quiet
def test_new_amounts_of_another_currency_are_missing_ones(write):
    table = load_table(write("pay,y\n" + "".join(f"${100 + i}.50,{7 * i % 11}\n" for i in range(30))), "y")
    preparation = Preparation.fit(table.features)
    path = write("pay\n$100.50\n€120.50\n$140.50\n", "new.csv")
    with pytest.warns(TableWarning, match=r"as numbers of another kind than the others: 1 cell \(row 3: \"€120.50\"\)"):
        new = load_table(path, preparation=preparation)
    np.testing.assert_array_equal(new.features["pay"], [100.5, np.nan, 140.5])


@pytest.mark.parametrize("cells", [["0", "1", "?", "1", "0"], ["0", "1", "", "1", "0"]])
def test_two_integers_are_classes_where_rows_without_one_are_dropped(cells, write):
    path = write("x,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    with pytest.warns(TableWarning, match="rows without a target are dropped: 1 cell"):
        table = load_table(path, np.int64(-1), na=(cells[2],))
    assert (table.task, table.target.tolist(), table.target_name) == ("classification", [0, 1, 1, 0], "y")


def test_the_word_for_a_missing_target_is_the_one_that_helps(write):
    path = write("x,y\n1,2.5\n2,nan\n3,4.5\n")
    with pytest.raises(ValueError, match=re.escape('(--na "nan", na=("nan",))')):
        load_table(path, "y")
    with pytest.warns(TableWarning, match="rows without a target are dropped"):
        assert load_table(path, "y", na=("nan",)).target.tolist() == [2.5, 4.5]


def test_new_rows_without_a_cell_are_said(write, tmp_path):
    preparation = Preparation.fit(pd.DataFrame({"a": [1.5, 2.5]}))
    with pytest.warns(TableWarning, match="no predictions of rows without a cell: 3, 4$"):
        table = load_table(write("b,a\n1,2\n,\n,\n3,4\n\n5,6\n,\n"), drop=["b"], preparation=preparation)
    assert table.features.index.tolist() == [2, 5, 7]
    # pandas writes missing cells of one column as ""
    pd.DataFrame({"a": [1.5, None, 2.5, None]}).to_csv(tmp_path / "one.csv", index=False)
    np.testing.assert_array_equal(load_table(tmp_path / "one.csv").features["a"], [1.5, np.nan, 2.5, np.nan])
    pytest.importorskip("openpyxl")
    pd.DataFrame({"a": [1.5, None, 2.5], "b": [1, None, 3]}).to_excel(tmp_path / "rows.xlsx", index=False)
    with pytest.warns(TableWarning, match="no predictions of rows without a cell: 3$"):
        assert len(load_table(tmp_path / "rows.xlsx", drop=["b"], preparation=preparation)) == 2


def test_targets_that_do_not_vary_and_classes_spelt_alike_are_said(write):
    with pytest.warns(TableWarning, match='"y": the same in all rows: 2.5$'):
        load_table(write("x,y\n1,2.5\n2,2.5\n3,2.5\n"), "y")
    with pytest.warns(TableWarning, match='"y": classes that are spelt alike: "Yes", "yes"$'):
        table = load_table(write("x,y\n1,yes\n2,Yes\n3,no\n4,no\n"), "y")
    assert table.target.tolist() == ["yes", "Yes", "no", "no"]


def test_numbers_of_a_workbook_beside_text_with_decimal_commas(tmp_path):
    pytest.importorskip("openpyxl")
    cells = [f"{i},5" if i % 2 else i + 0.5 for i in range(30)]
    pd.DataFrame({"x": cells, "y": [i * i % 11 for i in range(30)]}).to_excel(tmp_path / "t.xlsx", index=False)
    table = load_table(tmp_path / "t.xlsx", "y", decimal=",")
    np.testing.assert_array_equal(table.features["x"], np.arange(30) + 0.5)
