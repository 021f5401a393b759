"""A user's own table."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from pyro_probmix._checks import check_choice
from pyro_probmix.datasets.dataset import Dataset, Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load_csv"]

_MAX_CATEGORIES = 100


def load_csv(path: str | Path, target: str, task: Task | None = None) -> Dataset:
    """A CSV file with a header: one target column, every other column a feature.

    Numeric and Boolean columns are features as they are; text columns become one 0/1 column per category.
    A text or Boolean target, or an integer target with two values, is a classification; every other numeric
    target is a regression; ``task`` overrides this rule. Classes are numbered in sorted order.

    Args:
        path: the file.
        target: name of the target column.
        task: ``"regression"`` or ``"classification"``; by default decided by the rule above.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the target is not a column, a value is missing or infinite (columns and rows are named,
            counted from 0 below the header), a text column has more than 100 categories, or the target does
            not fit the task.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "homes.csv")
    >>> _ = path.write_text("rooms,street,price\\n5,north,1.5\\n3,south,0.9\\n4,north,1.1\\n")
    >>> homes = load_csv(path, target="price")
    >>> homes.feature_names, homes.task
    (('rooms', 'street=north', 'street=south'), 'regression')
    >>> folder.cleanup()
    """
    if task is not None:
        check_choice("task", task, get_args(Task))
    table = _read(Path(path))
    columns = list(table.columns)
    if target not in columns:
        raise ValueError(f"target: expected a column of {path}, one of {', '.join(columns)}, got {target!r}")
    if len(columns) == 1:
        raise ValueError(f"{path}: expected a column besides the target {target!r}, got none")
    _refuse_missing(table, path)
    features = _encode_text(table.drop(columns=target), path)
    name = Path(path).name
    x = features.to_numpy(dtype=np.float64)
    names = tuple(features.columns)
    labels = table[target]
    if (task or _task(labels)) == "classification":
        classes, y = np.unique(labels.to_numpy(), return_inverse=True)
        return Dataset(name, x, y.astype(np.int64), "classification", names, tuple(map(str, classes)))
    if not _is_number(labels):
        raise ValueError(f"{path}: expected numbers in {target!r}, the target of a regression, got {labels.dtype}")
    return Dataset(name, x, labels.to_numpy(dtype=np.float64), task or "regression", names)


def _read(path: Path) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(f'reading {path} needs pandas: pip install "pyro-probmix[experiments]"') from error
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file, got none")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # by default, one more would be the rows' names
            table = pd.read_csv(path, skipinitialspace=True, index_col=False, low_memory=False)
    except pd.errors.ParserWarning:
        raise ValueError(
            f"{path}: expected a CSV table with a header, got rows that have more fields than it"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: expected a CSV table with a header, got another file: {error}") from error
    if table.empty:
        raise ValueError(f"{path}: expected rows below the header, got none")
    return table.rename(columns=str)


def _refuse_missing(table: pd.DataFrame, path: str | Path) -> None:
    infinite = table.apply(lambda column: np.isinf(column) if _is_number(column) else column.isna())
    bad = table.isna() | infinite
    columns = [column for column in table.columns if bad[column].any()]
    if columns:
        rows = np.flatnonzero(bad.any(axis=1))
        raise ValueError(
            f"{path}: expected finite values, got missing or infinite ones in column(s) {', '.join(columns)}, "
            f"rows {rows[:5].tolist()} ({rows.size} rows in all, counted from 0 below the header); "
            "fill or drop them"
        )


def _encode_text(features: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    import pandas as pd

    text = [column for column in features.columns if not _is_number(features[column])]
    for column in text:
        categories = features[column].nunique()
        if categories > _MAX_CATEGORIES:
            raise ValueError(
                f"{path}: expected {_MAX_CATEGORIES} categories at most in the text column {column!r}, got "
                f"{categories}; drop it or encode it as numbers"
            )
    return pd.get_dummies(features, columns=text, prefix_sep="=", dtype=np.float64)


def _task(target: pd.Series) -> Task:
    import pandas as pd

    two_integers = pd.api.types.is_integer_dtype(target) and target.nunique() == 2
    if not _is_number(target) or pd.api.types.is_bool_dtype(target) or two_integers:
        return "classification"
    return "regression"


def _is_number(column: pd.Series) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(column))
