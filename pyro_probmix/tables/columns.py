r"""The columns of a table as features: numbers, categories, ordered ones, dates and booleans."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pyro_probmix.tables.kinds import Kind, Values
from pyro_probmix.tables.values import days

__all__ = [
    "BooleanColumn",
    "CategoryColumn",
    "Column",
    "DateColumn",
    "NumberColumn",
    "OrderedColumn",
    "column_from_dict",
    "fit_column",
]

_MAX_LEVELS = 50
_FEW_LEVELS = 20
_RARE = 10
_MANY_DIGITS = 2**31
_PERIODS = {"year": 365.2425, "week": 7.0, "day": 1.0}


@dataclass(frozen=True)
class Column:
    """What a column of a table becomes.

    Args:
        name: of the column.
        missing: whether training had missing cells; then there is a 0/1 feature of them.

    Example:
        >>> import pandas as pd
        >>> from pyro_probmix.tables import Preparation
        >>> [column.kind for column in Preparation.fit(pd.DataFrame({"x": [1.0, 2.5], "t": ["a", "b"]})).columns]
        ['number', 'category']
    """

    name: str
    missing: bool
    kind: ClassVar[Kind]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each feature."""
        return (*self._names(), *((f"{self.name}=(missing)",) if self.missing else ()))

    def encode(self, values: Values) -> NDArray[np.float64]:
        """The features of n cells, of shape ``(n, len(feature_names))``; those of missing ones are 0."""
        found = self._encode(values)
        found[values.missing] = 0.0
        indicator = [values.missing[:, None].astype(np.float64)] if self.missing else []
        return np.concatenate([found, *indicator], axis=1)

    def unseen(self, values: Values) -> NDArray[np.bool_]:
        """Which of n cells are of a level that training did not have, of shape ``(n,)``."""
        return np.zeros(len(values.missing), bool)

    def to_dict(self) -> dict[str, Any]:
        """The column as numbers, text and lists."""
        return {"kind": self.kind, **asdict(self)}

    def _names(self) -> tuple[str, ...]:
        return (self.name,)

    def _encode(self, values: Values) -> NDArray[np.float64]:
        raise NotImplementedError


@dataclass(frozen=True)
class NumberColumn(Column):
    r"""A number, as :math:`(x - \text{offset} - \text{center}) / \text{scale}`.

    Args:
        offset: a whole number, subtracted first where whole numbers have many digits.
        center: the mean of the rest.
        scale: its standard deviation; 1 where it does not vary.

    Example:
        >>> column = NumberColumn("rooms", missing=True, offset=0, center=3.0, scale=0.8)
        >>> column.feature_names
        ('rooms', 'rooms=(missing)')
    """

    offset: int
    center: float
    scale: float
    kind: ClassVar[Kind] = "number"

    def _encode(self, values: Values) -> NDArray[np.float64]:
        return (((_numbers(values.data, self.offset)) - self.center) / self.scale)[:, None]


@dataclass(frozen=True)
class CategoryColumn(Column):
    """A category, as one 0/1 feature a level.

    Args:
        levels: those with a feature of their own.
        rare: those that share one, with any that is met later.

    Example:
        >>> CategoryColumn("town", missing=False, levels=("Bonn", "Rome"), rare=("Ulm",)).feature_names
        ('town=Bonn', 'town=Rome', 'town=(other)')
    """

    levels: tuple[str, ...]
    rare: tuple[str, ...]
    kind: ClassVar[Kind] = "category"

    def unseen(self, values: Values) -> NDArray[np.bool_]:
        """Which of n cells are of a level that training did not have, of shape ``(n,)``."""
        known = {*self.levels, *self.rare}
        return ~np.array([level in known for level in values.levels] + [True])[values.data] & ~values.missing

    def _names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={level}" for level in (*self.levels, *(["(other)"] if self.rare else [])))

    def _encode(self, values: Values) -> NDArray[np.float64]:
        width, places = len(self._names()), self._places(values)
        found = np.zeros((len(places), width + 1))
        found[np.arange(len(places)), np.where(places < 0, len(self.levels), places)] = 1.0
        return found[:, :width]

    def _places(self, values: Values) -> NDArray[np.int64]:
        place = {level: i for i, level in enumerate(self.levels)}
        return np.array([place.get(level, -1) for level in values.levels] + [-1])[values.data]


