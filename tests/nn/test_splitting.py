"""A network cut in two is the network: in values and gradients, with its own parameters, or it is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.nn import MLP, LSTMBackbone, TransformerBackbone, split


class Residual(nn.Module):
    """What a user has: containers, defaults, a parameter and a constant of its own, branches inside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2)])
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)
        self.shift = nn.Parameter(torch.randn(4))
        self.register_buffer("unit", torch.full((4,), 2.0))

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0, *, double: bool = True) -> Tensor:
        shift = self.shift * self.unit  # before the cut, but not from x
        if mask is not None:
            x = x * mask
        z = self.first(x)
        if double:
            z = scale * z
        for block in self.blocks:
            z = z + block(z)
        z += torch.arange(4)
        return self.last(self.norm(z) + shift)


class Rnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x)
        return self.head(states[:, -1])


RELU = nn.ReLU()
CASES: dict[str, tuple[Any, list[Any], tuple[int, ...]]] = {
    "mlp": (lambda: MLP(3, [5, 4], 2), [1, 2, 5, "0", "3", "4"], (6, 3)),
    "nested": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), nn.Dropout(0.5)),
        [1, 3, "1", "1.0", "1.1", "2"],
        (6, 3),
    ),
    "layer used twice": (lambda: nn.Sequential(nn.Linear(3, 4), RELU, nn.Linear(4, 4), RELU), [2, 3, "1"], (6, 3)),
    "residual": (Residual, ["first", "norm", "last"], (6, 3)),
    "rnn": (Rnn, ["head"], (6, 5, 3)),
    "lstm": (lambda: nn.Sequential(LSTMBackbone(3, 4, sequence=True), nn.Linear(4, 2)), [1, "0"], (6, 5, 3)),
    "transformer": (
        lambda: nn.Sequential(TransformerBackbone(3, 4, dropout=0.2, causal=True), nn.Linear(4, 2)),
        [1, "0.projection", "0.positions", "0.layers.0", "0.layers.1"],
        (6, 5, 3),
    ),
}
cases = pytest.mark.parametrize(
    ("make", "at", "shape"),
    [pytest.param(make, at, shape, id=f"{name}-{at}") for name, (make, ats, shape) in CASES.items() for at in ats],
)


