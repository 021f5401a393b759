"""How a table of text is read, and careful guesses of it."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pyro_probmix.tables.kinds import MISSING

__all__ = ["SEPARATORS", "Reading", "grouped_by_points", "guess_decimal", "guess_separator", "split_lines"]

SEPARATORS = (";", "\t", "|", ",", " ")
"""The separators that are guessed, the less ambiguous ones first; ``" "`` is any run of blanks."""

_COMMA = re.compile(r"\s*[-+]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+\s*%?")
_POINT = re.compile(r"\s*[-+]?(?:\d*|\d{1,3}(?:,\d{3})+)\.\d+(?:[eE][-+]?\d+)?\s*%?")
_COMMA_GROUPS = re.compile(r"\s*[-+]?[1-9]\d{0,2}(?:,\d{3})+\s*")
_POINT_GROUPS = re.compile(r"\s*[-+]?[1-9]\d{0,2}(?:\.\d{3})+\s*")

_WHOLE = re.compile(r"[-+]?\d+")


@dataclass(frozen=True)
class Reading:
    """How a table is read; what is None is guessed.

    Args:
        sep: what separates cells; ``" "`` is any run of blanks. Guessed among , ; tab | and blank.
        decimal: ``"."`` or ``","``.
        encoding: of the text. Guessed: UTF-8, UTF-16 with its mark, else Windows-1252, which is said.
        header: whether the first row has the names of the columns.
        na: cells that are missing, besides empty ones and those as ``NA``.
        skip_rows: rows of the file above the names of the columns, such as a title.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> Reading(sep=";", decimal=",").to_dict()
        {'sep': ';', 'decimal': ',', 'encoding': None, 'header': True, 'na': [], 'skip_rows': 0}
    """

    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    header: bool = True
    na: tuple[str, ...] = ()
    skip_rows: int = 0

    def __post_init__(self) -> None:
        sep = {r"\t": "\t", "tab": "\t", "blank": " "}.get(self.sep or "", self.sep)
        if sep is not None and (len(sep) != 1 or sep in '"\n\r'):
            raise ValueError(f"sep: expected one character, such as ; or a tab, got {self.sep!r}")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f'decimal: expected "." or ",", got {self.decimal!r}')
        if self.encoding is not None:
            try:
                "".encode(self.encoding)  # refuses those that are of no text, too
            except LookupError:
                raise ValueError(
                    f'encoding: expected one that is known and of text, such as utf-8, got "{self.encoding}"'
                ) from None
        if not isinstance(self.header, bool):
            raise ValueError(f"header: expected True or False, got {self.header!r}")
        if isinstance(self.skip_rows, bool) or not isinstance(self.skip_rows, int) or self.skip_rows < 0:
            raise ValueError(f"skip_rows: expected an integer of at least 0, got {self.skip_rows!r}")
        words = (self.na,) if isinstance(self.na, str) else self.na
        object.__setattr__(self, "na", tuple(str(word).strip() for word in words))
        object.__setattr__(self, "sep", sep)

    def to_dict(self) -> dict[str, Any]:
        """The settings as text and lists, for JSON."""
        return {**asdict(self), "na": list(self.na)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Reading:
        """The reading that :meth:`to_dict` wrote.

        Raises:
            ValueError: if a key is not known or missing.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(settings, Mapping) or sorted(settings) != sorted(names):
            raise ValueError(f"reading: expected the keys {', '.join(names)}, got {settings!r}")
        return cls(**settings)


def split_lines(lines: Iterable[str], sep: str) -> Iterator[list[str]]:
    """The cells of each row of text; those of a row without any are an empty list.

    Raises:
        csv.Error: if a quote is not closed, or a cell is longer than :func:`csv.field_size_limit`.
    """
    if sep == " ":
        lines = (" ".join(line.split()) + "\n" for line in lines)
    else:  # blanks between a closing quote and a separator are of no cell
        blank = " " if sep == "\t" else r"[ \t]"
        blanks = re.compile(rf'(?<!")"{blank}+(?=[{re.escape(sep)}\r\n]|$)')
        lines = (blanks.sub('"', line) if '" ' in line or '"\t' in line else line for line in lines)
    return csv.reader(lines, delimiter=sep, skipinitialspace=sep != " ", strict=True)


