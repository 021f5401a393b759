"""What estimators predict of rows, as a table, and what it is worth on labelled ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_probmix._checks import check_number, name_rows
from pyro_probmix.distributions import interval, quantile
from pyro_probmix.estimators.labels import row_names
from pyro_probmix.evaluation import METRICS, evaluate, find_metric
from pyro_probmix.tables.kinds import warn

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["prediction_table", "score"]

_QUANTILES = (0.05, 0.5, 0.95)


def prediction_table(
    estimator: Any,
    X: Any,
    *,
    quantiles: Sequence[float] | None = None,
    intervals: Sequence[float] = (),
    ids: pd.DataFrame | None = None,
    targets: Sequence[str] = (),
) -> pd.DataFrame:
    """What an estimator predicts of rows, a column each, in their order.

    Args:
        estimator: a fitted :class:`~pyro_probmix.ProbMixRegressor`, whose columns are ``mean``, ``std``, quantiles such
            as ``q05`` and ends of central intervals such as ``lower90`` and ``upper90``; or a
            :class:`~pyro_probmix.ProbMixClassifier`, whose columns are ``class`` and one ``p[NAME]`` a class, or
            ``p[NAME]`` alone of several labels.
        X: features, as for ``predict``.
        quantiles: levels in (0, 1); default: 0.05, 0.5 and 0.95. None for classes.
        intervals: shares in (0, 1); none for classes.
        ids: columns that go first, such as names of the rows.
        targets: names of several outputs, which go into those of the columns, as in ``mean[height]``.

    Infinite predictions, such as of features far from those of training, are said in a
    :class:`~pyro_probmix.tables.TableWarning`.

    Raises:
        ValueError: if a level is not in (0, 1), comes twice, or is asked for of classes.
        ImportError: if pandas is not installed.

    Example:
        >>> X = torch.linspace(0.0, 1.0, 40).reshape(20, 2).numpy()
        >>> model = pm.ProbMixRegressor("erm", epochs=2, random_state=0).fit(X, X[:, 0])
        >>> list(prediction_table(model, X, quantiles=[0.05, 0.975], intervals=[0.9]).columns)
        ['mean', 'std', 'q05', 'q97.5', 'lower90', 'upper90']
    """
    import pandas as pd

    levels = [_share("quantiles", level) for level in (_QUANTILES if quantiles is None else quantiles)]
    shares = [_share("intervals", share) for share in intervals]
    if hasattr(estimator, "classes_"):
        if shares or quantiles is not None:
            raise ValueError("quantiles, intervals: expected none for classes, which have probabilities")
        columns = _classes(estimator, X)
    else:
        columns = _numbers(estimator, X, levels, shares, targets)
    names = [name for name, _ in columns]
    if len(set(names)) < len(names):
        raise ValueError(f"quantiles, intervals: expected distinct ones, got {', '.join(names)}")
    frame = pd.DataFrame(dict(columns))
    infinite = ~np.isfinite(frame.drop(columns="class", errors="ignore").to_numpy(np.float64)).all(1)
    if infinite.any():
        where = name_rows(torch.as_tensor(infinite), row_names(X))
        warn(f"predictions are infinite or none in {where}: are features in the units of training?")
    if ids is None:
        return frame
    twice = [name for name in ids.columns if name in names]
    if twice:
        raise ValueError(f"ids: expected other names than those of predictions, got {', '.join(map(str, twice))}")
    return pd.concat([ids.reset_index(drop=True), frame], axis=1)


def _share(name: str, value: float) -> float:
    if isinstance(value, (int, float)) and 1 <= value < 100:
        raise ValueError(f"{name}: expected a number in (0, 1), got {value:g}; write {value / 100:g} for {value:g} %")
    return check_number(name, value, "(0, 1)")


def _percent(level: float) -> str:
    text = f"{100 * level:.10g}"
    return text if "e" in text or len(text.partition(".")[0]) > 1 else f"0{text}"


def _numbers(
    estimator: Any, X: Any, levels: Sequence[float], shares: Sequence[float], targets: Sequence[str]
) -> list[tuple[str, NDArray[Any]]]:
    def values(p: Any) -> list[Any]:
        found = [p.mean, p.stddev, *(quantile(p, levels) if levels else ())]
        return found + [end for share in shares for end in interval(p, share)]

    names = ["mean", "std", *(f"q{_percent(level)}" for level in levels)]
    names += [f"{end}{_percent(share)}" for share in shares for end in ("lower", "upper")]
    columns = list(zip(names, estimator.map_distributions(X, values), strict=True))
    mean = columns[0][1]
    if mean.ndim == 1:
        return columns
    names = list(targets) or [str(k) for k in range(mean.shape[1])]
    return [(f"{name}[{target}]", values[:, k]) for k, target in enumerate(names) for name, values in columns]


def _classes(estimator: Any, X: Any) -> list[tuple[str, NDArray[Any]]]:
    probabilities = estimator.predict_proba(X)
    columns = [(f"p[{name}]", probabilities[:, k]) for k, name in enumerate(estimator.classes_)]
    if estimator._kind == "several":  # each for itself
        return columns
    return [("class", estimator.classes_[probabilities.argmax(-1)]), *columns]


def score(estimator: Any, X: Any, y: Any, metrics: Iterable[str] | None = None) -> dict[str, float]:
    """Scores of an estimator on labelled rows, in slices of bounded memory.

    Args:
        estimator: a fitted estimator.
        X: features, as for ``predict``.
        y: targets in their units, or labels.
        metrics: names, as for :func:`~pyro_probmix.evaluate`; default: its own, and ``"coverage@0.9"`` of numbers.

    Raises:
        ValueError: if a metric is unknown or does not fit, or a label is none of the classes of training.

    Example:
        >>> X = torch.linspace(0.0, 1.0, 40).reshape(20, 2).numpy()
        >>> model = pm.ProbMixRegressor("erm", epochs=2, random_state=0).fit(X, X[:, 0])
        >>> list(score(model, X, X[:, 0]))
        ['nll', 'crps', 'rmse', 'coverage@0.9']
    """
    usual = [*(metric for metric in METRICS.values() if metric.default), find_metric("coverage@0.9")]
    wanted = usual if metrics is None else metrics  # of the usual ones, those that fit
    return evaluate(estimator.iter_distributions(X), estimator.encode_labels(y), wanted)
