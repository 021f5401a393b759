"""On tensors that say they are on a CUDA device: results are there, and nothing passes between it and the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import validation_enabled
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.distributions.transforms import AffineTransform, SigmoidTransform

import pyro_probmix as pm
from pyro_probmix.distributions.held_tensors import map_tensors
from pyro_probmix.models.objectives import OBJECTIVES
from tests.cases import CASES, NAMES, TORCH, unmasked
from tests.devices.fake_cuda import DEVICE, fake_cuda, module_on_device, on_device
from tests.models.cases import CLASSES, EMBEDDING, FEATURES, LIKELIHOODS, METHODS, randomize

pytestmark = [
    pytest.mark.faults("tensors on another device"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor:UserWarning"),
]

SIZE = 6

# What PyTorch and Pyro themselves look at on the device, so that no tensor without values gets through.
LOOKS = {
    "SineBivariateVonMises": "its constructor compares the concentrations with the correlation",
    "VonMises": "its sampler draws again until all are accepted",
    "Wishart": "its constructor compares df with the dimension",
}

# What the tests of the models have, and what holds fixed numbers or tensors.
Head = tuple[Callable[[], Any], Callable[[int], Tensor]]
HEADS: dict[str, Head] = LIKELIHOODS | {
    "normal of fixed scale": (lambda: pm.nn.NormalLikelihood(scale=0.5), torch.randn),
    "homoscedastic normals": (lambda: pm.nn.NormalLikelihood(2, homoscedastic=True), lambda size: torch.randn(size, 2)),
    "integer poisson": (
        lambda: pm.nn.DistributionLikelihood(dist.Poisson),
        lambda size: torch.randint(6, (size,)),
    ),
    "integer binomial": (
        lambda: pm.nn.DistributionLikelihood(dist.Binomial, total_count=5),
        lambda size: torch.randint(6, (size,)),
    ),
    "negative binomial": (
        lambda: pm.nn.DistributionLikelihood(dist.NegativeBinomial, total_count=3.5),
        lambda size: torch.randint(6, (size,)).float(),
    ),
    "student t": (lambda: pm.nn.DistributionLikelihood(dist.StudentT, df=4.0), torch.randn),
    "half normal": (lambda: pm.nn.DistributionLikelihood(dist.HalfNormal), lambda size: torch.rand(size) + 0.1),
    "chi2": (lambda: pm.nn.DistributionLikelihood(dist.Chi2), lambda size: torch.rand(size) + 0.1),
    "multinomial": (
        lambda: pm.nn.DistributionLikelihood(dist.Multinomial, 3, total_count=4),
        lambda size: 4 * torch.eye(3)[torch.randint(3, (size,))],
    ),
    "laplace": (lambda: pm.nn.DistributionLikelihood(dist.Laplace, parameters=["scale"], loc=0.5), torch.randn),
    "weibull": (
        lambda: pm.nn.DistributionLikelihood(dist.Weibull, concentration=torch.tensor(1.5)),
        lambda size: torch.rand(size) + 0.1,
    ),
    "multivariate normal": (
        lambda: pm.nn.DistributionLikelihood(dist.MultivariateNormal, 2),
        lambda size: torch.randn(size, 2),
    ),
}
CLOSED = [head for head in HEADS if head != "student t"]  # under log-linear pooling
VICINITIES: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "interpolated": pm.DiracVicinity,
    "either": lambda: pm.DiracVicinity("linear"),
    "normal": lambda: pm.NormalVicinity(0.01),
    "either normal": lambda: pm.NormalVicinity(0.01, "linear"),
    "label": lambda: pm.LabelVicinity(0.1, CLASSES),
    "log-linear label": lambda: pm.LabelVicinity(0.1, CLASSES, "log-linear"),
}
REAL = {"normal", "normals", "normal of fixed scale", "homoscedastic normals", "laplace", "multivariate normal"}
OF_CLASSES = {"categorical", "one-hot"}
EXACT = {"normal", "normals", "normal of fixed scale", "homoscedastic normals", "multivariate normal"}


def vicinities(head: str) -> list[tuple[str, str]]:
    """The vicinities of a likelihood's labels, each with how the labels are treated."""
    found = [("default", "exact"), ("default", "sample"), ("either", "exact"), ("either", "sample")]
    if head in REAL:
        found += [("interpolated", "exact"), ("interpolated", "sample")]
        found += [(name, "sample") for name in ("normal", "either normal")]
    if head in EXACT:
        found += [("normal", "exact"), ("either normal", "exact")]
    if head in OF_CLASSES:
        found += [(name, labels) for name in ("label", "log-linear label") for labels in ("exact", "sample")]
    return found


