"""Models of the structure of Pyro's examples under ``pm.mix``: at λ = 1 the loss is that of the model itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

import pyro_probmix as pm

SIZE = 7


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bits(*shape: int, seed: int = 0) -> Tensor:
    return torch.bernoulli(torch.full(shape, 0.5), generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Example:
    """A model with its data, its guide and where it can be fused.

    Attributes:
        make: a fresh pair of a model and a guide of arguments (x, y).
        sites: the sites that are fused in turn.
        x: inputs, one row a node.
        y: labels, one row a node.
        guide_is_mixed: whether the guide has a density at the fused latent sites.
        enumerates: whether discrete sites are summed out.
        nesting: how many plates there are.
    """

    make: Callable[[], tuple[Any, Any]]
    sites: tuple[str, ...]
    x: Tensor
    y: Tensor
    guide_is_mixed: bool = False
    enumerates: bool = False
    nesting: int = 1


def nothing(x: Tensor, y: Tensor) -> None:
    pass


def of_latents(model: Any, make: Any = AutoNormal, **arguments: Any) -> Any:
    return make(poutine.block(model, **arguments), init_scale=0.1)


# Regressions.


def linear_regression() -> tuple[Any, Any]:
    def model(x: Tensor, y: Tensor | None) -> None:
        weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ weight, scale), obs=y)

    return model, of_latents(model, AutoDiagonalNormal, hide=["y"])


def logistic_regression() -> tuple[Any, Any]:
    def model(x: Tensor, y: Tensor | None) -> None:
        weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            logits = pyro.deterministic("logits", x @ weight, event_dim=0)
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)

    return model, of_latents(model, hide=["y"])


def eight_schools() -> tuple[Any, Any]:
    def model(x: Tensor, y: Tensor | None) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            effect = pyro.sample("effect", dist.Normal(mean, spread))
            pyro.sample("y", dist.Normal(effect, x[:, 0].exp()), obs=y)

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 0.5))
        pyro.sample("spread", dist.LogNormal(0.1, 0.2))
        with pyro.plate("data", len(x)):
            pyro.sample("effect", dist.Normal(pyro.param("slope", torch.tensor(0.7)) * y, 0.4))

    return model, guide


def mixed_effects() -> tuple[Any, Any]:
    groups = torch.arange(SIZE) % 3

    def model(x: Tensor, y: Tensor | None) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", 3):
            intercept = pyro.sample("intercept", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.StudentT(4.0, intercept[groups] + slope * x[:, 0], 1.0).mask(True), obs=y)
            pyro.sample("count", dist.Poisson((intercept[groups] * 0.1).exp()), obs=y.abs().floor())

    return model, of_latents(model, hide=["y", "count"])


def inflated_counts() -> tuple[Any, Any]:
    def model(x: Tensor, y: Tensor | None) -> None:
        gate = pyro.sample("gate", dist.Beta(2.0, 5.0))
        weight = pyro.sample("weight", dist.Normal(0.0, 0.5).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.ZeroInflatedPoisson((x @ weight).exp(), gate=gate.expand(len(x))), obs=y)

    return model, of_latents(model, hide=["y"])


# Networks.


def bayesian_network(depth: int) -> Callable[[], tuple[Any, Any]]:
    class Network(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            sizes = [3, *[4] * depth, 1]
            self.layers = PyroModule[nn.ModuleList]([PyroModule[nn.Linear](a, b) for a, b in itertools.pairwise(sizes)])
            for layer, (a, b) in zip(self.layers, itertools.pairwise(sizes), strict=True):
                layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([b, a]).to_event(2))
                layer.bias = PyroSample(dist.Normal(0.0, 1.0).expand([b]).to_event(1))

        def forward(self, x: Tensor, y: Tensor | None) -> None:
            for number, layer in enumerate(self.layers):
                x = layer(x if number == 0 else x.tanh())
            scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(x.squeeze(-1), scale), obs=y)

    def make() -> tuple[Any, Any]:
        model = Network()
        return model, of_latents(model, hide=["y"])

    return make


def autoencoder() -> tuple[Any, Any]:
    torch.manual_seed(1)
    decoder, encoder = nn.Linear(2, 5), nn.Linear(5, 4)

    def model(x: Tensor, y: Tensor | None) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Tensor, y: Tensor | None) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, raw = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    return model, guide


# Chains and mixtures.


def gaussian_mixture() -> tuple[Any, Any]:
    @config_enumerate
    def model(x: Tensor, y: Tensor | None) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.full((2,), 0.5)))
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            assignment = pyro.sample("assignment", dist.Categorical(weights))
            pyro.sample("y", dist.Normal(locs[assignment], 1.0), obs=y)

    return model, of_latents(model, hide=["y", "assignment"])


def hidden_markov(kind: int) -> Callable[[], tuple[Any, Any]]:
    """Sequences of notes of different lengths, the plate of sequences left of that of tones."""
    lengths = torch.tensor([4, 3, 2, 4, 1, 3, 4])

    def model(x: Tensor, y: Tensor) -> None:
        size, length, tones = y.shape
        transition = pyro.sample("transition", dist.Dirichlet(0.9 * torch.eye(3) + 0.1).to_event(1))
        emission = pyro.sample("emission", dist.Beta(0.5, 0.9).expand([3, 3, tones]).to_event(3))
        tones_plate = pyro.plate("tones", tones, dim=-1)
        with pyro.plate("data", size, dim=-2):
            state: Any = torch.tensor(0)
            other: Any = torch.tensor(0)
            before: Any = torch.tensor(0)
            for t in pyro.markov(range(length)):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    parallel: Any = {"enumerate": "parallel"}
                    state = pyro.sample(f"x_{t}", dist.Categorical(transition[state]), infer=parallel)
                    if kind == 3:  # two hidden chains side by side
                        other = pyro.sample(f"w_{t}", dist.Categorical(transition[other]), infer=parallel)
                    with tones_plate as tone:
                        above = other if kind == 3 else before.long() if kind == 2 else torch.tensor(0)
                        probs = emission[state, above, tone]
                        value = y[:, t]
                        pyro.sample(f"y_{t}", dist.Bernoulli(probs), obs=value)
                        before = value  # the second kind looks back at what was observed

    return lambda: (model, of_latents(model, expose=["transition", "emission"]))


def capture_recapture(kind: int) -> Callable[[], tuple[Any, Any]]:
    """Cormack, Jolly and Seber: animals that are alive, and seen or not; x says their sex."""

    def model(x: Tensor, y: Tensor) -> None:
        size, times = y.shape
        survival: Any = None
        if kind == 1:
            survival = pyro.sample("survival", dist.Uniform(0.0, 1.0))
        if kind == 4:
            male, female = (pyro.sample(name, dist.Uniform(0.0, 1.0)) for name in ("male", "female"))
            sex = (x[:, 0] > 0).float()
            survival = sex * male + (1 - sex) * female
        seen = pyro.sample("seen", dist.Uniform(0.0, 1.0))
        animals = pyro.plate("data", size, dim=-1)
        alive: Any = torch.ones(size)
        captured = torch.zeros(size).bool()
        for t in pyro.markov(range(times)):
            at_t = survival
            if kind == 2:  # drawn within the chain and outside the plate
                at_t = pyro.sample(f"survival_{t}", dist.Uniform(0.0, 1.0))
            with animals, poutine.mask(mask=captured):
                parallel: Any = {"enumerate": "parallel"}
                alive = pyro.sample(f"z_{t}", dist.Bernoulli(at_t * alive), infer=parallel)
                pyro.sample(f"y_{t}", dist.Bernoulli(seen * alive), obs=y[:, t])
            captured = captured | y[:, t].bool()

    def is_global(site: Any) -> bool:
        return site["name"].startswith(("survival", "male", "female", "seen"))

    return lambda: (model, of_latents(model, expose_fn=is_global))


def deep_markov() -> tuple[Any, Any]:
    torch.manual_seed(2)
    transition, emitter, combiner = nn.Linear(2, 4), nn.Linear(2, 3), nn.Linear(5, 4)

    def model(x: Tensor, y: Tensor) -> None:
        for name, network in (("transition", transition), ("emitter", emitter)):
            pyro.module(name, network)
        start = pyro.param("start", torch.zeros(2))
        with pyro.plate("data", len(y)):
            z = start.expand(len(y), 2)
            for t in pyro.markov(range(y.shape[1])):
                loc, raw = transition(z).chunk(2, -1)
                with poutine.scale(scale=0.7):
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, raw.exp()).to_event(1))
                pyro.sample(f"y_{t}", dist.Bernoulli(logits=emitter(z)).to_event(1), obs=y[:, t])

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.module("combiner", combiner)
        with pyro.plate("data", len(y)):
            z = torch.zeros(len(y), 2)
            for t in pyro.markov(range(y.shape[1])):
                loc, raw = combiner(torch.cat([z, y[:, t]], -1)).chunk(2, -1)
                with poutine.scale(scale=0.7):
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, raw.exp()).to_event(1))

    return model, guide


X, Y = numbers(SIZE, 3), numbers(SIZE, seed=1)
EXAMPLES = {
    "linear regression": Example(linear_regression, ("y",), X, Y),
    "logistic regression": Example(logistic_regression, ("y", "logits"), X, bits(SIZE)),
    "eight schools": Example(eight_schools, ("y", "effect"), X, Y, guide_is_mixed=True),
    "mixed effects": Example(mixed_effects, ("count",), X, Y),
    "inflated counts": Example(inflated_counts, ("y",), X, torch.tensor([0.0, 3, 0, 1, 0, 2, 5])),
    "bayesian regression": Example(bayesian_network(0), ("y",), X, Y),
    "bayesian network": Example(bayesian_network(2), ("y",), X, Y),
    "autoencoder": Example(autoencoder, ("x", "z"), bits(SIZE, 5), Y, guide_is_mixed=True),
    "gaussian mixture": Example(gaussian_mixture, ("y", "assignment"), X, Y, enumerates=True),
    "hmm 1": Example(hidden_markov(1), ("y_1",), X, bits(SIZE, 4, 5), enumerates=True, nesting=2),
    "hmm 2": Example(hidden_markov(2), ("y_1", "x_2"), X, bits(SIZE, 4, 5), enumerates=True, nesting=2),
    "hmm 3": Example(hidden_markov(3), ("y_0",), X, bits(SIZE, 4, 5), enumerates=True, nesting=2),
    "cjs 1": Example(capture_recapture(1), ("y_2",), X, bits(SIZE, 4), enumerates=True),
    "cjs 2": Example(capture_recapture(2), ("y_1", "z_1"), X, bits(SIZE, 4), enumerates=True),
    "cjs 4": Example(capture_recapture(4), ("y_3",), X, bits(SIZE, 4), enumerates=True),
    "dmm": Example(deep_markov, ("y_1", "z_2"), X, bits(SIZE, 3, 3), guide_is_mixed=True),
}
CASES = [(name, site) for name, example in EXAMPLES.items() for site in example.sites]


def pair(name: str, site: str, coefficient: Any) -> tuple[Any, Any, Any, Any, Any]:
    """The model and its guide, both mixed, and the loss."""
    example = EXAMPLES[name]
    model, guide = example.make()
    mixed = pm.mix(model, at=site, coefficient=coefficient, dim=-example.nesting)
    own: Any = lambda batch: guide(batch.x, batch.y)  # noqa: E731
    if example.guide_is_mixed:
        own = pm.mix(guide, at=site, coefficient=coefficient, dim=-example.nesting)
    elbo: Any = TraceEnum_ELBO if example.enumerates else Trace_ELBO
    return model, guide, mixed, own, elbo(max_plate_nesting=example.nesting)


@pytest.mark.faults("other inference")
@pytest.mark.parametrize(("name", "site"), CASES)
def test_the_loss_at_one_is_that_of_the_model(name: str, site: str) -> None:
    example = EXAMPLES[name]
    model, guide, mixed, own, elbo = pair(name, site, dist.Delta(torch.tensor(1.0)))
    batch = pm.PairBatch(example.x, example.y, torch.arange(SIZE).roll(2))
    guide(batch.x, batch.y)  # autoguides make their parameters by draws
    losses = []
    for arguments in ((mixed, own, batch), (model, guide, batch.x, batch.y)):
        pyro.set_rng_seed(4)
        losses.append(elbo.loss(*arguments))
    assert math.isfinite(losses[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1e-5)


@pytest.mark.faults("other inference")
@pytest.mark.parametrize(("name", "site"), CASES)
def test_it_trains_between_zero_and_one(name: str, site: str) -> None:
    example = EXAMPLES[name]
    model, guide, mixed, own, elbo = pair(name, site, dist.Beta(0.5, 0.5))
    batch = pm.PairBatch(example.x, example.y, torch.arange(SIZE).roll(2))
    guide(batch.x, batch.y)
    pyro.set_rng_seed(4)
    plain = elbo.loss(model, guide, batch.x, batch.y)
    pyro.set_rng_seed(4)
    svi = SVI(mixed, own, pyro.optim.Adam({"lr": 0.01}), elbo)
    first = svi.step(batch)
    assert math.isfinite(first)
    assert abs(first - plain) > 1e-4
    assert math.isfinite(svi.step(batch))
