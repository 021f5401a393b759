"""What happened in a training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyro_probmix._drawing import BLUE, axes_or_new, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["VALIDATION_SAMPLES", "History"]

VALIDATION_SAMPLES = 32
"""Embedding samples a point in the validation loss of a model with a stochastic embedding."""


@dataclass
class History:
    """What happened in a training.

    Attributes:
        train_loss: risk of each epoch, in nats (eq. 16), the mean over the nodes of its batches.
        validation_loss: mean negative log-likelihood on the validation data after each epoch, in nats, of the average
            of the parameters where one is kept; empty without validation data.
        best_epoch: epoch whose parameters the model has, counted from 0; the last without validation data.
        skipped_steps: steps that were not taken, their loss or a gradient not being finite.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    skipped_steps: int = 0

    def plot(self, ax: Axes | None = None, label: str = "", color: str = BLUE) -> Axes:
        """Draw the training risk and the validation loss of each epoch, in nats, and mark the best epoch.

        An epoch without a finite loss, such as one after which nothing was validated, has no point.

        Args:
            ax: where to draw; default: new axes.
            label: what goes before the names of the curves, for several histories on the same axes.
            color: of the curves.

        Returns:
            The axes.

        Example:
            >>> ax = pm.History([1.5, 1.1, 1.0], [1.6, 1.2, 1.3], best_epoch=1).plot()
            >>> [line.get_label() for line in ax.lines]
            ['training risk', 'validation loss', 'best epoch']
        """
        ax = axes_or_new(ax)
        before = f"{label}: " if label else ""
        for values, line, name in (
            (self.train_loss, "--", "training risk"),
            (self.validation_loss, "-", "validation loss"),
        ):
            points = [(epoch, value) for epoch, value in enumerate(values) if math.isfinite(value)]
            if points:
                ax.plot(*zip(*points), color=color, linestyle=line, linewidth=1.2, label=before + name)
        if self.validation_loss:
            best = self.validation_loss[self.best_epoch]
            ax.plot(self.best_epoch, best, color=color, marker="D", linestyle="none", label=f"{before}best epoch")
        ax.locator_params(axis="x", integer=True)
        return describe(ax, "epoch", "loss (nats)")
