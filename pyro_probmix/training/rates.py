"""Step sizes that change from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyro_probmix._checks import check_integer, check_number

__all__ = ["OneCycle", "Rate", "check_rate"]

Rate = float | Callable[[int], float]
"""A step size, or a function from the epoch, counted from 0, to the step size in it."""


@dataclass(frozen=True)
class OneCycle:
    r"""The step size of one cycle, which rises from a 25th of its peak and falls to nearly nothing, along cosines.

    With :math:`t` = (epoch + ½) / ``epochs`` and the share :math:`s` = ``pct_start`` of the cycle that rises,

    .. math:: \eta = \eta_1 + (\eta_2 - \eta_1) \frac{1 - \cos \pi u}{2}, \qquad
        (\eta_1, \eta_2, u) = \begin{cases}
        (\eta_{\max} / 25, \eta_{\max}, t / s) & t \le s \\
        (\eta_{\max}, 10^{-4} \eta_{\max} / 25, (t - s) / (1 - s)) & t > s.
        \end{cases}

    It is the schedule of ``torch.optim.lr_scheduler.OneCycleLR`` in the midst of each epoch, as a function that both
    :func:`~pyro_probmix.fit` and :func:`~pyro_probmix.fit_replicas` take as their ``learning_rate``. Behind its last
    epoch the size stays as it is.

    Args:
        max_lr: the peak, positive.
        epochs: of the cycle.
        pct_start: in (0, 1).

    Raises:
        TypeError: if an argument is no number.
        ValueError: if one is out of range.

    Source: Smith and Topin (2019), Super-convergence: very fast training of neural networks using large learning rates.

    Example:
        >>> rate = OneCycle(0.01, 100)
        >>> [round(rate(epoch), 5) for epoch in (0, 29, 30, 99)]
        [0.00041, 0.00999, 0.01, 0.0]
    """

    max_lr: float
    epochs: int
    pct_start: float = 0.3

    def __post_init__(self) -> None:
        check_number("max_lr", self.max_lr)
        check_integer("epochs", self.epochs)
        check_number("pct_start", self.pct_start, "(0, 1)")

    def __call__(self, epoch: int) -> float:
        time = min((epoch + 0.5) / self.epochs, 1.0)
        if time <= self.pct_start:
            first, last, share = self.max_lr / 25, self.max_lr, time / self.pct_start
        else:
            first, last, share = self.max_lr, self.max_lr / 25e4, (time - self.pct_start) / (1 - self.pct_start)
        return first + (last - first) * (1 - math.cos(math.pi * share)) / 2


def check_rate(learning_rate: Any, epochs: int) -> Rate:
    """The step size, refused where it is neither a positive number nor a function that gives one for each epoch."""
    if not callable(learning_rate):
        return check_number("learning_rate", learning_rate)
    for epoch in range(epochs):
        check_number(f"learning_rate({epoch})", learning_rate(epoch))
    return learning_rate
