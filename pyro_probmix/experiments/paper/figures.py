"""The figures of the paper's tables and ablations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyro_probmix._drawing import BLUE, GREY, VERMILION
from pyro_probmix.evaluation import METRICS
from pyro_probmix.evaluation.plots.boxes import box_plots, limits_around, log_axis, mark_outside, needs_log
from pyro_probmix.experiments.figures import BOX, save
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.paper.ablations import ALPHAS, BETAS, Ablation
from pyro_probmix.experiments.paper.tables import PaperTable
from pyro_probmix.experiments.store import Cells
from pyro_probmix.experiments.table import best, deviation

__all__ = ["draw_ablation", "draw_table"]


def draw_table(table: PaperTable, cells: Cells, path: Path) -> None:
    """Write a reproduced table as a PNG file: a panel a data set, ours beside the paper's means.

    The axis of a panel is made for ours; what is far from them is an arrow at its edge, with its value.
    """
    names = [name for name in table.paper if table.means(cells, name)]
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.2 + 2.2 * columns, 1.2 + 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    ours = {name: _intervals(table, cells, name) for name in names}
    everything = [np.array(list(found.values())) for found in ours.values()]
    log = min(found.min() for found in everything) > 0 and any(needs_log(found[:, 1]) for found in everything)
    rivals = {name: table.rival(name) for name in names}
    rivalled = any(rival is not None for rival in rivals.values())
    for axis, name in zip(axes.flat, names, strict=False):
        paper = {
            key: table.paper[name][key][0] for key in table.columns if table.comparable and key in table.paper[name]
        }
        _table_panel(axis, table, ours[name], paper, rivals[name], log)
        axis.set_title(table.row_name(name), fontsize=9)
    axes[0, 0].set_yticks(range(len(table.columns)), table.labels.values())
    axes[0, 0].set_ylim(len(table.columns) - 0.5, -1.2 if rivalled else -0.6)
    figure.suptitle(f"{table.title}, lower is better{', logarithmic axes' if log else ''}", fontsize=11)
    handles = [
        Line2D([], [], color=BLUE, marker="o", ms=4, label="ours, mean ± standard error"),
        Line2D([], [], color=VERMILION, marker="s", ms=4, label="best of ours"),
    ]
    if table.comparable:
        label = "the paper's mean (arrow: its value, beyond the axis)"
        handles.append(Line2D([], [], color=GREY, marker="D", mfc="none", ms=4, linestyle="none", label=label))
    if rivalled:
        label = "best published of other methods (arrow: likewise)"
        handles.append(Line2D([], [], color="black", linestyle="--", linewidth=1, label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save(figure, path)


def _table_panel(
    axis: Axes,
    table: PaperTable,
    ours: dict[str, tuple[float, float, float]],
    paper: dict[str, float],
    rival: float | None,
    log: bool,
) -> None:
    others = [*paper.values(), *([] if rival is None else [rival])]
    limits = limits_around(list(ours.values()), others, log)
    if log:
        log_axis(axis, limits)
    axis.set_xlim(limits)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    winner = best({method: mean for method, (_, mean, _) in ours.items()}, table.metric)
    for place, method in enumerate(table.columns):
        if method in paper and limits[0] <= paper[method] <= limits[1]:
            axis.plot(paper[method], place, color=GREY, marker="D", mfc="none", ms=4, linestyle="none")
        elif method in paper:
            mark_outside(axis, paper[method], place, limits, GREY)
        if method in ours:
            low, mean, high = ours[method]
            color, marker = (VERMILION, "s") if method == winner else (BLUE, "o")
            error = [[mean - low], [high - mean]]
            axis.errorbar(mean, place, xerr=error, color=color, marker=marker, ms=4, capsize=2)
    if rival is not None and limits[0] <= rival <= limits[1]:
        axis.axvline(rival, color="black", linestyle="--", linewidth=1)
    elif rival is not None:
        mark_outside(axis, rival, -0.7, limits, "black")


def _intervals(table: PaperTable, cells: Cells, name: str) -> dict[str, tuple[float, float, float]]:
    """Mean minus standard error, mean, and mean plus standard error of ours, by method."""
    found = {}
    for method, mean in table.means(cells, name).items():
        values = table.values(cells, name, method)
        assert values is not None
        error = deviation(values) / np.sqrt(len(values))
        found[method] = (mean - error, mean, mean + error)
    return found


def draw_ablation(ablation: Ablation, cells: Cells, path: Path) -> None:
    """Write box plots of the methods under every setting as a PNG file, a column an α and a row a metric and a β."""
    methods = [method for method in METHODS if any(method in found for found in cells.values())]
    rows, settings = len(ablation.metrics) * len(BETAS), np.reshape(ablation.rows, (len(BETAS), len(ALPHAS)))
    size = 2.0 + 2.2 * len(ALPHAS), 0.8 + (0.6 + 0.22 * len(methods)) * rows
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, len(ALPHAS), sharey=True, squeeze=False)
    for first, metric in enumerate(ablation.metrics):
        scores = {
            setting: {METHODS[m].label: found[m][metric] if m in found else [] for m in methods}
            for setting, found in cells.items()
        }
        every = [values for found in scores.values() for values in found.values()]
        for (row, column), setting in np.ndenumerate(settings):
            axis = axes[first * len(BETAS) + row, column]
            if setting in scores:
                box_plots(scores[setting], metric, every, axis)
            axis.set_xlabel("")
            axis.tick_params(labelsize=8)
            axis.set_title(setting.replace("alpha=", "α = ").replace("beta=", "β = "), fontsize=9)
        axes[first * len(BETAS) + 1, len(ALPHAS) // 2].set_xlabel(METRICS[metric].axis, fontsize=9)
    title = f"{ablation.toy}, test set, as Figures {ablation.figures} of the paper"
    figure.suptitle(f"{title}\n{BOX.format('draw')}", fontsize=11)
    save(figure, path)
