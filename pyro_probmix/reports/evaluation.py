"""The report of one model on one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.distributions import Distribution

from pyro_probmix.evaluation import METRICS, find_metric
from pyro_probmix.reports.page import Section, Table, plural, shown, write_page
from pyro_probmix.reports.predictions import Predictions
from pyro_probmix.reports.sections import (
    calibration_section,
    count_kinds,
    data_section,
    rows_section,
    settings_section,
    training_section,
    warnings_section,
)
from pyro_probmix.training import History

__all__ = ["evaluation_report"]


def evaluation_report(
    path: str | Path,
    *,
    title: str,
    p: Distribution | Iterable[Distribution],
    y: Any,
    scores: Mapping[str, float],
    settings: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    data_notes: Sequence[str] = (),
    histories: Sequence[History] = (),
    warnings: Sequence[str] = (),
    class_names: Sequence[Any] = (),
    target: str = "y",
) -> Path:
    """Write what a model's predictions of labelled rows were worth as one page of HTML, which needs nothing beside it.

    Args:
        path: the file, such as ``report.html``; written whole or not at all.
        title: of the page.
        p: predictive density of the rows, or those of slices of them one after another, of which one is in memory at
            a time.
        y: labels, as for :func:`~pyro_probmix.evaluate`; classes as their positions.
        scores: numbers by the name of a metric, in the units of the label.
        settings: how the model was made, by name.
        data: what is to be known of the table, such as its file and how it was read, by name.
        columns: how each column is read, by its name, such as ``"number"`` or ``"category, 5 levels"``.
        data_notes: what was noticed when the data were read, a sentence each.
        histories: what happened in the trainings.
        warnings: what was warned of, a sentence each.
        class_names: names of the classes, by position.
        target: name of the label.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: if Jinja or Matplotlib is not installed.
        TypeError: if ``p`` is no distribution.
        ValueError: if ``p`` and ``y`` differ in their rows, or a label is outside the support.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> p, y = dist.Normal(torch.zeros(50), 1.0), torch.randn(50)
        >>> scores = pm.evaluate(p, y)
        >>> path = evaluation_report(
        ...     pathlib.Path(folder.name, "report.html"), title="Fifty", p=p, y=y, scores=scores, settings={}
        ... )
        >>> path.read_text(encoding="utf-8").splitlines()[0]
        '<!DOCTYPE html>'
        >>> folder.cleanup()
    """
    kept = Predictions.of(p, y)
    names = [str(name) for name in class_names]
    sections = [
        data_section({"rows": kept.size, **(data or {}), **count_kinds(columns or {})}, columns or {}, data_notes),
        settings_section(settings),
        Section("Scores", tables=[_scores_table(scores, kept.size)]),
        calibration_section({"": kept}),
        rows_section({"": kept}, names, target),
        training_section({f"network {k}": history for k, history in enumerate(histories, start=1)}),
        warnings_section(warnings),
    ]
    lead = f"Predictions of {target} for {plural(kept.size, 'row')}, scored by what came."
    return write_page(path, title, lead, sections)


def _scores_table(scores: Mapping[str, float], size: int) -> Table:
    rows = []
    for name, value in scores.items():
        known = find_metric(name) if name.partition("@")[0] in METRICS else None
        rows.append([known.label if known else name, shown(float(value)), known.meaning if known else ""])
    return Table(f"Scores on {plural(size, 'row')}", ["metric", "value", "meaning"], rows, words=frozenset({0, 2}))
