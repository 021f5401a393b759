"""One front for every data set."""

from __future__ import annotations

from pathlib import Path

from pyro_probmix.datasets.bundled import BUNDLED, load_bundled
from pyro_probmix.datasets.dataset import Dataset, Task
from pyro_probmix.datasets.table import load_table
from pyro_probmix.datasets.toy import toy_classification, toy_regression
from pyro_probmix.datasets.uci import UCI, load_uci
from pyro_probmix.tables import SUFFIXES

__all__ = ["NAMES", "TOYS", "is_table", "load"]

TOYS = {"toy-regression": toy_regression, "toy-classification": toy_classification}
"""The generators of the toy problems by name."""

NAMES: tuple[str, ...] = (*TOYS, *BUNDLED, *UCI)
"""The names :func:`load` knows, besides paths of tables."""


_TABLES = ".csv, .tsv, .txt, .parquet or .xlsx"


def load(
    name: str, data_dir: str | Path | None = None, *, target: str | None = None, task: Task | None = None
) -> Dataset:
    """A data set by name, or a table by its path.

    Args:
        name: one of :data:`NAMES` (a toy set is its training set of seed 0), or a path ending in ``.csv``,
            ``.parquet``, ``.xlsx`` or another of :data:`~pyro_probmix.tables.SUFFIXES`, or that with ``.gz``.
        data_dir: local folder of the UCI files, see :func:`~pyro_probmix.datasets.uci.load_uci`.
        target: the target column; for a table only, and required there.
        task: ``"regression"`` or ``"classification"``; for a table only, see
            :func:`~pyro_probmix.datasets.load_table`.

    Raises:
        ValueError: if the name is unknown, or ``target`` or ``task`` does not belong to it.

    >>> load("diabetes").x.shape
    (442, 10)
    """
    if is_table(name):
        if target is None:
            raise ValueError(f"target: expected the target column of {name}, --target NAME (target=NAME), got none")
        return load_table(name, target, task=task).dataset()
    if name not in NAMES:
        raise ValueError(f'name: expected one of {", ".join(NAMES)}, or a path ending in {_TABLES}, got "{name}"')
    if target is not None or task is not None:
        raise ValueError(f"target, task: expected none for {name}, which has its own, got {target!r} and {task!r}")
    if name in UCI:
        return load_uci(name, data_dir)
    return load_bundled(name) if name in BUNDLED else TOYS[name]()


def is_table(name: str) -> bool:
    """Whether a name is the path of a table, by its suffix.

    >>> is_table("homes.csv.gz"), is_table("iris")
    (True, False)
    """
    return name.lower().removesuffix(".gz").endswith(SUFFIXES)
