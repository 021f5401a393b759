"""Rows become the same features wherever they come from, and what is odd about them is said."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_probmix.tables import Preparation, TableWarning

N = 40
DAYS = pd.date_range("2019-01-02", periods=N, freq="D")


def mixed() -> pd.DataFrame:
    rng = np.random.RandomState(0)
    return pd.DataFrame(
        {
            "area": rng.normal(50, 9, N),
            "rooms": rng.randint(1, 6, N),
            "town": rng.choice(["Bonn", "Rome", "Oslo"], N),
            "size": pd.Categorical(rng.choice(["S", "M", "L"], N), ["S", "M", "L"], ordered=True),
            "sold": DAYS,
            "new": rng.rand(N) < 0.5,
            "age": np.where(np.arange(N) % 7 == 0, np.nan, rng.rand(N)),
        }
    )


def test_each_kind_becomes_its_features():
    X = mixed()
    preparation = Preparation.fit(X)
    kinds = [column.kind for column in preparation.columns]
    assert kinds == ["number", "number", "category", "ordered", "date", "boolean", "number"]
    names = ["area", "rooms", "town=Bonn", "town=Oslo", "town=Rome", "size", "sold", "sold sin(year)"]
    names += ["sold cos(year)", "sold sin(week)", "sold cos(week)", "new", "age", "age=(missing)"]
    assert list(preparation.feature_names) == names
    found = preparation.transform(X)
    assert found.dtype == np.float64
    assert found.shape == (N, preparation.num_features)
    features = dict(zip(names, found.T, strict=True))
    for name in ("area", "rooms", "size", "sold"):
        np.testing.assert_allclose([features[name].mean(), features[name].std()], [0, 1], atol=1e-12)
    np.testing.assert_array_equal(features["town=Rome"], X["town"] == "Rome")
    np.testing.assert_array_equal(features["new"], X["new"])
    np.testing.assert_array_equal(features["age=(missing)"], X["age"].isna())
    np.testing.assert_array_equal(features["age"][X["age"].isna()], 0)
    np.testing.assert_allclose(features["sold sin(week)"][0], np.sin(2 * np.pi * 2 / 7))  # a Wednesday


def test_a_dictionary_in_json_gives_the_preparation_back_to_the_last_bit():
    preparation = Preparation.fit(mixed())
    again = Preparation.from_dict(json.loads(json.dumps(preparation.to_dict())))
    assert again == preparation
    np.testing.assert_array_equal(again.transform(mixed()), preparation.transform(mixed()))


def test_a_row_alone_is_as_among_others():
    X = mixed().astype({"area": str, "new": str})
    preparation = Preparation.fit(X)
    together = preparation.transform(X)
    for i in range(0, N, 7):
        np.testing.assert_array_equal(preparation.transform(X.iloc[[i]]), together[[i]])


def test_rows_of_one_name_are_as_any_others():
    X = mixed().set_axis([0] * N)
    np.testing.assert_array_equal(Preparation.fit(X).transform(X), Preparation.fit(mixed()).transform(mixed()))


@settings(max_examples=20)
@given(order=st.permutations(range(7)), rows=st.permutations(range(N)))
def test_neither_the_order_of_columns_nor_that_of_rows_matters(order, rows):
    X = mixed()
    preparation = Preparation.fit(X)
    found = preparation.transform(X.iloc[list(rows), list(order)])
    np.testing.assert_array_equal(found, preparation.transform(X)[list(rows)])


@given(numbers=st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=20, unique=True))
def test_integers_stay_apart_however_many_digits_they_have(numbers):
    numbers = [n for n in numbers if abs(n - numbers[0]) < 2**40] + [numbers[0] ^ 1]
    X = np.array(sorted(set(numbers)), np.uint64 if max(numbers) >= 2**63 else np.int64)[:, None]
    found = Preparation.fit(X).transform(X)[:, 0]
    assert len(set(found.tolist())) == len(X)
    np.testing.assert_allclose([found.mean(), found.std()], [0, 1], atol=1e-6)


def test_an_array_loses_no_column_and_needs_no_pandas():
    code = """
