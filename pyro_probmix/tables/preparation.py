"""From the columns of a table, or of an array, to features of double precision."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_probmix.tables.columns import Column, NumberColumn, column_from_dict, fit_column
from pyro_probmix.tables.kinds import Kind, Values, clean_name, name_cells, quoted, resolve_kinds, warn
from pyro_probmix.tables.values import array_values, check_values, convert, recognise

__all__ = ["FORMS", "Preparation", "drop_reason"]

FORMS = "pyro_probmix.date_forms"
"""Key of the ``attrs`` of a DataFrame that has how dates were written, by column."""

_VERSION = 1
_NAMELESS = re.compile(r"unnamed.*|level_\d+|", re.IGNORECASE)
_COUNTERS = re.compile(r"index|idx|id|row|rows|row[ _]?(id|index|number)|nr\.?|no\.?|#|number|rownames", re.IGNORECASE)


@dataclass(frozen=True)
class Preparation:
    r"""How the columns of a table become features: declared once, by training rows, and kept with a model.

    A number, an ordered category and a date become :math:`(x - \bar x) / s`; a category one 0/1 feature a level, rare
    ones of many sharing one; a date the sine and cosine of its place in the year, the week and the day besides; a
    boolean 0 or 1. What is missing becomes 0, with a 0/1 feature of it where training had any.

    Args:
        columns: what each column becomes.
        dropped: columns that training told nothing of, with the reason.
        notes: what was cleaned or dropped.

    Example:
        >>> import pandas as pd
        >>> homes = pd.DataFrame({"area": [50.0, 70.0, 90.0], "town": ["Bonn", "Rome", "Bonn"]})
        >>> preparation = Preparation.fit(homes)
        >>> preparation.feature_names
        ('area', 'town=Bonn', 'town=Rome')
        >>> preparation.transform(homes)[:, 1:].tolist()
        [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
        >>> Preparation.from_dict(preparation.to_dict()) == preparation
        True
    """

    columns: tuple[Column, ...]
    dropped: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, X: Any, kinds: Mapping[Any, Any] | None = None) -> Preparation:
        """The preparation that training rows ask for.

        Args:
            X: a DataFrame of n rows, or numbers of shape ``(n, d)``, of which NaN is missing and nothing is dropped.
            kinds: the kind of a column by its name or position, where it is not to be guessed: ``"number"``,
                ``"category"``, ``"ordered"``, ``"date"``, ``"boolean"``, or the levels of an ordered one in their
                order. Such columns are never dropped.

        Raises:
            ValueError: if cells of a column are of another kind than most, or infinite (column, cells and rows are
                named), names come twice, or no column is left.
        """
        if not _is_frame(X):
            return cls._fit_array(_as_array(X), kinds)
        names = _names(X)
        given = resolve_kinds(kinds, names)
        rows = X.index.to_numpy()
        columns: list[Column] = []
        dropped: dict[str, str] = {}
        notes: list[str] = []
        seen: dict[tuple[Any, ...], str] = {}
        for position, name in enumerate(names):
            cells = X.iloc[:, position]
            kind, levels = given.get(name) or (recognise(cells), None)
            values = convert(cells, kind, levels=levels)
            check_values(name, values, cells, kind, rows, name in given)
            notes += [f'"{name}": {note}' for note in values.notes]
            if kind == "date" and values.form is None:  # read by load_table
                values = values._replace(form=getattr(X, "attrs", {}).get(FORMS, {}).get(name))
            key = _content(kind, values)
            reason = None if name in given else drop_reason(name, kind, values)
            if reason is None and name not in given and key in seen:
                reason = f'duplicate of "{seen[key]}"'
            if reason is not None:
                dropped[name] = reason
                continue
            seen.setdefault(key, name)
            columns.append(_checked_column(fit_column(name, kind, values)))
        if not columns:
            raise ValueError(f"X: expected a column that tells rows apart, got {_reasons(dropped) or 'none'}")
        if dropped:
            notes.append(f"columns dropped: {_reasons(dropped)}")
        for note in notes:
            warn(note)
        return cls(tuple(columns), dropped, tuple(notes))

    @classmethod
    def _fit_array(cls, X: NDArray[Any], kinds: Mapping[Any, Any] | None) -> Preparation:
        names = [f"x{i}" for i in range(X.shape[1])]
        given = resolve_kinds(kinds, names)
        columns = []
        for position, name in enumerate(names):
            kind, levels = given.get(name, ("number", None))
            values = array_values(X[:, position], kind, levels)
            check_values(name, values, X[:, position], kind, given=name in given)
            columns.append(_checked_column(fit_column(name, kind, values)))
        return cls(tuple(columns), {})

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each feature."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def num_features(self) -> int:
        """The number of features."""
        return len(self.feature_names)

    @property
    def kinds(self) -> dict[str, Any]:
        """The kind of each column, by name; the levels of ordered ones."""
        return {
            column.name: getattr(column, "levels", ()) if column.kind == "ordered" else column.kind
            for column in self.columns
        }

    def as_read(self) -> dict[str, str]:
        """The kind of each column, or why it was left out, in words and by name."""
        kept = {column.name: str(column.kind) for column in self.columns}
        return kept | {name: f"left out: {reason}" for name, reason in self.dropped.items()}

    def transform(self, X: Any) -> NDArray[np.float64]:
        """The features of rows, of shape ``(n, num_features)``.

        Cells of another kind count as missing, and levels that training did not have as none of those it had; both
        are said in a :class:`TableWarning`, as are cells missing in a column in which training had none.

        Args:
            X: a DataFrame whose columns are found by name, or numbers of shape ``(n, d)``.

        Raises:
            ValueError: if a column is not there, or a number is infinite.
        """
        frame = _is_frame(X)
        array = None if frame else _as_array(X)
        rows = X.index.to_numpy() if frame else None
        names = _names(X) if frame else []
        if array is not None and array.shape[1] != len(self.columns):
            raise ValueError(f"X: expected {len(self.columns)} columns, got {array.shape[1]}")
        if frame:
            self._check_names(names)
        found = np.empty((len(X) if array is None else len(array), self.num_features))
        first = 0
        for position, column in enumerate(self.columns):
            cells = X.iloc[:, names.index(column.name)] if array is None else array[:, position]
            levels = getattr(column, "levels", None) if column.kind == "ordered" else None
            if array is None:
                values = convert(cells, column.kind, levels=levels, form=getattr(column, "form", None))
            else:
                values = array_values(cells, column.kind, levels)
            _say(column, values, cells, rows)
            features = column.encode(values)
            found[:, first : first + features.shape[1]] = features
            first += features.shape[1]
        return found

    def _check_names(self, names: list[str]) -> None:
        missing = [column.name for column in self.columns if column.name not in names]
        if missing:
            raise ValueError(f"X: expected the columns of training, got none named {quoted(missing)}")
        known = {*self.dropped, *(column.name for column in self.columns)}
        extra = [name for name in names if name not in known]
        if extra:
            warn(f"columns that training did not have are ignored: {quoted(extra)}")

    def to_dict(self) -> dict[str, Any]:
        """The preparation as numbers, text, lists and dictionaries, for JSON."""
        columns = [column.to_dict() for column in self.columns]
        return {"version": _VERSION, "columns": columns, "dropped": dict(self.dropped), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Preparation:
        """The preparation that :meth:`to_dict` wrote; also from JSON, to the last bit.

        Raises:
            ValueError: if the version is another, or a key, a kind or a value is not as expected.
        """
        keys = ("version", "columns", "dropped", "notes")
        if not isinstance(settings, Mapping) or settings.get("version") != _VERSION:
            got = settings.get("version") if isinstance(settings, Mapping) else settings
            raise ValueError(f"preparation: expected version {_VERSION}, got {got!r}")
        if sorted(settings) != sorted(keys):
            raise ValueError(f"preparation: expected the keys {', '.join(keys)}, got {', '.join(map(str, settings))}")
        columns, dropped, notes = (settings[key] for key in keys[1:])
        if not (isinstance(columns, (list, tuple)) and columns):
            raise ValueError(f"columns: expected a list of at least one column, got {columns!r}")
        texts = [*dropped.items()] if isinstance(dropped, Mapping) else [None]
        if not all(isinstance(text, tuple) and all(isinstance(part, str) for part in text) for text in texts):
            raise ValueError(f"dropped: expected a reason by name, got {dropped!r}")
        if not isinstance(notes, (list, tuple)) or not all(isinstance(note, str) for note in notes):
            raise ValueError(f"notes: expected a list of text, got {notes!r}")
        found = tuple(column_from_dict(column) for column in columns)
        names = [column.name for column in found]
        if len(set(names)) < len(names):
            raise ValueError(f"columns: expected distinct names, got {quoted(names)}")
        return cls(found, dict(dropped), tuple(notes))


def _is_frame(X: Any) -> bool:
    return hasattr(X, "iloc") and hasattr(X, "columns")


def _as_array(X: Any) -> NDArray[Any]:
    array = np.asarray(X)
    if array.ndim != 2:
        raise ValueError(f"X: expected a DataFrame or an array of shape (n, d), got shape {array.shape}")
    if array.dtype.kind == "b":
        return array.astype(np.int64)
    if array.dtype.kind not in "iuf":
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"X: expected an array of numbers, or a DataFrame, got {array.dtype}: {error}") from error
    return array.astype({"i": np.int64, "u": np.uint64, "f": np.float64}[array.dtype.kind])


def _names(X: Any) -> list[str]:
    names = [clean_name(name) for name in X.columns]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"X: expected columns of distinct names, got more than one {quoted(twice)}")
    return names


def _content(kind: Kind, values: Values) -> tuple[Any, ...]:
    """What makes two columns the same."""
    data = values.data.astype(np.float64) + 0.0 if values.data.dtype.kind == "f" else values.data
    data = np.where(values.missing, data.dtype.type(0), data) if data.dtype.kind in "iuf" else data
    parts = (hashlib.sha256(part.tobytes()).digest() for part in (data, values.missing))
    return kind, *parts, values.levels


def drop_reason(name: str, kind: Kind, values: Values) -> str | None:
    """Why a column tells nothing of a row, None where it may."""
    present = values.data[~values.missing]
    if not present.size:
        return "empty"
    if not values.missing.any():
        if (present == present[0]).all():
            return "constant"
        if kind == "number" and _counts(name, present):
            return "counts the rows"
    elif (present == present[0]).all() and kind != "category" and len(present) == len(values.missing):
        return "constant"
    if kind == "category" and len(values.levels) > max(20, len(present) // 2):
        return f"{len(values.levels)} different names in {len(present)} rows"
    return None


def _counts(name: str, numbers: NDArray[Any]) -> bool:
    """Whether a column that has no name, or one of a counter, counts the rows; others may be of time."""
    name = name.strip()
    if (numbers != np.floor(numbers)).any():
        return False
    if _NAMELESS.fullmatch(name):  # rows that were chosen or shuffled are still counted
        return len(np.unique(numbers)) == len(numbers)
    return bool(_COUNTERS.fullmatch(name)) and numbers[0] in (0, 1) and bool((np.diff(numbers) == 1).all())


def _reasons(dropped: Mapping[str, str]) -> str:
    return ", ".join(f"{quoted([name])} ({reason})" for name, reason in dropped.items())


def _checked_column(column: Column) -> Column:
    if isinstance(column, NumberColumn) and not np.isfinite([column.center, column.scale]).all():
        raise ValueError(f'"{column.name}": expected numbers whose variance is finite, got larger ones; rescale them')
    return column


def _say(column: Column, values: Values, cells: Any, rows: Any) -> None:
    title = quoted([column.name])
    faults = values.faults
    if column.kind == "number" and values.data.dtype.kind == "f" and np.isinf(values.data).any():
        check_values(column.name, values._replace(faults=np.zeros_like(faults)), cells, column.kind, rows)
    if column.kind == "date":
        for note in values.notes:
            warn(f"{title}: {note}")
    if faults.any():
        kind = f"a {column.kind}" if column.kind != "ordered" else "a known level"
        warn(f"{title}: taken as missing, as no {kind[2:]}: {name_cells(faults, cells, rows)}")
    if not column.missing and (gone := values.missing & ~faults).any():
        warn(f"{title}: missing, though never in training: {name_cells(gone, cells, rows)}")
    if (unseen := column.unseen(values)).any():
        warn(f"{title}: levels that training did not have: {name_cells(unseen, cells, rows)}")
