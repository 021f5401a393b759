"""The report of several methods on one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_probmix.reports.figures import scores_figure
from pyro_probmix.reports.page import Section, Table, write_page
from pyro_probmix.reports.predictions import Predictions
from pyro_probmix.reports.sections import (
    calibration_section,
    data_section,
    rows_section,
    settings_section,
    training_section,
    warnings_section,
)
from pyro_probmix.training import History

__all__ = ["comparison_report"]


def comparison_report(
    path: str | Path,
    *,
    title: str,
    lead: str,
    tables: Sequence[Table],
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]],
    predictions: Mapping[str, Predictions],
    settings: Mapping[str, Any],
    score_notes: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    data_notes: Sequence[str] = (),
    histories: Mapping[str, History] | None = None,
    warnings: Sequence[str] = (),
    class_names: Sequence[Any] = (),
    target: str = "y",
) -> Path:
    """Write how methods compare as one page of HTML, which needs nothing beside it.

    Args:
        path: the file, such as ``report.html``; written whole or not at all.
        title: of the page.
        lead: what is compared, in a sentence.
        tables: of scores, and of their paired differences.
        scores: a number for each split, of shape ``(splits,)``, by metric and by method; drawn where there are two.
        predictions: what is kept of the predictions of one split, by method.
        settings: how the methods were trained, by name.
        score_notes: what is to be known of the tables, a sentence each.
        data: what is to be known of the data, by name.
        columns: how each column is read, by its name.
        data_notes: what was noticed when the data were read, a sentence each.
        histories: what happened in the trainings, by method.
        warnings: what was warned of, a sentence each.
        class_names: names of the classes, by position.
        target: name of the label.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: if Jinja or Matplotlib is not installed.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> y = torch.randn(50)
        >>> kept = {f"scale {scale}": Predictions.of(dist.Normal(torch.zeros(50), scale), y) for scale in (1.0, 2.0)}
        >>> path = comparison_report(
        ...     pathlib.Path(folder.name, "report.html"), title="Two scales", lead="Of 50 draws.", tables=[], scores={},
        ...     predictions=kept, settings={},
        ... )
        >>> path.read_text(encoding="utf-8").count("<figure>")
        6
        >>> folder.cleanup()
    """
    drawn = {metric: found for metric, found in scores.items() if all(len(values) > 1 for values in found.values())}
    figures = [scores_figure(found, metric) for metric, found in drawn.items()]
    sections = [
        data_section(data or {}, columns or {}, data_notes),
        settings_section(settings),
        Section("Scores", tables=tables, notes=score_notes, figures=figures),
        calibration_section(predictions),
        rows_section(predictions, [str(name) for name in class_names], target),
        training_section(histories or {}),
        warnings_section(warnings),
    ]
    return write_page(path, title, lead, sections)
