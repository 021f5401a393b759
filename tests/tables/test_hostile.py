"""Files that are made to run code, hang or fill the memory are refused by name, fast and in little memory."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_probmix.datasets import load_table
from pyro_probmix.tables import TableWarning

MEGABYTE = 1 << 20


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def bomb_gz(path: Path) -> None:
    """300 MB of rows in 300 KB."""
    piece = b"1,2\n" * (MEGABYTE // 4)
    with gzip.open(path, "wb") as file:
        file.write(b"x,y\n")
        for _ in range(300):
            file.write(piece)


def long_line(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"x,y\n1,2\n")
        for _ in range(40):
            file.write(b"9" * MEGABYTE)


def workbook(path: Path, *rows: list) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def changed_sheet(path: Path, change) -> None:
    """A workbook whose sheet is rewritten."""
    workbook(path, ["x", "y"], [1, 2], [2, 3])
    old = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("sheet1.xml") else data)


LAUGHS = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a0 "ha">' + b"".join(
    b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 12)
)


def laughing(data: bytes) -> bytes:
    sheet = data[data.index(b"<worksheet") :]
    return LAUGHS + b"]>" + sheet.replace(b"<v>1</v>", b"<v>&a11;</v>")


def truncated(path: Path) -> None:
    pytest.importorskip("pyarrow")
    pd.DataFrame({"x": np.arange(1000), "y": np.arange(1000)}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-200])


def endless(path: Path) -> None:
    """A billion rows that are one row."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.table({f"x{i}": pa.array([1] * 500_000, pa.int8()) for i in range(3)})
    with parquet.ParquetWriter(path, table.schema) as file:
        for _ in range(150):
            file.write_table(table)