def of_family(family: Any, size: int = EMBEDDING, **fixed: Any) -> Any:
    return pm.nn.DistributionEmbedding(pm.nn.MLP(FEATURES, [], size), family, EMBEDDING, **fixed)


EMBEDDINGS: dict[str, Callable[[], Any]] = {
    "normal": lambda: pm.nn.NormalEmbedding(pm.nn.MLP(FEATURES, [], EMBEDDING), EMBEDDING),
    "of fixed scale": lambda: pm.nn.NormalEmbedding(pm.nn.MLP(FEATURES, [], EMBEDDING), EMBEDDING, scale=0.5),
    "with a variance network": lambda: pm.nn.NormalEmbedding(
        pm.nn.MLP(FEATURES, [], EMBEDDING), EMBEDDING, nn.Linear(FEATURES, EMBEDDING)
    ),
    "low rank": lambda: pm.nn.LowRankNormalEmbedding(pm.nn.MLP(FEATURES, [], EMBEDDING), EMBEDDING, rank=2),
    "Beta": lambda: of_family(dist.Beta, 2 * EMBEDDING),
    "Dirichlet": lambda: of_family(dist.Dirichlet),
    "Exponential": lambda: of_family(dist.Exponential),
    "Gamma": lambda: of_family(dist.Gamma, 2 * EMBEDDING),
    "Laplace": lambda: of_family(dist.Laplace, parameters=["scale"], loc=0.5),
    "VonMises": lambda: of_family(dist.VonMises, 2 * EMBEDDING),
}


def make(method: str, head: str, embedding: str | None = None, **arguments: Any) -> Any:
    likelihood = HEADS[head][0]()
    if not method.startswith("Manifold"):
        networks: tuple[Any, ...] = (pm.nn.MLP(FEATURES, [5], likelihood.num_outputs),)
    else:
        plain = pm.nn.MLP(FEATURES, [], EMBEDDING)
        encoder = plain if method == "ManifoldMixup" else EMBEDDINGS[embedding or "normal"]()
        networks = (encoder, pm.nn.MLP(EMBEDDING, [5], likelihood.num_outputs))
    return randomize(getattr(pm, method)(*networks, likelihood, **arguments))


def batch_on_device(head: str) -> pm.PairBatch:
    y = HEADS[head][1](SIZE)
    return pm.PairBatch(on_device(torch.zeros(SIZE, FEATURES)), on_device(y), on_device(torch.arange(SIZE)))


@contextmanager
def looking(reason: str | None) -> Iterator[None]:
    """Inside, PyTorch looks at a value on the device if there is a reason, and else not: both are checked."""
    with nullcontext() if reason is None else pytest.raises(DataDependentOutputException):
        yield


def check_risk(model: Any, head: str, num_samples: int = 2, **arguments: Any) -> None:
    """The risk is on the device, and in a step after the first nothing passes between it and the host."""
    __tracebackhide__ = True
    with fake_cuda() as record:
        module_on_device(model)
        batch = batch_on_device(head)
        for _ in range(2):
            record.events.clear()
            risk = model.risk(batch, num_samples, **arguments)
        assert risk.device == DEVICE
        record.check()


