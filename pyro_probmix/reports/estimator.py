"""The report of a fitted estimator on one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_probmix._files import versions
from pyro_probmix.datasets import Table
from pyro_probmix.reports.evaluation import evaluation_report

__all__ = ["estimator_report"]


def estimator_report(
    path: Path, estimator: Any, table: Table, scores: Mapping[str, float], warnings: Sequence[str] = ()
) -> Path:
    """Write what an estimator's predictions of a labelled table were worth as one page.

    Args:
        path: the file.
        estimator: a fitted estimator.
        table: the rows, with their target.
        scores: of these predictions, by metric.
        warnings: what was warned of.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: if Jinja or Matplotlib is not installed.
        ValueError: if a label is none of the classes of training.
    """
    target = table.target_name if isinstance(table.target_name, str) else ", ".join(table.target_name or ())
    parameters = {name: value for name, value in estimator.get_params().items() if value is not None}
    preparation = estimator.preparation_
    return evaluation_report(
        path,
        title=f"{target} of {table.name}",
        p=estimator.iter_distributions(table.features),
        y=estimator.encode_labels(table.target),
        scores=scores,
        settings={**parameters, "likelihood": estimator.likelihood_, "versions": versions()},
        data={"name": table.name, "task": table.task, **_reading(table)},
        columns=preparation.as_read(),
        data_notes=table.notes,
        histories=estimator.histories_,
        warnings=[note for note in warnings if note not in table.notes],
        class_names=getattr(estimator, "classes_", ()),
        target=target,
    )


def _reading(table: Table) -> dict[str, Any]:
    """How a file was read, as far as that was asked or guessed."""
    found = {name: value for name, value in table.reading.to_dict().items() if value not in (None, [], True)}
    if "sep" in found:  # as the option has it
        found["sep"] = {"\t": "tab", " ": "blank"}.get(found["sep"], found["sep"])
    return found
