"""From the cells of a column to values of a kind."""

from __future__ import annotations

from datetime import date, timedelta
from numbers import Number
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pyro_probmix.tables.dates import COMPACT, are_compact, parse_dates
from pyro_probmix.tables.kinds import MISSING, Kind, Values, name_cells, quoted
from pyro_probmix.tables.numerals import are_identifiers, missing_words, parse_numbers

__all__ = ["array_values", "check_values", "convert", "days", "recognise"]

_WORDS = ({"y": 1, "n": 0}, {"yes": 1, "no": 0}, {"true": 1, "false": 0}, {"t": 1, "f": 0})
_TRUTH = {word: truth for pair in _WORDS for word, truth in pair.items()}
_SAMPLE = 1000
_LONG = 1e19
_DAY = 86_400_000_000


def recognise(column: Any, decimal: str = ".") -> Kind:
    """The kind of a Series, by its type, or by what most of its cells are where they are text.

    Numbers with zeros in front, such as zip codes, are categories; two words such as yes and no are a boolean.

    Example:
        >>> import pandas as pd
        >>> recognise(pd.Series(["07030", "10001"])), recognise(pd.Series(["Y", "n"])), recognise(pd.Series([1, 2]))
        ('category', 'boolean', 'number')
    """
    import pandas as pd

    column = _of_arrow(column)
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "ordered" if dtype.ordered else "category"
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if isinstance(dtype, (pd.DatetimeTZDtype, pd.PeriodDtype)) or pd.api.types.is_datetime64_dtype(dtype):
        return "date"
    if not _is_text(dtype):
        whole = pd.api.types.is_integer_dtype(dtype)
        return "date" if whole and are_compact(column.dropna().astype("str")) else "number"
    cells = column[~column.isna()]
    inferred = _check_objects(cells)
    if inferred in ("boolean", "date", "datetime", "datetime64", "period"):
        return "boolean" if inferred == "boolean" else "date"
    if inferred in ("integer", "floating", "decimal", "mixed-integer-float"):
        return "number"
    objects, cells = cells, cells.astype("str")
    plain = pd.to_numeric(cells, errors="coerce").to_numpy()
    if plain.dtype.kind == "f" and len(plain) and (np.abs(plain) < _LONG).all():  # at once, as most columns are
        return "number"
    if are_compact(cells[~missing_words(cells, dashes=True)]):
        return "date"
    present = ~missing_words(cells)
    objects, cells = objects[present], cells[present]
    if not len(cells) or are_identifiers(cells):
        return "category"
    words = set(cells.str.strip().str.lower().drop_duplicates().head(3))
    if any(words <= set(pair) for pair in _WORDS):
        return "boolean"
    share = _number_share(objects.iloc[:: max(1, len(cells) // _SAMPLE)], decimal)
    if 0.25 < share < 0.75:  # a sample does not tell
        share = _number_share(objects, decimal)
    if share > 0.5:
        return "number"
    return "category" if parse_dates(cells)[2] is None else "date"


def convert(
    column: Any, kind: Kind, *, decimal: str = ".", levels: tuple[str, ...] | None = None, form: str | None = None
) -> Values:
    """The values of a Series as a kind; cells that cannot be are faults.

    Args:
        column: a Series of n cells.
        kind: what they are to be.
        decimal: the decimal sign of text.
        levels: names of an ordered column in their order.
        form: how dates are written, see :func:`~pyro_probmix.tables.dates.parse_dates`.

    Raises:
        ValueError: if a cell is neither text nor a number nor a date, such as a list.
    """
    column = _of_arrow(column)
    if _is_text(column.dtype):
        _check_objects(column)
    if kind == "number":
        return _numbers(column, decimal)
    if kind == "boolean":
        return _booleans(column)
    if kind == "date":
        return _dates(column, form)
    return _levels(column, levels if kind == "ordered" else None)


def array_values(column: NDArray[Any], kind: Kind, levels: tuple[str, ...] | None = None) -> Values:
    """The values of a column of a numeric array, of shape ``(n,)``, as a kind; NaN is missing."""
    missing = np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), bool)
    none = np.zeros(len(column), bool)
    if kind == "number":
        return Values(column, missing, none)
    if kind == "boolean":
        faults = ~missing & (column != 0) & (column != 1)
        return Values(np.where(missing | faults, 0, column).astype(np.int64), missing | faults, faults)
    if kind == "date":
        return Values(np.full(len(column), np.datetime64("NaT"), "M8[us]"), ~none, ~missing)
    uniques, codes = np.unique(np.where(missing, 0, column), return_inverse=True)
    return _as_levels(codes, [_label(value) for value in uniques.tolist()], missing, levels)


def check_values(name: str, values: Values, column: Any, kind: Kind, rows: Any = None, given: bool = False) -> None:
    """Refuse a column with cells of another kind, or infinite ones.

    Args:
        name: of the column.
        values: what its cells were read as.
        column: the cells, of shape ``(n,)``.
        kind: what was expected.
        rows: what the rows are called, of shape ``(n,)``; by default their positions.
        given: whether the kind was given, and not guessed.

    Raises:
        ValueError: naming column, cells and rows.
    """
    title = " ".join(name.split())
    if values.faults.any():
        cells = [column.iloc[i] if hasattr(column, "iloc") else column[i] for i in values.faults.nonzero()[0][:100]]
        words = [str(word).strip() for word in dict.fromkeys(cells)]
        if given:
            expected = _EXPECTED[kind].partition(", as ")[0]
            raise ValueError(
                f'kinds: expected {expected} in "{title}", got {name_cells(values.faults, column, rows)}; correct '
                f"them, call {quoted(words, 3)} missing (--na, na=), or give another kind"
            )
        raise ValueError(
            f'"{title}": expected {_EXPECTED[kind]}, got {name_cells(values.faults, column, rows)}; correct them, '
            f"call {quoted(words, 3)} missing (--na, na=), or take the column as names (--kind, "
            f'kinds={{"{title}": "category"}})'
        )
    if kind == "number" and values.data.dtype.kind == "f":
        infinite = np.isinf(values.data)
        if infinite.any():
            raise ValueError(f'"{title}": expected finite numbers, got inf in {name_cells(infinite, column, rows)}')


_EXPECTED = {
    "number": "numbers, as most of its cells are",
    "date": "dates, as most of its cells are",
    "boolean": "two words such as yes and no",
    "ordered": "levels of the order given",
    "category": "names",
}


def _is_text(dtype: Any) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype))