def evaluate(function: Any, x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The value, and the gradients of all that it depends on."""
    torch.manual_seed(2)
    value = function(x)
    torch.manual_seed(2)
    gradients = torch.autograd.grad(function(x).square().sum(), [x, *parameters], allow_unused=True)
    return [value, *(torch.zeros(()) if gradient is None else gradient for gradient in gradients)]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@cases
def test_decoder_after_encoder_is_the_network(make: Any, at: Any, shape: tuple[int, ...], training: bool) -> None:
    """Exactly, whichever mode it was cut in."""
    network = make()
    encoder, decoder = split(network, at)
    for module in (network, encoder, decoder):
        module.train(training)
    x = torch.randn(shape, requires_grad=True)
    parameters = list(network.parameters())
    whole = evaluate(network, x, parameters)
    parts = evaluate(lambda x: decoder(encoder(x)), x, parameters)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)


@cases
def test_parameters_are_the_networks_own(make: Any, at: Any, shape: tuple[int, ...]) -> None:
    network = make()
    encoder, decoder = split(network, at)
    for tensors in ("parameters", "buffers"):
        own = {id(t) for t in getattr(network, tensors)()}
        parts = {id(t) for part in (encoder, decoder) for t in getattr(part, tensors)()}
        assert parts >= own if tensors == "buffers" else parts == own


@cases
def test_copies(make: Any, at: Any, shape: tuple[int, ...]) -> None:
    network = make().eval()
    x = torch.randn(shape)
    parts = split(network, at)
    for encoder, decoder in (copy.deepcopy(parts), pickle.loads(pickle.dumps(parts))):
        assert torch.equal(decoder(encoder(x)), network(x))


def test_the_embedding_is_the_output_of_the_named_layer() -> None:
    network = Residual().eval()
    outputs = []
    network.norm.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    x = torch.randn(6, 3)
    network(x)
    encoder, _ = split(network, "norm")
    assert torch.equal(encoder(x), outputs[0])
    assert torch.equal(split(network, "first")[0](x), network.first(x))


def test_the_network_and_the_random_state_are_left_alone() -> None:
    network = Residual()
    network.norm.eval()
    state, names = torch.get_rng_state(), set(dict(network.named_buffers()))
    split(network, "first")
    assert network.training
    assert not network.norm.training
    assert set(dict(network.named_buffers())) == names
    assert torch.equal(torch.get_rng_state(), state)


def test_methods_train_on_the_parts() -> None:
    """M-ProbMix after any layer: here, of a sequence of vectors inside a transformer."""
    network = nn.Sequential(TransformerBackbone(3, 4), nn.Linear(4, 2))
    encoder, decoder = split(network, "0.layers.0")
    embedding = pm.nn.NormalEmbedding(encoder, (5, 4))
    model = pm.ManifoldProbMix(embedding, decoder, pm.nn.NormalLikelihood())
    batch = pm.CompleteGraph(6).pair_batch(torch.randn(6, 5, 3), torch.randn(6))
    model.risk(batch, num_samples=2).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert model.predictive(batch.x, num_samples=3).batch_shape == (6,)


class Odd(nn.Module):
    """Networks that cannot be cut after ``first``, by kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.first, self.last = kind, nn.Linear(3, 3), nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "branch" and x.sum() > 0:
            return x
        z = self.first(self.first(x) if self.kind == "twice" else x)
        if self.kind == "training":
            z = F.dropout(z, 0.5, self.training)
        if self.kind == "random":
            z = z + torch.randn(3)
        return self.last(z) + (x if self.kind == "residual" else 0)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.first(x) + y


@pytest.mark.parametrize(
    ("network", "at", "error", "message"),
    [
        (torch.relu, 1, TypeError, "network: expected an nn.Module, got <built-in"),
        (nn.Linear(3, 3), 1.0, TypeError, "at: expected the name of a submodule or a number of layers, got 1.0"),
        (MLP(3, [4], 2), True, TypeError, "at: expected .* got True"),
        (MLP(3, [4], 2), 0, ValueError, "at: expected from 1 to 3 layers, got 0"),
        (MLP(3, [4], 2), 4, ValueError, "at: expected from 1 to 3 layers, got 4"),
        (MLP(3, [4], 2), "5", ValueError, r"at: expected the name of a submodule, one of \['0', '1', '2'\], got '5'"),
        (Residual(), 1, ValueError, "at: expected the name of a submodule to split Residual at, got 1"),
        (
            Residual(),
            "blocks",
            ValueError,
            "at: expected a submodule that is called once, got 'blocks', called 0 times",
        ),
        (Residual(), "blocks.1", ValueError, "at: expected that what follows needs the output of 'blocks.1' alone"),
        (Odd("residual"), "first", ValueError, "needs the output of 'first' alone, got a network that uses its input"),
        (Odd("twice"), "first", ValueError, "at: expected .* called once, got 'first', called 2 times"),
        (Odd("plain"), "unused", ValueError, "at: expected .* called once, got 'unused', called 0 times"),
        (
            Odd("branch"),
            "first",
            ValueError,
            "at: expected modules around 'first' that torch.fx can trace.*control flow",
        ),
        (Odd("training"), "first", ValueError, "at: expected modules around 'first' that do the same in every call"),
        (Odd("random"), "first", ValueError, "at: expected modules around 'first' that do the same in every call"),
        (Pair(), "first", ValueError, "called with one tensor.*missing 1 required positional argument"),
        (Rnn(), "lstm", ValueError, "at: expected a submodule whose output is one tensor, got 'lstm', a LSTM"),
    ],
)
def test_refuses(network: Any, at: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split(network, at)


class Standardised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("std", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x / (self.std + 1e-6)))


def test_what_is_computed_from_buffers_follows_them() -> None:
    network, x = Standardised(), torch.randn(5, 3)
    encoder, decoder = split(network, "first")
    network.std.fill_(10.0)
    torch.testing.assert_close(decoder(encoder(x)), network(x))


class Counting(Standardised):
    def forward(self, x: Tensor) -> Tensor:
        self.std += 1
        return super().forward(x)


def test_a_network_that_changes_its_buffers_is_refused() -> None:
    network = Counting()
    with pytest.raises(
        ValueError,
        match=r"at: expected modules around 'first' .*; (Counting assigns to|cannot assign .* as) a? ?buffer",
    ):
        split(network, "first")
    assert torch.equal(network.std, torch.ones(3))