NAMES = ",".join(f"a{i}" for i in range(1_000_000))
HOSTILE = {
    "nul.csv": (lambda path: path.write_bytes(b"x,y\n1,2\n\0\0,3\n"), "expected a table of text, got NUL bytes"),
    "binary.csv": (
        lambda path: path.write_bytes(np.random.RandomState(0).randint(1, 32, 5000, np.uint8).tobytes()),
        "got control characters of a binary file",
    ),
    "pickle.csv": (lambda path: path.write_bytes(pickle.dumps(Bomb(), 4)), "got a pickle, which could run code"),
    "pickle.parquet": (lambda path: path.write_bytes(pickle.dumps(Bomb())), "expected a whole Parquet file"),
    "pickle.xlsx": (lambda path: path.write_bytes(pickle.dumps(Bomb())), "expected a whole Excel workbook"),
    "workbook.csv": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "got a workbook or another archive"),
    "line.csv": (long_line, "lines of fewer than 16,777,216 characters, got a longer line 3"),
    "bomb.csv.gz": (bomb_gz, "in so small a .gz file, got more"),
    "torn.csv.gz": (
        lambda path: path.write_bytes(gzip.compress(b"x,y\n1,2\n" * 99)[:-20]),
        "expected a whole .gz file",
    ),
    "not.csv.gz": (lambda path: path.write_bytes(b"x,y\n1,2\n"), "expected a whole .gz file, got a damaged one"),
    "names.csv": (
        lambda path: path.write_text(NAMES + "\n" + "1," * 999_999 + "1\n"),
        "at most 20,000 columns, got 1,",
    ),
    "quote.csv": (
        lambda path: path.write_text('x,y\n1,2\n"3,4\n' + "5,6\n" * 100_000),
        "row 3.*quotation mark not closed",
    ),
    "cell.csv": (
        lambda path: path.write_text("x,y\n1,2\n" + "a" * MEGABYTE + ",3\n"),
        "row 3: expected cells of a table, got a cell of more than 131,072",
    ),
    "folder.csv": (lambda path: path.mkdir(), "expected a file, got a folder"),
    "pipe.csv": (os.mkfifo, "expected a file, got a device or a pipe"),
    "formula.xlsx": (
        lambda path: workbook(path, ["x", "y"], [1, 2], ['=WEBSERVICE("http://x.invalid")', 3]),
        'row 3, column 1: expected a value, got a formula without one: "=WEBSERVICE',
    ),
    "wide.xlsx": (
        lambda path: changed_sheet(path, lambda data: data.replace(b'r="A2"', b'r="ZZZZ2"')),
        "expected a whole Excel workbook",
    ),
    "laughs.xlsx": (lambda path: changed_sheet(path, laughing), "expected a whole Excel workbook"),
    "torn.xlsx": (
        lambda path: (workbook(path, ["x", "y"], [1, 2]), path.write_bytes(path.read_bytes()[:-300])),
        "expected a whole Excel workbook",
    ),
    "zip.xlsx": (
        lambda path: changed_sheet(path, lambda data: data + b" " * (200 * MEGABYTE)),
        "expected a workbook of at most",
    ),
    "torn.parquet": (truncated, "expected a whole Parquet file"),
    "endless.parquet": (endless, r"at most 20,000 columns and 200,000,000 cells, got 75,000,000 × 3"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_by_name_fast_and_in_little_memory(name, tmp_path, monkeypatch):
    make, message = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    before = sorted(tmp_path.iterdir())
    load_table(pd.DataFrame({"x": [1.0, 4.0, 2.0], "y": [1.0, 2.0, 3.0]}), "y")  # imports are no part of it
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            load_table(tmp_path / name, "y")
        spent, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(tmp_path.iterdir()) == before
    assert spent < 30
    assert peak < 400 * MEGABYTE


FORMULAS = '=cmd|\'/c calc\'!A0,@SUM(1),"=HYPERLINK(""http://x.invalid"")"'


def test_formulas_of_text_are_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,c,y\n" + "".join(f"{FORMULAS},{i % 7}.5\nu,v,w,{i % 5}\n" for i in range(20)))
    assert load_table(path, "y").features["a"].tolist()[:2] == ["=cmd|'/c calc'!A0", "u"]


def test_a_message_writes_no_control_characters(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x\x1b[2J,y\n" + "".join(f"{i},{i % 5}\n" for i in range(400)) + "\x1b[31mred\x07,3\n")
    with pytest.raises(ValueError, match=r'"x') as error:
        load_table(path, "y")
    assert str(error.value).isprintable()
    with pytest.raises(ValueError, match="target: expected a column") as error:
        load_table(path, "z")
    assert str(error.value).isprintable()


def test_a_frame_with_cells_of_any_object_is_refused_by_column():
    X = pd.DataFrame({"x": [1.0, 2.0, 3.0], "bad": [[1], {"a": 2}, Bomb()], "y": [1.0, 2.0, 5.0]})
    with pytest.raises(ValueError, match='"bad": expected text, numbers or dates, got list'):
        load_table(X, "y")


def test_nothing_is_written_where_a_table_is_read(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(50)))
    code = "from pyro_probmix.datasets import load_table; load_table('t.csv', 'y').dataset()"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


WORDS = ["a", "1", "-2.5", "1,5", "$3", "7 %", "?", "-", "NA", "", "yes", "no", "2020-01-02", "3/4/2020", "Total"]
WORDS += ["inf", "\u0663", "00", "1e999", "9" * 30, "'", "a b", "\x1b", "12", "0.5", "7"]
CELLS = st.sampled_from(WORDS)
SIGNS = st.sampled_from([",", ";", "\t", "|", " ", '"', "\n", "\r", "\ufeff"])
LINES = st.lists(CELLS | SIGNS, max_size=60).map("".join)


@st.composite
def rows_of_cells(draw):
    width, sep = draw(st.integers(1, 4)), draw(st.sampled_from([",", ";", "\t", "|"]))
    header = [f"name {i}" for i in range(width)]
    columns = draw(st.lists(st.lists(CELLS, min_size=1, max_size=3), min_size=width, max_size=width))
    rows = [[draw(st.sampled_from(column)) for column in columns] for _ in range(draw(st.integers(1, 9)))]
    return "\n".join(sep.join(row) for row in [header, *rows]).encode()


@settings(max_examples=100)
@given(content=st.one_of(rows_of_cells(), st.binary(max_size=200), LINES.map(str.encode)))
def test_any_bytes_are_a_table_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "t.csv"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        try:
            table = load_table(path, -1)
            x = table.dataset().x if table.task else table.features
        except ValueError as error:
            assert "t.csv" in str(error) or "X: expected a column that tells rows apart" in str(error)  # noqa: PT017
            return
    assert len(x) == len(table)