def _check_objects(column: Any) -> str:
    """What pandas infers of objects, among which no lists, bytes and the like may be."""
    import pandas as pd

    inferred = pd.api.types.infer_dtype(column, skipna=True)
    if inferred in ("bytes", "mixed"):
        plain = (str, Number, date, timedelta, np.generic)
        odd = np.array([not (cell is None or isinstance(cell, plain)) for cell in column]) & ~column.isna().to_numpy(
            bool
        )
        if odd.any():
            cells = name_cells(odd, column, column.index.to_numpy())
            made = type(column.iloc[int(odd.argmax())]).__name__
            raise ValueError(f"{quoted([column.name])}: expected text, numbers or dates, got {made} in {cells}")
    return str(inferred)


def _number_share(cells: Any, decimal: str) -> float:
    _, missing, faults, _ = parse_numbers(cells, decimal)
    return float(1 - faults.sum() / max(1, len(cells) - (missing & ~faults).sum()))


def _of_arrow(column: Any) -> Any:
    """Decimals, dates, text and dictionaries of Arrow as the objects of Python, durations as those of NumPy."""
    import pandas as pd

    if not isinstance(column.dtype, pd.ArrowDtype) or column.dtype.kind in "biuf":
        return column
    return column.astype("m8[us]" if column.dtype.kind == "m" else object)


def _of_levels(column: Any) -> Any:
    """A category as a column of the type of its levels, one that has missing values where there are any."""
    import pandas as pd

    if not isinstance(column.dtype, pd.CategoricalDtype):
        return column
    levels = column.cat.categories
    if column.isna().any() and pd.api.types.is_integer_dtype(levels.dtype):
        whole = pd.array(levels).take(column.cat.codes.to_numpy(), allow_fill=True)
        return pd.Series(whole, column.index, name=column.name)
    return column.astype(levels.dtype)


def _numbers(column: Any, decimal: str) -> Values:
    import pandas as pd

    column = _of_levels(column)
    types, dtype, none = pd.api.types, column.dtype, np.zeros(len(column), bool)
    missing = column.isna().to_numpy(bool)
    if types.is_bool_dtype(dtype):
        return Values(column.to_numpy(np.float64, na_value=np.nan), missing, none)
    if types.is_integer_dtype(dtype):
        filled = column.fillna(0) if missing.any() else column
        return Values(filled.to_numpy(np.int64 if types.is_signed_integer_dtype(dtype) else np.uint64), missing, none)
    if types.is_float_dtype(dtype):
        return Values(column.to_numpy(np.float64, na_value=np.nan), missing, none)
    if types.is_timedelta64_dtype(dtype):
        return Values((column.dt.total_seconds() / 86400).to_numpy(np.float64), missing, none)
    if not _is_text(dtype):
        return Values(np.full(len(column), np.nan), ~none, ~missing)
    numbers, missing, faults, notes = parse_numbers(column, decimal)
    return Values(numbers, missing, faults, notes=notes)


