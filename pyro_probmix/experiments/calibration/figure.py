"""The figure of scores and calibration errors before and after recalibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyro_probmix._drawing import BLUE, ORANGE, VERMILION
from pyro_probmix.evaluation import find_metric
from pyro_probmix.evaluation.plots.boxes import limits_around
from pyro_probmix.experiments.calibration.table import LABELS, CalibrationTable
from pyro_probmix.experiments.figures import save
from pyro_probmix.experiments.store import Cells

__all__ = ["draw_calibration"]

_LOOKS: dict[str, dict[str, Any]] = {
    "": {"color": "black", "marker": "o", "mfc": "white"},
    "variance": {"color": BLUE, "marker": "s"},
    "isotonic": {"color": VERMILION, "marker": "^"},
    "temperature": {"color": ORANGE, "marker": "D"},
}
_MEANINGS = {
    "": "as predicted",
    "variance": "after variance scaling",
    "isotonic": "after isotonic recalibration",
    "temperature": "after temperature scaling",
}


def draw_calibration(table: CalibrationTable, cells: Cells, path: Path) -> None:
    """Write means before and after recalibration as a PNG file: a column a data set, NLL above calibration error."""
    rows = [row for row in table.rows if row in cells]
    figure = Figure(figsize=(2.4 + 2.4 * len(rows), 6.0), layout="constrained")
    axes = figure.subplots(2, len(rows), sharey=True, squeeze=False)
    for column, row in enumerate(rows):
        for axis, metric in zip(axes[:, column], ("nll", table.error(row)), strict=True):
            _panel(axis, table, cells, row, metric)
        axes[0, column].set_title(row, fontsize=10)
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(LABELS)), list(LABELS.values()))
        axis.set_ylim(len(LABELS) - 0.5, -0.5)
    figure.suptitle("Before and after recalibration: means over splits, test rows", fontsize=11)
    handles = [Line2D([], [], linestyle="none", ms=5, label=_MEANINGS[way], **look) for way, look in _LOOKS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)


def _panel(axis: Axes, table: CalibrationTable, cells: Cells, row: str, metric: str) -> None:
    found: dict[int, dict[str, float]] = {}
    for place, method in enumerate(LABELS):
        means = {key.partition(" after ")[2]: table.mean(cells, row, method, key) for key in table.keys(row, metric)}
        found[place] = {way: mean for way, mean in means.items() if mean is not None}
    limits = limits_around([mean for own in found.values() for mean in own.values()])
    for place, own in found.items():
        axis.plot([min(own.values(), default=0), max(own.values(), default=0)], [place] * 2, color="0.7", zorder=1)
        for way, mean in own.items():
            axis.plot(mean, place, linestyle="none", ms=5, **_LOOKS[way])
    axis.set_xlim(limits)
    axis.set_xlabel(find_metric(metric).axis, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.3)
