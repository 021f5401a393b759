"""A page of HTML that stands by itself: headings, tables and pictures, no script, and nothing from outside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyro_probmix._files import write_bytes

__all__ = ["REPORT", "Figure", "Section", "Table", "pairs_table", "plural", "shown", "write_page"]

REPORT = "report.html"
"""Name of a report in its folder."""

_NOTES = 50
"""Notes that are listed."""

_LONGEST = 500
"""Characters of a name, a value or a note."""


@dataclass(frozen=True)
class Table:
    """Rows of texts under headings.

    Args:
        caption: what the table shows.
        headings: one a column.
        rows: texts, as many a row as there are headings; the first names the row.
        best: places ``(row, column)`` that are set in bold.
        words: columns that hold words and are set to the left; the others hold numbers.

    Example:
        >>> Table("Scores", ["method", "NLL"], [["ERM", "2.61"], ["ProbMix", "2.55"]], best=frozenset({(1, 1)})).rows[1]
        ['ProbMix', '2.55']
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()
    words: frozenset[int] = frozenset({0})


@dataclass(frozen=True)
class Figure:
    """A picture: its address, which holds the picture itself, what is seen on it, and its size in CSS pixels."""

    source: str
    alt: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Section:
    """What stands under one heading, in this order: paragraphs, tables, a list, figures."""

    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    figures: Sequence[Figure] = ()

    @property
    def anchor(self) -> str:
        """Its name in the address of the page."""
        return re.sub(r"[^a-z]+", "-", self.heading.lower()).strip("-")


def write_page(path: str | Path, title: str, lead: str, sections: Iterable[Section]) -> Path:
    """Write a page of sections; a kill while writing leaves the file as it was.

    Args:
        path: the file.
        title: of the page, and its first heading.
        lead: what the page is about, in a sentence.
        sections: those without content are left out.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: if Jinja is not installed.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('a report needs jinja2: pip install "pyro-probmix[tables]"') from error
    loader = jinja2.PackageLoader(__package__)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filled = [
        replace(part, notes=_some(part.notes))
        for part in sections
        if part.paragraphs or part.tables or part.notes or part.figures
    ]
    page = environment.get_template(REPORT).render(title=title, lead=lead, sections=filled)
    write_bytes(Path(path), page.encode("utf-8", "replace"))
    return Path(path)


def pairs_table(caption: str, names: tuple[str, str], values: Mapping[str, Any]) -> Table:
    """A table of names and values."""
    rows = [[_short(str(name)), _short(shown(value))] for name, value in values.items()]
    return Table(caption, names, rows, words=frozenset({0, 1}))


def plural(number: int, name: str) -> str:
    """So many of a name.

    >>> plural(1, "row"), plural(2, "row")
    ('1 row', '2 rows')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"


def shown(value: Any) -> str:
    """A value as a reader writes it.

    >>> shown(13919.4), shown(0.000123456)
    ('13919', '0.0001235')
    >>> shown({"hidden": (128, 32), "rate": 0.0020000001, "patience": None, "refit": False})
    'hidden 128, 32; rate 0.002; patience none; refit no'
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {shown(one)}" for key, one in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value)) or "none"
    return str(value)


def _some(notes: Sequence[str]) -> list[str]:
    """As many notes as are read, and how many more there are."""
    more = len(notes) - _NOTES
    return [*map(_short, notes[:_NOTES]), *([f"… and {more} more"] if more > 0 else [])]


def _short(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
