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
    initial parameters do not count.

    Args:
        parameters: what is averaged; their averages have single precision at least.
        decay: in (0, 1).

    Attributes:
        values: the averages, in the order of the parameters.
        count: steps so far.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.parameters, self.decay, self.count = list(parameters), decay, 0
        self.values = [p.clone() for p in self._own()]

    def _own(self) -> list[Tensor]:
        return [p.detach().to(torch.promote_types(p.dtype, torch.float32)) for p in self.parameters]

    def update(self) -> None:
        """To be called after a step."""
        self.count += 1
        torch._foreach_lerp_(self.values, self._own(), max(1 / self.count, 1 - self.decay))

    @torch.no_grad()
    def write(self) -> None:
        """Give the parameters their averages."""
        torch._foreach_copy_(self.parameters, self.values)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters are their averages."""
        own = [p.detach().clone() for p in self.parameters]
        self.write()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, own)
