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

__all__ = ["box_plots", "limits_around", "log_axis", "mark_outside", "needs_log"]

_MARGIN, _ROOM = 0.05, 0.2


def box_plots(
    scores: Mapping[str, Any],
    metric: str | None = None,
    among: Sequence[Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a box a method over its scores, a point a score, the mean as a diamond; the best median is thick and red.

    Whiskers reach the last score within one and a half times the box. The axis of scores is made for boxes and
    whiskers, and logarithmic where these are positive and far apart. Scores beyond it are arrows at its edge, the
    furthest with its value.

    Args:
        scores: numbers by name of the method, such as one a split; none where it has none.
        metric: one of :data:`~pyro_probmix.evaluation.METRICS`, whose units and direction are those of the scores.
        among: the scores of all boxes that the axis is made for, an array each, where others beside it have the same;
            default: these.
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
    scored = None if metric is None else find_metric(metric)
    found = {name: _scores(f"scores[{name!r}]", values) for name, values in scores.items()}
    known = {place: values for place, values in enumerate(found.values()) if len(values)}
    if not known:
        raise ValueError("scores: expected at least one, got none")
    every = list(known.values())
    shown = every if among is None else [_scores("among", values) for values in among if len(values)]
    ax = axes_or_new(ax)
    ends = _whiskers(shown)
    log = needs_log(ends) and min(values.min() for values in shown) > 0
    low, high = limits_around(ends, np.concatenate(shown), log)
    if log:
        log_axis(ax, (low, high))
    best = None
    if scored is not None and scored.lower_is_better is not None:
        sign = 1.0 if scored.lower_is_better else -1.0
        best = min(known, key=lambda place: sign * np.median(known[place]))
    boxes = ax.boxplot(
        every,
        positions=list(known),
        orientation="horizontal",
        widths=0.6,
        showfliers=False,
        showmeans=True,
        meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": "black"},
        medianprops={"color": "black", "linewidth": 1.5},
    )
    for place, values, median in zip(known, every, boxes["medians"], strict=True):
        if place == best:
            median.set(color=VERMILION, linewidth=4)
        inside = values[(values >= low) & (values <= high)]
        heights = place + np.random.default_rng(place).uniform(-0.2, 0.2, len(inside))
        ax.plot(inside, heights, color=BLUE, marker="o", markersize=3, alpha=0.6, linestyle="none", zorder=1.5)
        for beyond in (values[values < low], values[values > high]):
            if len(beyond):
                mark_outside(ax, beyond[np.abs(beyond - np.median(values)).argmax()], place, (low, high))
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlim(low, high)
    describe(ax, "score" if scored is None else scored.axis, "")
    ax.grid(visible=False, axis="y")
    return ax


def limits_around(values: Any, others: Any = (), log: bool = False) -> tuple[float, float]:
    """Limits of an axis that hold all values, and those others for which it need not be twice as long.

    Where others stay outside there is room for :func:`mark_outside`.

    Args:
        values: numbers, at least one.
        others: more numbers.
        log: whether the axis is logarithmic; all numbers are positive then.

    Example:
        >>> limits_around([0.0, 20.0], others=[30.0, 100.0])
        (-1.5, 36.0)
    """
    forward, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    first, last = forward(np.min(values)), forward(np.max(values))
    span = (last - first) or abs(last) or 1.0
    further = forward(np.asarray(others, dtype=float))
    near = further[(further >= first - span / 2) & (further <= last + span / 2)]
    low, high = min([first, *near]), max([last, *near])
    span = (high - low) or span
    room = [_ROOM if outside else _MARGIN for outside in ((further < low).any(), (further > high).any())]
    return float(back(low - room[0] * span)), float(back(high + room[1] * span))


def needs_log(values: Any) -> bool:
    """Whether numbers are positive and so far apart that a linear axis hides the small ones.

    Example:
        >>> needs_log([4.0, 12_000.0]), needs_log([4.0, 12.0]), needs_log([-4.0, 12_000.0])
        (True, False, False)
    """
    return bool(0 < np.min(values) < np.max(values) / 30)


def mark_outside(ax: Axes, value: float, place: float, limits: tuple[float, float], color: str = BLUE) -> None:
    """Draw an arrow at the edge for a value beyond the limits of the horizontal axis, and write the value beside it."""
    right = value > limits[1]
    edge, text = (1.0, 0.96) if right else (0.0, 0.04)
    across = ax.get_yaxis_transform()
    ax.plot(edge, place, color=color, marker=">" if right else "<", markersize=5, transform=across, clip_on=False)
    ax.text(
        text,
        place,
        _short(value, "#.3g"),
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


def _short(value: float, digits: str = ".3g") -> str:
    if 1e-3 <= abs(value) < 1e5 or value == 0:
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:{digits}}"
    mantissa, exponent = f"{value:.1e}".split("e")
    factor = "" if mantissa == "1.0" else rf"{mantissa.removesuffix('.0')}\cdot"
    return f"${factor}10^{{{int(exponent)}}}$"


def _scores(name: str, values: Any) -> NDArray[np.float64]:
    return as_rows(name, values).astype(np.float64) if len(values) else np.zeros(0)


def _whiskers(scores: Sequence[Any]) -> list[float]:
    from matplotlib.cbook import boxplot_stats

    boxes = boxplot_stats(scores)
    return [float(box[end]) for box in boxes for end in ("whislo", "whishi")]
