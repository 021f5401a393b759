"""Dates as people write them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COMPACT", "are_compact", "parse_dates"]

COMPACT = "%Y%m%d"
"""The form of dates that are whole numbers."""

_MANY = 10

_DAYS = (
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d.%m.%y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%b %d %Y",
)
_MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%B %Y")
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_ISO = "ISO8601"
_TRIED = 200


def parse_dates(text: Any, form: str | None = None) -> tuple[NDArray[Any], NDArray[np.bool_], str | None, bool]:
    """The dates of a Series of text.

    Args:
        text: a Series of n cells that are not missing.
        form: how they are written, ``"ISO8601"`` or a format of ``strptime``; by default the one that reads most.

    Returns:
        Dates, of dtype datetime64[us]; which cells are none; the form, None where no form reads more than half of
        them; and whether day and month could be the other way round.

    Example:
        >>> import pandas as pd
        >>> parse_dates(pd.Series(["31.12.2019", "1.1.2020"]))[2]
        '%d.%m.%Y'
    """
    ambiguous = False
    if form is None:
        form, ambiguous = _form(text)
    if form is None:
        return np.full(len(text), np.datetime64("NaT"), "M8[us]"), np.ones(len(text), bool), None, False
    dates = _read(text, form)
    bad = np.isnat(dates)
    if bad.any() and form != _ISO:
        dates[bad] = _read(text[bad], _ISO)
        bad = np.isnat(dates)
    return dates, bad, form, ambiguous


def are_compact(text: Any) -> bool:
    """Whether all cells of a Series of text are eight digits, dates from 1900 to 2100, and many differ.

    Example:
        >>> import pandas as pd
        >>> are_compact(pd.Series([str(20200101 + i) for i in range(20)])), are_compact(pd.Series(["20201301"] * 20))
        (True, False)
    """
    text = text.str.strip()
    if not len(text) or not text.iloc[:_TRIED].str.fullmatch(r"(?:19|20|21)\d{6}").all() or text.nunique() < _MANY:
        return False
    dates = _read(text, COMPACT)
    years = dates.astype("M8[Y]").astype(int) + 1970
    return not np.isnat(dates).any() and bool((years <= 2100).all())


def _form(text: Any) -> tuple[str | None, bool]:
    head = text.iloc[:_TRIED]
    if head.str.fullmatch(r"\s*\d{8}\s*").all() and not np.isnat(_read(head, COMPACT)).any():
        return COMPACT, False
    if not head.str.contains(r"\d\D+\d|[A-Za-z]{3} \d{4}", regex=True).mean() > 0.5:
        return None, False
    shares = {form: float((~np.isnat(_read(head, form))).mean()) for form in (_ISO, *_forms())}
    best = max(shares.values())
    if best <= 0.5:
        return None, False
    likely = [form for form, share in shares.items() if share == best]
    if len(likely) == 1 or likely[0] == _ISO:
        return likely[0], False
    read = {form: _read(text, form) for form in likely}
    most = max(int((~np.isnat(dates)).sum()) for dates in read.values())
    likely = [form for form in likely if (~np.isnat(read[form])).sum() == most]
    ordered = [form for form in likely if _is_ordered(read[form])]
    return (ordered or likely)[0], len({read[form].tobytes() for form in likely}) > 1


def _forms() -> list[str]:
    return [*(day + time for day in _DAYS for time in _TIMES), *_MONTHS]


def _is_ordered(dates: NDArray[Any]) -> bool:
    steps = np.diff(dates[~np.isnat(dates)]).astype(np.int64)
    return bool((steps >= 0).all() or (steps <= 0).all())


def _read(text: Any, form: str) -> NDArray[Any]:
    import pandas as pd

    text = text.str.strip()
    text = text.where(text.str.contains(r"\d", regex=True, na=False))  # pandas reads "now" and "today" in any form
    if form == _ISO:  # pandas reads "2019" and "201901" as dates, too
        text = text.where(text.str.match(r"\d{4}-\d{1,2}-\d{1,2}", na=False))
    found = pd.to_datetime(text, format=form, errors="coerce", utc=True)
    return found.dt.tz_localize(None).to_numpy("M8[us]").copy()
