"""Networks over sequences: torch's own numbers, what they may see, many at once, and the methods on them."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pyro
import pytest
import torch
from numpy.random import SeedSequence
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import pyro_probmix as pm
from pyro_probmix.nn import LSTMBackbone, TransformerBackbone

FEATURES, HIDDEN, LENGTH, SIZE = 3, 4, 5, 6
BACKBONES = {
    "lstm": lambda **arguments: LSTMBackbone(FEATURES, HIDDEN, 2, **arguments),
    "transformer": lambda **arguments: TransformerBackbone(FEATURES, HIDDEN, 2, 2, **arguments),
    "causal": lambda **arguments: TransformerBackbone(FEATURES, HIDDEN, 2, 2, causal=True, **arguments),
}
backbones = pytest.mark.parametrize("make", BACKBONES.values(), ids=BACKBONES)


def inputs(*leading: int) -> Tensor:
    return torch.randn(*leading, LENGTH, FEATURES, dtype=torch.float64)


@backbones
def test_shapes(make: Any) -> None:
    x = inputs(SIZE)
    last, every = make().double(), make(sequence=True).double()
    every.load_state_dict(last.state_dict())
    assert every(x).shape == (SIZE, LENGTH, HIDDEN)
    assert torch.equal(last(x), every(x)[:, -1])
    torch.testing.assert_close(last(x[0]), last(x)[0], rtol=1e-12, atol=1e-12)
    assert last(inputs(1)[:, :1]).shape == (1, HIDDEN)


def test_lstm_is_that_of_torch() -> None:
    backbone, x = BACKBONES["lstm"]().double(), inputs(SIZE)
    reference = nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True).double()
    reference.load_state_dict(backbone.lstm.state_dict())
    assert torch.equal(backbone(x), reference(x)[1][0][-1])


def test_transformer_is_that_of_torch() -> None:
    """Layer by layer, in training and evaluation; positions by their formula."""
    backbone = TransformerBackbone(FEATURES, HIDDEN, 2, 1, feedforward_size=7, causal=True, sequence=True).double()
    reference = nn.TransformerEncoderLayer(HIDDEN, 2, 7, 0.0, batch_first=True).double()
    reference.load_state_dict(backbone.layers[0].state_dict())
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64)
    x = inputs(SIZE)
    z = backbone.projection(x)
    for t in range(LENGTH):
        for i in range(0, HIDDEN, 2):
            z[:, t, i] += math.sin(t / 10_000 ** (i / HIDDEN))
            z[:, t, i + 1] += math.cos(t / 10_000 ** (i / HIDDEN))
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            expected = reference.train(mode)(z, mask)
            torch.testing.assert_close(backbone.train(mode)(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BACKBONES)
def test_which_steps_are_seen(name: str) -> None:
    """A causal network's features at a step depend on the steps up to it; the others' on all."""
    network = BACKBONES[name](sequence=True).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x)[:, 0], inputs())
    seen = jacobian.abs().sum(-1) > 1e-9
    everywhere = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    assert torch.equal(seen, everywhere if name == "transformer" else everywhere.tril())


@backbones
@pytest.mark.parametrize("training", [True, False])
def test_many_at_once_under_vmap(make: Any, training: bool) -> None:
    """Values and gradients of each network alone; in evaluation without gradients, as validation runs."""
    networks = [make().double().train(training) for _ in range(3)]
    x = inputs(3, SIZE)
    parameters, buffers = stack_module_state(networks)

    def call(parameters: Any, buffers: Any, x: Tensor) -> Tensor:
        return functional_call(networks[0], (parameters, buffers), (x,))

    with torch.set_grad_enabled(training):
        together = vmap(call, randomness="different")(parameters, buffers, x)
        alone = torch.stack([network(own) for network, own in zip(networks, x, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    if training:
        ours = torch.autograd.grad(together.square().sum(), list(parameters.values()))
        theirs = torch.autograd.grad(alone.square().sum(), [p for network in networks for p in network.parameters()])
        for i, gradient in enumerate(ours):
            expected = torch.stack(theirs[i :: len(ours)])
            torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-12)


@backbones
def test_copies_and_dtypes(make: Any) -> None:
    network, x = make(), inputs(SIZE)
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(copied(x.float()), network(x.float()))
    for dtype in (torch.float64, torch.bfloat16):
        assert make().to(dtype)(x.to(dtype)).dtype == dtype


def test_dropout_is_of_training() -> None:
    network, x = BACKBONES["transformer"](dropout=0.5).double(), inputs(SIZE)
    assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def make_model(method: str, backbone: str, dtype: torch.dtype = torch.float64) -> Any:
    likelihood = pm.nn.NormalLikelihood()
    flattened = nn.Sequential(BACKBONES[backbone](sequence=True), nn.Flatten(-2), nn.Linear(LENGTH * HIDDEN, HIDDEN))
    head = nn.Linear(HIDDEN, likelihood.num_outputs)
    networks: list[Any] = [flattened, head] if method.startswith("Manifold") else [nn.Sequential(flattened, head)]
    if method == "ManifoldProbMix":
        networks[0] = pm.nn.NormalEmbedding(flattened, HIDDEN)
    return getattr(pm, method)(*networks, likelihood).to(dtype)


@pytest.mark.parametrize("backbone", ["lstm", "transformer"])
@pytest.mark.parametrize("method", ["ERM", "Mixup", "ManifoldMixup", "ProbMix", "ManifoldProbMix"])
def test_all_methods_train(method: str, backbone: str) -> None:
    """As in Section 6.3: loss / B is the risk, a step moves all parameters, and a predictive density comes out."""
    model, x = make_model(method, backbone), inputs(SIZE)
    batch = pm.CompleteGraph(SIZE).pair_batch(x, torch.randn(SIZE, dtype=torch.float64))
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().loss(model, model.guide, batch) / SIZE
    pyro.set_rng_seed(1)
    assert loss == pytest.approx(model.risk(batch).item(), rel=1e-12)
    before = copy.deepcopy(model.state_dict())
    SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(batch)
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert model.predictive(x).log_prob(batch.y).shape == (SIZE,)


@pytest.mark.parametrize("backbone", ["lstm", "transformer"])
def test_replicas_are_those_of_fit(backbone: str) -> None:
    """One computation for all, and each ends as its own training would; the loss is compared, since a key's bias
    has no gradient but rounding, which Adam magnifies."""
    x, y = inputs(SIZE), torch.randn(SIZE, dtype=torch.float64)
    arguments: Any = {"validation": (x, y), "epochs": 4, "progress": False}
    replicas = pm.fit_replicas(
        lambda r: make_model("ManifoldProbMix", backbone), [(x, y)] * 2, **{**arguments, "validation": [(x, y)] * 2}
    )
    for r, (history, seed) in enumerate(zip(replicas.histories, replicas.seeds, strict=True)):
        model_seed = int(SeedSequence(0, spawn_key=(r,)).generate_state(2)[0])
        with pm.models.seeded(model_seed, x.device):
            model = make_model("ManifoldProbMix", backbone)
        alone = pm.fit(model, (x, y), seed=seed, **arguments)
        assert history.train_loss == pytest.approx(alone.train_loss, rel=1e-6)
        assert history.validation_loss == pytest.approx(alone.validation_loss, rel=1e-6)


def test_replicas_of_one_network_are_one_computation() -> None:
    """Each epoch runs the network once, however many replicas there are."""
    calls = 0

    class Counted(LSTMBackbone):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return super().forward(x)

    def make(r: int) -> Any:
        likelihood = pm.nn.NormalLikelihood()
        network = nn.Sequential(Counted(FEATURES, HIDDEN), nn.Linear(HIDDEN, likelihood.num_outputs))
        return pm.ProbMix(network, likelihood).double()

    data = inputs(SIZE), torch.randn(SIZE, dtype=torch.float64)
    counted = []
    for epochs in (2, 5):
        calls = 0
        pm.fit_replicas(make, [data] * 4, epochs=epochs, progress=False)
        counted.append(calls)
    assert counted[1] - counted[0] == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTMBackbone(0, 4), "in_features: expected an integer >= 1, got 0"),
        (lambda: LSTMBackbone(3, 4, 0), "num_layers: expected an integer >= 1, got 0"),
        (lambda: TransformerBackbone(3, 0), "hidden_size: expected an integer >= 1, got 0"),
        (lambda: TransformerBackbone(3, 5, 2), "hidden_size: expected a multiple of num_heads = 2, got 5"),
        (lambda: TransformerBackbone(3, 4, 0), "num_heads: expected an integer >= 1, got 0"),
        (lambda: TransformerBackbone(3, 4, feedforward_size=0), "feedforward_size: expected an integer >= 1, got 0"),
    ],
)
def test_refuses(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_in_half_precision(dtype: torch.dtype) -> None:
    """They are those of single precision, rounded once: step 257 is not step 256."""
    positions = TransformerBackbone(FEATURES, 8, 2, 2).positions
    half, single = positions(torch.zeros(300, 8, dtype=dtype)), positions(torch.zeros(300, 8))
    assert half.dtype == dtype
    assert torch.equal(half, single.to(dtype))
