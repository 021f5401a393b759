"""The figure of a comparison: the paper's Figures 2, 3 and 14 for the toys, a dot plot for other data."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pyro_probmix.datasets import TOY_REGIONS
from pyro_probmix.evaluation import METRICS
from pyro_probmix.experiments.files import write_bytes
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.pictures import HEIGHTS, Picture
from pyro_probmix.experiments.results import Comparison

__all__ = ["BLUE", "GREY", "VERMILION", "draw", "draw_densities", "save"]

# The colour-blind-safe palette of Okabe and Ito.
BLUE, _ORANGE, _GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"
_CLASSES = (BLUE, _ORANGE, _GREEN)
_DPI = 150


def draw(comparison: Comparison, path: Path) -> None:
    """Write the figure of a finished comparison as a PNG file.

    A toy problem has one panel a method, for the first draw: the rows are the graphs, the columns the sites
    that are fused. Other data have one panel a metric, with a row a method and a dot a split.

    Source: El-Laham et al. (2025), figures 2, 3 and 14.
    """
    panels = _PANELS[comparison.data.task]
    figure = _toy_figure(comparison, *panels) if comparison.pictures else _split_figure(comparison)
    save(figure, path, _DPI)


def draw_densities(comparison: Comparison, path: Path) -> None:
    """Write the predictive densities of a finished comparison on the toy regression as a PNG file.

    Source: El-Laham et al. (2025), figure 3.
    """
    save(_toy_figure(comparison, _density_panel, _density_legend), path, _DPI)


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    write_bytes(path, content.getvalue())


def _toy_figure(
    comparison: Comparison,
    panel: Callable[[Axes, Picture], None],
    legend: Callable[[Comparison], list[Artist]],
) -> Figure:
    pictures = comparison.pictures
    names = list(dict.fromkeys(METHODS[key].name for key in pictures))
    graphs = sorted({METHODS[key].local for key in pictures})
    keys = {(graphs.index(METHODS[key].local), names.index(METHODS[key].name)): key for key in pictures}
    size = 1.0 + 2.8 * max(len(names), 2), 1.0 + 3.4 * len(graphs)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(graphs), len(names), sharex=True, sharey=True, squeeze=False)
    across, up = (*comparison.data.feature_names, "y")[:2]
    empty = None
    for (row, column), axis in np.ndenumerate(axes):
        if (row, column) not in keys:
            axis.set_axis_off()
            empty = axis
            continue
        key = keys[row, column]
        panel(axis, pictures[key])
        axis.set_box_aspect(1)
        axis.set_title(_title(comparison, key), fontsize=10)
        if (row + 1, column) not in keys:
            axis.tick_params(labelbottom=True)
            axis.set_xlabel(across)
        if (row, column - 1) not in keys:
            axis.tick_params(labelleft=True)
            axis.set_ylabel(up)
    figure.suptitle(f"{comparison.data.name}: draw 1 of {comparison.settings.splits}", fontsize=12)
    handles = legend(comparison)
    if empty is not None:
        empty.legend(handles=handles, loc="center", frameon=False)
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _title(comparison: Comparison, key: str) -> str:
    metrics = {metric: values[0] for metric, values in comparison.results[key].metrics.items()}
    second = f"accuracy {metrics['accuracy']:.2f}" if "accuracy" in metrics else f"MSE {metrics['mse']:.0f}"
    return f"{METHODS[key].label}\nNLL {metrics['nll']:.2f}, {second}"


def _regression_panel(axes: Axes, picture: Picture) -> None:
    x, mean, deviation = picture.grid[:, 0], picture.mean, picture.deviation
    assert deviation is not None
    axes.axvspan(*TOY_REGIONS["test"], color=GREY, alpha=0.15, linewidth=0)
    axes.fill_between(x, mean - 2 * deviation, mean + 2 * deviation, color=BLUE, alpha=0.3, linewidth=0)
    axes.plot(x, mean, color=BLUE)
    axes.plot(x, x**3, color="black", linestyle="--", linewidth=0.8)
    axes.scatter(*picture.train, s=5, color=_ORANGE, zorder=3, linewidth=0)
    axes.scatter(*picture.test, s=5, color=VERMILION, zorder=3, linewidth=0)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(HEIGHTS[0], HEIGHTS[-1])


def _regression_legend(comparison: Comparison) -> list[Artist]:
    return [
        Line2D([], [], color=BLUE, label="mean"),
        Patch(color=BLUE, alpha=0.3, linewidth=0, label="mean ± 2 standard deviations"),
        Line2D([], [], color="black", linestyle="--", linewidth=0.8, label="x³"),
        Line2D([], [], color=_ORANGE, marker="o", markersize=3, linestyle="none", label="training data"),
        Line2D([], [], color=VERMILION, marker="o", markersize=3, linestyle="none", label="test data"),
        Patch(color=GREY, alpha=0.15, linewidth=0, label="test region"),
    ]


def _density_panel(axes: Axes, picture: Picture) -> None:
    x, density = picture.grid[:, 0], picture.density
    assert density is not None
    extent = (x[0], x[-1], HEIGHTS[0], HEIGHTS[-1])
    shades = np.maximum(np.log10(np.maximum(density, 1e-300)), -5.0)
    axes.imshow(shades, extent=extent, origin="lower", aspect="auto", cmap="Blues", vmin=-5.0, vmax=-0.5)
    axes.plot(x, x**3, color="black", linestyle="--", linewidth=0.8)
    axes.scatter(*picture.train, s=4, color=_ORANGE, linewidth=0)
    axes.scatter(*picture.test, s=4, color=VERMILION, linewidth=0)
    axes.axvline(TOY_REGIONS["test"][0], color=GREY, linewidth=0.8)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(HEIGHTS[0], HEIGHTS[-1])


def _density_legend(comparison: Comparison) -> list[Artist]:
    shade = Patch(color=BLUE, alpha=0.5, linewidth=0, label="log density, from 1e-5 to 0.3")
    border = Line2D([], [], color=GREY, linewidth=0.8, label="where the test region begins")
    return [shade, border, *_regression_legend(comparison)[2:5]]


def _classification_panel(axes: Axes, picture: Picture) -> None:
    side = round(len(picture.grid) ** 0.5)
    low, high = picture.grid.min(), picture.grid.max()
    probabilities = picture.mean.reshape(side, side, -1)
    shades = 1 - 0.55 * (1 - np.array([to_rgb(color) for color in _CLASSES]))
    axes.imshow(probabilities @ shades, extent=(low, high, low, high), origin="lower", aspect="auto")
    ticks = np.linspace(low, high, side)
    x, y = picture.train
    for label, color in enumerate(_CLASSES):
        margin = probabilities[..., label] - np.delete(probabilities, label, axis=-1).max(axis=-1)
        axes.contour(ticks, ticks, margin, levels=[0], colors="black", linewidths=0.8)
        axes.scatter(x[y == label, 0], x[y == label, 1], s=14, color=color, edgecolors="black", linewidths=0.4)


def _classification_legend(comparison: Comparison) -> list[Artist]:
    points = [
        Line2D([], [], color=color, marker="o", markeredgecolor="black", markeredgewidth=0.4, lw=0, label=name)
        for name, color in zip(comparison.data.class_names, _CLASSES, strict=True)
    ]
    shade = Patch(color=GREY, alpha=0.5, linewidth=0, label="shade: class probabilities")
    return [*points, shade, Line2D([], [], color="black", linewidth=0.8, label="decision boundary")]


_PANELS = {
    "regression": (_regression_panel, _regression_legend),
    "classification": (_classification_panel, _classification_legend),
}


def _split_figure(comparison: Comparison) -> Figure:
    methods, metrics = comparison.methods, comparison.metrics
    figure = Figure(figsize=(5.0 * len(metrics), 1.6 + 0.38 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True)
    rng = np.random.default_rng(0)
    for axes, metric in zip(panels, metrics, strict=True):
        for place, method in enumerate(methods):
            values = comparison.values(method, metric)
            jitter = rng.uniform(-0.12, 0.12, len(values))
            axes.scatter(values, place + 0.2 + jitter, s=9, color=BLUE, alpha=0.5, linewidth=0)
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            color = VERMILION if method == comparison.best(metric) else "black"
            axes.errorbar(values.mean(), place - 0.15, xerr=spread, color=color, marker="D", ms=5, capsize=3)
        axes.set_xlabel(METRICS[metric].axis)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(methods)), [METHODS[method].label for method in methods])
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    figure.suptitle(f"{comparison.data.name}: test set, {comparison.settings.splits} splits", fontsize=11)
    handles = [
        Line2D([], [], color=BLUE, marker="o", markersize=4, linestyle="none", alpha=0.5, label="one split"),
        Line2D([], [], color="black", marker="D", markersize=5, label="mean ± standard deviation"),
        Line2D([], [], color=VERMILION, marker="D", markersize=5, label="best mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure
