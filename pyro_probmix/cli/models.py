"""The models of ``fit``: what a folder holds, and what it tells of the table of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["labelled", "load_estimator", "of_target", "remembered"]


def load_estimator(path: str | Path, device: str = "cpu") -> Any:
    """The estimator of a folder.

    Raises:
        ValueError: if the folder holds another model, besides what :func:`~pyro_probmix.load` refuses.
    """
    from pyro_probmix.estimators import ProbMixClassifier, ProbMixRegressor
    from pyro_probmix.persistence import load

    estimator = load(path, device=device)
    if not isinstance(estimator, (ProbMixClassifier, ProbMixRegressor)):
        raise ValueError(f"{path}: expected an estimator, as fit saves it, got a {type(estimator).__name__}")
    return estimator


def remembered(path: str | Path) -> dict[str, Any]:
    """What a folder tells of the table of training: ``targets``, ``set_aside``, ``ids``, ``na``, ``task``,
    and ``target_kinds``.

    Raises:
        ValueError: if it tells no names there, besides what :func:`~pyro_probmix.persistence.read_settings` refuses.
    """
    from pyro_probmix.persistence import read_settings

    about = read_settings(path)["about"]
    found: dict[str, Any] = {"task": about.get("task")}
    for key in ("targets", "set_aside", "ids", "na", "target_kinds"):
        found[key] = about.get(key, [])
        if not (isinstance(found[key], list) and all(isinstance(name, str) for name in found[key])):
            what = {"na": "cells", "target_kinds": "kinds"}.get(key, "names of columns")
            raise ValueError(f"{path}: expected {what} as {key}, got {found[key]!r:.80}")
    return found


def labelled(data: Any) -> Any:
    """The target of a table, its rows called as in the file."""
    import pandas as pd

    target: Any = data.target
    return (pd.Series if target.ndim == 1 else pd.DataFrame)(target, index=data.features.index)


@contextmanager
def of_target(data: Any) -> Iterator[None]:
    """Errors of the argument y speak of the table and its column instead."""
    from pyro_probmix.tables.kinds import quoted

    try:
        yield
    except ValueError as error:
        argument, colon, rest = str(error).partition(": ")
        if not colon or argument != "y":
            raise
        names = [data.target_name] if isinstance(data.target_name, str) else data.target_name or ()
        raise ValueError(f"{data.name}: {quoted(names)}: {rest}") from error
