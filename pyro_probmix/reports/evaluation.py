"""The report of one model on one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.distributions import Distribution

from pyro_probmix.evaluation import METRICS, find_metric
from pyro_probmix.reports.figures import (
    calibration_figures,
    calibration_numbers,
    densities_figure,
    training_figure,
)
from pyro_probmix.reports.page import Section, Table, pairs_table, shown, write_page
from pyro_probmix.reports.predictions import Predictions
from pyro_probmix.training import History

__all__ = [
    "calibration_section",
    "data_section",
    "evaluation_report",
    "rows_section",
    "settings_section",
    "training_section",
    "warnings_section",
]

_COLUMNS = 200
"""Columns of the data that are listed."""

_MEMBERS = 6
"""Trainings that are drawn."""


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
        data_section({"rows": kept.size, **(data or {})}, columns or {}, data_notes),
        settings_section(settings),
        Section("Scores", tables=[_scores_table(scores, kept.size)]),
        calibration_section({"": kept}),
        rows_section({"": kept}, names, target),
        training_section({f"network {k}": history for k, history in enumerate(histories, start=1)}),
        warnings_section(warnings),
    ]
    lead = f"Predictions of {target} for {kept.size} rows, scored by what came."
    return write_page(path, title, lead, sections)


def data_section(data: Mapping[str, Any], columns: Mapping[str, str], notes: Sequence[str]) -> Section:
    """The data as they were read."""
    tables = [pairs_table("The table", ("what", "as read"), data)]
    if columns:
        listed = dict(list(columns.items())[:_COLUMNS])
        caption = f"The {len(columns)} columns" + (f", the first {len(listed)}" if len(listed) < len(columns) else "")
        tables.append(pairs_table(caption, ("column", "read as"), listed))
    return Section("Data as read", tables=tables, notes=notes)


def settings_section(settings: Mapping[str, Any]) -> Section:
    """How models were made."""
    return Section("Settings", tables=[pairs_table("Settings", ("setting", "value"), settings)] if settings else ())


def calibration_section(kept: Mapping[str, Predictions]) -> Section:
    """Whether predicted probabilities come true: numbers and pictures, by the name of the method."""
    numbers = {name: found for name, one in kept.items() if (found := calibration_numbers(one))}
    if not numbers:
        return Section("Calibration")
    metrics = list(next(iter(numbers.values())))
    rows = [[name or "this model", *(f"{found[metric]:.3f}" for metric in metrics)] for name, found in numbers.items()]
    size = max(len(one.labels) for one in kept.values())
    caption = f"Calibration on {size} rows"
    headings = ["method" if len(numbers) > 1 or "" not in numbers else "", *(find_metric(m).heading for m in metrics)]
    figures = [figure for name, one in kept.items() for figure in calibration_figures(one, name)]
    note = (
        "PIT distance and QCE are 0 if predictions are calibrated, coverage is its level."
        if "pit" in metrics
        else "ECE is 0 if predictions are calibrated."
    )
    return Section("Calibration", [note], [Table(caption, headings, rows)], figures=figures)


def rows_section(kept: Mapping[str, Predictions], class_names: Sequence[str], target: str) -> Section:
    """What is predicted of a few rows, by the name of the method."""
    figures = [densities_figure(one, name, target) for name, one in kept.items() if one.densities]
    if figures:
        return Section("Densities of a few rows", figures=figures)
    tables = [_classes_table(one, name, class_names) for name, one in kept.items() if one.probabilities is not None]
    return Section("Class probabilities of a few rows", tables=tables)


def training_section(histories: Mapping[str, History]) -> Section:
    """What happened in trainings, by name."""
    found = list(histories.items())[:_MEMBERS]
    paragraphs = [f"The first {_MEMBERS} of {len(histories)} are drawn."] if len(found) < len(histories) else []
    drawn = [
        training_figure({name if len(found) > 1 else "": history}) for name, history in found if history.train_loss
    ]
    return Section("Training", paragraphs, figures=drawn)


def warnings_section(warnings: Sequence[str]) -> Section:
    """What was warned of."""
    return Section("Warnings", notes=list(warnings)) if warnings else Section("Warnings", ["Nothing was warned of."])


def _scores_table(scores: Mapping[str, float], size: int) -> Table:
    rows = []
    for name, value in scores.items():
        label, meaning = name, ""
        if name.partition("@")[0] in METRICS:
            metric = find_metric(name)
            label, meaning = (
                metric.label,
                metric.axis.removeprefix(metric.label).strip(" ,").replace("(", "").replace(")", ""),
            )
        rows.append([label, shown(float(value)), meaning])
    return Table(f"Scores on {size} rows", ["metric", "value", "meaning"], rows, words=frozenset({0, 2}))


def _classes_table(kept: Predictions, name: str, class_names: Sequence[str], number: int = 8) -> Table:
    """The three most probable classes of a few rows."""
    probabilities, labels = kept.probabilities, kept.labels
    if probabilities is None:
        raise ValueError("kept: expected probabilities of classes, got none")
    names = list(class_names) or [str(k) for k in range(probabilities.shape[-1])]
    rows = []
    for row in np.unique(np.linspace(0, len(labels) - 1, min(number, len(labels))).round().astype(int)):
        order = np.argsort(-probabilities[row], kind="stable")[:3]
        told = [f"{names[k]} {probabilities[row, k]:.3f}" for k in order]
        rows.append([str(row), names[int(labels[row])], *told])
    before = f"{name}: the" if name else "The"
    headings = ["row", "label", "most probable", "second", "third"][: 2 + min(3, probabilities.shape[-1])]
    return Table(f"{before} most probable classes of {len(rows)} rows", headings, rows, words=frozenset(range(5)))