def guess_separator(sample: Sequence[str], complete: bool) -> str:
    """The separator by which all rows of a sample have equally many cells; ``","`` of a table of one column.

    Where there is none, it is the one by which most rows have, so that the others can be named.

    Args:
        sample: the first lines of a table.
        complete: whether they are all of it; the last row may be torn if not.

    Raises:
        ValueError: if rows are split unequally by any.

    Example:
        >>> guess_separator(["a;b", "1,5;2,5", "3,5;4,5"], True)
        ';'
        >>> guess_separator(["letter", "lemon", "left"], True)
        ','
    """
    shares: dict[str, float] = {}
    split_somewhere, broken = False, None
    for sep in SEPARATORS:
        counts, whole = _counts(sample, sep, complete)
        if not whole and sep != " " and sum(sep in line for line in sample) > len(sample) / 2:
            broken = broken or sep
        if sep == " " and broken is not None:
            return broken  # what is wrong is said where all rows are read
        if not counts:
            continue
        usual, share = Counter(counts).most_common(1)[0]
        if usual >= 2 and all(count == usual for count in counts):
            return sep
        split_somewhere |= sep != " " and max(counts) > 1
        if usual >= 2 or min(counts) >= 2:
            shares[sep] = 1.0 if sep != " " and min(counts) >= 2 else share / len(counts)
    if not split_somewhere and not (shares.get(" ", 0.0) > 0.5 and _is_numeric(sample)):
        return ","
    best = max(shares, key=lambda sep: (shares[sep], sep != " "), default=None)
    if best is None or shares[best] <= 0.5:
        raise ValueError("expected rows of equally many cells by one of , ; tab | blank, got none; give the separator")
    return best


def _counts(sample: Sequence[str], sep: str, complete: bool) -> tuple[list[int], bool]:
    """How many cells the rows have, as far as they can be split, and whether all can."""
    counts = []
    try:
        for cells in split_lines(sample, sep):
            if cells:
                counts.append(len(cells))
    except csv.Error as error:
        return counts, not complete and "end of data" in str(error)
    return counts if complete or len(counts) < 2 else counts[:-1], True


def _is_numeric(sample: Sequence[str]) -> bool:
    words = [word for line in sample for word in line.split()]
    return sum(bool(re.fullmatch(r"[-+]?[\d.,]+(?:[eE][-+]?\d+)?", word)) for word in words) > len(words) / 2


def guess_decimal(cells: Iterable[str], sep: str) -> str | None:
    """The decimal sign of most cells of text that tell it, None where none does.

    Raises:
        ValueError: if numbers such as ``1,234`` could be of either.

    Example:
        >>> guess_decimal(["20,06", "486,49"], ";"), guess_decimal(["1,923.45", "7"], ",")
        (',', '.')
    """
    doubtful, commas, points = None, 0, 0
    for cell in cells:
        if "," in cell and _COMMA.fullmatch(cell):
            if _COMMA_GROUPS.fullmatch(cell):
                doubtful = doubtful or cell.strip()
            else:
                commas += 1
        elif "." in cell and _POINT.fullmatch(cell) and not _POINT_GROUPS.fullmatch(cell):
            points += 1
    if commas or points:
        return "," if commas > points else "."
    if doubtful is not None and sep != ",":
        raise ValueError(f'expected numbers of one reading, got "{doubtful}"; give the decimal sign, "." or ","')
    return None


def grouped_by_points(cells: Iterable[str]) -> tuple[str | None, bool]:
    """A cell such as ``7.011`` of a column that has only those and whole numbers, and whether it has these, too.

    Example:
        >>> grouped_by_points(["930", "7.011", ""]), grouped_by_points(["7.011", "0.5"])
        (('7.011', True), (None, False))
    """
    found, whole = None, False
    for cell in map(str.strip, cells):
        if _POINT_GROUPS.fullmatch(cell):
            found = found or cell
        elif _WHOLE.fullmatch(cell):
            whole = True
        elif cell.lower() not in MISSING and cell != "-":
            return None, False
    return found, found is not None and whole
