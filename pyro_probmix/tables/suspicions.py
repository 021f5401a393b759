"""What of a table is read without a fault and yet may not be meant."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_probmix.tables.kinds import Kind, Values

__all__ = ["determination", "sentinels"]

_SENTINEL = re.compile(r"-?(?:9{2,}|8{3,}|7{3,}|9{2,}\.9+)")
_ENOUGH, _MOST = 10, 20_000
_NEARLY = 0.97
_UNLIKELY = -14.0


def sentinels(values: Values) -> list[tuple[float, int]]:
    """Numbers such as -999 that are farther from all others than these from each other, and how often they come.

    Example:
        >>> none = np.zeros(5, bool)
        >>> sentinels(Values(np.array([1.0, 3.0, -999.0, 2.0, -999.0]), none, none))
        [(-999.0, 2)]
    """
    numbers = values.data[~values.missing]
    found = []
    if not numbers.size:
        return []
    for value in (numbers.min(), numbers.max()):
        if not _SENTINEL.fullmatch(f"{float(value):.6f}".rstrip("0").rstrip(".")):
            continue
        others = numbers[numbers != value]
        if len(others) < 2 or others.min() == others.max():
            continue
        spread = float(others.max()) - float(others.min())
        if min(abs(float(value) - float(others.min())), abs(float(value) - float(others.max()))) > spread:
            found.append((float(value), int((numbers == value).sum())))
    return found


def determination(target: Values, target_kind: Kind, feature: Values, kind: Kind) -> str | None:
    """How a feature tells the target, None where it does not, or not nearly.

    Numbers tell numbers by the correlation of ranks, levels by the variance within each; classes are told by levels,
    or by thresholds of a number.

    Args:
        target: n numbers, or classes as positions.
        target_kind: ``"number"`` or ``"category"``.
        feature: n values.
        kind: what they are.
    """
    both = ~(target.missing | feature.missing)
    rows = np.flatnonzero(both)[:: max(1, int(both.sum()) // _MOST)]
    if len(rows) < _ENOUGH:
        return None
    y, x = target.data[rows], feature.data[rows]
    if (y == y[0]).all() or (x == x[0]).all():
        return None
    if kind == "date":
        x = x.astype(np.int64)
    if target_kind == "number" and kind != "category":
        return _correlation(y.astype(np.float64), x.astype(np.float64)) if len(np.unique(y)) > 2 else None
    if kind in ("category", "boolean", "ordered"):
        return _by_level(y, x, target_kind)
    return _by_thresholds(y, x)


def _correlation(y: NDArray[np.float64], x: NDArray[np.float64]) -> str | None:
    from scipy.stats import rankdata

    if len(np.unique(x)) <= 2:
        return None
    if np.array_equal(x, y):
        return "equal"
    a, b = (ranks - ranks.mean() for ranks in (rankdata(y), rankdata(x)))
    found = abs(float(a @ b / np.sqrt((a @ a) * (b @ b))))
    if found >= 1 - 1e-9:
        return "exactly"
    return f"rank correlation {np.floor(1e4 * found) / 1e4:g}" if found >= _NEARLY else None


def _by_level(y: NDArray[Any], x: NDArray[Any], target_kind: Kind) -> str | None:
    """How levels that come more than once tell the target, beyond what chance and a usual class would."""
    _, levels, sizes = np.unique(x, return_inverse=True, return_counts=True)
    again = sizes[levels] > 1
    _, levels, sizes = np.unique(levels[again], return_inverse=True, return_counts=True)
    y = y[again]
    if len(y) - len(sizes) < 2 * _ENOUGH:
        return None
    if target_kind == "number":
        y = y.astype(np.float64) - y.mean()
        means = np.bincount(levels, y) / sizes
        wrong, all_wrong = np.square(y - means[levels]).sum(), np.square(y).sum()
    else:
        _, classes = np.unique(y, return_inverse=True)
        table = np.zeros((len(sizes), classes.max() + 1), int)
        np.add.at(table, (levels, classes), 1)
        wrong, all_wrong = len(y) - table.max(axis=1).sum(), len(y) - table.sum(axis=0).max()
        if all_wrong < _ENOUGH // 2:
            return None
    share = 1 - float(wrong / all_wrong) if all_wrong else 0.0
    if share > 1 - 1e-12:
        return "exactly"
    return f"{np.floor(1e4 * share) / 100:g} % of it" if share > 0.99 else None


def _by_thresholds(y: NDArray[Any], x: NDArray[Any]) -> str | None:
    """Whether each class is an interval of a number, and that could not be chance."""
    from scipy.special import gammaln  # here, for it is slow to import

    order = np.lexsort((y, x))
    y, x = y[order], x[order]
    changes = y[1:] != y[:-1]
    _, sizes = np.unique(y, return_counts=True)
    apart = bool((x[1:] != x[:-1])[changes].all())
    orders = gammaln(len(y) + 1) - gammaln(sizes + 1).sum()  # of the classes along the number
    chance = gammaln(len(sizes) + 1) - orders
    return "exactly" if apart and changes.sum() == len(sizes) - 1 and chance < _UNLIKELY else None
