"""Methods by their scores on the same rows: paired differences, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_probmix._checks import check_choice, check_integer, check_number
from pyro_probmix.evaluation._paired import of_splits, paired_scores
from pyro_probmix.evaluation.registry import find_metric

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

__all__ = ["ScoreComparison", "ScoreDifference", "compare_scores"]

Array = NDArray[np.float64]

_COLUMNS = ("mean", "median", "difference", "std_error", "lower", "upper", "p_value", "wins", "ties", "losses")


@dataclass(frozen=True)
class ScoreDifference:
    """The scores of a method less those of the reference, row by row or split by split."""

    difference: float
    """Their mean."""
    std_error: float
    """Of the mean."""
    lower: float
    """Lower end of the confidence interval of the mean."""
    upper: float
    """Its upper end."""
    p_value: float
    """Two-sided, of no difference in the mean."""
    median: float
    """Of the differences, which few far rows or splits do not move."""
    wins: int
    """Rows or splits where the method is better than the reference."""
    ties: int
    losses: int


@dataclass(frozen=True)
class ScoreComparison:
    """What :func:`compare_scores` has found; printed, it is a table."""

    reference: str
    """The method that the others are compared with."""
    means: Mapping[str, float]
    """Mean score of every method; of splits that are given by their rows, the mean of their means."""
    medians: Mapping[str, float]
    """Median score of every method, over rows or splits."""
    differences: Mapping[str, ScoreDifference]
    """By method; the reference has none."""
    size: int
    """How many rows or splits are paired."""
    unit: str
    """``"rows"`` or ``"splits"``."""
    standard_error: str
    """How it is found, in words."""
    level: float
    """Of the confidence intervals."""
    score: str
    """What is compared, in which units, and whether lower or higher is better."""

    def to_frame(self) -> pandas.DataFrame:
        """A row a method, as a data frame; needs pandas."""
        import pandas  # here, for it is not always installed

        return pandas.DataFrame.from_dict(self._rows(), orient="index", columns=list(_COLUMNS))

    def __str__(self) -> str:
        texts = [["method", *_COLUMNS]]
        for name, row in self._rows().items():
            texts.append([name, *("" if row[key] is None else f"{row[key]:.4g}" for key in _COLUMNS)])
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(row[1:], widths[1:], strict=True))])
            for row in texts
        ]
        told = f"{self.score}: differences from {self.reference} on {self.size} {self.unit}"
        return "\n".join([told, f"{self.standard_error}; {100 * self.level:g} % confidence", *map(str.rstrip, lines)])

    def _rows(self) -> dict[str, dict[str, Any]]:
        rows = {}
        for name in self.means:
            found = asdict(self.differences[name]) if name in self.differences else {}
            own = {"mean": self.means[name], "median": self.medians[name]}
            rows[name] = {key: {**found, **own}.get(key) for key in _COLUMNS}
        return rows


def compare_scores(
    scores: Mapping[str, Any],
    metric: str | None = None,
    *,
    reference: str | None = None,
    test_fraction: float | None = None,
    ordered: bool = False,
    horizon: int = 1,
    lower_is_better: bool | None = None,
    level: float = 0.95,
) -> ScoreComparison:
    r"""Compare methods by their scores on the same held-out rows, in pairs.

    With :math:`d_1, \ldots, d_n` the differences between a method and the reference and :math:`s^2` their sample
    variance, the mean :math:`\bar d` is told with a standard error, an interval and a p-value of Student's t with
    :math:`n - 1` degrees of freedom. What the scores are of says which standard error:

    - *Rows of one test set*, which are independent of each other: :math:`s / \sqrt n`.
    - *Rows ordered in time* (``ordered``), Diebold and Mariano's test: the variance of the mean is
      :math:`\frac1n \bigl(\gamma_0 + 2 \sum_{k=1}^{L} (1 - \tfrac{k}{L+1}) \gamma_k\bigr)`, Newey and West's with the
      autocovariances :math:`\gamma_k` of the differences, divided by Harvey, Leybourne and Newbold's
      :math:`(n + 1 - 2H + H (H-1) / n) / n` of :math:`H = L + 1`. The differences at lags up to
      :math:`L = \max(2 (\mathrm{horizon} - 1), \lfloor 1.3 \sqrt n \rfloor)` may depend on each other.
    - *Splits of the same rows* (``test_fraction``), whose training and test sets overlap, so that
      :math:`s / \sqrt J` would be too small: Nadeau and Bengio's
      :math:`s \sqrt{\frac1J + \frac{n_\mathrm{test}}{n_\mathrm{train}}}`.

    The p-values are of one pair each, not corrected for the number of methods; against the best of many methods,
    which is chosen by the same scores, they are a little too small.

    Args:
        scores: by the name of the method, either of shape ``(n,)``, a number for each row of one test set, or, with
            ``test_fraction``, for each split; or, with ``test_fraction``, of shape ``(J, n)`` or a sequence of ``J``
            arrays that may differ in length, the rows of each split, of which the mean is taken. Tensors, arrays or
            lists, such as ``evaluate(p, y, reduction="none")["nll"]``. All methods have the same rows in one order.
        metric: name of a metric of :data:`METRICS`, its level included, which tells the units, and whether lower scores
            are better.
        reference: the method that the others are compared with; default: that of the best mean.
        test_fraction: share of the rows that a split tests on, in [0, 1), the others being trained on; 0 for splits
            that share no rows, such as data drawn anew.
        ordered: whether the rows are in the order of time.
        horizon: steps of time between a prediction and its label, at least 1, at most half of the rows.
        lower_is_better: without ``metric``, whether lower scores are better; default: true.
        level: of the confidence intervals, in (0, 1).

    Raises:
        TypeError: if ``scores`` is no mapping, or the scores of a method are no numbers.
        ValueError: if there are fewer than two methods, scores of other shapes, NaN or infinite ones, fewer than two
            rows or splits, an option that does not fit the scores, or an unknown reference or metric.

    Source: Nadeau and Bengio (2003), Inference for the generalization error; Diebold and Mariano (1995), Comparing
    predictive accuracy; Harvey, Leybourne and Newbold (1997), Testing the equality of prediction mean squared errors;
    for the number of lags Lazarus, Lewis, Stock and Watson (2018), HAR inference: recommendations for practice.

    Example:
        >>> nll = {"ERM": [2.7, 2.6, 3.1, 2.5], "ProbMix": [2.5, 2.6, 2.7, 2.4]}
        >>> found = pm.compare_scores(nll, "nll", test_fraction=0.1)
        >>> print(found)
        NLL (nats), lower is better: differences from ProbMix on 4 splits
        standard errors corrected for splits that share rows; 95 % confidence
        method    mean  median  difference  std_error    lower   upper  p_value  wins  ties  losses
        ERM      2.725    2.65       0.175     0.1026  -0.1516  0.5016   0.1867     0     1       3
        ProbMix   2.55    2.55
        >>> found.differences["ERM"].losses
        3
    """
    if not isinstance(scores, Mapping):
        raise TypeError(f"scores: expected a mapping of names to scores, got {type(scores).__name__}")
    if len(scores) < 2:
        raise ValueError(f"scores: expected at least two methods, got {len(scores)}")
    by_rows = test_fraction is None or any(map(of_splits, scores.values()))
    lower, score = _direction(metric, lower_is_better, by_rows)
    check_number("level", level, "(0, 1)")
    if test_fraction is not None:
        check_number("test_fraction", test_fraction, "[0, 1)")
        if ordered:
            raise ValueError(f"ordered: expected False for scores of splits, got {ordered} with test_fraction")
    paired = paired_scores(scores, test_fraction)
    size = len(next(iter(paired.values())))
    unit = "rows" if test_fraction is None else "splits"
    if size < 2:
        raise ValueError(f"scores: expected at least two {unit}, got {size}")
    check_integer("horizon", horizon)
    if ordered and 2 * horizon > size:
        raise ValueError(f"horizon: expected at most half of the {size} rows, got {horizon}")
    if not ordered and horizon != 1:
        raise ValueError(f"horizon: expected 1 for rows that are not ordered, got {horizon}")
    how, variance = _variance(size, test_fraction, ordered, horizon)
    means = {name: float(values.mean()) for name, values in paired.items()}
    best = min(means, key=lambda name: means[name] if lower else -means[name])
    if reference is not None:
        check_choice("reference", reference, paired)
    against = best if reference is None else reference
    sign = 1.0 if lower else -1.0
    return ScoreComparison(
        reference=against,
        means=means,
        medians={name: float(np.median(values)) for name, values in paired.items()},
        differences={
            name: _difference(values - paired[against], variance, sign, level)
            for name, values in paired.items()
            if name != against
        },
        size=size,
        unit=unit,
        standard_error=how,
        level=level,
        score=score,
    )


def _direction(metric: str | None, lower_is_better: bool | None, by_rows: bool) -> tuple[bool, str]:
    """Whether lower scores are better, and what they are, in words."""
    if metric is None:
        lower = lower_is_better is not False
        return lower, f"score, {'lower' if lower else 'higher'} is better"
    if lower_is_better is not None:
        raise ValueError(f"lower_is_better: expected None beside metric, which tells it, got {lower_is_better}")
    known = find_metric(metric)
    if known.lower_is_better is None:
        raise ValueError(f'metric: expected one of which lower or higher values are better, got "{metric}"')
    if by_rows and (known.root or known.summary):
        raise ValueError(
            f'metric: expected one that averages over rows, got "{metric}", of which compare a number for each split, '
            "with test_fraction"
        )
    return known.lower_is_better, known.axis


def _difference(d: Array, variance: Callable[[Array], float], sign: float, level: float) -> ScoreDifference:
    from scipy import stats  # here, for it is slow to import

    mean, error = float(d.mean()), variance(d) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, len(d) - 1)) * error
    t = abs(mean) / error if error else (0.0 if mean == 0 else np.inf)
    wins, losses = int((sign * d < 0).sum()), int((sign * d > 0).sum())
    p_value = float(2 * stats.t.sf(t, len(d) - 1))
    return ScoreDifference(
        mean, error, mean - half, mean + half, p_value, float(np.median(d)), wins, len(d) - wins - losses, losses
    )


def _variance(
    size: int, test_fraction: float | None, ordered: bool, horizon: int
) -> tuple[str, Callable[[Array], float]]:
    """How the variance of a mean difference is found, in words and as a function."""
    if ordered:
        lags = min(max(2 * (horizon - 1), int(1.3 * size**0.5)), size - 2)
        return f"standard errors for rows in the order of time, {lags} lags", lambda d: _long_run(d, lags)
    if not test_fraction:
        unit = "rows" if test_fraction is None else "splits that share no rows"
        return f"standard errors for independent {unit}", lambda d: float(d.var(ddof=1)) / size
    factor = 1 / size + test_fraction / (1 - test_fraction)
    return "standard errors corrected for splits that share rows", lambda d: float(d.var(ddof=1)) * factor


def _long_run(d: Array, lags: int) -> float:
    """The variance of the mean of differences in the order of time, by Newey and West, corrected for few rows."""
    n, reach, e = len(d), lags + 1, d - d.mean()
    covariances = np.array([e[k:] @ e[: n - k] / n for k in range(reach)])
    weights = 2 * (1 - np.arange(reach) / reach)
    weights[0] = 1
    corrected = (n + 1 - 2 * reach + reach * (reach - 1) / n) / n
    return float(weights @ covariances) / n / corrected