def _booleans(column: Any) -> Values:
    import pandas as pd

    missing = column.isna().to_numpy(bool).copy()
    if pd.api.types.is_bool_dtype(column.dtype) and not isinstance(column.dtype, pd.CategoricalDtype):
        return Values(column.fillna(False).to_numpy(np.int64), missing, np.zeros(len(column), bool))
    codes, uniques = pd.factorize(column)
    truth = np.array([_truth(value) for value in uniques] + [-1])
    found = truth[codes]
    missing |= found == -1
    faults = found == -2
    return Values(np.where(found < 0, 0, found), missing | faults, faults)


def _truth(value: Any) -> int:
    """1 or 0; −1 for what is missing, −2 for what is neither."""
    if isinstance(value, str):
        word = value.strip().lower()
        if _says_missing(word):
            return -1
        return _TRUTH.get(word, int(float(word)) if word in ("0", "1", "0.0", "1.0") else -2)
    return int(value) if value in (0, 1) else -2


def _dates(column: Any, form: str | None) -> Values:
    import pandas as pd

    column = _of_levels(column)
    missing = column.isna().to_numpy(bool).copy()
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return Values(column.to_numpy("M8[us]"), missing, np.zeros(len(column), bool))
    dates = np.full(len(column), np.datetime64("NaT"), "M8[us]")
    if pd.api.types.is_integer_dtype(column.dtype):
        column = column.astype("str")
    if not _is_text(column.dtype):
        return Values(dates, np.ones(len(column), bool), ~missing)
    text = column.astype("str").where(~missing, "")
    missing |= missing_words(text, dashes=True)
    known = form
    dates[~missing], bad, form, ambiguous = parse_dates(text[~missing], known)
    if known is not None and len(bad) and bad.all():  # new rows are written another way
        dates[~missing], bad, form, ambiguous = parse_dates(text[~missing])
    faults = np.zeros(len(column), bool)
    faults[~missing] = bad
    notes = (f"dates read as {form}, though day and month could be the other way round",) if ambiguous else ()
    if known is None and form == COMPACT:
        notes = ("whole numbers such as 20200131 read as dates",)
    if known is not None and form not in (known, None):
        notes = (f"dates read as {form}, as none is written like those of training, {known}", *notes)
    return Values(dates, missing | faults, faults, notes=notes, form=form)


def _levels(column: Any, order: tuple[str, ...] | None) -> Values:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, uniques = column.cat.codes.to_numpy(np.int64), list(column.cat.categories)
        if order is None and column.dtype.ordered:
            order = tuple(_label(value) for value in uniques)
    else:
        codes, uniques = pd.factorize(column)
    labels = [_label(value) for value in uniques]
    gone = np.array([_says_missing(label.lower()) for label in labels] + [True])
    return _as_levels(codes, labels, gone[codes], order)


def _as_levels(codes: Any, labels: list[str], missing: NDArray[np.bool_], order: tuple[str, ...] | None) -> Values:
    """Codes of distinct levels in their order; by default numbers by value, then words by name."""
    present = {labels[code] for code in np.unique(codes[~missing])}
    levels = tuple(sorted(present, key=_rank)) if order is None else order
    place = {level: i for i, level in enumerate(levels)}
    places = np.array([place.get(label, -1) for label in labels] + [-1])
    found = np.where(missing, -1, places[codes])
    faults = ~missing & (found < 0)
    return Values(found, missing | faults, faults, levels=levels)


def _rank(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _label(value: Any) -> str:
    """One name for 1, 1.0 and "1": whole numbers become floats where a cell of their column is missing."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value).strip()


def _says_missing(word: str) -> bool:
    return word in MISSING


def days(dates: NDArray[Any], origin: str) -> NDArray[np.float64]:
    """Days since an origin, with fractions; NaN where a date is missing."""
    steps = dates - np.datetime64(origin, "us")
    return cast("NDArray[np.float64]", np.where(np.isnat(steps), np.nan, steps.astype(np.int64) / _DAY))
