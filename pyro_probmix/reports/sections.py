"""The sections that reports have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyro_probmix.evaluation import find_metric
from pyro_probmix.reports.figures import (
    calibration_figures,
    calibration_numbers,
    densities_figure,
    training_figure,
)
from pyro_probmix.reports.page import Section, Table, pairs_table, plural
from pyro_probmix.reports.predictions import Predictions
from pyro_probmix.training import History

__all__ = [
    "calibration_section",
    "count_kinds",
    "data_section",
    "rows_section",
    "settings_section",
    "training_section",
    "warnings_section",
]

_COLUMNS = 200
"""Columns of the data that are listed."""

_KINDS = 6
"""Kinds of columns that are counted."""

_DRAWN = 12
"""Methods or networks that are drawn."""


_TOLD_OF_NUMBERS = """\
PIT distance and QCE are 0 if predictions are calibrated, and coverage is its level. Transforms are uniform then: a U
is of densities too narrow, a hill of densities too wide, a slope of densities that are shifted. Labels are below a
quantile as often as its level says then: their shares are on the diagonal."""
_TOLD_OF_CLASSES = """\
ECE is 0 if predictions are calibrated. In the figures, points below the diagonal are of probabilities too sure, points
above it of probabilities not sure enough."""
_TOLD_OF_ROWS = """\
Each density is drawn as high as the others, and its central 90 % darker. Rows are counted from 0, in the order in which
they were predicted."""


def count_kinds(columns: Mapping[str, str]) -> dict[str, str]:
    """How many columns are of each kind, for the data of a report; nothing of none, or of too many kinds.

    >>> count_kinds({"area": "number", "street": "category", "rooms": "number"})
    {'columns': '2 number, 1 category'}
    """
    kinds = Counter(columns.values())
    return {"columns": ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())} if 0 < len(kinds) <= _KINDS else {}


def data_section(data: Mapping[str, Any], columns: Mapping[str, str], notes: Sequence[str]) -> Section:
    """The data as they were read."""
    tables = [pairs_table("The table", ("what", "as read"), data)]
    if columns:
        listed = dict(list(columns.items())[:_COLUMNS])
        caption = f"The {plural(len(columns), 'column')}" + (
            f", the first {len(listed)}" if len(listed) < len(columns) else ""
        )
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
    caption = f"Calibration on {plural(size, 'row')}"
    headings = ["method" if len(numbers) > 1 or "" not in numbers else "", *(find_metric(m).heading for m in metrics)]
    figures = [figure for name, one in list(kept.items())[:_DRAWN] for figure in calibration_figures(one, name)]
    told = _TOLD_OF_NUMBERS if "pit" in metrics else _TOLD_OF_CLASSES
    return Section("Calibration", [told], [Table(caption, headings, rows)], figures=figures)


def rows_section(kept: Mapping[str, Predictions], class_names: Sequence[str], target: str) -> Section:
    """What is predicted of a few rows, by the name of the method."""
    figures = [densities_figure(one, name, target) for name, one in list(kept.items())[:_DRAWN] if one.densities]
    if figures:
        return Section("Densities of a few rows", [_TOLD_OF_ROWS], figures=figures)
    tables = [_classes_table(one, name, class_names) for name, one in kept.items() if one.probabilities is not None]
    return Section("Class probabilities of a few rows", tables=tables)


def training_section(histories: Mapping[str, History]) -> Section:
    """What happened in trainings, by name."""
    found = list(histories.items())[:_DRAWN]
    paragraphs = [f"The first {_DRAWN} of {len(histories)} are drawn."] if len(found) < len(histories) else []
    drawn = [
        training_figure({name if len(found) > 1 else "": history}) for name, history in found if history.train_loss
    ]
    return Section("Training", paragraphs, figures=drawn)


def warnings_section(warnings: Sequence[str]) -> Section:
    """What was warned of."""
    return Section("Warnings", notes=list(warnings)) if warnings else Section("Warnings", ["Nothing was warned of."])


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
    return Table(
        f"{before} most probable classes of {plural(len(rows), 'row')}", headings, rows, words=frozenset(range(5))
    )
