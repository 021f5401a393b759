"""A mixup-trained network, evaluated where mixup trained it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_probmix._checks import as_module, check_number

__all__ = ["RescaledNetwork"]


class RescaledNetwork(nn.Module):
    r"""The rescaled prediction of a mixup-trained network f,

    .. math:: x \mapsto \frac{1}{\bar\theta} f\big(\bar\theta x + (1 - \bar\theta) \bar x\big)
        + \Big(1 - \frac{1}{\bar\theta}\Big) \bar y.

    Mixup trains f on inputs shrunk towards their mean x̄ by θ̄ on average, and on targets shrunk towards ȳ.

    Args:
        network: f, from x to raw outputs; shared, not copied.
        theta: θ̄ in (0, 1].
        x_mean: x̄, of the shape of one x.
        y_mean: ȳ of the first outputs, shape ``(n,)``; the outputs behind them, such as raw scales, stay as they are.

    Raises:
        ValueError: if ``theta`` is not in (0, 1].

    Source: Carratino et al., "On Mixup Regularization" (2022).

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> rescaled = RescaledNetwork(line, 0.8, torch.zeros(1), torch.zeros(1))
        >>> x = torch.ones(3, 1)
        >>> bool((rescaled(x) - line(x)).abs().max() < 1e-6)  # a line through the means is left alone
        True
    """

    x_mean: Tensor
    y_mean: Tensor

    def __init__(self, network: nn.Module, theta: float, x_mean: Tensor, y_mean: Tensor) -> None:
        super().__init__()
        self.network, self.theta = as_module("network", network), check_number("theta", theta, "(0, 1]")
        self.register_buffer("x_mean", x_mean.detach().clone())
        self.register_buffer("y_mean", y_mean.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Raw outputs of shape ``(..., num_outputs)`` for inputs ``(..., *x_mean.shape)``."""
        raw = self.network(torch.lerp(self.x_mean, x, self.theta))
        size = len(self.y_mean)
        rescaled = raw[..., :size] / self.theta + (1 - 1 / self.theta) * self.y_mean
        return rescaled if size == raw.shape[-1] else torch.cat((rescaled, raw[..., size:]), -1)

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses."""
        return f"theta={self.theta:.6g}"