import sys
import warnings
sys.modules["pandas"] = None
import numpy as np
from pyro_probmix.tables import Preparation
X = np.array([[1.0, 7.0, np.nan], [3.0, 7.0, 5.0]])
p = Preparation.fit(X)
assert p.feature_names == ("x0", "x1", "x2", "x2=(missing)"), p.feature_names
print(p.transform(X).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[[-1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]\n"


def test_columns_that_tell_nothing_are_dropped_and_said():
    X = mixed().assign(one=1, empty=None, twin=lambda t: t["area"], name=[f"id{i}" for i in range(N)])
    X.insert(0, "Unnamed: 0", range(N))
    with pytest.warns(TableWarning, match="columns dropped") as said:
        preparation = Preparation.fit(X)
    assert preparation.dropped == {
        "Unnamed: 0": "counts the rows",
        "one": "constant",
        "empty": "empty",
        "twin": 'duplicate of "area"',
        "name": "40 different names in 40 rows",
    }
    assert [str(warning.message) for warning in said] == list(preparation.notes)
    assert preparation.feature_names == Preparation.fit(mixed()).feature_names


def test_columns_whose_kind_is_given_are_kept_as_that():
    X = mixed().assign(one=1, twin=lambda t: t["area"])
    kinds = {"one": "number", "twin": "number", "rooms": "category", "town": "Bonn < Oslo < Rome"}
    preparation = Preparation.fit(X, kinds)
    assert not preparation.dropped
    found = dict(zip(preparation.feature_names, preparation.transform(X).T, strict=True))
    np.testing.assert_array_equal(found["one"], 0)
    np.testing.assert_array_equal(found["rooms=3"], X["rooms"] == 3)
    places = X["town"].map({"Bonn": 0, "Oslo": 1, "Rome": 2})
    np.testing.assert_allclose(found["town"], (places - places.mean()) / places.std(ddof=0))


def test_rare_levels_of_many_share_a_feature():
    towns = ["big"] * 30 + ["mid"] * 12 + [f"small{i // 2}" for i in range(58)]
    preparation = Preparation.fit(pd.DataFrame({"town": towns, "x": range(100)}))
    assert preparation.feature_names == ("town=big", "town=mid", "town=(other)", "x")
    new = pd.DataFrame({"town": ["small3", "new"], "x": [0, 1]}, index=[7, 8])
    with pytest.warns(TableWarning, match=r'"town": levels that training did not have: 1 cell \(row 8: "new"\)'):
        np.testing.assert_array_equal(preparation.transform(new)[:, :3], [[0, 0, 1], [0, 0, 1]])


def test_text_numbers_are_read_as_in_a_file():
    X = pd.DataFrame({"pay": ["$1,234.5", "$99.00", "$100"], "share": ["12 %", "5%", "7 %"]})
    with pytest.warns(TableWarning):
        preparation = Preparation.fit(X)
    plain = preparation.transform(pd.DataFrame({"pay": [1234.5, 99, 100], "share": [12, 5, 7]}))
    np.testing.assert_array_equal(preparation.transform(X), plain)


NEW = {
    "area": ("large", r'"area": taken as missing, as no number: 1 cell \(row 3: "large"\)'),
    "town": ("Paris", r'"town": levels that training did not have: 1 cell \(row 3: "Paris"\)'),
    "rooms": (None, r'"rooms": missing, though never in training: 1 cell \(row 3: nan\)'),
    "size": ("XL", r'"size": taken as missing, as no known level: 1 cell \(row 3: "XL"\)'),
    "sold": ("soon", r'"sold": taken as missing, as no date: 1 cell \(row 3: "soon"\)'),
    "new": ("maybe", r'"new": taken as missing, as no boolean: 1 cell \(row 3: "maybe"\)'),
}


@pytest.mark.parametrize("name", NEW)
def test_a_new_cell_that_training_did_not_know_is_said(name):
    cell, message = NEW[name]
    preparation = Preparation.fit(mixed())
    X = mixed().astype({name: object} if name != "rooms" else {name: float})
    X.loc[3, name] = cell
    with pytest.warns(TableWarning, match=message):
        found = preparation.transform(X)
    others = [i for i, feature in enumerate(preparation.feature_names) if not feature.startswith(name)]
    np.testing.assert_array_equal(found[:, others], preparation.transform(mixed())[:, others])
    own = [i for i, feature in enumerate(preparation.feature_names) if feature.startswith(name)]
    np.testing.assert_array_equal(found[3, own], 0)


def test_columns_of_new_rows_are_found_by_name():
    preparation = Preparation.fit(mixed())
    with pytest.raises(ValueError, match='X: expected the columns of training, got none named "town", "sold"'):
        preparation.transform(mixed().drop(columns=["town", "sold"]))
    with pytest.warns(TableWarning, match='columns that training did not have are ignored: "price"'):
        preparation.transform(mixed().assign(price=1))


REFUSED = {
    "word": ({"x": ["1", "2", "?"]}, r'"x": expected numbers, as most of its cells are, got 1 cell \(row 2: "\?"\)'),
    "infinite": ({"x": [1.0, np.inf]}, r'"x": expected finite numbers, got inf in 1 cell \(row 1: inf\)'),
    "constant": ({"x": [1, 1]}, r'X: expected a column that tells rows apart, got "x" \(constant\)'),
    "currencies": ({"x": ["$1", "$2", "€3"]}, r'"x": expected numbers.*row 2: "€3"'),
    "percent": ({"x": ["1%", "2%", "0.3"]}, r'"x": expected numbers.*row 2: "0.3"'),
    "huge": ({"x": [1e300, -1e300]}, '"x": expected numbers whose variance is finite'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_column_row_and_cell(case):
    cells, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        Preparation.fit(pd.DataFrame(cells))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "expected version 1, got 2"),
        ({"extra": 1}, "expected the keys"),
        ({"columns": []}, "at least one column"),
        ({"columns": [{"kind": "image", "name": "x"}]}, "expected a kind among number.*got 'image'"),
        ({"columns": [{"kind": "boolean", "name": "x"}]}, "expected the keys name, missing of a boolean"),
        ({"columns": [{"kind": "boolean", "name": 3, "missing": False}]}, "expected str as name, got 3"),
        ({"dropped": ["x"]}, "expected a reason by name"),
        ({"notes": [3]}, "expected a list of text"),
    ],
)
def test_settings_of_another_make_are_refused_by_name(change, message):
    settings = {**Preparation.fit(mixed()).to_dict(), **change}
    with pytest.raises(ValueError, match=message):
        Preparation.from_dict(settings)


NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400))
JUNK = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.just([["x"]]), st.just({}))


