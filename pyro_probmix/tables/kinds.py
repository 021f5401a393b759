"""What a column may be, and how one says what is odd about it."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "KINDS",
    "MISSING",
    "Kind",
    "TableWarning",
    "Values",
    "clean_name",
    "did_you_mean",
    "name_cells",
    "quoted",
    "resolve_kinds",
    "warn",
]

Kind = Literal["number", "category", "ordered", "date", "boolean"]
KINDS: tuple[str, ...] = get_args(Kind)
"""The kinds of columns."""

MISSING = frozenset(
    ["", "#n/a", "#n/a n/a", "#na", "-nan", "<na>", "n/a", "na", "nan", "nat", "none", "null", "(null)", "missing"]
)
"""Cells that are missing in a column of any kind, in lower case and without blanks around them."""

_CELLS_NAMED = 5
_SHOWN = 40
_LONGEST = 160


class TableWarning(UserWarning):
    """Something of a table that a reader should look at: what was cleaned, dropped, missing or not known.

    Example:
        >>> import pandas as pd, warnings
        >>> from pyro_probmix.tables import Preparation
        >>> preparation = Preparation.fit(pd.DataFrame({"town": ["Bonn", "Rome"]}))
        >>> with warnings.catch_warnings(record=True, category=TableWarning) as said:
        ...     warnings.simplefilter("always")
        ...     features = preparation.transform(pd.DataFrame({"town": ["Ulm"]}))
        >>> str(said[0].message)
        '"town": levels that training did not have: 1 cell (row 0: "Ulm")'
    """


class Values(NamedTuple):
    """The cells of a column as numbers: data with a place for each row, and which of them are missing or wrong.

    Args:
        data: of shape ``(n,)``: numbers (float64 or int64), days (datetime64), 0/1, or positions in ``levels``.
        missing: which cells are missing, of shape ``(n,)``.
        faults: which cells are of another kind, of shape ``(n,)``; they are missing, too.
        levels: the names of categories.
        notes: what was cleaned.
        form: how dates are written.
    """

    data: NDArray[Any]
    missing: NDArray[np.bool_]
    faults: NDArray[np.bool_]
    levels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    form: str | None = None


def warn(message: str) -> None:
    """Say something of a table."""
    warnings.warn(message, TableWarning, stacklevel=3)


def name_cells(bad: NDArray[np.bool_], column: Any, rows: Any = None) -> str:
    """How many cells are meant, of shape ``(n,)``, and the first of them with their rows.

    Example:
        >>> name_cells(np.array([False, True, True]), ["1", "?", "x"])
        '2 cells (row 1: "?", row 2: "x")'
    """
    found = np.flatnonzero(bad)
    cells = [column.iloc[i] if hasattr(column, "iloc") else column[i] for i in found[:_CELLS_NAMED]]
    labels = [found[k] if rows is None else rows[found[k]] for k in range(len(cells))]
    named = ", ".join(f"row {label}: {_shown(cell)}" for label, cell in zip(labels, cells, strict=True))
    more = ", ..." if len(found) > _CELLS_NAMED else ""
    return f"{len(found)} {'cell' if len(found) == 1 else 'cells'} ({named}{more})"


def _shown(cell: Any) -> str:
    text = str(cell.item() if isinstance(cell, np.generic) else cell)
    text = _printable(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
    return f'"{text}"' if isinstance(cell, str) else text


def resolve_kinds(
    kinds: Mapping[Any, Any] | None, names: Sequence[str]
) -> dict[str, tuple[Kind, tuple[str, ...] | None]]:
    """The kind of each named column, with the order of the levels where it is given.

    Args:
        kinds: by name or position: a kind, or the levels of an ordered column in their order, as a sequence or as
            ``"low < mid < high"``.
        names: the names of all columns.

    Raises:
        ValueError: if a column is not there, or a kind is none.

    Example:
        >>> resolve_kinds({"size": "S < M < L", "zip": "category"}, ["zip", "size"])
        {'size': ('ordered', ('S', 'M', 'L')), 'zip': ('category', None)}
    """
    found: dict[str, tuple[Kind, tuple[str, ...] | None]] = {}
    if not isinstance(kinds, Mapping | None):
        raise TypeError(f"kinds: expected a kind by the name of a column, got {kinds!r:.80}")
    for key, value in (kinds or {}).items():
        name = (
            names[int(key)]
            if isinstance(key, (int, np.integer)) and -len(names) <= key < len(names)
            else clean_name(key)
        )
        if name not in names:
            raise ValueError(
                f"kinds: expected columns among {quoted(names, 10)}, got {quoted([name])}{did_you_mean(names, name)}"
            )
        levels: tuple[str, ...] | None = None
        if isinstance(value, str) and "<" in value:
            value = tuple(re.split(r"\s*<\s*", value.strip()))
        if isinstance(value, Iterable) and not isinstance(value, str):
            levels, value = tuple(map(str, value)), "ordered"
            if len(set(levels)) < max(2, len(levels)) or "" in levels:
                raise ValueError(f'kinds: expected two or more distinct levels of "{name}", got {quoted(levels)}')
        if value not in KINDS:
            raise ValueError(f'kinds: expected one of {quoted(KINDS)} for "{name}", got {value!r}')
        found[name] = (value, levels)
    return found


def did_you_mean(names: Iterable[Any], name: Any) -> str:
    """The end of a message about a name that is not known: the one of those known that is nearest, if any is.

    Example:
        >>> print(did_you_mean(["area", "price"], "prize"))
        ; did you mean "price"?
    """
    near = difflib.get_close_matches(clean_name(name), [clean_name(one) for one in names], 1)
    return f"; did you mean {quoted(near)}?" if near else ""


def clean_name(name: Any) -> str:
    """The name of a column without blanks around it, with one where it has many or a newline, and printable.

    Example:
        >>> clean_name(" Cement\\n(kg)  ")
        'Cement (kg)'
    """
    return _printable(" ".join(str(name).split()))


def quoted(names: Iterable[Any], limit: int = 20) -> str:
    """Names in quotation marks, the first of them where they are many.

    Example:
        >>> print(quoted(["x", "a name\\n"]))
        "x", "a name"
    """
    names = list(names)
    shown = ", ".join(f'"{clean_name(name)[:_LONGEST]}"' for name in names[:limit])
    return shown + (f", ... ({len(names)} in all)" if len(names) > limit else "")


def _printable(text: str) -> str:
    """Text that does to a terminal what it says."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
