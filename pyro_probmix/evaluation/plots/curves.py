"""Curves over the epochs of trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyro_probmix._drawing import COLORS, axes_or_new
from pyro_probmix.evaluation.plots._inputs import named
from pyro_probmix.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["training_curves"]


def training_curves(history: History | Mapping[str, History], ax: Axes | None = None) -> Axes:
    """Draw the training risk and the validation loss of trainings, in nats, and mark the best epochs.

    Args:
        history: what a training returned, or several by name.
        ax: where to draw; default: new axes.

    Returns:
        The axes.

    Raises:
        TypeError: if something is no history.
        ValueError: if there is none.

    Example:
        >>> history = pm.History([1.5, 1.1], [1.6, 1.2], best_epoch=1)
        >>> ax = pm.evaluation.plots.training_curves({"ERM": history, "ProbMix": history})
        >>> ax.get_ylabel()
        'loss (nats)'
    """
    histories = named("history", history, History)
    ax = axes_or_new(ax)
    for place, (name, one) in enumerate(histories.items()):
        one.plot(ax, name, COLORS[place % len(COLORS)])
    return ax
