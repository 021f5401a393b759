"""What all drawings share: colours, markers and lines that anybody can tell apart, in print too, and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BLUE", "COLORS", "GREY", "MARKERS", "ORANGE", "VERMILION", "axes_or_new", "describe", "style", "tint"]

# The palette of Okabe and Ito, https://jfly.uni-koeln.de/color; yellow is too light for lines.
BLUE, VERMILION, _GREEN, ORANGE, _PURPLE, _SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
GREY = "#7F7F7F"
COLORS = (BLUE, ORANGE, _GREEN, VERMILION, _PURPLE, _SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
_LINES = ("-", "--", "-.", ":")


def axes_or_new(ax: Axes | None) -> Axes:
    """The axes to draw on, those of a new pyplot figure where there are none.

    Raises:
        TypeError: if ``ax`` is neither Matplotlib's Axes nor None.
        ModuleNotFoundError: if Matplotlib is not installed.
    """
    try:
        from matplotlib.axes import Axes
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('drawing needs matplotlib: pip install "pyro-probmix[tables]"') from error
    if ax is None:
        from matplotlib import pyplot

        return pyplot.subplots(layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: expected Axes of Matplotlib, or None for new ones, got {type(ax).__name__}")
    return ax


def describe(ax: Axes, x: str, y: str) -> Axes:
    """Label axes where they have no label yet, behind a light grid, with a legend of what has a label."""
    if not ax.get_xlabel():
        ax.set_xlabel(x)
    if not ax.get_ylabel():
        ax.set_ylabel(y)
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False)
    return ax


def style(place: int) -> dict[str, Any]:
    """Colour, marker and line of the curve in a place; the first twelve differ."""
    kinds = {"color": COLORS, "marker": MARKERS, "linestyle": _LINES}
    return {name: values[place % len(values)] for name, values in kinds.items()}


def tint(color: str, strength: float) -> tuple[float, ...]:
    """A colour, as strong as that share, on white.

    >>> tint("#0072B2", 0.0)
    (1.0, 1.0, 1.0)
    """
    from matplotlib.colors import to_rgb

    return tuple(1 - strength * (1 - part) for part in to_rgb(color))
