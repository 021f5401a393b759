"""Networks from inputs to raw outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from torch import nn

from pyro_probmix._checks import check_integer

__all__ = ["MLP"]


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
        if output_activation is not None:
            _check_factory("output_activation", output_activation)
        super().__init__(*_layers(widths, activation, output_activation))

    def __getitem__(self, index: slice | int) -> nn.Module:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)


def _layers(
    widths: Sequence[int],
    activation: Callable[[], nn.Module],
    output_activation: Callable[[], nn.Module] | None,
) -> Iterator[nn.Module]:
    for width, next_width in pairwise(widths[:-1]):
        yield nn.Linear(width, next_width)
        yield activation()
    yield nn.Linear(widths[-2], widths[-1])
    if output_activation is not None:
        yield output_activation()


def _check_factory(name: str, factory: object) -> None:
    if isinstance(factory, nn.Module) or not callable(factory):
        raise TypeError(f"{name}: expected a class or function that makes a module, e.g. nn.ReLU, got {factory!r}")
