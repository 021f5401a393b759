"""Theorems 4.3-4.7: where ProbMix is mixup and M-ProbMix is manifold mixup, in values and in gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


# The assumptions are needed: without them the methods differ, so the equalities above say something.


def test_heteroscedastic_likelihoods_are_not_mixup_of_means() -> None:
    likelihood = pm.nn.NormalLikelihood(OUTPUTS)
    network, batch = mlp(likelihood.num_outputs), regression_batch()
    probmix = pm.ProbMix(network, likelihood)
    assert not torch.isclose(
        risk(probmix, batch), risk(pm.ManifoldMixup(network, nn.Identity(), likelihood), batch), rtol=1e-6
    )


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
