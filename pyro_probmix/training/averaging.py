"""Averages of parameters over the steps of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["MovingAverage"]


class MovingAverage:
    r"""The exponential moving average :math:`\bar\theta_t = \bar\theta_{t-1} + w_t(\theta_t - \bar\theta_{t-1})`.

    With :math:`w_t = \max(1/t, 1 - \text{decay})` it is the plain mean of the first 1 / (1 − decay) steps, and the
    initial parameters do not count. PyTorch's ``swa_utils.AveragedModel`` copies the model, has the host look at the
    device in each step, and knows neither rows nor steps that were not taken.

    The parameters are those of R models; ``spread`` makes numbers a model broadcast with them. ``values`` are the
    averages, in single precision at least, and ``count`` the steps of each model so far.

    Source: Polyak and Juditsky (1992), Acceleration of Stochastic Approximation by Averaging, for the mean.
    """

    def __init__(
        self, parameters: Sequence[Tensor], decay: float, spread: Callable[[Tensor], Tensor], size: int = 1
    ) -> None:
        self.parameters, self.decay, self.spread = list(parameters), decay, spread
        self.values = [p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True) for p in parameters]
        self.count = torch.zeros(size, device=self.values[0].device, dtype=self.values[0].dtype)

    @torch.no_grad()
    def update(self, taken: Tensor) -> None:
        """To be called after a step, with which models have taken it; no host waits for that."""
        self.count += taken
        weight = self.spread(torch.where(taken, (1 / self.count).clamp_min(1 - self.decay), 0))
        for value, parameter in zip(self.values, self.parameters, strict=True):
            value.lerp_(parameter.to(value.dtype), weight.to(value.dtype))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters are their averages."""
        own = [p.detach().clone() for p in self.parameters]
        try:
            torch._foreach_copy_(self.parameters, self.values)
            yield
        finally:
            torch._foreach_copy_(self.parameters, own)

    def keep(self, rows: Tensor, parameters: Sequence[Tensor]) -> None:
        """Go on with these models alone, whose parameters are these."""
        self.parameters, self.values = list(parameters), [value[rows] for value in self.values]
        self.count = self.count[rows]
