"""The figures of the paper's tables and ablations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyro_probmix.experiments.figures import BLUE, GREY, VERMILION, save
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.paper.ablations import Ablation
from pyro_probmix.experiments.paper.tables import PaperTable
from pyro_probmix.experiments.store import Cells
from pyro_probmix.experiments.table import best, deviation

__all__ = ["draw_ablation", "draw_table"]


def draw_table(table: PaperTable, cells: Cells, path: Path) -> None:
    """Write a reproduced table as a PNG file: a panel a data set, ours beside the paper's means."""
    names = [name for name in table.paper if table.means(cells, name)]
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.2 + 2.2 * columns, 0.9 + 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        means = table.means(cells, name)
        for place, method in enumerate(table.columns):
            if table.comparable and method in table.paper[name]:
                axis.plot(
                    table.paper[name][method][0], place, color=GREY, marker="D", mfc="none", ms=4, linestyle="none"
                )
            values = table.values(cells, name, method)
            if values is not None:
                error = deviation(values) / np.sqrt(len(values))
                color = VERMILION if method == best(means, table.metric) else BLUE
                axis.errorbar(means[method], place, xerr=error, color=color, marker="o", ms=4, capsize=2)
        rival = table.rival(name)
        if rival is not None:
            axis.axvline(rival, color=GREY, linestyle="--", linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(table.columns)), table.labels.values())
    axes[0, 0].set_ylim(len(table.columns) - 0.5, -0.5)
    figure.suptitle(f"{table.title}, lower is better", fontsize=10)
    handles = [
        Line2D([], [], color=BLUE, marker="o", markersize=4, label="ours, mean ± standard error"),
        Line2D([], [], color=VERMILION, marker="o", markersize=4, label="best of ours"),
        Line2D([], [], color=GREY, marker="D", mfc="none", markersize=4, linestyle="none", label="the paper's mean"),
    ]
    handles = handles if table.comparable else handles[:2]
    if any(table.rival(name) is not None for name in names):
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="best published of other methods"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, 3), frameon=False, fontsize=8)
    save(figure, path, 100)


def draw_ablation(ablation: Ablation, cells: Cells, path: Path) -> None:
    """Write box plots of the methods under every setting as a PNG file, a column a setting and a row a metric."""
    methods = [method for method in METHODS if any(method in found for found in cells.values())]
    metrics = ablation.metrics
    size = 2.4 + 1.5 * len(cells), 0.8 + (0.8 + 0.22 * len(methods)) * len(metrics)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(metrics), len(cells), sharex="row", sharey=True, squeeze=False)
    for row, metric in enumerate(metrics):
        for axis, (setting, found) in zip(axes[row], cells.items(), strict=True):
            values = [found[method][metric] if method in found else [] for method in methods]
            medians = {method: float(np.median(v)) for method, v in zip(methods, values, strict=True) if v}
            boxes = axis.boxplot(values, orientation="horizontal", widths=0.7, flierprops={"markersize": 2})
            boxes["medians"][methods.index(best(medians, metric))].set(color=VERMILION, linewidth=3)
            axis.set_yticks(range(1, len(methods) + 1), [METHODS[method].label for method in methods], fontsize=7)
            axis.tick_params(axis="x", labelsize=6)
            axis.grid(axis="x", alpha=0.3)
            axis.set_xscale("linear" if metric == "accuracy" else "symlog")
            if row == 0:
                axis.set_title(setting.replace("alpha", "α").replace("beta", "β"), fontsize=8)
        axes[row, 0].set_ylabel(metric, fontsize=8)
    axes[0, 0].invert_yaxis()
    title = f"{ablation.toy}, as Figures {ablation.figures}: test set, the best median in red"
    figure.suptitle(title, fontsize=10)
    save(figure, path, 100)
