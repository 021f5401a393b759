"""Scores of methods side by side, on axes that a few odd ones do not stretch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_probmix._drawing import BLUE, VERMILION, axes_or_new, describe
from pyro_probmix.evaluation.plots._inputs import as_rows
from pyro_probmix.evaluation.registry import find_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["box_plots", "limits_around", "limits_of_boxes", "log_axis", "mark_outside"]

_MARGIN = 0.05


def box_plots(
    scores: Mapping[str, Any],
    metric: str | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a box a method over its scores, a point a score, and the mean as a diamond; the best median is red and bold.

    Whiskers reach the last score within one and a half times the box. Scores beyond the limits are arrows at the edge,
    the furthest with its value. The scale of the axis is that of ``ax``; see :func:`log_axis`.

    Args:
        scores: numbers by name of the method, such as one a split; none where it has none.
        metric: one of :data:`~pyro_probmix.evaluation.METRICS`, whose units and direction are those of the scores.
        limits: of the axis of scores; default: those of :func:`limits_of_boxes`.
        ax: where to draw; default: new axes.

    Returns:
        The axes, methods from top to bottom.

    Raises:
        ValueError: if the metric is unknown, there are no scores, or scores are not finite or of no shape ``(N,)``.

    Example:
        >>> ax = pm.evaluation.plots.box_plots({"ERM": [1.0, 2.0, 1.5], "ProbMix": [0.9, 1.2, 1e6]}, metric="nll")
        >>> ax.get_xlabel(), [text.get_text() for text in ax.get_yticklabels()]
        ('NLL (nats), lower is better', ['ERM', 'ProbMix'])
    """
    shown = None if metric is None else find_metric(metric)
    found = {name: _scores(f"scores[{name!r}]", values) for name, values in scores.items()}
    known = {place: values for place, values in enumerate(found.values()) if len(values)}
    if not known:
        raise ValueError("scores: expected at least one, got none")
    ax = axes_or_new(ax)
    low, high = limits or limits_of_boxes(list(known.values()), ax.get_xscale() == "log")
    best = None
    if shown is not None and shown.lower_is_better is not None:
        sign = 1.0 if shown.lower_is_better else -1.0
        best = min(known, key=lambda place: sign * np.median(known[place]))
    boxes = ax.boxplot(
        list(known.values()),
        positions=list(known),
        orientation="horizontal",
        widths=0.6,
        showfliers=False,
        showmeans=True,
        meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": "black"},
        medianprops={"color": "black", "linewidth": 1.5},
    )
    for place, values, median in zip(known, known.values(), boxes["medians"], strict=True):
        if place == best:
            median.set(color=VERMILION, linewidth=4)
        inside = values[(values >= low) & (values <= high)]
        heights = place + np.random.default_rng(place).uniform(-0.2, 0.2, len(inside))
        ax.plot(inside, heights, color=BLUE, marker="o", markersize=3, alpha=0.6, linestyle="none", zorder=1.5)
        for beyond in (values[values < low], values[values > high]):
            if len(beyond):
                mark_outside(ax, beyond[np.abs(beyond - np.median(values)).argmax()], place, (low, high))
    ax.set_yticks(range(len(found)), list(found))
    if best is not None:
        ax.get_yticklabels()[best].set(fontweight="bold")
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlim(low, high)
    describe(ax, "score" if shown is None else shown.axis, "")
    ax.grid(visible=False, axis="y")
    return ax


def limits_around(values: Any, others: Any = (), log: bool = False) -> tuple[float, float]:
    """Limits of an axis that hold all values, and those others for which it need not be twice as long.

    Args:
        values: numbers, at least one.
        others: more numbers.
        log: whether the axis is logarithmic; all numbers are positive then.

    Example:
        >>> limits_around([0.0, 20.0], others=[30.0, 100.0])
        (-1.5, 31.5)
    """
    forward, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    low, high = forward(np.min(values)), forward(np.max(values))
    span = (high - low) or abs(high) or 1.0
    further = forward(np.asarray(others, dtype=float))
    near = further[(further >= low - span / 2) & (further <= high + span / 2)]
    low, high = min([low, *near]), max([high, *near])
    margin = _MARGIN * ((high - low) or span)
    return float(back(low - margin)), float(back(high + margin))


def limits_of_boxes(scores: Sequence[Any], log: bool = False) -> tuple[float, float]:
    """Limits of an axis that hold boxes and whiskers, and those scores beyond for which it need not be twice as long.

    Args:
        scores: arrays of numbers, a box each.
        log: whether the axis is logarithmic; all numbers are positive then.
    """
    from matplotlib.cbook import boxplot_stats

    boxes = boxplot_stats([values for values in scores if len(values)])
    whiskers = [box[end] for box in boxes for end in ("whislo", "whishi")]
    return limits_around(whiskers, np.concatenate(scores), log)


def mark_outside(ax: Axes, value: float, place: float, limits: tuple[float, float], color: str = BLUE) -> None:
    """Draw an arrow at the edge for a value beyond the limits of the horizontal axis, and write the value beside it."""
    right = value > limits[1]
    edge, text = (1.0, 0.96) if right else (0.0, 0.04)
    across = ax.get_yaxis_transform()
    ax.plot(edge, place, color=color, marker=">" if right else "<", markersize=5, transform=across, clip_on=False)
    ax.text(
        text,
        place,
        _short(value),
        color=color,
        fontsize="x-small",
        horizontalalignment="right" if right else "left",
        verticalalignment="bottom",
        transform=across,
    )


def log_axis(ax: Axes, limits: tuple[float, float]) -> None:
    """Make the horizontal axis logarithmic, with ticks that are plain numbers and few enough to be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = np.log10(limits[1] / limits[0])
    subs = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(limits)


def _short(value: float) -> str:
    if 1e-3 <= abs(value) < 1e5 or value == 0:
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"${mantissa.removesuffix('.0')}\cdot10^{{{int(exponent)}}}$".replace("$1\\cdot", "$")


def _scores(name: str, values: Any) -> NDArray[np.float64]:
    return as_rows(name, values).astype(np.float64) if len(values) else np.zeros(0)
