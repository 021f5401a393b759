"""Files of text, opened such that none fills the memory."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

__all__ = ["MAX_CELLS", "MAX_COLUMNS", "check_file", "find_encoding", "open_lines"]

MAX_CELLS = 200_000_000
"""Cells that a table may have."""
MAX_COLUMNS = 20_000
"""Columns that a table may have."""

_MAX_LINE = 1 << 24
_PIECE = 1 << 20
_RATIO, _ALLOWANCE = 100, 1 << 26
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHERS = {
    b"PAR1": "a Parquet file; name it .parquet",
    b"PK\x03\x04": "a workbook or another archive; save it as .xlsx or .csv",
    b"\x1f\x8b": "a compressed file; name it .gz",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as .xlsx",
    b"%PDF": "a PDF document",
    b"BZh": "a compressed file; decompress it",
    b"\xfd7zXZ": "a compressed file; decompress it",
    b"\x89HDF": "an HDF5 file",
    b"\x80\x04": "a pickle, which could run code",
    b"\x80\x05": "a pickle, which could run code",
}


def check_file(path: Path) -> None:
    """Refuse what is no file.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if it is a folder, a device or a pipe, or holds nothing.
    """
    if path.is_dir():
        raise ValueError(f"{path}: expected a file, got a folder")
    if not path.is_file():
        if path.exists():
            raise ValueError(f"{path}: expected a file, got a device or a pipe")
        raise FileNotFoundError(f"{path}: expected a file, got none")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: expected a table with a header, got an empty file")


def find_encoding(path: Path) -> tuple[str, str | None]:
    """The encoding of a file of text, and what is to be said of it.

    Raises:
        ValueError: if the file is not of text.
    """
    with _open(path) as file:
        piece = file.read(_PIECE)
        for start, what in _OTHERS.items():
            if piece.startswith(start):
                raise ValueError(f"{path}: expected a table of text, got {what}")
        for mark, encoding in _MARKS.items():
            if piece.startswith(mark):
                return encoding, None
        decoders = {name: codecs.getincrementaldecoder(name)() for name in ("utf-8", "cp1252")}
        while True:
            if b"\0" in piece:
                raise ValueError(
                    f"{path}: expected a table of text, got NUL bytes; where it is UTF-16, give the encoding"
                )
            if sum(map(piece.count, _CONTROLS)) > len(piece) // 100:
                raise ValueError(f"{path}: expected a table of text, got control characters of a binary file")
            for name in list(decoders):
                try:
                    decoders[name].decode(piece, final=not piece)
                except UnicodeDecodeError:
                    del decoders[name]
            if not piece:
                break
            piece = file.read(_PIECE)
    found = next(iter(decoders), "latin-1")
    return found, None if found == "utf-8" else f"read as {found}, as it is not UTF-8"


_CONTROLS = [bytes([code]) for code in range(32) if code not in b"\t\n\r\f\x1a"]


@contextmanager
def open_lines(path: Path, encoding: str) -> Iterator[Iterator[str]]:
    """The lines of a file of text, compressed where its name ends in .gz, one after the other.

    Raises:
        ValueError: if it is not in this encoding, is damaged, or a line or the whole is too large.
    """
    with _open(path) as file, io.TextIOWrapper(cast("IO[bytes]", file), encoding, newline="") as text:
        yield _lines(path, text, encoding)


def _lines(path: Path, text: io.TextIOWrapper, encoding: str) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        try:
            line = text.readline(_MAX_LINE)
        except UnicodeError as error:
            raise ValueError(f"{path}: expected text in {encoding}, got another: {error}; give the encoding") from error
        if not line:
            return
        if len(line) >= _MAX_LINE:
            raise ValueError(
                f"{path}: expected lines of fewer than {_MAX_LINE:,} characters, got a longer line {number}"
            )
        yield line


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file, decompressed."""
    if path.suffix.lower() != ".gz":
        with path.open("rb") as plain:
            yield cast("io.BufferedIOBase", plain)
        return
    limit = _RATIO * path.stat().st_size + _ALLOWANCE
    with gzip.open(path, "rb") as packed:
        yield io.BufferedReader(cast("io.RawIOBase", _Bounded(path, packed, limit)), _PIECE)


class _Bounded(io.RawIOBase):
    """A compressed file that is read up to a limit."""

    def __init__(self, path: Path, file: gzip.GzipFile, limit: int) -> None:
        self._path, self._file, self._limit, self._read = path, file, limit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            data = self._file.read(len(buffer))
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{self._path}: expected a whole .gz file, got a damaged one: {error}") from error
        self._read += len(data)
        if self._read > self._limit:
            raise ValueError(
                f"{self._path}: expected a table of at most {self._limit:,} bytes in so small a .gz file, got more; "
                "decompress it first"
            )
        buffer[: len(data)] = data
        return len(data)