@settings(max_examples=50)
@given(data=st.data(), junk=JUNK)
def test_settings_that_were_changed_are_refused_or_whole(data, junk):
    settings = json.loads(json.dumps(Preparation.fit(mixed()).to_dict()))
    place, key = settings, data.draw(st.sampled_from(sorted(settings)))
    while isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = junk
    try:
        preparation = Preparation.from_dict(settings)
    except ValueError:
        return
    assert Preparation.from_dict(preparation.to_dict()) == preparation
    if {column.name for column in preparation.columns} <= set(mixed()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TableWarning)
            assert preparation.transform(mixed()).shape == (N, preparation.num_features)


def test_columns_of_an_array_have_kinds_by_position_too():
    X = np.array([[1.0, 0.0, 7.0], [2.0, 1.0, np.nan], [1.0, 1.0, 7.0]])
    preparation = Preparation.fit(X, {0: "category", -1: "category", "x1": "boolean"})
    assert preparation.feature_names == ("x0=1", "x0=2", "x1", "x2=7", "x2=(missing)")
    np.testing.assert_array_equal(preparation.transform(X), [[1, 0, 0, 1, 0], [0, 1, 1, 0, 1], [1, 0, 1, 1, 0]])
    with pytest.warns(TableWarning, match=r'"x0": levels that training did not have: 1 cell \(row 0: 3.0\)'):
        preparation.transform([[3.0, 0.0, 7.0]])
    with pytest.raises(ValueError, match="X: expected 3 columns, got 2"):
        preparation.transform(X[:, :2])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros(3), r"expected a DataFrame or an array of shape \(n, d\), got shape \(3,\)"),
        (np.array([["a"], ["b"]], object), "expected an array of numbers, or a DataFrame, got object"),
        (np.array([[1.0], [np.inf]]), r'"x0": expected finite numbers, got inf in 1 cell \(row 1: inf\)'),
    ],
)
def test_arrays_that_are_no_numbers_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        Preparation.fit(X)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"area": "length"}, 'expected one of "number", .* for "area", got \'length\''),
        ({"volume": "number"}, 'kinds: expected columns among "area".*got "volume"'),
        ({"town": "Bonn < Bonn"}, 'two or more distinct levels of "town"'),
        ({"town": "number"}, 'kinds: expected numbers in "town", got 40 cells'),
        ({"town": ["Bonn", "Rome"]}, 'kinds: expected levels of the order given in "town".*"Oslo"'),
        ({"area": "date"}, 'kinds: expected dates in "area"'),
    ],
)
def test_kinds_that_do_not_fit_are_refused(kinds, message):
    with pytest.raises(ValueError, match=message):
        Preparation.fit(mixed(), kinds)


def test_columns_of_arrow_are_what_they_hold():
    pa = pytest.importorskip("pyarrow")
    days = pd.Series(pd.date_range("2020-01-01", periods=24, freq="7h")).where(np.arange(24) != 3)
    names = pd.Series([f"c{i % 3}" for i in range(24)])
    plain = pd.DataFrame(
        {"when": days, "name": names, "text": names, "part": np.arange(24) / 4, "took": days - days.min()}
    )
    types = {
        "when": pa.timestamp("us"),
        "name": pa.dictionary(pa.int8(), pa.string()),
        "text": pa.large_string(),
        "part": pa.decimal128(8, 2),
        "took": pa.duration("us"),
    }
    arrow = plain.astype({name: pd.ArrowDtype(kind) for name, kind in types.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)  # "text" is a copy of "name"
        preparation, same = Preparation.fit(arrow), Preparation.fit(plain)
    assert preparation.feature_names == same.feature_names
    for columns in (arrow, plain):
        np.testing.assert_array_equal(preparation.transform(columns), same.transform(plain))


def test_kinds_of_arrays_are_not_called_guesses():
    with pytest.raises(
        ValueError, match=r'^kinds: expected two words such as yes and no in "x1", got 1 cell \(row 1: 3.0'
    ):
        Preparation.fit([[1.0, 0.0], [2.0, 3.0]], {np.int64(1): "boolean"})


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%Y %H:%M", "%Y-%m-%d"])
def test_words_are_no_dates(form):
    days = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=30).strftime(form)})
    preparation = Preparation.fit(days)
    with pytest.warns(
        TableWarning, match=r'"day": taken as missing, as no date: 2 cells \(row 0: "today", row 1: "now"\)'
    ):
        preparation.transform(pd.DataFrame({"day": ["today", "now", days["day"][2]]}))
