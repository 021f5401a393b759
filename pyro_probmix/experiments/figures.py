"""The figure of a comparison: the paper's Figures 2, 3 and 14 for the toys, box plots for other data."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from pyro_probmix._drawing import GREY, ORANGE, VERMILION
from pyro_probmix._files import write_bytes
from pyro_probmix.datasets import TOY_REGIONS
from pyro_probmix.evaluation.plots import box_plots, density_bands
from pyro_probmix.evaluation.plots.planes import draw_classes, draw_key, draw_points
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.pictures import SIDE, Picture
from pyro_probmix.experiments.results import Comparison

__all__ = ["BOX", "draw", "draw_densities", "save"]

BOX = "box: quartiles; thick and red: best median; diamond: mean; point: {} (arrow: its value, beyond the axis)"
"""What box plots show, of what a point is."""

_ENDS = -120.0, 270.0
_HEIGHTS = np.linspace(*_ENDS, 391)
_DENSITIES = LogNorm(1e-5, 0.3, clip=True)
_DPI = 150


def draw(comparison: Comparison, path: Path) -> None:
    """Write the figure of a finished comparison as a PNG file.

    A toy problem has one panel a method, for the first draw: the rows are the graphs, the columns the sites
    that are fused. Other data have one panel a metric, with a row a method and a point a split.

    Source: El-Laham et al. (2025), figures 2, 3 and 14.
    """
    panel, key = (_bands, None) if comparison.data.task == "regression" else (_classes, _class_key)
    save(_toy_figure(comparison, panel, key) if comparison.pictures else _split_figure(comparison), path)


def draw_densities(comparison: Comparison, path: Path) -> None:
    """Write the predictive densities of a finished comparison on the toy regression as a PNG file.

    Source: El-Laham et al. (2025), figure 3.
    """
    save(_toy_figure(comparison, _densities, _density_key), path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    write_bytes(path, content.getvalue())


def _toy_figure(
    comparison: Comparison,
    panel: Callable[[Axes, Picture, Comparison], None],
    key: Callable[[Axes, Axes, Comparison], None] | None,
) -> Figure:
    pictures = comparison.pictures
    names = list(dict.fromkeys(METHODS[method].name for method in pictures))
    graphs = sorted({METHODS[method].local for method in pictures})
    places = {(graphs.index(METHODS[method].local), names.index(METHODS[method].name)): method for method in pictures}
    rows, columns = len(graphs), len(names)
    columns += len(places) == rows * columns  # where no place is empty, what explains the panels has one of its own
    figure = Figure(figsize=(1.0 + 2.8 * columns, 1.0 + 3.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    across, up = (*comparison.data.feature_names, "y")[:2]
    for place, axis in np.ndenumerate(axes):
        if place not in places:
            axis.set_axis_off()
            empty = axis
    for (row, column), method in places.items():
        axis = axes[row, column]
        panel(axis, pictures[method], comparison)
        axis.set_box_aspect(1)
        axis.set_title(_title(comparison, method), fontsize=10)
        lowest, first = (row + 1, column) not in places, (row, column - 1) not in places
        axis.tick_params(labelbottom=lowest, labelleft=first)
        axis.set(xlabel=across if lowest else "", ylabel=up if first else "")
        if axis.get_legend():
            axis.get_legend().remove()
    title = "training data" if comparison.data.task == "classification" else None
    empty.legend(*axis.get_legend_handles_labels(), loc="upper center", frameon=False, title=title)
    if key:
        key(empty, axis, comparison)
    draws = comparison.settings.splits
    figure.suptitle(
        f"{comparison.data.name}, {'one draw' if draws == 1 else f'the first of {draws} draws'}", fontsize=12
    )
    return figure


def _title(comparison: Comparison, method: str) -> str:
    metrics = {metric: values[0] for metric, values in comparison.results[method].metrics.items()}
    second = f"accuracy {metrics['accuracy']:.2f}" if "accuracy" in metrics else f"MSE {metrics['mse']:.0f}"
    return f"{METHODS[method].label}\ntest NLL {metrics['nll']:.2f} nats, {second}"


def _bands(axis: Axes, picture: Picture, _: Comparison) -> None:
    density_bands(picture.p, picture.grid, levels=(0.5, 0.95), ax=axis)
    _points(axis, picture)


def _densities(axis: Axes, picture: Picture, _: Comparison) -> None:
    x = picture.grid[:, 0]
    heights = torch.as_tensor(_HEIGHTS, dtype=torch.float32)[:, None]
    density = picture.p.log_prob(heights.expand(-1, len(x))).exp().numpy()
    axis.imshow(density, extent=(x[0], x[-1], *_ENDS), origin="lower", aspect="auto", cmap="Blues", norm=_DENSITIES)
    _points(axis, picture)


def _points(axis: Axes, picture: Picture) -> None:
    """The rows of a toy regression, and the law that they come from."""
    x = picture.grid[:, 0]
    axis.plot(x, x**3, color="black", linestyle="--", linewidth=0.8, label="x³, the true mean")
    for (inputs, y), color, marker, name in (
        (picture.train, ORANGE, "o", "training data"),
        (picture.test, VERMILION, "^", "test data"),
    ):
        axis.scatter(inputs[:, 0], y, s=8, color=color, marker=marker, linewidth=0, zorder=3, label=name)
    axis.axvspan(*TOY_REGIONS["test"], color=GREY, alpha=0.15, linewidth=0, label="test region")
    axis.set(xlim=(x[0], x[-1]), ylim=_ENDS)


def _density_key(empty: Axes, axis: Axes, _: Comparison) -> None:
    place = empty.inset_axes((0.05, 0.2, 0.9, 0.07))
    label = "predictive density, per unit of y"
    empty.figure.colorbar(axis.images[0], cax=place, orientation="horizontal", extend="both", label=label)


def _classes(axis: Axes, picture: Picture, comparison: Comparison) -> None:
    side = len(SIDE)
    draw_classes(axis, SIDE, SIDE, picture.p.probs.numpy().reshape(side, side, -1))
    draw_points(axis, *picture.train, comparison.data.class_names)
    axis.plot([], [], color="black", linewidth=0.8, label="decision boundary")


def _class_key(empty: Axes, _: Axes, comparison: Comparison) -> None:
    names = comparison.data.class_names
    draw_key(empty.inset_axes((0.25, 0.2, 0.7, 0.08 * len(names))), names)


def _split_figure(comparison: Comparison) -> Figure:
    metrics = comparison.metrics
    figure = Figure(figsize=(5.0 * len(metrics), 1.6 + 0.38 * len(comparison.methods)), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False).flat, metrics, strict=True):
        scores = {METHODS[method].label: comparison.values(method, metric) for method in comparison.methods}
        box_plots(scores, metric, ax=axis)
    what = BOX.format("split")
    title = f"{comparison.data.name}: test set, {comparison.settings.splits} splits\n{what}"
    figure.suptitle(title, fontsize=11, parse_math=False)  # the name of a file may have any $
    return figure
