"""Sixteen small tables, one of each make that people have, are read rightly or refused, and nothing is left behind."""

from __future__ import annotations

import gzip
import warnings

import numpy as np
import pandas as pd
import pytest

from pyro_probmix.datasets import load_table
from pyro_probmix.tables import Preparation, TableWarning

N = 60
RNG = np.random.RandomState(0)
X = np.round(RNG.normal(size=(N, 4)), 3)
Y = np.round(RNG.normal(size=N), 3)
DAYS = pd.date_range("2020-02-01", periods=N)


def rows(columns: dict, sep: str = ",", decimal: str = ".") -> str:
    frame = pd.DataFrame(columns)
    return frame.to_csv(index=False, sep=sep, decimal=decimal, lineterminator="\n")


PLAIN = {"x": X[:, 0], "y": Y}
TABLES: dict[str, tuple] = {}
"""By name: content, what is expected of its features by name, options, and what is said."""

for sign, sep in {"semicolon": ";", "tab": "\t", "bar": "|", "comma": ","}.items():
    TABLES[f"separator {sign}.csv"] = (rows({**PLAIN, "z": X[:, 1]}, sep), {"x": X[:, 0], "z": X[:, 1]}, {}, None)
TABLES["separator blank.txt"] = (
    "\n".join(f"  {a:8.3f}   {b:8.3f} {y:8.3f}" for (a, b), y in zip(X[:, :2], Y, strict=True)),
    {"column 1": X[:, 0], "column 2": X[:, 1]},
    {"header": False, "target": -1},
    None,
)
TABLES["decimals.csv"] = (rows(PLAIN, ";", ","), {"x": X[:, 0]}, {}, '"," as the decimal sign')
TOWN = np.array(["Köln", "Zürich", "Łódź"])[np.arange(N) % 3]
WEST = np.array(["Köln", "Genève", "Århus"])[np.arange(N) % 3]
CODES = {f"town={town}": town == TOWN for town in set(TOWN)}
for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
    TABLES[f"encoding {encoding}.csv"] = (rows({"town": TOWN, "y": Y}).encode(encoding), CODES, {}, None)
TABLES["encoding cp1252.csv"] = (
    rows({"town": WEST, "y": Y}).encode("cp1252"),
    {f"town={town}": town == WEST for town in set(WEST)},
    {},
    "read as cp1252, as it is not UTF-8",
)
TABLES["encoding given.csv"] = (rows({"town": TOWN, "y": Y}).encode("cp1250"), CODES, {"encoding": "cp1250"}, None)
TABLES["packed.csv.gz"] = (gzip.compress(rows(PLAIN).encode()), {"x": X[:, 0]}, {}, None)
SINCE = np.arange(N)
for name, form in {
    "iso": "%Y-%m-%d",
    "points": "%d.%m.%Y",
    "slashes": "%m/%d/%Y",
    "names": "%d %b %Y",
    "noon": "%m/%d/%Y %I:%M %p",
}.items():
    TABLES[f"dates {name}.csv"] = (rows({"when": DAYS.strftime(form), "y": Y}), {"when": SINCE}, {}, None)
GONE = np.arange(N) % 5 == 0
for word in ("", "NA", "n/a", "NULL", "nan"):
    cells = np.where(GONE, word, X[:, 0].astype(str))
    expected = {"x": np.where(GONE, np.nan, X[:, 0]), "x=(missing)": GONE}
    TABLES[f"missing {word.replace('/', '')}.csv"] = (rows({"x": cells, "y": Y}), expected, {}, None)
LEVELS = np.array([f"l{i}" for i in range(40)])[np.minimum(np.arange(600) // 12, 60) % 40]
TABLES["many levels.csv"] = (
    rows({"level": LEVELS, "y": np.arange(600) % 7}),
    {f"level={level}": level == LEVELS for level in set(LEVELS)},
    {},
    None,
)
WIDE = np.random.RandomState(1).normal(size=(N, 1500))
TABLES["wide.csv"] = (
    rows({**{f"f{i}": column for i, column in enumerate(WIDE.T)}, "y": Y}),
    {f"f{i}": column for i, column in enumerate(WIDE.T)},
    {},
    None,
)
RARE = np.where(np.arange(N) == 7, "ill", "well")
TABLES["imbalanced.csv"] = (rows({"x": X[:, 0], "y": RARE}), {"x": X[:, 0]}, {}, None)
COUNTS = RNG.poisson(3, N)
TABLES["counts.csv"] = (rows({"x": X[:, 0], "y": COUNTS}), {"x": X[:, 0]}, {}, None)
TRUE = np.arange(N) % 3 == 0
for pair in (("Y", "N"), ("yes", "no"), ("TRUE", "FALSE"), ("t", "f")):
    TABLES[f"booleans {pair[0]}.csv"] = (rows({"new": np.where(TRUE, *pair), "y": Y}), {"new": TRUE}, {}, None)
BIG = 9_007_199_254_740_993 + RNG.permutation(N)
TABLES["big integers.csv"] = (rows({"serial": BIG, "y": Y}), {"serial": BIG - BIG.min()}, {}, None)
TABLES["duplicated rows.csv"] = (
    rows({"x": np.r_[X[:, 0], X[:5, 0]], "y": np.r_[Y, Y[:5]]}),
    {"x": np.r_[X[:, 0], X[:5, 0]]},
    {},
    "5 rows are copies of earlier ones, kept",
)
TABLES["headers.csv"] = (rows({" x\n(kg) ": X[:, 0], "  y ": Y}), {"x (kg)": X[:, 0]}, {}, None)
TABLES["index column.csv"] = (
    rows({"": range(N), "x": X[:, 0], "y": Y}),
    {"x": X[:, 0]},
    {},
    r'columns dropped: "unnamed 1" (counts the rows)',
)
TABLES["two targets.csv"] = (
    rows({"x": X[:, 0], "y2": Y + 1, "y": Y}),
    {"x": X[:, 0]},
    {"target": ["y", "y2"]},
    None,
)
MONEY = np.abs(X[:, 0]) * 1e4
TABLES["text numbers.csv"] = (
    rows(
        {
            "pay": [f"${value:,.2f}" for value in MONEY],
            "share": [f"{value:.1f} %" for value in MONEY / 100],
            "loss": [f"({value:.0f})" if value > 5000 else f"{value:.0f}" for value in MONEY],
            "y": Y,
        }
    ),
    {
        "pay": np.round(MONEY, 2),
        "share": np.round(MONEY / 100, 1),
        "loss": np.where(MONEY > 5000, -1, 1) * np.round(MONEY),
    },
    {},
    '"pay": 60 cells with a currency',
)


def write(name: str, content: str | bytes, folder):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", TABLES)
def test_read(name, tmp_path):
    content, expected, options, message = TABLES[name]
    path = write(name, content, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        table = load_table(path, **{"target": "y", **options})
        preparation = Preparation.fit(table.features)
    found = dict(zip(preparation.feature_names, preparation.transform(table.features).T, strict=True))
    kinds = {column.name: column.kind for column in preparation.columns}
    for feature, values in expected.items():
        values = np.asarray(values, float)
        if kinds.get(feature) in ("number", "date"):
            values = np.nan_to_num((values - np.nanmean(values)) / np.nanstd(values))
        np.testing.assert_allclose(found[feature], values, atol=1e-9)
    extra = [feature for feature in found if feature not in expected and "(" not in feature]
    assert not extra
    assert message is None or message in [*table.notes, *preparation.notes]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "task"), [("imbalanced.csv", "classification"), ("counts.csv", "regression")])
def test_task(name, task, tmp_path):
    table = load_table(write(name, TABLES[name][0], tmp_path), "y")
    assert table.task == task
    assert table.target.tolist() == (RARE if task == "classification" else COUNTS).tolist()


def test_several_targets_are_columns_of_one_array(tmp_path):
    path = write("two targets.csv", TABLES["two targets.csv"][0], tmp_path)
    table = load_table(path, ["y", "y2"])
    np.testing.assert_allclose(table.target, np.stack([Y, Y + 1], axis=1))


@pytest.mark.parametrize("name", ["t.parquet", "t.xlsx"])
def test_typed_files_are_read_as_text_is(name, tmp_path):
    frame = pd.DataFrame({"x": X[:, 0], "town": TOWN, "when": DAYS, "new": TRUE, "y": Y})
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_excel(path, index=False)
    frame.to_csv(tmp_path / "t.csv", index=False)
    typed, text = load_table(path, "y"), load_table(tmp_path / "t.csv", "y")
    np.testing.assert_array_equal(typed.target, text.target)
    one, two = (Preparation.fit(table.features) for table in (typed, text))
    assert one.feature_names == two.feature_names
    np.testing.assert_array_equal(one.transform(typed.features), two.transform(text.features))
    np.testing.assert_array_equal(one.transform(text.features), one.transform(typed.features))


REFUSED = {
    "torn.csv": ("x,z,y\n1,2,3\n1,2\n3,1,5\n2,2,2\n", "row 3: expected 3 cells, as in the header, got 2"),
    "title.csv": ("A title\n\nx,y\n1,2\n3,4\n", "row 3 looks like the header: .*--skip-rows 2"),
    "row names.csv": ("x,y\nr1,1,2\nr2,3,4\n", "row 2: expected 2 cells.*got 3.*name that column in the header"),
    "quotes.csv": ('x,y\n1,2\n"3"a,4\n5,2\n', "row 3: expected cells of a table, got a quotation mark inside"),
    "footer.csv": ("x,y\n1,2\n5,2\nSource: me\n", "row 4: expected 2 cells, as in the header, got 1"),
    "other digits.csv": ("x,y\n1,2\n5,2\n٣,4\n", r'"x": expected numbers.*1 cell \(row 4: "٣"\)'),
    "unit.csv": ("x;z;y\nm;s;kg\n1;2;3\n2;3;1\n", 'row 2: expected cells like those below, got "m", "s", "kg"'),
    "word.csv": ("x,y\n1,2\n2,4\nbroken,5\n7,9\n", r'"x": expected numbers.*1 cell \(row 4: "broken"\)'),
    "two currencies.csv": ("x,y\n$1,2\n$2,4\n€7,5\n", r'"x": expected numbers.*1 cell \(row 4: "€7"\)'),
    "some percent.csv": ("x,y\n1%,2\n2%,4\n0.3,5\n", r'"x": expected numbers.*1 cell \(row 4: "0.3"\)'),
    "either decimal.csv": ("x;y\n1,234;2\n2,345;4\n", 'numbers of one reading, got "1,234"; give the decimal sign'),
    "both decimals.csv": ("x;y\n1,5;2\n2.5;4\n3.5;7\n", r'"x": expected numbers.*1 cell \(row 2: "1,5"\)'),
    "other encoding.csv": ("x,y\nä,1\n".encode(), "expected text in ascii, got another"),
    "a sum.csv": ("x,y\na,2\nb,4\nGrand total,6\n", 'row 4: expected a row like the others, got "Grand total"'),
    "one name twice.csv": ("y,x,y\n1,2,3\n2,2,1\n", 'target: expected a column whose name comes once, got "y"'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    content, message = REFUSED[name]
    path = write(name, content, tmp_path)
    with pytest.raises(ValueError, match=message):
        load_table(path, "y", encoding="ascii" if name == "other encoding.csv" else None)
    assert list(tmp_path.iterdir()) == [path]


def test_zip_codes_are_names(tmp_path):
    path = write("zip.csv", "zip,y\n" + "".join(f"{7030 + i % 4:05d},{i % 7}\n" for i in range(40)), tmp_path)
    features = load_table(path, "y").features
    assert Preparation.fit(features).feature_names == tuple(f"zip={7030 + i:05d}" for i in range(4))


def test_numbers_longer_than_any_integer_are_names(tmp_path):
    path = write("long.csv", "track,y\n" + "".join(f"{10**22 + i % 4},{i % 7}\n" for i in range(40)), tmp_path)
    assert load_table(path, "y").features["track"].nunique() == 4


def test_dates_that_could_be_read_either_way_are_said(tmp_path):
    path = write("when.csv", "when,y\n01/02/2020,1\n05/01/2020,7\n03/02/2020,2\n", tmp_path)
    with pytest.warns(TableWarning, match='"when": dates read as %d/%m/%Y, though day and month could be'):
        load_table(path, "y")


@pytest.mark.parametrize("form", ["%Y-%m", "%m/%Y", "%b %Y"])
def test_months_are_dates(form, tmp_path):
    months = pd.date_range("2015-01-01", periods=40, freq="MS")
    path = write("months.csv", rows({"month": months.strftime(form), "y": Y[:40]}), tmp_path)
    assert load_table(path, "y").features["month"].tolist() == months.tolist()
