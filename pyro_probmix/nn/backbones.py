"""Networks from inputs to raw outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_probmix._checks import as_module, check_integer, check_number

__all__ = ["MLP", "RescaledNetwork"]


class MLP(nn.Sequential):
    r"""Multi-layer perceptron: linear layers with an activation between them.

    .. math:: f(x) = W_L\, a(\cdots a(W_1 x + b_1) \cdots) + b_L

    A slice of an ``MLP`` is a plain ``nn.Sequential`` that shares its layers, so a network can be cut into an
    encoder and a decoder.

    Args:
        in_features: Size of the last dimension of the input.
        hidden_features: Widths of the hidden layers, in order; empty for a single linear layer.
        out_features: Size of the last dimension of the output.
        activation: Called without arguments after each hidden layer to make its activation, e.g. ``nn.ReLU``.
        output_activation: The same after the last layer; ``None`` leaves the output unbounded.

    Shape:
        (..., in_features) to (..., out_features).

    Raises:
        ValueError: if a size is below one.
        TypeError: if a size is not an integer, or an activation is a module instead of what makes one.

    Example:
        >>> import torch
        >>> network = MLP(13, [128, 32], 2)
        >>> network(torch.zeros(364, 13)).shape
        torch.Size([364, 2])
        >>> encoder, decoder = network[:2], network[2:]
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        out_features: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        output_activation: Callable[[], nn.Module] | None = None,
    ) -> None:
        if not isinstance(hidden_features, Sequence) or isinstance(hidden_features, str):
            raise TypeError(f"hidden_features: expected a sequence of integers, got {hidden_features!r}")
        widths = [
            check_integer("in_features", in_features),
            *(check_integer(f"hidden_features[{i}]", width) for i, width in enumerate(hidden_features)),
            check_integer("out_features", out_features),
        ]
        _check_factory("activation", activation)
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths[:-1]):
            layers += [nn.Linear(width, next_width), activation()]
        layers.append(nn.Linear(widths[-2], widths[-1]))
        if output_activation is not None:
            _check_factory("output_activation", output_activation)
            layers.append(output_activation())
        super().__init__(*layers)

    def __getitem__(self, index: slice | int) -> nn.Module:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)


def _check_factory(name: str, factory: object) -> None:
    if isinstance(factory, nn.Module) or not callable(factory):
        raise TypeError(f"{name}: expected a class or function that makes a module, e.g. nn.ReLU, got {factory!r}")


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
