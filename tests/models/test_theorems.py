"""Theorems 4.3-4.7: where ProbMix is mixup and M-ProbMix is manifold mixup, in values and in gradients.

First as the paper states them, then for all families, dimensions and graphs where they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

import pyro_probmix as pm
from tests.models.cases import randomize

SIZE, FEATURES, CLASSES, OUTPUTS = 8, 3, 4, 2
PARTNER = torch.tensor([3, 0, 2, 6, 1, 7, 4, 5])
# Both ends of the interval are among the coefficients, and a node is its own partner.
COEFFICIENT = torch.tensor([0.0, 1.0, 0.3, 0.5, 0.9, 0.01, 0.7, 0.2], dtype=torch.float64)

REGRESSION = {
    "assumption 4.2": pm.DiracVicinity("linear"),
    "interpolated": pm.DiracVicinity("log-linear"),
    "normal kernel": pm.NormalVicinity(0.3),
    "normal mixture": pm.NormalVicinity(0.3, fusion="linear"),
}
CLASSIFICATION = {
    "assumption 4.2": None,
    "linear": pm.LabelVicinity(0.1, CLASSES),
    "log-linear": pm.LabelVicinity(0.1, CLASSES, fusion="log-linear"),
}


def mlp(num_outputs: int, in_features: int = FEATURES) -> nn.Module:
    return randomize(pm.nn.MLP(in_features, [6], num_outputs, activation=nn.Tanh)).double()


def linear(num_outputs: int) -> nn.Module:
    return randomize(nn.Linear(FEATURES, num_outputs)).double()


def classification_batch() -> pm.PairBatch:
    return pm.PairBatch(torch.randn(SIZE, FEATURES, dtype=torch.float64), torch.randint(CLASSES, (SIZE,)), PARTNER)


def regression_batch() -> pm.PairBatch:
    x = torch.randn(SIZE, FEATURES, dtype=torch.float64)
    return pm.PairBatch(x, torch.randn(SIZE, OUTPUTS, dtype=torch.float64), PARTNER)


def homoscedastic(learned: bool) -> pm.nn.NormalLikelihood:
    arguments: dict[str, Any] = {"homoscedastic": True} if learned else {"scale": 0.8}
    return randomize(pm.nn.NormalLikelihood(OUTPUTS, **arguments)).double()


def risk(model: Any, batch: pm.PairBatch) -> Tensor:
    return model.risk(batch, coefficient=COEFFICIENT)


def pyro_loss(model: Any, batch: pm.PairBatch) -> Tensor:
    pyro.set_rng_seed(7)
    return Trace_ELBO().differentiable_loss(model, model.guide, batch) / len(batch)


def assert_same(one: Tensor, other: Tensor, parameters: Iterable[Tensor]) -> None:
    """Equal values and equal gradients, to rounding in double precision."""
    parameters = list(parameters)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    gradients = zip(torch.autograd.grad(one, parameters), torch.autograd.grad(other, parameters), strict=True)
    for ours, theirs in gradients:
        assert ours.abs().max() > 1e-6  # the comparison is of something
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


def assert_equivalent(one: Any, other: Any, batch: pm.PairBatch) -> None:
    """Two methods on the same networks are one: for given coefficients, and for those that Pyro draws."""
    parameters = list(one.parameters())
    assert {id(p) for p in parameters} == {id(p) for p in other.parameters()}
    for loss in (risk, pyro_loss):
        assert_same(loss(one, batch), loss(other, batch), parameters)


def mixed(value: Tensor) -> Tensor:
    """λ vᵢ + (1 - λ) vⱼ, spelled out."""
    return COEFFICIENT[:, None] * value + (1 - COEFFICIENT)[:, None] * value[PARTNER]


@pytest.mark.parametrize("vicinity", CLASSIFICATION.values(), ids=CLASSIFICATION)
def test_4_3_probmix_is_mixup_of_logits(vicinity: Any) -> None:
    network, likelihood = mlp(CLASSES), pm.nn.CategoricalLikelihood(CLASSES)
    probmix = pm.ProbMix(network, likelihood, vicinity=vicinity)
    mixup_of_logits = pm.ManifoldMixup(network, nn.Identity(), likelihood, vicinity=vicinity)
    assert_equivalent(probmix, mixup_of_logits, classification_batch())


def test_4_3_against_the_formula() -> None:
    network, likelihood = mlp(CLASSES), pm.nn.CategoricalLikelihood(CLASSES)
    batch = classification_batch()
    log_p = mixed(network(batch.x)).log_softmax(-1)
    rows = torch.arange(SIZE)
    score = COEFFICIENT * log_p[rows, batch.y] + (1 - COEFFICIENT) * log_p[rows, batch.y[PARTNER]]
    assert_same(risk(pm.ProbMix(network, likelihood), batch), -score.mean(), network.parameters())


@pytest.mark.parametrize("learned", [False, True], ids=["fixed scale", "learned scale"])
@pytest.mark.parametrize("vicinity", REGRESSION.values(), ids=REGRESSION)
def test_4_4_probmix_is_mixup_of_means(vicinity: Any, learned: bool) -> None:
    network, likelihood = mlp(OUTPUTS), homoscedastic(learned)
    probmix = pm.ProbMix(network, likelihood, vicinity=vicinity)
    mixup_of_means = pm.ManifoldMixup(network, nn.Identity(), likelihood, vicinity=vicinity)
    assert_equivalent(probmix, mixup_of_means, regression_batch())


def test_4_4_against_the_formula() -> None:
    network, likelihood = mlp(OUTPUTS), homoscedastic(learned=False)
    batch = regression_batch()
    normal = torch.distributions.Normal(mixed(network(batch.x)), 0.8)
    log_p, partner_log_p = (normal.log_prob(y).sum(-1) for y in (batch.y, batch.y[PARTNER]))
    score = COEFFICIENT * log_p + (1 - COEFFICIENT) * partner_log_p
    model = pm.ProbMix(network, likelihood, vicinity=REGRESSION["assumption 4.2"])
    assert_same(risk(model, batch), -score.mean(), network.parameters())


@pytest.mark.parametrize("vicinity", CLASSIFICATION.values(), ids=CLASSIFICATION)
def test_4_5_multiclass_logistic_regression(vicinity: Any) -> None:
    network, likelihood = linear(CLASSES), pm.nn.CategoricalLikelihood(CLASSES)
    probmix, mixup = (method(network, likelihood, vicinity=vicinity) for method in (pm.ProbMix, pm.Mixup))
    assert_equivalent(probmix, mixup, classification_batch())


@pytest.mark.parametrize("learned", [False, True], ids=["fixed scale", "learned scale"])
@pytest.mark.parametrize("vicinity", REGRESSION.values(), ids=REGRESSION)
def test_4_6_linear_regression(vicinity: Any, learned: bool) -> None:
    network, likelihood = linear(OUTPUTS), homoscedastic(learned)
    probmix, mixup = (method(network, likelihood, vicinity=vicinity) for method in (pm.ProbMix, pm.Mixup))
    assert_equivalent(probmix, mixup, regression_batch())


# Beyond the two likelihoods of the paper: the theorems hold wherever the outputs are natural parameters, or an affine
# map of them, in any dimension and on any graph.

GRAPHS: dict[str, Callable[[Tensor], pm.mixing.SamplingGraph]] = {
    "complete": lambda x: pm.CompleteGraph(SIZE),
    "neighbors": lambda x: pm.NearestNeighborGraph(x, num_neighbors=2),
    "same label": lambda x: pm.LabelGraph(torch.arange(SIZE) % 2),
    "weighted": lambda x: pm.WeightedGraph(torch.tensor([[0, 1], [2, 5], [6, 6]]), torch.tensor([1.0, 2.0, 3.0]), SIZE),
    "kernel": lambda x: pm.mixing.KernelGraph(x, bandwidth_x=1.0),
}


def graph_batch(graph: str, labels: Callable[..., Tensor]) -> pm.PairBatch:
    """A full batch, or of neighbours the first mini-batch."""
    if graph == "mini-batch":
        x, y = torch.randn(3 * SIZE, FEATURES, dtype=torch.float64), labels(3 * SIZE)
        neighbors = pm.NearestNeighborGraph(x, num_neighbors=2)
        return next(iter(pm.PairLoader(x, y, neighbors, batch_size=SIZE)))
    x = torch.randn(SIZE, FEATURES, dtype=torch.float64)
    return GRAPHS[graph](x).pair_batch(x, labels(SIZE))


def normals(*shape: int) -> Callable[..., Tensor]:
    return lambda size: torch.randn(size, *shape, dtype=torch.float64)


def counts(limit: int, *shape: int) -> Callable[..., Tensor]:
    return lambda size: torch.randint(limit, (size, *shape)).double()


def one_hots(classes: int) -> Callable[..., Tensor]:
    return lambda size: torch.eye(classes).double()[torch.randint(classes, (size,))]


of = pm.nn.DistributionLikelihood
LOC = {"parameters": ("loc",)}
TRIL = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.7, 0.0], [-0.2, 0.1, 0.5]], dtype=torch.float64)
FACTOR, DIAGONAL = torch.tensor([[0.5], [-1.0], [0.3]]).double(), torch.tensor([0.5, 0.2, 1.0]).double()

FAMILIES: dict[str, tuple[Callable[[], Any], Callable[..., Tensor]]] = {
    **{
        f"categorical {k}": (partial(pm.nn.CategoricalLikelihood, k), lambda size, k=k: torch.randint(k, (size,)))
        for k in (2, 7)
    },
    "one-hot": (lambda: of(dist.OneHotCategorical, CLASSES), one_hots(CLASSES)),
    "bernoulli": (lambda: of(dist.Bernoulli), counts(2)),
    "bernoullis": (lambda: of(dist.Bernoulli, (2, 2)), counts(2, 2, 2)),
    "binomial": (lambda: of(dist.Binomial, 3, total_count=5), counts(6, 3)),
    "continuous bernoulli": (lambda: of(dist.ContinuousBernoulli, 2), lambda size: torch.rand(size, 2).double()),
    **{f"normal {shape}": (partial(pm.nn.NormalLikelihood, shape, scale=0.8), normals(*shape)) for shape in ((), (5,))},
    "normal (2, 3)": (lambda: of(dist.Normal, (2, 3), scale=0.8, **LOC), normals(2, 3)),
    "log normal": (lambda: of(dist.LogNormal, 2, scale=0.8, **LOC), lambda size: normals(2)(size).exp()),
    "multivariate normal": (lambda: of(dist.MultivariateNormal, 3, scale_tril=TRIL, **LOC), normals(3)),
    "low rank normal": (
        lambda: of(dist.LowRankMultivariateNormal, 3, cov_factor=FACTOR, cov_diag=DIAGONAL, **LOC),
        normals(3),
    ),
}
on_graphs = pytest.mark.parametrize("graph", [*GRAPHS, "mini-batch"])


@on_graphs
@pytest.mark.parametrize("family", FAMILIES)
def test_4_3_and_4_4_in_any_family_on_any_graph(family: str, graph: str) -> None:
    make, labels = FAMILIES[family]
    likelihood = make()
    network = mlp(likelihood.num_outputs)
    probmix = pm.ProbMix(network, likelihood)
    assert_equivalent(probmix, pm.ManifoldMixup(network, nn.Identity(), likelihood), graph_batch(graph, labels))


@on_graphs
@pytest.mark.parametrize("family", FAMILIES)
def test_4_5_and_4_6_in_any_family_on_any_graph(family: str, graph: str) -> None:
    make, labels = FAMILIES[family]
    likelihood = make()
    network = linear(likelihood.num_outputs)
    assert_equivalent(pm.ProbMix(network, likelihood), pm.Mixup(network, likelihood), graph_batch(graph, labels))


@pytest.mark.parametrize("family", ["categorical 7", "normal (5,)", "multivariate normal"])
def test_4_5_and_4_6_with_one_coefficient_a_batch(family: str) -> None:
    make, labels = FAMILIES[family]
    likelihood = make()
    network = linear(likelihood.num_outputs)
    probmix, mixup = (method(network, likelihood, per="batch") for method in (pm.ProbMix, pm.Mixup))
    assert_equivalent(probmix, mixup, graph_batch("neighbors", labels))


TASKS: dict[str, tuple[Callable[[], Any], Callable[[], pm.PairBatch]]] = {
    "classification": (lambda: pm.nn.CategoricalLikelihood(CLASSES), classification_batch),
    "regression": (lambda: pm.nn.NormalLikelihood(OUTPUTS), regression_batch),
}


@pytest.mark.parametrize("task", TASKS)
def test_4_7_m_probmix_of_homoscedastic_embeddings_is_manifold_mixup(task: str) -> None:
    likelihood, batch = TASKS[task][0](), TASKS[task][1]()
    encoder, decoder = mlp(5), mlp(likelihood.num_outputs, in_features=5)
    embedding = pm.nn.NormalEmbedding(encoder, 5, scale=0.7)
    m_probmix = pm.ManifoldProbMix(embedding, decoder, likelihood, propagate="mean")
    manifold_mixup = pm.ManifoldMixup(encoder, decoder, likelihood)
    assert_equivalent(m_probmix, manifold_mixup, batch)
    # "... during both training and inference"
    log_p, other_log_p = (model.predictive(batch.x).log_prob(batch.y) for model in (m_probmix, manifold_mixup))
    torch.testing.assert_close(log_p, other_log_p, rtol=1e-13, atol=0)


def embedding_of(family: Any, **fixed: Any) -> Callable[[nn.Module], Any]:
    return lambda encoder: pm.nn.DistributionEmbedding(encoder, family, 3, **fixed, **LOC)


def vectors(encoder: nn.Module) -> nn.Module:
    return nn.Sequential(encoder, nn.Unflatten(-1, (3, 2)))


# Homoscedastic embeddings: the shape of the encoder's output, and the density around it.
EMBEDDINGS: dict[str, tuple[int, Callable[[nn.Module], Any]]] = {
    **{f"normal {d}": (d, lambda encoder, d=d: pm.nn.NormalEmbedding(encoder, d, scale=0.7)) for d in (1, 12)},
    "sequence": (6, lambda encoder: pm.nn.NormalEmbedding(encoder, (3, 2), scale=0.7)),
    "normal family": (3, embedding_of(dist.Normal, scale=0.7)),
    "multivariate normal": (3, embedding_of(dist.MultivariateNormal, scale_tril=TRIL)),
    "low rank normal": (3, embedding_of(dist.LowRankMultivariateNormal, cov_factor=FACTOR, cov_diag=DIAGONAL)),
}


@on_graphs
@pytest.mark.parametrize("family", ["categorical 7", "normal (5,)", "log normal"])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_4_7_for_any_homoscedastic_embedding_on_any_graph(embedding: str, family: str, graph: str) -> None:
    width, density = EMBEDDINGS[embedding]
    make, labels = FAMILIES[family]
    likelihood = make()
    encoder, decoder = mlp(width), nn.Sequential(nn.Flatten(), mlp(likelihood.num_outputs, in_features=width))
    encoder = vectors(encoder) if embedding == "sequence" else encoder
    m_probmix = pm.ManifoldProbMix(density(encoder), decoder, likelihood, propagate="mean")
    batch = graph_batch(graph, labels)
    manifold_mixup = pm.ManifoldMixup(encoder, decoder, likelihood)
    assert_equivalent(m_probmix, manifold_mixup, batch)
    log_p, other_log_p = (model.predictive(batch.x).log_prob(batch.y) for model in (m_probmix, manifold_mixup))
    torch.testing.assert_close(log_p, other_log_p, rtol=1e-13, atol=0)


# The assumptions are needed: without them the methods differ, so the equalities above say something.


def test_heteroscedastic_likelihoods_are_not_mixup_of_means() -> None:
    likelihood = pm.nn.NormalLikelihood(OUTPUTS)
    network, batch = mlp(likelihood.num_outputs), regression_batch()
    probmix = pm.ProbMix(network, likelihood)
    assert not torch.isclose(
        risk(probmix, batch), risk(pm.ManifoldMixup(network, nn.Identity(), likelihood), batch), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "labels"),
    [
        (lambda: of(dist.Geometric), counts(5)),
        (lambda: of(dist.NegativeBinomial, total_count=4), counts(5)),
        (lambda: of(dist.Poisson), counts(5)),
        (lambda: of(dist.Exponential), lambda size: torch.rand(size).double()),
    ],
    ids=["geometric", "negative binomial", "poisson", "exponential"],
)
def test_outputs_that_are_not_natural_are_not_pooled(make: Any, labels: Any) -> None:
    """Not even of linear learners: logits of a failure probability, and softplus of a rate, are curved in η."""
    likelihood = make()
    network, batch = linear(likelihood.num_outputs), graph_batch("complete", labels)
    mixup = pm.Mixup(network, likelihood, vicinity=pm.DiracVicinity("linear"))
    probmix = pm.ProbMix(network, likelihood, vicinity=pm.DiracVicinity("linear"))
    assert not torch.isclose(risk(probmix, batch), risk(mixup, batch), rtol=1e-6)


def test_means_of_other_embeddings_are_not_interpolated() -> None:
    """The mean of a pool of Gammas is a ratio of interpolations."""
    likelihood, batch = pm.nn.NormalLikelihood(OUTPUTS), regression_batch()
    encoder, decoder = mlp(10), mlp(likelihood.num_outputs, in_features=5)
    embedding = pm.nn.DistributionEmbedding(encoder, dist.Gamma, 5)

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return embedding(x).mean

    m_probmix = pm.ManifoldProbMix(embedding, decoder, likelihood, propagate="mean")
    manifold_mixup = pm.ManifoldMixup(Mean(), decoder, likelihood)
    assert not torch.isclose(risk(m_probmix, batch), risk(manifold_mixup, batch), rtol=1e-6)


def test_nonlinear_learners_are_not_mixup() -> None:
    network, likelihood = mlp(CLASSES), pm.nn.CategoricalLikelihood(CLASSES)
    batch = classification_batch()
    assert not torch.isclose(
        risk(pm.ProbMix(network, likelihood), batch), risk(pm.Mixup(network, likelihood), batch), rtol=1e-6
    )


def test_sampled_or_heteroscedastic_embeddings_are_not_manifold_mixup() -> None:
    likelihood, batch = pm.nn.NormalLikelihood(OUTPUTS), regression_batch()
    encoder, decoder = mlp(5), mlp(likelihood.num_outputs, in_features=5)
    expected = risk(pm.ManifoldMixup(encoder, decoder, likelihood), batch)
    sampled = pm.ManifoldProbMix(pm.nn.NormalEmbedding(encoder, 5, scale=0.7), decoder, likelihood)
    learned = randomize(pm.nn.NormalEmbedding(encoder, 5).double())
    expected_learned = risk(pm.ManifoldMixup(encoder, decoder, likelihood), batch)
    mean = pm.ManifoldProbMix(learned, decoder, likelihood, propagate="mean")
    assert not torch.isclose(risk(sampled, batch), expected, rtol=1e-6)
    assert not torch.isclose(risk(mean, batch), expected_learned, rtol=1e-6)


def test_coefficients_are_drawn_from_the_given_law() -> None:
    """With λ = 1/2 for certain, the loss of Pyro is the formula at 1/2."""
    network, likelihood = linear(CLASSES), pm.nn.CategoricalLikelihood(CLASSES)
    model = pm.ProbMix(network, likelihood, coefficient=dist.Delta(torch.tensor(0.5)))
    batch = classification_batch()
    half = torch.full((SIZE,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(pyro_loss(model, batch), model.risk(batch, coefficient=half), rtol=1e-13, atol=0)
