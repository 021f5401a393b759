"""However a table is written, it is the same table; what is guessed is what was meant, or nothing is."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_probmix.datasets import load_table
from pyro_probmix.tables import Preparation, Reading, TableWarning, read_cells
from pyro_probmix.tables.numerals import parse_numbers
from pyro_probmix.tables.typed import type_column

WORDS = st.text("abcxyzäöß ,;|.'-", min_size=1, max_size=8).map(lambda word: f"k{' '.join(word.split())}z")
CELLS = {
    "number": st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 2)),
    "whole": st.integers(-(10**6), 10**6),
    "word": WORDS,
    "truth": st.sampled_from(["yes", "no"]),
    "date": st.dates().filter(lambda day: 1900 < day.year < 2100),
}


@st.composite
def tables(draw):
    size = draw(st.integers(4, 12))
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=2, max_size=5))
    return pd.DataFrame(
        {f"{kind} {i}": draw(st.lists(CELLS[kind], min_size=size, max_size=size)) for i, kind in enumerate(kinds)}
    )


@settings(max_examples=60)
@given(
    table=tables(),
    sep=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_the_dialect_is_guessed(tmp_path_factory, table, sep, decimal, encoding, quoting, newline):
    path = tmp_path_factory.mktemp("written") / "t.csv"
    table.to_csv(
        path, sep=sep, decimal=decimal, encoding=encoding, quoting=quoting, lineterminator=newline, index=False
    )
    cells = read_cells(path)
    assert cells.frame.shape == table.shape
    assert cells.reading.sep == sep
    assert list(cells.frame.columns) == list(table.columns)
    for name, written in table.items():
        found = type_column(cells.frame[name], decimal=cells.reading.decimal)
        if name.startswith(("number", "whole")):
            np.testing.assert_array_equal(found.series().to_numpy(float), written.to_numpy(float))
        elif name.startswith("word"):
            assert found.series().tolist() == written.tolist()
        elif name.startswith("truth"):
            assert found.series().tolist() == (written == "yes").tolist()
        else:
            assert found.series().tolist() == pd.to_datetime(written).tolist()


@given(
    values=st.lists(st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: round(value, 2)), min_size=1, max_size=20),
    money=st.sampled_from(["", "$", "€ ", "£", "USD "]),
    point=st.booleans(),
    group=st.sampled_from(["", "'", " ", "\u202f"]),
)
def test_numbers_are_read_as_they_are_written(values, money, point, group):
    text = [f"{money}{value:,.2f}".replace(",", "_") for value in values]
    decimal = "." if point else ","
    own = group or ("," if point else ".")
    written = pd.Series([cell.replace(".", decimal).replace("_", own) for cell in text], dtype="str")
    numbers, missing, faults, _ = parse_numbers(written, decimal)
    assert not missing.any()
    assert not faults.any()
    np.testing.assert_array_equal(numbers, values)


@given(words=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=10))
def test_text_is_a_number_a_missing_one_or_a_fault(words):
    column = pd.Series(words, dtype=object)
    numbers, missing, faults, _ = parse_numbers(column)
    assert (np.isnan(numbers) == missing).all() or numbers.dtype.kind == "i"
    assert (faults <= missing).all()


COLUMN = "length\n" + "".join(f"{word}\n" for word in ["lemon", "letter", "left", "leek", "lead"])
GUESSED = {
    "one column of words": (COLUMN, ",", (5, 1)),
    "leading blanks": ("  a   b\n  1.5   2\n  3   4.5\n", " ", (2, 2)),
    "blanks after commas": ("a, b\n1, 2\n3, 4\n", ",", (2, 2)),
    "two words a cell": ("a name;b\nx y;1\nz w;2\n", ";", (2, 2)),
    "times": ("when,y\n2020-01-01 10:00,1\n2020-01-01 11:00,2\n", ",", (2, 2)),
    "declared": ("sep=|\na|b\n1|2\n3|4\n", "|", (2, 2)),
    "empty lines": ("\na;b\n\n1;2\n\n3;4\n\n", ";", (2, 2)),
    "quoted separators": ('a,b\n"1;2",3\n"4;5",6\n', ",", (2, 2)),
    "quoted newlines": ('a;b\n"x\ny";3\n"z";6\n', ";", (2, 2)),
    "empty cells": ("a|b|c\n||3\n1||\n", "|", (2, 3)),
    "decimal commas": ("a;b\n1,5;2,5\n3,5;4,5\n", ";", (2, 2)),
    "blanks around quotes": ('"a" ,"b"\n"1" ,"2"\n"3" , "4" \n', ",", (2, 2)),
    "separators at row ends": ("a,b,\n1,2,\n3,4,\n", ",", (2, 2)),
    "old line ends": ("a;b\r1;2\r3;4\r", ";", (2, 2)),
}


@pytest.mark.parametrize("case", GUESSED)
def test_a_careful_guess(case, tmp_path):
    text, sep, shape = GUESSED[case]
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    cells = read_cells(path)
    assert cells.reading.sep == sep
    assert cells.frame.shape == shape


def test_rows_are_those_of_the_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\na,b\n\n1,2\n3,4\n\n5,6\n")
    cells = read_cells(path)
    assert cells.first_row == 4
    assert cells.frame.index.tolist() == [4, 5, 7]
    assert read_cells(path, Reading(header=False, sep=",")).first_row == 2


@pytest.mark.parametrize(
    ("header", "fine"),
    [
        ("town,2015,2016,2017", True),
        ("town,1,2,3", True),
        ("a,b,c,0.5", False),
        ("town,7,7,2", False),
        ("1,2,3,4", False),
    ],
)
def test_names_that_are_numbers_are_none_unless_they_count_on(header, fine, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\nRome,1.5,2,3\nBonn,4,5,6\n")
    if fine:
        assert list(read_cells(path).frame.columns) == header.split(",")
    else:
        with pytest.raises(ValueError, match="where the table has no header, say so"):
            read_cells(path)


def test_a_reading_in_json_is_the_same(tmp_path):
    reading = Reading(sep=";", decimal=",", header=False, na=("?", " - "))
    assert reading.na == ("?", "-")
    assert Reading.from_dict(reading.to_dict()) == reading
    with pytest.raises(ValueError, match="reading: expected the keys"):
        Reading.from_dict({"sep": ";"})
    assert Reading(sep=r"\t").sep == "\t"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decimal": ";"}, 'decimal: expected "." or ","'),
        ({"sep": '"'}, "sep: expected one character"),
        ({"header": "no"}, "header: expected True or False"),
    ],
)
def test_a_reading_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Reading(**options)


def test_frames_keep_their_index_and_lose_blanks_around_names():
    frame = pd.DataFrame({" a\nb ": [1, 2], "c": [3, 4]}, index=[7, 9])
    cells = read_cells(frame)
    assert list(cells.frame.columns) == ["a b", "c"]
    assert cells.frame.index.tolist() == [7, 9]
    assert cells.name == "X"
    assert list(frame.columns) == [" a\nb ", "c"]


@pytest.mark.parametrize(
    ("text", "decimal", "numbers"),
    [
        ("km;y\n930;1,5\n7.011;2,5\n", None, [930, 7011]),
        ("km;y\n930;1.5\n7.011;2.5\n", None, [930, 7.011]),
        ("km;y\n930;1\n7.011;2\n", ",", [930, 7011]),
        ("km;y\n930;1\n7.011;2\n", ".", [930, 7.011]),
        ("km;y\n0.930;1\n7.011;2\n", None, [0.93, 7.011]),
        ("km,y\n1.930,1\n7.011,2\n", None, [1.93, 7.011]),
        ("km\ty\n1.930\t1\n7.011\t2\n", None, [1.93, 7.011]),
    ],
)
def test_points_are_read_as_other_columns_or_the_user_tell(tmp_path, text, decimal, numbers):
    path = tmp_path / "t.csv"
    path.write_text(text)
    cells = read_cells(path, Reading(decimal=decimal))
    assert cells.warnings == ()
    assert type_column(cells.frame["km"], decimal=cells.reading.decimal).series().tolist() == numbers


def test_points_beside_whole_numbers_are_said(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("km,y\n930,1\n7.011,2\n")
    assert read_cells(path).warnings == (
        '"km": "7.011" beside whole numbers is read with a decimal point; where it means 7011, '
        'give --decimal , (decimal=",")',
    )


def test_no_group_of_three_follows_a_zero(tmp_path):
    """0,123 is not 123: in a table of decimal points it is no number, in one of decimal commas a share."""
    path = tmp_path / "shares.csv"
    path.write_text('y,share\n1.5,"0,123"\n2.5,"0,456"\n3.5,"1,923"\n')
    with pytest.raises(ValueError, match=r'"0,123"'):
        load_table(path, "y", kinds={"share": "number"})
    path.write_text("y;share\n1,5;0,123\n2,5;0,456\n3,25;0,75\n")
    assert load_table(path, "y").features["share"].tolist() == [0.123, 0.456, 0.75]


def test_numbers_of_a_workbook_are_no_text_with_a_decimal_comma(tmp_path):
    path = tmp_path / "book.xlsx"
    pd.DataFrame({"y": [1.234, 0.125, 2.5], "x": [1, 2, 4]}).to_excel(path, index=False)
    assert load_table(path, "y", decimal=",").target.tolist() == [1.234, 0.125, 2.5]


def test_an_empty_cell_after_a_quoted_one_is_a_cell(tmp_path):
    path = tmp_path / "gaps.tsv"
    path.write_text('name\tx\ty\n"a"\t\t5\n"b" \t2\t6\n"a"\t3\t7.5\n')
    frame = read_cells(path).frame
    assert frame["y"].tolist() == ["5", "6", "7.5"]
    assert frame["name"].tolist() == ["a", "b", "a"]


def test_dates_that_only_their_order_decides_are_said(tmp_path):
    path = tmp_path / "days.csv"
    path.write_text("when,y\n01/02/2020,1.5\n01/05/2020,2.5\n02/01/2020,3.5\n03/04/2020,2.25\n")
    with pytest.warns(TableWarning, match="other way round|day and month|month and day"):
        table = load_table(path, "y")
    assert table.features["when"].dt.month.tolist() == [1, 1, 2, 3]


def test_a_category_of_whole_numbers_may_have_missing_cells():
    codes = pd.Categorical.from_codes([0, -1, 1, 0], [1, 2])
    features = Preparation.fit(pd.DataFrame({"code": codes}), {"code": "number"}).transform(
        pd.DataFrame({"code": codes})
    )
    assert features[:, 1].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert features[0, 0] == features[3, 0] < 0.0 < features[2, 0]


def test_one_point_does_not_decide_how_all_numbers_are_read(tmp_path):
    """Most numbers do; the others are named in training, and missing in new rows."""
    rows = [f"{i},25;{7 * i % 11},5" for i in range(30)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a;y", *rows]) + "\n")
    preparation = Preparation.fit(load_table(path, "y").features)
    path.write_text("\n".join(["a;y", "12.5;1,5", *rows]) + "\n")
    with pytest.raises(ValueError, match=r'"a": expected numbers, .* 1 cell \(row 2: "12.5"\)'):
        load_table(path, "y")
    with pytest.warns(TableWarning, match=r'as numbers of another kind than the others: 1 cell \(row 2: "12.5"\)'):
        new = load_table(path, preparation=preparation, drop=["y"])
    np.testing.assert_array_equal(new.features["a"], [np.nan, *(np.arange(30) + 0.25)])


def test_what_is_no_source_no_column_and_no_kind_is_named():
    frame = pd.DataFrame({"x": [1.0, 2.5], "y": [2.0, 1.5]})
    for arguments, options, error, message in (
        ([[1, 2]], {}, TypeError, "source: expected a path or a DataFrame, got list"),
        ([frame[:0], "y"], {}, ValueError, "X: expected rows, got none"),
        ([frame, 1.0], {}, TypeError, "target: expected names or positions of columns, got 1.0"),
        ([frame, "y"], {"kinds": ["number"]}, TypeError, "kinds: expected a kind by the name of a column"),
        (["t.csv"], {"encoding": "hex"}, ValueError, 'encoding: expected one that is known and of text, .* got "hex"'),
    ):
        with pytest.raises(error, match=f"^{message}"):
            load_table(*arguments, **options)
