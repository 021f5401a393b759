"""MLP: the layers it makes, the slices it gives, and the arguments it refuses."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from pyro_probmix.nn import MLP


def test_layers_in_order() -> None:
    network = MLP(13, [128, 32], 2, activation=nn.Tanh, output_activation=nn.Softplus)
    kinds = [type(layer) for layer in network]
    assert kinds == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear, nn.Softplus]
    sizes = [(layer.in_features, layer.out_features) for layer in network if isinstance(layer, nn.Linear)]
    assert sizes == [(13, 128), (128, 32), (32, 2)]


def test_computes_the_layers_one_after_the_other() -> None:
    network = MLP(3, [4], 2).double()
    first, _, last = network
    x = torch.randn(5, 3, dtype=torch.float64)
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(network(x), hidden @ last.weight.T + last.bias)


def test_without_hidden_layers_it_is_linear() -> None:
    network = MLP(3, (), 2)
    assert [type(layer) for layer in network] == [nn.Linear]


@pytest.mark.parametrize("leading", [(), (5,), (2, 5)])
def test_any_leading_dimensions(leading: tuple[int, ...]) -> None:
    assert MLP(3, [4], 2)(torch.zeros(*leading, 3)).shape == (*leading, 2)


def test_each_hidden_layer_has_its_own_activation() -> None:
    network = MLP(3, [4, 4], 2, activation=partial(nn.PReLU, 4))
    assert network[1] is not network[3]
    assert len(list(network.parameters())) == 3 * 2 + 2


def test_slices_are_plain_sequences_that_share_the_layers() -> None:
    network = MLP(3, [4, 4], 2)
    encoder, decoder = network[:2], network[2:]
    x = torch.randn(5, 3)
    assert type(encoder) is nn.Sequential
    assert encoder[0] is network[0]
    assert torch.equal(decoder(encoder(x)), network(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(copied: Any) -> None:
    network = MLP(3, [4], 2)
    x = torch.randn(5, 3)
    assert torch.equal(copied(network)(x), network(x))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, [4], 2), ValueError, "in_features: expected an integer >= 1, got 0"),
        ((3, [4, -1], 2), ValueError, r"hidden_features\[1\]: expected an integer >= 1, got -1"),
        ((3, [4], 0), ValueError, "out_features: expected an integer >= 1, got 0"),
        ((3.5, [4], 2), TypeError, "in_features: expected an integer >= 1, got 3.5"),
        ((3, [True], 2), TypeError, r"hidden_features\[0\]: expected an integer >= 1, got True"),
        ((3, 4, 2), TypeError, "hidden_features: expected a sequence of integers, got 4"),
        ((3, [4], 2, nn.ReLU()), TypeError, r"activation: expected .* makes a module.*, got ReLU\(\)"),
        ((3, [4], 2, nn.ReLU, "relu"), TypeError, "output_activation: expected .* got 'relu'"),
    ],
)
def test_refuses(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MLP(*arguments)
