r"""Numbers as people write them: ``"1,923.45"``, ``"$100.00"``, ``"12 %"``, ``"1 234,5"``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_probmix.tables.kinds import MISSING, quoted

__all__ = ["are_identifiers", "missing_words", "parse_numbers"]

_BLANKS = "\u00a0\u2007\u2009\u202f\u3000\ufeff"
_CURRENCIES = r"US\$|\$|€|£|¥|₹|₽|₩|₺|(?:USD|EUR|GBP|CHF|JPY)\b"
_MINUS = str.maketrans({"\u2212": "-", "\u2012": "-", "\u2013": "-", **dict.fromkeys(_BLANKS, " ")})
_EXACT = 2**53
_DASHES = frozenset(["-", "--", "---", ".", "\u2013", "\u2014", "\u2212"])


def missing_words(text: Any, dashes: bool = False) -> NDArray[np.bool_]:
    """Which cells of a Series of text say that they are missing; in a column of numbers a lone dash does."""
    words = MISSING | _DASHES if dashes else MISSING
    return text.str.strip().str.lower().isin(words).to_numpy(bool)


def parse_numbers(column: Any, decimal: str = ".") -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], tuple[str, ...]]:
    """The numbers of a Series of text or of mixed objects.

    Blanks around a number, thousands separators in groups of three, a sign of a currency before or after, a percent
    sign and parentheses for a negative amount are understood. Cells with another currency or without the percent sign
    of most others are faults, as is every other text.

    Args:
        column: a Series of n cells.
        decimal: ``"."`` or ``","``.

    Returns:
        Numbers, which cells are missing, which are faults, each of shape ``(n,)``, and notes of what was cleaned.

    Example:
        >>> import pandas as pd
        >>> numbers, missing, faults, notes = parse_numbers(pd.Series(["1,923.45", "$100.00", "-", "?"]))
        >>> numbers.tolist(), missing.tolist(), faults.tolist()
        ([1923.45, 100.0, nan, nan], [False, False, True, True], [False, False, False, True])
        >>> notes
        ('1 cell with thousands separators', '1 cell with a currency', '1 cell "-" as missing')
    """
    import pandas as pd

    missing = column.isna().to_numpy(bool).copy()
    if decimal == ",":
        # The point is no decimal sign here: whatever has one is looked at below.
        text = column.where(column.map(lambda cell: isinstance(cell, str)))  # what is a number already stays one
        pointed = text.astype("str").str.contains(".", regex=False, na=False)
        first = column.mask(text.notna(), text.astype("str").str.replace(",", ".", regex=False)).mask(pointed)
    else:
        first = column
    numbers = pd.to_numeric(first, errors="coerce").to_numpy()
    numbers = numbers.copy() if numbers.dtype.kind in "iu" else numbers.astype(np.float64)
    if numbers.dtype.kind == "f" and numbers.size and np.nanmax(np.abs(numbers), initial=0.0) >= _EXACT:
        whole = pd.to_numeric(first[np.isfinite(numbers)]).to_numpy()
        gone = missing | missing_words(first.astype("str").fillna(""), dashes=True)
        if whole.dtype.kind in "iu" and len(whole) + gone.sum() == len(numbers):  # all digits are kept
            numbers = np.zeros(len(numbers), whole.dtype)
            numbers[~gone] = whole
            return numbers, gone, np.zeros(len(numbers), bool), ()
    rest = np.flatnonzero(~missing & np.isnan(numbers)) if numbers.dtype.kind == "f" else np.array([], int)
    faults = np.zeros(len(numbers), bool)
    if not rest.size:
        return numbers, missing, faults, ()
    text = column.iloc[rest].astype("str").str.translate(_MINUS).str.strip()
    gone = missing_words(text, dashes=True)
    dashes = gone & ~missing_words(text)
    missing[rest[gone]] = True
    cleaned, bad, notes = _clean(text, decimal)
    numbers[rest] = np.where(gone, np.nan, cleaned)
    faults[rest] = bad & ~gone
    percent = text.str.endswith("%").to_numpy(bool) & ~bad
    plain = ~missing & ~faults
    if 0 < percent.sum() < plain.sum():  # 12 % beside 0.12: which of them is meant nobody can tell
        signed = np.zeros(len(numbers), bool)
        signed[rest[percent]] = True
        rare = signed if 2 * percent.sum() < plain.sum() else plain & ~signed
        faults |= rare
    if dashes.any():
        words = quoted(sorted(set(text[dashes])))
        notes = (*notes, f"{_cells(dashes.sum())} {words} as missing")
    numbers[faults] = np.nan
    return numbers, missing | faults, faults, notes


def _clean(text: Any, decimal: str) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[str, ...]]:
    """Numbers of text that is not plainly one, which of it is none, and what was taken away."""
    import pandas as pd

    money = text.str.extract(rf"({_CURRENCIES})", expand=False)
    bare = text.str.replace(rf"^([-+(]?)\s*(?:{_CURRENCIES})\s*", r"\1", regex=True)
    bare = bare.str.replace(rf"\s*(?:{_CURRENCIES})(\)?)$", r"\1", regex=True)
    bare = bare.str.replace(r"\s*%$", "", regex=True)
    bare = bare.str.replace(r"^\((.*)\)$", r"-\1", regex=True).str.strip()
    point, group = (r"\.", "[ ,'’]") if decimal == "." else (",", "[ .'’]")
    whole, rest = f"[1-9][0-9]{{0,2}}({group})[0-9]{{3}}(?:\\1[0-9]{{3}})*", f"{point}[0-9]+"
    grouped = bare.str.fullmatch(f"[-+]?{whole}(?:{rest})?").to_numpy(bool)
    plain = bare.str.fullmatch(f"[-+]?(?:[0-9]+(?:{point}[0-9]*)?|{rest})(?:[eE][-+]?[0-9]+)?").to_numpy(bool)
    digits = bare.where(~grouped, bare.str.replace(group, "", regex=True))
    if decimal == ",":
        digits = digits.str.replace(",", ".", regex=False)
    good = grouped | plain
    symbols = money[good].dropna().str.replace("US$", "$", regex=False)
    if symbols.nunique() > 1:  # amounts of two currencies are no numbers of one scale
        usual = symbols.mode().iloc[0]
        good &= (money.isna() | (money.str.replace("US$", "$", regex=False) == usual)).to_numpy(bool)
    numbers = pd.to_numeric(digits.where(good), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    counts = {
        "thousands separators": grouped & good,
        "a currency": money.notna().to_numpy(bool) & good,
        "a percent sign": text.str.endswith("%").to_numpy(bool) & good,
        "parentheses, as negative": text.str.startswith("(").to_numpy(bool) & good,
    }
    notes = [f"{_cells(found.sum())} with {what}" for what, found in counts.items() if found.any()]
    return numbers, ~good, tuple(notes)


def are_identifiers(text: Any) -> bool:
    """Whether text is of digits with zeros in front, as zip codes are, or of more digits than an integer has."""
    cells = text.str.strip()
    digits = cells.str.fullmatch(r"\d+").to_numpy(bool)
    return bool(digits.all() and cells.str.match(r"0\d|\d{20}").any())


def _cells(count: int) -> str:
    return f"{count} cell" if count == 1 else f"{count} cells"
