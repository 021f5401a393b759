"""Averages of parameters over the steps of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["MovingAverage"]


class MovingAverage:
    r"""The exponential moving average :math:`\bar\theta_t = \bar\theta_{t-1} + w_t(\theta_t - \bar\theta_{t-1})`.

    With :math:`w_t = \max(1/t, 1 - \text{decay})` it is the plain mean of the first 1 / (1 − decay) steps, and the
    initial parameters do not count. PyTorch's ``swa_utils.AveragedModel`` copies the model, has the host look at the
    device in each step, and knows neither rows nor steps that were not taken.

    Args:
        parameters: what is averaged; their averages have single precision at least.
        decay: in (0, 1).
        shape: of the counts of steps; it broadcasts with that of the parameters.

    Attributes:
        values: the averages, in the order of the parameters.
        count: steps so far.

    Source: Polyak and Juditsky (1992), Acceleration of Stochastic Approximation by Averaging, for the mean.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float, shape: Sequence[int] = ()) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.values = [p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True) for p in parameters]
        first = self.values[0]
        self.count = torch.zeros(tuple(shape), device=first.device, dtype=first.dtype)

    @torch.no_grad()
    def update(self, taken: Tensor) -> None:
        """To be called after a step, with whether it was taken; no host waits for that."""
        self.count += taken
        weight = torch.where(taken, (1 / self.count).clamp_min(1 - self.decay), 0)
        for value, parameter in zip(self.values, self.parameters, strict=True):
            value.lerp_(parameter.to(value.dtype), weight.to(value.dtype))

    @torch.no_grad()
    def write(self) -> None:
        """Give the parameters their averages."""
        torch._foreach_copy_(self.parameters, self.values)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters are their averages."""
        own = [p.detach().clone() for p in self.parameters]
        try:
            self.write()
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, own)

    def keep(self, rows: Tensor, kept: Tensor) -> None:
        """Go on with these rows of the one parameter alone, which are in ``kept`` from now on."""
        self.parameters, self.values, self.count = [kept], [self.values[0][rows]], self.count[rows]