@dataclass(frozen=True)
class OrderedColumn(Column):
    r"""An ordered category, as its standardised position, :math:`(k - \text{center}) / \text{scale}`.

    Args:
        levels: in their order.
        center: the mean position.
        scale: its standard deviation; 1 where it does not vary.

    Example:
        >>> OrderedColumn("grade", missing=False, levels=("low", "high"), center=0.5, scale=0.5).feature_names
        ('grade',)
    """

    levels: tuple[str, ...]
    center: float
    scale: float
    kind: ClassVar[Kind] = "ordered"

    def _encode(self, values: Values) -> NDArray[np.float64]:
        return ((values.data - self.center) / self.scale)[:, None]


@dataclass(frozen=True)
class DateColumn(Column):
    r"""A date, as standardised days and :math:`\sin, \cos` of its place in the year, the week and the day.

    Args:
        origin: the first date.
        center: mean of the days since then.
        scale: their standard deviation; 1 where they do not vary.
        parts: those of ``"year"``, ``"week"`` and ``"day"`` that vary.
        form: how dates of text were written.

    Example:
        >>> column = DateColumn("sold", False, "2020-01-06", center=9.0, scale=12.0, parts=("week",), form=None)
        >>> column.feature_names
        ('sold', 'sold sin(week)', 'sold cos(week)')
    """

    origin: str
    center: float
    scale: float
    parts: tuple[str, ...]
    form: str | None
    kind: ClassVar[Kind] = "date"

    def _names(self) -> tuple[str, ...]:
        return (self.name, *(f"{self.name} {wave}({part})" for part in self.parts for wave in ("sin", "cos")))

    def _encode(self, values: Values) -> NDArray[np.float64]:
        features = [(days(values.data, self.origin) - self.center) / self.scale]
        for part in self.parts:
            angle = 2 * np.pi * phase(values.data, part)
            features += [np.sin(angle), np.cos(angle)]
        return np.stack(features, axis=1)


@dataclass(frozen=True)
class BooleanColumn(Column):
    """Yes and no, as 1 and 0; its arguments are those of :class:`Column`.

    Example:
        >>> BooleanColumn("garden", missing=False).to_dict()
        {'kind': 'boolean', 'name': 'garden', 'missing': False}
    """

    kind: ClassVar[Kind] = "boolean"

    def _encode(self, values: Values) -> NDArray[np.float64]:
        return values.data[:, None].astype(np.float64)


_KINDS: dict[str, type[Column]] = {
    cls.kind: cls for cls in (NumberColumn, CategoryColumn, OrderedColumn, DateColumn, BooleanColumn)
}


def fit_column(name: str, kind: Kind, values: Values) -> Column:
    """The column of a kind that n values ask for.

    Raises:
        ValueError: if a date column has no date.
    """
    missing, present = bool(values.missing.any()), values.data[~values.missing]
    if kind == "number":
        offset = 0
        if present.dtype.kind in "iu" and present.size and max(-int(present.min()), int(present.max())) >= _MANY_DIGITS:
            offset = int(present.min())
        return NumberColumn(name, missing, offset, *_center_and_scale(_numbers(present, offset)))
    if kind == "category":
        counts = np.bincount(present, minlength=len(values.levels))
        kept = np.arange(len(counts))
        if len(counts) > _FEW_LEVELS:
            often = [i for i in np.argsort(-counts, kind="stable")[:_MAX_LEVELS] if counts[i] >= _RARE]
            kept = np.sort(np.array(often or np.argsort(-counts, kind="stable")[:_FEW_LEVELS]))
        rare = np.setdiff1d(np.arange(len(counts)), kept)
        return CategoryColumn(name, missing, *(tuple(values.levels[i] for i in part) for part in (kept, rare)))
    if kind == "ordered":
        return OrderedColumn(name, missing, values.levels, *_center_and_scale(present.astype(np.float64)))
    if kind == "date":
        if not present.size:
            raise ValueError(f'"{name}": expected dates, got none')
        origin = str(present.min())
        parts = tuple(part for part in _PERIODS if np.ptp(phase(present, part)) > 0)
        return DateColumn(name, missing, origin, *_center_and_scale(days(present, origin)), parts, values.form)
    return BooleanColumn(name, missing)


