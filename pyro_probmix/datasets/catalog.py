"""One front for every data set."""

from __future__ import annotations

from pathlib import Path

from pyro_probmix.datasets.bundled import BUNDLED, load_bundled
from pyro_probmix.datasets.dataset import Dataset, Task
from pyro_probmix.datasets.tabular import load_csv
from pyro_probmix.datasets.toy import toy_classification, toy_regression
from pyro_probmix.datasets.uci import UCI, load_uci

__all__ = ["NAMES", "TOYS", "load"]

TOYS = {"toy-regression": toy_regression, "toy-classification": toy_classification}
"""The generators of the toy problems by name."""

NAMES: tuple[str, ...] = (*TOYS, *BUNDLED, *UCI)
"""The names :func:`load` knows, besides paths ending in ``.csv``."""


def load(
    name: str, data_dir: str | Path | None = None, *, target: str | None = None, task: Task | None = None
) -> Dataset:
    """A data set by name, or a CSV file by its path.

    Args:
        name: one of :data:`NAMES` (a toy set is its training set of seed 0), or a path ending in ``.csv``.
        data_dir: local folder of the UCI files, see :func:`~pyro_probmix.datasets.uci.load_uci`.
        target: the target column; for a CSV file only, and required there.
        task: ``"regression"`` or ``"classification"``; for a CSV file only, see
            :func:`~pyro_probmix.datasets.tabular.load_csv`.

    Raises:
        ValueError: if the name is unknown, or ``target`` or ``task`` does not belong to it.

    >>> load("diabetes").x.shape
    (442, 10)
    """
    if name.lower().endswith(".csv"):
        if target is None:
            raise ValueError(f"target: expected the target column of {name}, --target NAME (target=NAME), got none")
        return load_csv(name, target, task)
    if name not in NAMES:
        raise ValueError(f'name: expected one of {", ".join(NAMES)}, or a path ending in .csv, got "{name}"')
    if target is not None or task is not None:
        raise ValueError(f"target, task: expected none for {name}, which has its own, got {target!r} and {task!r}")
    if name in UCI:
        return load_uci(name, data_dir)
    return load_bundled(name) if name in BUNDLED else TOYS[name]()
