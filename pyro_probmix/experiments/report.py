"""The report of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pyro_probmix._files import versions
from pyro_probmix.datasets import Dataset
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.results import Comparison
from pyro_probmix.reports import comparison_report, count_kinds

__all__ = ["describe_columns", "write_report"]


def write_report(
    comparison: Comparison,
    path: Path,
    data_notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> None:
    """Write a comparison as one page; calibration, densities and training curves are those of the first split."""
    data, results = comparison.data, comparison.results
    labels = {name: METHODS[name].label for name in comparison.methods}
    scores, pairs = comparison.score_table(), comparison.pair_table()
    tables = [scores.report(f"Test scores, {comparison.over}; the best is bold")]
    if pairs is not None:
        tables.append(pairs.report("Paired differences"))
    facts = {"name": data.name, "task": data.task, "rows": len(data), "features": data.num_features}
    if data.class_names:
        facts["classes"] = data.num_classes
    comparison_report(
        path,
        title=f"{data.name}: {', '.join(labels.values()) if len(labels) < 3 else f'{len(labels)} methods compared'}",
        lead=f"A {data.task} of {len(data)} rows, {comparison.over}. Calibration, predictions and training curves are "
        "those of the first.",
        tables=tables,
        scores={
            metric: {labels[name]: comparison.values(name, metric) for name in comparison.methods}
            for metric in comparison.shown
        },
        predictions={labels[name]: kept for name in labels if (kept := results[name].predictions)},
        settings={**asdict(comparison.settings), "seed": comparison.seed, "versions": versions()},
        score_notes=comparison.notes(),
        data={**facts, **count_kinds(data.columns)},
        columns=data.columns or describe_columns(data),
        data_notes=data_notes,
        histories={labels[name]: history for name in labels if (history := results[name].history)},
        warnings=warnings,
        class_names=data.class_names,
    )


def describe_columns(data: Dataset) -> dict[str, str]:
    """What the values of each feature are, by its name or, without one, its place.

    >>> describe_columns(Dataset("tiny", np.array([[0.0, 1.5], [1.0, 2.5], [0.0, 9.0]]), np.zeros(3), "regression"))
    {'column 1': '0 or 1', 'column 2': 'number from 1.5 to 9'}
    """
    names = data.feature_names or [f"column {k}" for k in range(1, data.num_features + 1)]
    found = {}
    for name, values in zip(names, data.x.T, strict=True):
        low, high = values.min(), values.max()
        zero_one = {low, high} == {0.0, 1.0} and bool(np.isin(values, (0, 1)).all())
        found[name] = (
            "0 or 1" if zero_one else f"constant, {low:.4g}" if low == high else f"number from {low:.4g} to {high:.4g}"
        )
    return found