def column_from_dict(settings: Any) -> Column:
    """The column that :meth:`Column.to_dict` wrote.

    Raises:
        ValueError: if a kind or a key is not known, a key is missing, or a value is of another type.
    """
    if not isinstance(settings, dict) or settings.get("kind") not in list(_KINDS):
        got = settings.get("kind") if isinstance(settings, dict) else settings
        raise ValueError(f"columns: expected a kind among {', '.join(_KINDS)}, got {_short(got)}")
    cls = _KINDS[settings["kind"]]
    given = {key: value for key, value in settings.items() if key != "kind"}
    names = [field.name for field in fields(cls)]
    if sorted(given) != sorted(names):
        raise ValueError(f"columns: expected the keys {', '.join(names)} of a {cls.kind}, got {', '.join(given)}")
    for field in fields(cls):
        given[field.name] = _checked(field.name, str(field.type), given[field.name])
    return cls(**given)


def _checked(name: str, annotation: str, value: Any) -> Any:
    """A value of the type that its field is of, and in its range."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    right = {
        "str": isinstance(value, str),
        "str | None": value is None or isinstance(value, str),
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and number and abs(value) < 2**64,
        "float": number,
        "tuple[str, ...]": isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value),
    }[annotation]
    if right and name == "scale":
        right = value > 0
    if right and name in ("levels", "rare", "parts"):
        value = tuple(value)
        right = len(set(value)) == len(value) and (name != "parts" or set(value) <= _PERIODS.keys())
    if right and name == "origin":
        right = re.fullmatch(r"-?\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", value) is not None
    if not right:
        raise ValueError(f"columns: expected {_EXPECTED.get(name, annotation)} as {name}, got {_short(value)}")
    return float(value) if annotation == "float" else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


_EXPECTED = {
    "scale": "a number above 0",
    "levels": "distinct names",
    "rare": "distinct names",
    "parts": f"some of {', '.join(_PERIODS)}",
    "origin": "a date such as 2020-01-31T00:00:00.000000",
}


def phase(dates: NDArray[Any], part: str) -> NDArray[np.float64]:
    """The place of a date in the year, the week or the day, from 0 to 1."""
    if part == "year":
        first = dates.astype("M8[Y]").astype("M8[us]")
        return np.mod((dates - first).astype("m8[D]").astype(np.float64) / _PERIODS["year"], 1.0)
    moment = days(dates, "1970-01-05")  # a Monday
    if part == "week":
        return np.mod(np.floor(moment), 7.0) / 7.0
    return np.mod(moment, 1.0)


def _numbers(data: NDArray[Any], offset: int) -> NDArray[np.float64]:
    found = data.astype(np.float64) - offset
    if offset and data.dtype.kind in "iu":
        near = np.abs(found) < 2**62
        steps = data.astype(np.uint64) - np.uint64(offset % 2**64)  # modulo 2**64, and right where it is near
        found[near] = steps.view(np.int64)[near]
    return found


def _center_and_scale(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation, 1 for what does not vary beyond rounding.

    scikit-learn's scaler takes many numbers near 1e12 for a constant.
    """
    if not values.size:
        return 0.0, 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        center = values.mean()
        center += (values - center).mean()
        scale = np.sqrt(np.square(values - center).mean())
    varies = not scale <= 4 * np.finfo(np.float64).eps * abs(center)
    return float(center), float(scale) if varies else 1.0
