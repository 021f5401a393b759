"""Predictions of new rows as a table, scores of labelled ones, and the files of both."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_probmix._checks import check_number
from pyro_probmix._files import write_bytes
from pyro_probmix.estimators import ProbMixClassifier, ProbMixRegressor
from pyro_probmix.evaluation import METRICS, evaluate, find_metric
from pyro_probmix.persistence import load, read_settings

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "QUANTILES",
    "check_suffix",
    "label_positions",
    "load_estimator",
    "prediction_table",
    "quantile_name",
    "remembered",
    "score",
    "write_table",
]

QUANTILES = (0.05, 0.5, 0.95)
"""Levels of the quantiles that are predicted where none are asked for."""

SUFFIXES = (".csv", ".csv.gz", ".parquet")
"""Suffixes of the files of predictions."""


def load_estimator(path: str | Path, device: str = "cpu") -> Any:
    """The estimator of a folder.

    Raises:
        ValueError: if the folder holds another model, besides what :func:`~pyro_probmix.load` refuses.
    """
    estimator = load(path, device=device)
    if not isinstance(estimator, (ProbMixClassifier, ProbMixRegressor)):
        raise ValueError(f"{path}: expected an estimator, as fit saves it, got a {type(estimator).__name__}")
    return estimator


def remembered(path: str | Path) -> dict[str, Any]:
    """What a folder tells of the table of training: ``targets``, ``set_aside``, ``ids`` and ``task``.

    Raises:
        ValueError: if it tells no names there, besides what :func:`~pyro_probmix.persistence.read_settings` refuses.
    """
    about = read_settings(path)["about"]
    found: dict[str, Any] = {"task": about.get("task")}
    for key in ("targets", "set_aside", "ids"):
        found[key] = about.get(key, [])
        if not (isinstance(found[key], list) and all(isinstance(name, str) for name in found[key])):
            raise ValueError(f"{path}: expected names of columns as {key}, got {found[key]!r:.80}")
    return found


def prediction_table(
    estimator: Any,
    X: Any,
    *,
    quantiles: Sequence[float] = QUANTILES,
    intervals: Sequence[float] = (),
    ids: pd.DataFrame | None = None,
    targets: Sequence[str] = (),
) -> pd.DataFrame:
    """What an estimator predicts of rows, a column each, in their order.

    Args:
        estimator: a fitted :class:`~pyro_probmix.ProbMixRegressor`, whose columns are ``mean``, ``std``, quantiles such
            as ``q05`` and ends of central intervals such as ``lower90`` and ``upper90``; or a
            :class:`~pyro_probmix.ProbMixClassifier`, whose columns are ``class`` and one ``p[NAME]`` a class.
        X: features, as for ``predict``.
        quantiles: levels in (0, 1); none for classes.
        intervals: shares in (0, 1); none for classes.
        ids: columns that go first, such as names of the rows.
        targets: names of several outputs, which go into those of the columns, as in ``mean[height]``.

    Raises:
        ValueError: if a level is not in (0, 1), comes twice, or is asked for of classes.
        ImportError: if pandas is not installed.

    Example:
        >>> X = np.linspace(0.0, 1.0, 40).reshape(20, 2)
        >>> model = pm.ProbMixRegressor("erm", epochs=2, random_state=0).fit(X, X[:, 0])
        >>> list(prediction_table(model, X, intervals=[0.9]).columns)
        ['mean', 'std', 'q05', 'q50', 'q95', 'lower90', 'upper90']
    """
    import pandas as pd

    levels = [_share("quantiles", level) for level in quantiles]
    shares = [_share("intervals", share) for share in intervals]
    if hasattr(estimator, "classes_"):
        if shares or tuple(levels) != QUANTILES:
            raise ValueError("quantiles, intervals: expected none for classes, which have probabilities")
        columns = _classes(estimator, X)
    else:
        columns = _numbers(estimator, X, levels, shares, targets)
    names = [name for name, _ in columns]
    if len(set(names)) < len(names):
        raise ValueError(f"quantiles, intervals: expected distinct ones, got {', '.join(names)}")
    frame = pd.DataFrame(dict(columns))
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


def quantile_name(level: float) -> str:
    """The column of a quantile.

    >>> quantile_name(0.05), quantile_name(0.5), quantile_name(0.975)
    ('q05', 'q50', 'q97.5')
    """
    return f"q{_percent(level)}"


def _percent(level: float) -> str:
    text = f"{100 * level:.10g}"
    return text if "e" in text or len(text.partition(".")[0]) > 1 else f"0{text}"


def _numbers(
    estimator: Any, X: Any, levels: Sequence[float], shares: Sequence[float], targets: Sequence[str]
) -> list[tuple[str, NDArray[Any]]]:
    mean, std = estimator.predict(X, return_std=True)
    columns = [("mean", mean), ("std", std)]
    if levels:
        found = estimator.predict_quantiles(X, levels)
        columns += [(quantile_name(level), found[..., k]) for k, level in enumerate(levels)]
    for share in shares:
        ends = estimator.predict_interval(X, share)
        columns += [(f"{end}{_percent(share)}", ends[..., k]) for k, end in enumerate(("lower", "upper"))]
    if mean.ndim == 1:
        return columns
    names = list(targets) or [str(k) for k in range(mean.shape[1])]
    return [(f"{name}[{target}]", values[:, k]) for k, target in enumerate(names) for name, values in columns]


def _classes(estimator: Any, X: Any) -> list[tuple[str, NDArray[Any]]]:
    probabilities = estimator.predict_proba(X)
    labels = estimator.classes_[probabilities.argmax(-1)]
    return [("class", labels), *((f"p[{name}]", probabilities[:, k]) for k, name in enumerate(estimator.classes_))]


def check_suffix(path: str | Path) -> None:
    """Refuses a file of predictions whose suffix does not tell its kind.

    >>> check_suffix("new.xls")
    Traceback (most recent call last):
        ...
    ValueError: out: expected a file that ends in .csv, .csv.gz or .parquet, got new.xls
    """
    if not str(path).endswith(SUFFIXES):
        raise ValueError(f"out: expected a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {path}")


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a table whole or not at all; numbers are read back as they are, to the last bit.

    Args:
        frame: the table; its index is left out.
        path: its file, whose suffix is one of ``.csv``, ``.csv.gz`` and ``.parquet``; missing folders are made.

    Raises:
        ValueError: if the suffix is another.
    """
    check_suffix(path)
    content = io.BytesIO()
    if str(path).endswith(".parquet"):
        frame.to_parquet(content, index=False)
    else:
        compression: Any = {"method": "gzip", "mtime": 0} if str(path).endswith(".gz") else None
        frame.to_csv(content, index=False, compression=compression)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(Path(path), content.getvalue())


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
        >>> X = np.linspace(0.0, 1.0, 40).reshape(20, 2)
        >>> model = pm.ProbMixRegressor("erm", epochs=2, random_state=0).fit(X, X[:, 0])
        >>> list(score(model, X, X[:, 0]))
        ['nll', 'crps', 'rmse', 'coverage@0.9']
    """
    usual = [*(metric for metric in METRICS.values() if metric.default), find_metric("coverage@0.9")]
    wanted = usual if metrics is None else metrics  # of the usual ones, those that fit
    return evaluate(estimator.iter_distributions(X), label_positions(estimator, y), wanted)


def label_positions(estimator: Any, y: Any) -> NDArray[Any]:
    """Labels as their positions in ``classes_``; targets that are numbers as they are.

    Raises:
        ValueError: if a label is none of the classes of training.
    """
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return np.asarray(y, np.float64)
    places = {label: place for place, label in enumerate(classes.tolist())}
    labels = np.asarray(y).tolist()
    unknown = [row for row, label in enumerate(labels) if label not in places]
    if unknown:
        named = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise ValueError(
            f"y: expected the classes of training, {', '.join(map(str, classes[:10]))}, got "
            f"{labels[unknown[0]]!r} and the like in {len(unknown)} of {len(labels)} rows (counted from 0: {named})"
        )
    return np.array([places[label] for label in labels])
