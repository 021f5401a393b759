"""From a file or a frame to named columns of cells."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_probmix.tables.kinds import clean_name, quoted
from pyro_probmix.tables.reading import Reading, grouped_by_points, guess_decimal, guess_separator, split_lines
from pyro_probmix.tables.sources import MAX_CELLS, MAX_COLUMNS, check_file, find_encoding, open_lines
from pyro_probmix.tables.workbooks import read_parquet, read_workbook

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "Cells", "read_cells"]

SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".data", ".parquet", ".pq", ".xlsx", ".xlsm")
"""The suffixes of files that are tables; those of text also with .gz."""

_SAMPLE = 500
_ROWS_AT_ONCE = 20_000
_TITLES = 20
_NUMBER = re.compile(r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, eq=False)
class Cells:
    """A table as it was read.

    Args:
        frame: cells of text of a file of text, typed ones of others. Its index has the rows of the file, from 1; a
            frame keeps its own.
        name: of the file.
        reading: how it was read, with what was guessed.
        notes: what is to be said of it.
        warnings: those of the notes that ask for a look.
        left_out: the rows between others that have no cell.

    Example:
        >>> import pandas as pd
        >>> cells = read_cells(pd.DataFrame({" x ": [1.5, 2.5]}))
        >>> list(cells.frame.columns), len(cells.frame)
        (['x'], 2)
    """

    frame: pd.DataFrame
    name: str
    reading: Reading
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()

    @property
    def first_row(self) -> int:
        """The row of the file that is the first of the frame."""
        return int(self.frame.index[0]) if self.frame.index.name == "row" else 0


def read_cells(source: Any, reading: Reading | None = None) -> Cells:
    """The cells of a table.

    Args:
        source: a DataFrame, or the path of a file: text (.csv, .tsv, .txt, …, with .gz compressed), Parquet or Excel
            (its first sheet).
        reading: how it is read; what is None there is guessed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such table: rows of unequal length, names that are numbers, damaged files, or ones that
            are too large (file and row are named).
        ImportError: if a package is missing that reads it.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "homes.csv")
        >>> _ = path.write_text("area ; price\\n50,5;1,5\\n70,0;2,1\\n")
        >>> cells = read_cells(path)
        >>> cells.reading.sep, cells.reading.decimal, list(cells.frame.columns), cells.first_row
        (';', ',', ['area', 'price'], 2)
        >>> folder.cleanup()
    """
    reading = Reading() if reading is None else reading
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        names, warnings = _distinct([str(name) for name in source.columns], "X")
        return Cells(source.set_axis(names, axis=1), "X", reading, warnings, warnings)
    try:
        path = Path(source)
    except TypeError:
        raise TypeError(f"source: expected a path or a DataFrame, got {type(source).__name__}") from None
    check_file(path)
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise ImportError(f'reading {path} needs pandas: pip install "pyro-probmix[tables]"') from error
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        frame = read_parquet(path)
        names, warnings = _distinct([str(name) for name in frame.columns], path.name)
        return Cells(frame.set_axis(names, axis=1), path.name, reading, warnings, warnings)
    if suffix in (".xlsx", ".xlsm"):
        rows, notes = read_workbook(path)
        return _workbook_cells(path, rows, reading, notes)
    return _text_cells(path, reading)


def _text_cells(path: Path, reading: Reading) -> Cells:
    encoding, note = (reading.encoding, None) if reading.encoding else find_encoding(path)
    notes = [] if note is None else [note]
    with open_lines(path, str(encoding)) as lines:
        skipped = sum(1 for _ in itertools.islice(lines, reading.skip_rows))
        sample = list(itertools.islice(lines, _SAMPLE))
        if sample and sample[0].startswith("\ufeff"):
            sample[0] = sample[0][1:]
        sep = reading.sep or _declared(sample)
        try:
            sep = sep or guess_separator(sample, len(sample) < _SAMPLE)
        except ValueError as error:
            raise ValueError(f"{path}: {error} (sep=, --sep)") from None
        every = _records(path, itertools.chain(sample, lines), sep, skipped)
        empty: list[int] = []
        header = _header(path, _filled(every, []), reading)
        records = every if header is not None and len(header) == 1 else _filled(every, empty)
        head = list(itertools.islice(records, _SAMPLE))
        if not head:
            raise ValueError(f"{path}: expected rows below the header, got none")
        if header is not None:
            _check_title(path, header, head)
        if header is not None and not header[-1].strip() and all(_ends_empty(cells, header) for _, cells in head):
            header = header[:-1]  # a separator at the end of each row
        width = _width(path, header, head)
        try:
            texts = (cell for _, cells in head for cell in cells)
            decimal = reading.decimal or guess_decimal(texts, sep)
        except ValueError as error:
            raise ValueError(f"{path}: {error} (decimal=, --decimal)") from None
        frame = _collect(path, itertools.chain(head, records), width, header)
    names, warnings = _named(path, header, width)
    frame.columns = names
    if decimal is None:
        warnings = (*warnings, *_doubtful_points(path, frame, sep))
        decimal = "."
    if reading.sep is None and sep != ",":
        notes.append(f"cells separated by {_SPOKEN.get(sep, sep)}")
    if reading.decimal is None and decimal != ".":
        notes.append(f'"{decimal}" as the decimal sign')
    found = replace(reading, sep=sep, decimal=decimal, encoding=encoding)
    left_out = tuple(number for number in empty if number < frame.index[-1])
    return Cells(frame, path.name, found, (*notes, *warnings), warnings, left_out)


def _doubtful_points(path: Path, frame: pd.DataFrame, sep: str) -> list[str]:
    """What is said of points that may separate thousands, where no column shows the decimal sign.

    Raises:
        ValueError: if ``;`` separates cells, as where the comma is the decimal sign.
    """
    said = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        cell, mixed = grouped_by_points(column)
        if cell is None or not (mixed or sep == ";"):
            continue
        whole = cell.replace(".", "")
        if sep == ";":
            raise ValueError(
                f'{path}: {quoted([name])}: expected numbers of one reading, got "{cell}"; where it means {whole}, '
                f'give --decimal , (decimal=","), otherwise --decimal . (decimal=".")'
            )
        said.append(
            f'{quoted([name])}: "{cell}" beside whole numbers is read with a decimal point; where it means {whole}, '
            f'give --decimal , (decimal=",")'
        )
    return said


_SPOKEN = {"\t": "tabs", " ": "blanks"}


def _declared(sample: list[str]) -> str | None:
    """The separator that Excel's first line ``sep=;`` declares; the line is emptied."""
    declared = re.fullmatch(r"sep=(.)\s*", sample[0]) if sample else None
    if declared is None:
        return None
    sample[0] = "\n"
    return declared[1]


def _records(path: Path, lines: Iterator[str], sep: str, number: int) -> Iterator[tuple[int, list[str]]]:
    """The rows, but blank lines, with their numbers, which go on from one."""
    records = split_lines(lines, sep)
    while True:
        number += 1
        try:
            cells = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            if "expected after" in str(error):
                got = "a quotation mark inside of a quoted cell; double it"
            elif "end of data" in str(error):
                got = "a quotation mark not closed"
            else:
                got = f"a cell of more than {csv.field_size_limit():,} characters; is a quotation mark not closed?"
            raise ValueError(f"{path}: row {number}: expected cells of a table, got {got}") from None
        if len(cells) > MAX_COLUMNS:
            raise ValueError(f"{path}: expected at most {MAX_COLUMNS:,} columns, got {len(cells):,} in row {number}")
        if cells:
            yield number, cells


def _filled(records: Iterator[tuple[int, list[str]]], empty: list[int]) -> Iterator[tuple[int, list[str]]]:
    """The rows that have a cell that is not empty; the numbers of the others are added to a list."""
    for number, cells in records:
        if any(cell.strip() for cell in cells):
            yield number, cells
        else:
            empty.append(number)


def _header(path: Path, records: Iterator[tuple[int, list[str]]], reading: Reading) -> list[str] | None:
    if not reading.header:
        return None
    _, header = next(records, (0, []))
    if not any(cell.strip() for cell in header):
        raise ValueError(f"{path}: expected a header with the names of the columns, got none")
    check_header(path, header)
    return header


def check_header(path: Path, header: list[Any]) -> None:
    """Refuse names that are numbers, unless they count on, as years do."""
    numbers = [str(cell).strip() for cell in header if _NUMBER.fullmatch(str(cell).strip())]
    whole = [int(number) for number in numbers if number.isdigit()]
    steps = {b - a for a, b in itertools.pairwise(whole)}
    count_on = len(whole) == len(numbers) < len(header) and len(whole) > 1 and len(steps) == 1 and steps != {0}
    if numbers and not count_on:
        raise ValueError(
            f"{path}: expected the names of the columns in the first row, got the number {quoted(numbers[:1])}; "
            "where the table has no header, say so (--no-header, header=False)"
        )


def _check_title(path: Path, header: Sequence[Any], rows: Sequence[tuple[int, Sequence[Any]]]) -> None:
    """Refuse a first row that has a title alone, above the names.

    Raises:
        ValueError: naming the row that looks like the header.
    """
    filled = [cell for cell in header if not _is_empty(cell)]
    width = max(len(cells) for _, cells in rows)
    if len(filled) != 1 or _is_empty(header[0]) or width < 2:
        return
    for number, cells in rows[:_TITLES]:
        if len(cells) == width and all(isinstance(cell, str) and _is_name(cell) for cell in cells):
            raise ValueError(
                f"{path}: expected the names of the columns in the first row, got {quoted(filled)} alone; row {number} "
                f"looks like the header: skip what is above (--skip-rows {number - 1}, skip_rows={number - 1})"
            )


def _is_empty(cell: Any) -> bool:
    return cell is None or not str(cell).strip()


def _is_name(cell: str) -> bool:
    return bool(cell.strip()) and not _NUMBER.fullmatch(cell.strip())


def _width(path: Path, header: list[str] | None, head: list[tuple[int, list[str]]]) -> int:
    """The number of columns: of the header, or of most rows."""
    if header is not None:
        return len(header)
    return Counter(len(cells) for _, cells in head).most_common(1)[0][0]


def _ends_empty(cells: list[str], header: list[str]) -> bool:
    return len(cells) == len(header) and not cells[-1].strip()


def _collect(
    path: Path, records: Iterator[tuple[int, list[str]]], width: int, header: list[str] | None
) -> pd.DataFrame:
    import pandas as pd

    pieces, total = [], 0
    while piece := list(itertools.islice(records, _ROWS_AT_ONCE)):
        numbers, cells = zip(*piece, strict=True)
        if any(len(row) != width for row in cells):
            cells = tuple(_fitted(path, number, row, width, header) for number, row in piece)
        total += width * len(cells)
        if total > MAX_CELLS:
            raise ValueError(f"{path}: expected at most {MAX_CELLS:,} cells, got more")
        index = pd.Index(numbers, name="row")
        columns = {i: pd.Series(column, index, dtype="str") for i, column in enumerate(zip(*cells, strict=True))}
        pieces.append(pd.DataFrame(columns))
    return pd.concat(pieces) if len(pieces) > 1 else pieces[0]


def _fitted(path: Path, number: int, row: list[str], width: int, header: list[str] | None) -> list[str]:
    """A row of the right width; one separator more at its end is no cell."""
    if len(row) == width + 1 and not row[-1].strip():
        return row[:-1]
    if len(row) != width:
        expected = (
            f"{width} {'cell' if width == 1 else 'cells'}, as in {'most rows' if header is None else 'the header'}"
        )
        hint = ""
        if width == 1:
            hint = "; remove what stands above the names of the columns"
        elif len(row) == width + 1:
            hint = "; where rows begin with their names, name that column in the header"
        raise ValueError(f"{path}: row {number}: expected {expected}, got {len(row)} ({quoted(row, 5)}){hint}")
    return row


def _named(path: Path, header: list[Any] | None, width: int) -> tuple[list[str], tuple[str, ...]]:
    if header is None:
        return [f"column {i + 1}" for i in range(width)], ()
    return _distinct(["" if cell is None else str(cell) for cell in header], path.name)


def _distinct(names: list[str], source: str) -> tuple[list[str], tuple[str, ...]]:
    """Names without blanks around them, numbered where one comes twice, and what is said of that."""
    cleaned = [clean_name(name) or f"unnamed {i + 1}" for i, name in enumerate(names)]
    counts = Counter(cleaned)
    twice = [name for name, count in counts.items() if count > 1]
    if not twice:
        return cleaned, ()
    taken, met, found = set(cleaned), Counter[str](), []
    for name in cleaned:
        met[name] += 1
        number, new = met[name], name
        while number > 1 and new in taken:
            new = f"{name}.{number}"
            number += 1
        taken.add(new)
        found.append(new)
    renamed = [name for name in found if name not in counts]
    return found, (f"{source}: more than one column named {quoted(twice)}; the others are {quoted(renamed)}",)


def _workbook_cells(path: Path, rows: list[tuple[int, tuple[Any, ...]]], reading: Reading, notes: list[str]) -> Cells:
    import pandas as pd

    header = None
    rows = [(number, row) for number, row in rows if number > reading.skip_rows]
    if reading.header and rows:
        header = list(rows.pop(0)[1])
        check_header(path, header)
        if rows:
            _check_title(path, header, rows)
    if not rows:
        raise ValueError(f"{path}: expected rows below the header, got none")
    names, warnings = _named(path, header, len(rows[0][1]))
    numbers, cells = zip(*rows, strict=True)
    frame = pd.DataFrame(list(cells), pd.Index(numbers, name="row"), dtype=object)
    frame.columns = names
    left_out = tuple(sorted({*range(numbers[0], numbers[-1])} - {*numbers}))
    return Cells(frame, path.name, reading, (*notes, *warnings), warnings, left_out)