# All of them; the methods that fuse no density do the same with their labels, and are tried with each now and then.
STEPS = [
    pytest.param(
        method,
        head,
        vicinity,
        labels,
        marks=() if vicinity == "default" or method.endswith("ProbMix") else pytest.mark.slow,
    )
    for method in METHODS
    for head in (CLOSED if method == "ProbMix" else HEADS)
    for vicinity, labels in vicinities(head)
]


@pytest.mark.parametrize(("method", "head", "vicinity", "labels"), STEPS)
def test_a_step_of_any_method_stays_on_the_device(method: str, head: str, vicinity: str, labels: Any) -> None:
    model = make(method, head, vicinity=VICINITIES[vicinity](), labels=labels)
    check_risk(model, head)


@pytest.mark.parametrize("objective", OBJECTIVES[1:])
@pytest.mark.parametrize("head", CLOSED)
def test_an_objective_that_draws_labels_stays_on_the_device(head: str, objective: Any) -> None:
    check_risk(make("ProbMix", head), head, objective=objective)


@pytest.mark.parametrize("fusion", ["log-linear", "linear"])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_a_step_of_any_embedding_stays_on_the_device(embedding: str, fusion: Any) -> None:
    with looking(LOOKS.get(embedding)):
        check_risk(make("ManifoldProbMix", "normal", embedding, fusion=fusion), "normal")


@pytest.mark.parametrize("head", CLOSED)
def test_linear_fusion_of_any_likelihood_stays_on_the_device(head: str) -> None:
    check_risk(make("ProbMix", head, fusion="linear", labels="sample"), head)


@pytest.mark.parametrize("head", ["student t", "normals", "gamma", "poisson", "negative binomial", "bernoullis"])
def test_numerical_fusion_stays_on_the_device(head: str) -> None:
    """By its fixed rule, where nothing is looked at."""
    check_risk(make("ProbMix", head, fusion="numerical"), head)


# Laws of λ.

LAWS: dict[str, Callable[[], Any]] = {
    "Beta": lambda: dist.Beta(0.2, 0.2),
    "Bernoulli": lambda: dist.Bernoulli(0.3),
    "Delta": lambda: dist.Delta(torch.tensor(0.3)),
    "ExpandedBeta": lambda: pm.ExpandedBeta.variance_preserving(1.5),
    "GaussJacobi": lambda: pm.GaussJacobi(0.2, num_nodes=4),
    "Kumaraswamy": lambda: dist.Kumaraswamy(2.0, 2.0),
    "Uniform": lambda: dist.Uniform(0.0, 1.0),
    "expanded Uniform": lambda: dist.Uniform(0.0, 1.0).expand([SIZE]),
    "linear pool": lambda: pm.linear_pool([dist.Beta(1.0, 2.0), dist.Uniform(0.0, 1.0)], [0.3, 0.7]),
    "log-linear pool": lambda: pm.LogLinearPool([dist.Beta(1.0, 2.0), dist.Beta(3.0, 1.0)], [0.3, 0.7]),
    "mixture": lambda: dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.Beta(torch.ones(2), torch.full((2,), 2.0))
    ),
    "of each edge": lambda: dist.Uniform(torch.zeros(SIZE), torch.ones(SIZE)),
    "of torch.distributions": lambda: TORCH.Uniform(torch.tensor(0.0), torch.tensor(1.0)),
    "transformed": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0), [AffineTransform(torch.tensor(0.5), torch.tensor(2.0)), SigmoidTransform()]
    ),
    "inversely transformed": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0), [AffineTransform(torch.tensor(0.5), torch.tensor(2.0)).inv, SigmoidTransform()]
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_any_law_of_the_coefficient_is_drawn_on_the_device(name: str) -> None:
    model = make("ProbMix", "normal", coefficient=LAWS[name](), vicinity=pm.NormalVicinity(0.01))
    check_risk(model, "normal")


