"""Pictures of what lies over the plane: class probabilities, and which points a sampling graph mixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_probmix import distributions
from pyro_probmix._checks import check_integer
from pyro_probmix._drawing import BLUE, COLORS, MARKERS, axes_or_new, describe, tint
from pyro_probmix.evaluation.plots._inputs import as_rows, density_at
from pyro_probmix.mixing import SamplingGraph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["class_probabilities", "draw_classes", "draw_key", "draw_points", "sampling_graph"]

Array = NDArray[Any]

_SIDE = 121
_MARGIN = 0.1
_TINT = 0.6


def class_probabilities(
    model: Any, x: Any, y: Any = None, class_names: Sequence[str] = (), ax: Axes | None = None
) -> Axes:
    """Draw the class probabilities of a model with two inputs as a mixture of colours, and the decision boundaries.

    The picture reaches a tenth beyond the points. Lines part the regions of the most probable classes.

    Args:
        model: a ready model, or a fitted estimator.
        x: points, of shape ``(N, 2)``.
        y: their classes, of shape ``(N,)``, in 0..C-1 or those of the estimator; default: no points are drawn.
        class_names: one a class; default: the estimator's classes, or their numbers.
        ax: where to draw; default: new axes.

    Returns:
        The axes.

    Raises:
        TypeError: if ``model`` is neither a ready model nor an estimator, or does not predict classes.
        ValueError: if a shape does not fit, a value is not finite or no class, there are more classes than colours, or
            names and classes are not as many.

    Example:
        >>> x, y = torch.randn(20, 2), torch.arange(20) % 3
        >>> likelihood = pm.nn.CategoricalLikelihood(3)
        >>> model = pm.ERM(pm.nn.MLP(2, [8], likelihood.num_outputs), likelihood)
        >>> ax = pm.evaluation.plots.class_probabilities(model, x, y)
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['0', '1', '2']
    """
    points = as_rows("x", x, 2)
    own = getattr(model, "classes_", None)
    if own is not None and y is not None:
        y = np.searchsorted(own, np.asarray(y)).clip(0, len(own) - 1)
    labels = None if y is None else as_rows("y", y, size=len(points))
    across, up = (_line(ends) for ends in points.T)
    p = density_at(model, np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2))
    probabilities = distributions.class_probabilities(p).cpu().numpy().reshape(_SIDE, _SIDE, -1)
    size = probabilities.shape[-1]
    names = list(class_names) or (range(size) if own is None else own)
    if len(names) != size:
        raise ValueError(f"class_names: expected {size} names, got {len(names)}")
    _check_classes(size, labels)
    ax = axes_or_new(ax)
    draw_classes(ax, across, up, probabilities)
    if labels is not None:
        draw_points(ax, points, labels, [str(name) for name in names])
    return describe(ax, "x₁", "x₂")


def sampling_graph(
    graph: SamplingGraph, x: Any, y: Any = None, num_batches: int = 50, seed: int = 0, ax: Axes | None = None
) -> Axes:
    """Draw the pairs that a sampling graph mixes, over points in the plane; the oftener a pair, the darker its line.

    Args:
        graph: the graph, of N nodes.
        x: points, of shape ``(N, 2)``.
        y: their classes as integers, or their numbers, of shape ``(N,)``; default: all points look the same.
        num_batches: how many full batches are drawn to see which pairs there are.
        seed: of these draws; the global random state is left alone.
        ax: where to draw; default: new axes.

    Returns:
        The axes.

    Raises:
        TypeError: if ``graph`` is none, or ``num_batches`` no integer.
        ValueError: if shapes do not fit, or values are not finite.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [5.0, 6.0]])
        >>> ax = pm.evaluation.plots.sampling_graph(pm.NearestNeighborGraph(x, num_neighbors=1), x)
        >>> len(ax.collections[0].get_segments())
        2
    """
    if not isinstance(graph, SamplingGraph):
        raise TypeError(f"graph: expected a sampling graph, got {type(graph).__name__}")
    points = as_rows("x", x, 2, size=graph.num_nodes)
    labels = None if y is None else as_rows("y", y, size=graph.num_nodes)
    names = []
    if labels is not None and np.issubdtype(labels.dtype, np.integer):
        names = [str(label) for label in range(labels.max() + 1)]
        _check_classes(len(names), labels)
    pairs, counts = _edges(graph, check_integer("num_batches", num_batches), seed)
    ax = axes_or_new(ax)
    from matplotlib.collections import LineCollection

    darkest = min(1.0, 8 * len(points) / max(1, len(pairs)))
    lines: Any = list(points[pairs])
    shades = np.minimum(darkest * (0.1 + 0.9 * counts / counts.max(initial=1)), 1.0)  # above it by rounding
    if lines:
        ax.add_collection(LineCollection(lines, colors=BLUE, alpha=shades, linewidths=1.0))
    ax.plot([], [], color=BLUE, linewidth=1.0, label="pair that is mixed")
    across, up = points.T
    if names and labels is not None:
        draw_points(ax, points, labels, names)
    elif labels is None:
        ax.scatter(across, up, s=16, color="black", zorder=2)
    else:
        scatter = ax.scatter(across, up, s=16, c=labels, cmap="cividis", edgecolors="black", linewidths=0.4, zorder=2)
        ax.figure.colorbar(scatter, ax=ax, label="y")
    ax.autoscale_view()
    return describe(ax, "x₁", "x₂")


def draw_classes(ax: Axes, across: Array, up: Array, probabilities: Array) -> None:
    """Draw class probabilities, of shape ``(up, across, C)``, as a mixture of colours, and the decision boundaries."""
    extent = (across[0], across[-1], up[0], up[-1])
    ax.imshow(probabilities @ _shades(probabilities.shape[-1]), extent=extent, origin="lower", aspect="auto")
    for label in range(probabilities.shape[-1]):
        margin = probabilities[..., label] - np.delete(probabilities, label, axis=-1).max(axis=-1)
        if margin.min() < 0 < margin.max():
            ax.contour(across, up, margin, levels=[0], colors="black", linewidths=0.8)


def draw_points(ax: Axes, points: Array, labels: Array, names: Sequence[str]) -> None:
    """Draw points in the colour and with the marker of their class."""
    for label, name in enumerate(names):
        across, up = points[labels == label].T
        look: Any = {"marker": MARKERS[label], "color": COLORS[label], "edgecolors": "black", "linewidths": 0.5}
        ax.scatter(across, up, s=18, label=name, zorder=2, **look)


def draw_key(ax: Axes, names: Sequence[str]) -> None:
    """Draw which colour means which class probability, the others being equally probable: a bar a class."""
    size = len(names)
    own = np.linspace(1 / size, 1, 64)
    rest = ((1 - own) / (size - 1))[None, :, None]
    probabilities = np.where(np.eye(size, dtype=bool)[:, None], own[None, :, None], rest)
    ax.imshow(probabilities @ _shades(size), extent=(1 / size, 1, size - 0.5, -0.5), aspect="auto")
    ax.set_yticks(range(size), names)
    ax.set_xlabel("class probability")


def _check_classes(size: int, labels: Array | None) -> None:
    if size > len(COLORS):
        raise ValueError(f"y: expected at most {len(COLORS)} classes, each with a colour of its own, got {size}")
    if labels is None:
        return
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= size:
        got = f"{labels.dtype} from {labels.min()} to {labels.max()}"
        raise ValueError(f"y: expected integers from 0 to {size - 1}, got {got}")


def _shades(size: int) -> Array:
    return np.array([tint(color, _TINT) for color in COLORS[:size]])


def _line(ends: Array) -> Array:
    low, high = float(ends.min()), float(ends.max())
    margin = _MARGIN * ((high - low) or 1.0)
    return np.linspace(low - margin, high + margin, _SIDE)


def _edges(graph: SamplingGraph, num_batches: int, seed: int) -> tuple[Array, Array]:
    """The pairs of different nodes that were drawn, each once, of shape ``(E, 2)``, and how often."""
    generator, found = torch.Generator("cpu").manual_seed(seed), []
    for _ in range(num_batches):
        nodes, partner = graph.sample_batch(None, generator)
        nodes = torch.arange(graph.num_nodes, device="cpu") if nodes is None else nodes
        found.append(torch.stack((nodes, nodes[partner]), dim=1))
    pairs = np.sort(torch.cat(found).numpy(), axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0, return_counts=True)
