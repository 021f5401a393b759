"""Tables of Parquet and Excel."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_probmix.tables.sources import MAX_CELLS, MAX_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_parquet", "read_workbook"]

_MAX_UNPACKED = 1 << 30
_NEEDS = 'needs {}: pip install "pyro-probmix[tables]"'


_DAMAGES = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)  # openpyxl checks little of what it reads


def read_parquet(path: Path) -> pd.DataFrame:
    """The columns of a Parquet file.

    Raises:
        ImportError: if pyarrow is missing.
        ValueError: if the file is damaged or too large.
    """
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"reading {path} " + _NEEDS.format("pyarrow")) from error
    try:
        with parquet.ParquetFile(path) as file:
            _check_size(path, file.metadata.num_rows, file.metadata.num_columns)
            frame = file.read().to_pandas()
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path}: expected a whole Parquet file, got another: {error}") from error
    if not len(frame) or not frame.shape[1]:
        raise ValueError(f"{path}: expected rows and columns, got {len(frame)} and {frame.shape[1]}")
    return frame.reset_index(drop=all(name is None for name in frame.index.names))


def read_workbook(path: Path) -> tuple[list[tuple[int, tuple[Any, ...]]], list[str]]:
    """The rows of the first sheet of a workbook that have cells, with their numbers, and what is said of it.

    Formulas are their last values; nothing is computed.

    Raises:
        ImportError: if openpyxl is missing.
        ValueError: if the file is damaged or too large, or a formula has no value.
    """
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"reading {path} " + _NEEDS.format("openpyxl")) from error
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(info.file_size for info in packed.infolist())
        if unpacked > _MAX_UNPACKED or unpacked > 200 * path.stat().st_size + (1 << 26):
            raise ValueError(f"{path}: expected a workbook of at most {_MAX_UNPACKED:,} bytes, got {unpacked:,}")
        values, notes = _sheet(openpyxl, path, data_only=True)
        formulas, _ = _sheet(openpyxl, path, data_only=False)
    except _DAMAGES as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: expected a whole Excel workbook, got another: {error}") from error
    for (number, row), (_, written) in zip(values, formulas):
        for column, (value, formula) in enumerate(zip(row, written)):
            if value is None and formula is not None:
                raise ValueError(
                    f"{path}: row {number}, column {column + 1}: expected a value, got a formula without one: "
                    f'"{str(formula)[:40]}"; open and save the workbook in a spreadsheet'
                )
    rows = [(number, row) for number, row in values if any(cell is not None for cell in row)]
    width = max((max(i for i, cell in enumerate(row) if cell is not None) + 1 for _, row in rows), default=0)
    if not width:
        raise ValueError(f"{path}: expected a table in the first sheet, got none")
    return [(number, (row + (None,) * width)[:width]) for number, row in rows], notes


def _sheet(openpyxl: Any, path: Path, data_only: bool) -> tuple[list[tuple[int, tuple[Any, ...]]], list[str]]:
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # of styles and extensions, which are no cells
        book = openpyxl.load_workbook(file, read_only=True, data_only=data_only, keep_links=False)
        try:
            sheet, others = book.worksheets[0], len(book.sheetnames) - 1
            sheet.reset_dimensions()
            rows, total = [], 0
            for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
                total += len(row)
                if len(row) > MAX_COLUMNS or total > MAX_CELLS:
                    raise ValueError(f"{path}: expected at most {MAX_COLUMNS:,} columns, got a larger sheet")
                if row:
                    rows.append((number, tuple(row)))
        finally:
            book.close()
    return rows, [f'sheet "{sheet.title}" of {others + 1}'] if others else []


def _check_size(path: Path, rows: int, columns: int) -> None:
    if columns > MAX_COLUMNS or rows * columns > MAX_CELLS:
        raise ValueError(
            f"{path}: expected at most {MAX_COLUMNS:,} columns and {MAX_CELLS:,} cells, got {rows:,} × {columns:,}"
        )