@pytest.mark.parametrize("name", LAWS)
def test_any_law_of_the_coefficient_keeps_its_dtype_and_its_law(name: str) -> None:
    mixing = pm.models.Mixing("y", LAWS[name](), pm.DiracVicinity())
    single, double = (mixing.law(torch.zeros(1, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    draws = double.sample((20_000,))
    assert draws.dtype == torch.float64
    expected = single.sample((20_000,))
    assert expected.dtype == torch.float32
    torch.testing.assert_close(draws.mean(), expected.double().mean(), atol=0.02, rtol=0)
    torch.testing.assert_close(draws.std(), expected.double().std(), atol=0.02, rtol=0)


# Pools and divergences of every family.


def members(name: str) -> list[Any]:
    """Two members of the family, of batch shape (3,)."""
    with validation_enabled(False):
        return [CASES[name].draw((3,), seed) for seed in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_pools_of_every_family_are_on_the_device(name: str) -> None:
    pair = members(name)
    with looking(LOOKS.get(name)), fake_cuda() as record:
        pair = map_tensors(pair, on_device)
        weights = on_device(torch.full((3, 2), 0.5, dtype=torch.float64))
        record.events.clear()
        pool = pm.LogLinearPool(pair, weights)
        mixture = pm.linear_pool(pair, weights)
        assert pool.log_normalizer.device == DEVICE
        value = pool.sample()
        for p in (pool, mixture):
            assert p.log_prob(value).device == DEVICE
            assert p.sample((2,)).device == DEVICE
        record.check()


# Sampling aside, a VonMises is not looked at.
LOOKS_AT_DIVERGENCES = {name: reason for name, reason in LOOKS.items() if name != "VonMises"}
NO_CROSS_ENTROPY = {"LogisticNormal", "logit-Normal"}


@pytest.mark.parametrize("name", NAMES)
def test_divergences_of_every_family_are_on_the_device(name: str) -> None:
    pair = [unmasked(p) for p in members(name)]
    with looking(LOOKS_AT_DIVERGENCES.get(name)), fake_cuda() as record:
        p, q = map_tensors(pair, on_device)
        half = on_device(torch.tensor(0.5, dtype=torch.float64))
        record.events.clear()
        found = [pm.renyi_divergence(p, q, half), pm.bhattacharyya_distance(p, q), pm.distributions.kl_divergence(p, q)]
        if name not in NO_CROSS_ENTROPY:
            found += [pm.cross_entropy(p, q), pm.distributions.entropy(p)]
        assert {value.device for value in found} == {DEVICE}
        record.check(allowed="to device, not waited for")  # the number one half


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_default_weights_of_a_linear_pool_are_made_on_the_device(size: int) -> None:
    with fake_cuda() as record:
        pool = pm.linear_pool(dist.Normal(on_device(torch.zeros(3, size)), on_device(torch.ones(3, size))))
        assert pool.weights.device == DEVICE
        record.check()


def test_weights_that_are_numbers_go_to_the_device_at_once_and_unwaited() -> None:
    with fake_cuda() as record:
        components = [dist.Normal(on_device(torch.zeros(3)), on_device(torch.ones(3))) for _ in range(10)]
        pm.log_linear_pool(components, [0.1] * 10)
        assert [event.kind for event in record.events] == ["to device, not waited for"]


# Predictions.


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("method", ["ERM", "ManifoldProbMix"])
def test_predictions_are_made_and_scored_on_the_device(method: str, head: str) -> None:
    model = make(method, head)
    with fake_cuda() as record:
        module_on_device(model)
        batch = batch_on_device(head)
        record.events.clear()
        p = model.predictive(batch.x, num_samples=7, seed=None)
        assert p.log_prob(batch.y).device == DEVICE
        assert p.sample().device == DEVICE
        record.check()
