"""Bad input is refused: what was expected and what came, with the argument's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from pyro.distributions.torch_distribution import TorchDistributionMixin

from pyro_probmix.distributions import (
    LinearPool,
    LogLinearPool,
    affine,
    bhattacharyya_distance,
    cross_entropy,
    exponential_family,
    from_natural_parameters,
    index_select,
    is_exponential_family,
    linear_pool,
    log_linear_pool,
    natural_parameters,
    renyi_divergence,
)

NAN, INF = torch.nan, torch.inf
P, Q = dist.Normal(torch.zeros(3), 1.0), dist.Normal(torch.ones(3), 2.0)
LABELS = dist.Categorical(logits=torch.zeros(3))
AFFINE = transforms.AffineTransform(0.0, 2.0)


def transformed(*parts: Any) -> Any:
    return dist.TransformedDistribution(P, list(parts))


def disjoint() -> Any:
    logits = torch.tensor([[0.0, -INF], [0.0, 0.0], [-INF, 0.0]])
    return LogLinearPool([dist.Categorical(logits=logits), dist.Categorical(logits=logits.flip(0))], [0.5, 0.5])


def pools(components: Any, weights: Any) -> Callable[[], Any]:
    return lambda: log_linear_pool(components, weights)


HALF = [0.5, 0.5]

# name: (call, exception, pattern of its message)
REFUSALS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # components
    "no component": (pools([], []), ValueError, r"components: expected at least one distribution, got none"),
    "no components of a mixture": (lambda: linear_pool([]), ValueError, r"components: .* got none"),
    "no distribution": (
        pools([P, 3.0], HALF),
        TypeError,
        r"components: expected distributions, got float at index 1",
    ),
    "nothing like components": (pools(3.0, HALF), TypeError, r"components: expected .* got float"),
    "a distribution without components": (
        pools(dist.Normal(0.0, 1.0), [1.0]),
        ValueError,
        r"components: .* got batch shape \(\)",
    ),
    "a mixture without components": (
        lambda: LinearPool(dist.Normal(0.0, 1.0)),
        ValueError,
        r"components: .* got batch shape \(\)",
    ),
    "different families": (
        pools([P, dist.Cauchy(torch.zeros(3), 1.0)], HALF),
        TypeError,
        r"Cauchy has no natural form",
    ),
    "different closed families": (
        pools([P, P, dist.LogNormal(0.0, 1.0)], [0.2, 0.3, 0.5]),
        TypeError,
        r"components: expected one family, got Normal and, at index 2, LogNormal",
    ),
    "event and batch": (
        pools([P, P.to_event(1)], HALF),
        TypeError,
        r"components: expected one family, got Normal and, at index 1, Independent",
    ),
    "event shapes": (
        pools([dist.Dirichlet(torch.ones(3)), dist.Dirichlet(torch.ones(2))], HALF),
        ValueError,
        r"components: expected equal event shapes, got \(3,\) and, at index 1, \(2,\)",
    ),
    "batch shapes": (
        pools([P, dist.Normal(torch.zeros(2), 1.0)], HALF),
        ValueError,
        r"components: expected batch shapes that broadcast, got \(3,\), \(2,\)",
    ),
    "numbers of categories": (
        pools([LABELS, dist.Categorical(logits=torch.zeros(1))], HALF),
        ValueError,
        r"components: expected one number of categories, got 3 and 1 at index 1",
    ),
    "reinterpreted dimensions": (
        pools(
            [
                dist.Normal(torch.zeros(2, 3), 1.0).to_event(2),
                dist.Independent(dist.MultivariateNormal(torch.zeros(2, 3), torch.eye(3)), 1),
            ],
            HALF,
        ),
        ValueError,
        r"components: expected one number of reinterpreted batch dimensions, got 2 and 1 at index 1",
    ),
    "families inside Independent": (
        pools([P.to_event(1), dist.Gamma(torch.ones(3), 1.0).to_event(1)], HALF),
        ValueError,
        r"components: expected one family, got Normal and Gamma at index 1",
    ),
    "masks inside Independent": (
        pools([P.mask(torch.ones(3).bool()).to_event(1), Q.mask(torch.zeros(3).bool()).to_event(1)], HALF),
        ValueError,
        r"components: expected equal masks .* at index 1",
    ),
    "transforms": (
        pools([transformed(AFFINE), transformed(transforms.AffineTransform(1.0, 2.0))], HALF),
        ValueError,
        r"components: expected equal transforms, got .* at index 1",
    ),
    "numbers of transforms": (
        pools([transformed(AFFINE), transformed(AFFINE, AFFINE)], HALF),
        ValueError,
        r"components: expected equal transforms",
    ),
    "not a bijection": (
        pools([transformed(transforms.AbsTransform())] * 2, HALF),
        TypeError,
        r"no natural form under AbsTransform\(\): expected bijections",
    ),
    "no common support": (
        disjoint,
        ValueError,
        r"components: expected a common support, got a pool with logits outside .* at batch index \[0, 2\]",
    ),
    "no common support of a Bernoulli": (
        pools(
            [
                dist.Bernoulli(logits=torch.tensor([0.0, INF])),
                dist.Bernoulli(logits=torch.tensor([0.0, -INF])),
            ],
            HALF,
        ),
        ValueError,
        r"common support, .* at batch index \[1\]",
    ),
    "supports of a mixture": (
        lambda: linear_pool([P, dist.Gamma(1.0, 1.0)]),
        ValueError,
        r"components: expected one support, got Real\(\) and, at index 1, GreaterThanEq\(lower_bound=0.0\)",
    ),
    "half-lines of a mixture": (
        lambda: linear_pool([dist.Pareto(1.0, 1.0), dist.Gamma(1.0, 1.0)]),
        ValueError,
        r"components: expected one support",
    ),
    "intervals of a mixture": (
        lambda: linear_pool([dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 2.0)]),
        ValueError,
        r"components: expected one support",
    ),
    "numbers of labels of a mixture": (
        lambda: linear_pool([LABELS, dist.Categorical(torch.ones(4))]),
        ValueError,
        r"components: expected one support",
    ),
    # weights
    "too few weights": (
        pools([P, Q], [1.0]),
        ValueError,
        r"weights: expected 2 of them, one a component, got 1",
    ),
    "too many weights": (pools([P, Q], [0.2, 0.3, 0.5]), ValueError, r"weights: expected 2 .* got 3"),
    "one weight": (pools([P, Q], 0.5), TypeError, r"weights: expected .* got float"),
    "one weight as a tensor": (
        pools([P, Q], torch.tensor(0.5)),
        ValueError,
        r"weights: expected a last dimension of 2 components, got shape \(\)",
    ),
    "weights as words": (
        pools([P, Q], ["a", "b"]),
        TypeError,
        r"weights: expected numbers or tensors, got str at index 0",
    ),
    "weights on the wrong axis": (
        pools([P, Q], torch.full((2, 3), 0.5)),
        ValueError,
        r"weights: expected a last dimension of 2 components, got shape \(2, 3\)",
    ),
    "weights of another batch": (
        pools([P, Q], torch.full((4, 2), 0.5)),
        ValueError,
        r"weights: expected shapes that broadcast with batch shape \(3,\), got \(4,\), \(4,\)",
    ),
    "a negative weight": (
        pools([P, Q], [1.5, -0.5]),
        ValueError,
        r"weights: expected non-negative numbers, got -0.5 at index 1",
    ),
    "a negative weight in a batch": (
        pools([P, Q], torch.tensor([[0.5, 0.5], [-0.25, 1.25], [1.0, 0.0]])),
        ValueError,
        r"weights: expected non-negative numbers, got -0.25 at index \(1, 0\)",
    ),
    "a weight that is no number": (
        pools([P, Q], [NAN, 1.0]),
        ValueError,
        r"weights: expected finite numbers, got nan at index 0",
    ),
    "NaN in a batch": (
        pools([P, Q], torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, NAN]])),
        ValueError,
        r"weights: expected finite numbers, got nan at index \(2, 1\)",
    ),
    "an infinite weight": (
        pools([P, Q], [INF, 0.0]),
        ValueError,
        r"weights: expected finite numbers, got inf at index 0",
    ),
    "sum of weights": (
        pools([P, Q], [0.5, 0.6]),
        ValueError,
        r"weights: expected a sum of 1 over the components, got \|sum - 1\| = 0.1",
    ),
    "sum of weights in a batch": (
        pools([P, Q], torch.tensor([[0.5, 0.5], [0.5, 0.25], [1.0, 0.0]])),
        ValueError,
        r"\|sum - 1\| = 0.25 at batch index \[1\]",
    ),
    "sum of weights as tensors": (
        pools([P, Q], [torch.tensor([0.5, 0.5, 0.1]), 0.5]),
        ValueError,
        r"\|sum - 1\| = 0.4 at batch index \[2\]",
    ),
    "weights of zero": (pools([P, Q], torch.zeros(3, 2)), ValueError, r"\|sum - 1\| = 1 at batch index \[0, 1, 2\]"),
    "weights of a mixture": (
        lambda: linear_pool([P, Q], [0.5, 0.6]),
        ValueError,
        r"weights: expected a sum of 1",
    ),
    "too many weights of a mixture": (
        lambda: linear_pool(P, [0.5, 0.5]),
        ValueError,
        r"weights: expected 3 .* got 2",
    ),
    # natural parameters
    "number of natural parameters": (
        lambda: from_natural_parameters(P, natural_parameters(P)[:1]),
        ValueError,
        r"eta: expected 2 natural parameters of Normal, got 1",
    ),
    "natural parameters out of the domain": (
        lambda: from_natural_parameters(P, (torch.zeros(3), torch.tensor([-1.0, 1.0, -1.0]))),
        ValueError,
        r"eta: expected natural parameters of Normal, got .* outside .* at batch index \[1\]",
    ),
    "natural parameters of a wrapper": (
        lambda: from_natural_parameters(
            dist.Gamma(torch.ones(2), 1.0).to_event(1), (torch.tensor([0.0, -1.0]), -torch.ones(2))
        ),
        ValueError,
        r"eta: expected natural parameters of Independent, got concentration outside .* \[1\]",
    ),
    "a precision that is none": (
        lambda: from_natural_parameters(
            dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), (torch.zeros(2), torch.eye(2))
        ),
        ValueError,
        r"eta: expected natural parameters of MultivariateNormal, got .*positive-definite",
    ),
    "natural parameters of nothing": (
        lambda: natural_parameters(dist.Cauchy(0.0, 1.0)),
        TypeError,
        r"Cauchy has no natural form here",
    ),
    "no distribution at all": (
        lambda: natural_parameters(3.0),
        TypeError,
        r"expected a torch or Pyro distribution, got float",
    ),
    "index_select of no batch dimension": (
        lambda: index_select(P.to_event(1), -1, torch.tensor([0])),
        ValueError,
        r"dim: expected a dimension of batch shape \(\), got -1",
    ),
    "index_select beyond the batch": (
        lambda: index_select(P, 1, torch.tensor([0])),
        ValueError,
        r"dim: expected a dimension of batch shape \(3,\), got 1",
    ),
    # divergences
    "order 0": (
        lambda: renyi_divergence(P, Q, 0.0),
        ValueError,
        r"alpha: expected a positive number, got 0.0",
    ),
    "order ∞": (
        lambda: renyi_divergence(P, Q, float("inf")),
        ValueError,
        r"alpha: expected a positive number, got inf",
    ),
    "order NaN": (
        lambda: renyi_divergence(P, Q, NAN),
        ValueError,
        r"alpha: expected a positive number, got nan",
    ),
    "orders": (
        lambda: renyi_divergence(P, Q, torch.tensor([0.5, -2.0, 0.5])),
        ValueError,
        r"alpha: expected positive values, got -2",
    ),
    "divergence of two families": (
        lambda: bhattacharyya_distance(P, dist.Gamma(1.0, 1.0)),
        TypeError,
        r"p, q: expected one family, got Normal and Gamma",
    ),
    "cross-entropy of two families": (
        lambda: cross_entropy(P, dist.Gamma(1.0, 1.0)),
        TypeError,
        r"p, q: expected one family, got Normal and Gamma",
    ),
    "cross-entropy of two shapes": (
        lambda: cross_entropy(P.to_event(1), dist.Normal(torch.zeros(2), 1.0).to_event(1)),
        ValueError,
        r"p, q: expected equal event shapes, got \(3,\) and \(2,\)",
    ),
    "cross-entropy of two sizes": (
        lambda: cross_entropy(LABELS, dist.Categorical(torch.ones(4))),
        ValueError,
        r"p, q: expected one number of categories, got 3 and 4",
    ),
    "cross-entropy of a transformed": (
        lambda: cross_entropy(transformed(transforms.SigmoidTransform()), transformed(transforms.SigmoidTransform())),
        NotImplementedError,
        r"expected log-Jacobian, which has no closed form here for SigmoidTransform\(\) of Normal",
    ),
}


@pytest.mark.faults("bad weights")
@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name: str) -> None:
    call, exception, pattern = REFUSALS[name]
    with pytest.raises(exception, match=pattern):
        call()


ONE = torch.ones(())
NOT_CLOSED = {
    "StudentT": dist.StudentT(3.0),
    "Cauchy": dist.Cauchy(0.0, 1.0),
    "MixtureSameFamily": dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0)),
    "RelaxedBernoulli": dist.RelaxedBernoulli(ONE, 0.5 * ONE),
    "RelaxedOneHotCategorical": dist.RelaxedOneHotCategorical(ONE, torch.ones(3)),
    "BetaBinomial": dist.BetaBinomial(1.0, 1.0, 3),
    "LinearPool": LinearPool([dist.Normal(0.0, 1.0)]),
    # subclasses of TransformedDistribution
    "HalfCauchy": dist.HalfCauchy(1.0),
    # subclasses of a closed family with a law of their own
    "NanMaskedNormal": dist.NanMaskedNormal(0.0, 1.0),
    "NanMaskedMultivariateNormal": dist.NanMaskedMultivariateNormal(torch.zeros(2), torch.eye(2)),
}


@pytest.mark.parametrize("name", NOT_CLOSED)
def test_what_has_no_row_is_refused_with_a_reason(name: str) -> None:
    p = NOT_CLOSED[name]
    assert not is_exponential_family(p)
    message = rf"^{name} has no natural form here, so no log-linear pool in closed form: expected one of "
    wrapped = [p, p.mask(True)] if name == "LinearPool" else [p, p.mask(True), p.expand([2]).to_event(1)]
    for q in wrapped:
        with pytest.raises(TypeError, match=message):
            log_linear_pool([q, q], HALF)


SUBCLASSES = {
    "OrderedLogistic": (
        dist.OrderedLogistic(torch.tensor(0.3), torch.tensor([-1.0, 1.0])),
        dist.Categorical(logits=dist.OrderedLogistic(torch.tensor(0.3), torch.tensor([-1.0, 1.0])).logits),
    ),
    "torch.distributions.Normal": (torch.distributions.Normal(1.0, 2.0), dist.Normal(1.0, 2.0)),
    "torch.distributions.LogNormal": (torch.distributions.LogNormal(1.0, 2.0), dist.LogNormal(1.0, 2.0)),
    "torch.distributions.Independent": (
        torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 2.0), 1),
        dist.Normal(torch.zeros(2), 2.0).to_event(1),
    ),
    "torch.distributions.TransformedDistribution": (
        torch.distributions.TransformedDistribution(torch.distributions.Normal(0.0, 1.0), [AFFINE]),
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), [AFFINE]),
    ),
    "sparse Poisson": (dist.Poisson(3.0, is_sparse=True), dist.Poisson(3.0)),
}


@pytest.mark.parametrize("name", SUBCLASSES)
def test_a_subclass_of_the_same_law_pools_as_its_parent(name: str) -> None:
    p, parent = SUBCLASSES[name]
    pool = log_linear_pool([p, parent], [0.25, 0.75])
    assert isinstance(pool, TorchDistributionMixin)
    y = parent.sample((5,))
    torch.testing.assert_close(pool.log_prob(y), parent.log_prob(y))


def test_values_of_tensors_are_not_looked_at_without_validation() -> None:
    p = dist.Normal(torch.zeros(3), 1.0, validate_args=False)
    weights = torch.tensor([0.5, 0.6])
    assert log_linear_pool([p, p], weights).loc.isfinite().all()
    assert LogLinearPool([P, Q], weights, validate_args=False).mean.isfinite().all()
    assert renyi_divergence(p, p, torch.tensor(2.0)).isfinite().all()
    with pytest.raises(ValueError, match="weights: expected a sum of 1"):
        log_linear_pool([p, p], [0.5, 0.6])  # plain numbers cost nothing to check
    logits = torch.tensor([[0.0, -INF], [-INF, 0.0]])
    members = [dist.Categorical(logits=row, validate_args=False) for row in logits]
    assert log_linear_pool(members, HALF).log_prob(torch.tensor(0)).isnan()  # NaN, never a plausible number


@pytest.mark.faults("bad weights")
def test_a_refusal_leaves_components_and_weights_alone() -> None:
    weights = torch.tensor([0.5, 0.6])
    before = P.loc.clone(), P.scale.clone(), weights.clone()
    with pytest.raises(ValueError, match="weights"):
        log_linear_pool([P, Q], weights)
    assert all(torch.equal(a, b) for a, b in zip(before, (P.loc, P.scale, weights), strict=True))


def test_a_family_is_found_by_type_alone() -> None:
    assert type(exponential_family(P)) is type(exponential_family(Q))
    assert type(exponential_family(P.to_event(1))) is not type(exponential_family(P))


def _logit_normal(loc: float) -> Any:
    return dist.TransformedDistribution(dist.Normal(loc, 1.0), [dist.transforms.SigmoidTransform()])


@pytest.mark.parametrize("moment", ["mean", "variance"])
@pytest.mark.parametrize(
    "p",
    [
        LinearPool([_logit_normal(0.0), _logit_normal(2.0)]),
        LogLinearPool([_logit_normal(0.0), _logit_normal(2.0)], [0.5, 0.5]),
        affine(_logit_normal(0.0), 1.0, 2.0),
    ],
    ids=lambda p: type(p).__name__,
)
def test_a_moment_that_is_not_known_is_named(p: Any, moment: str) -> None:
    with pytest.raises(NotImplementedError, match=r"p: expected a law whose \w+ is known, got TransformedDist"):
        getattr(p, moment)
    with pytest.raises(NotImplementedError, match=r"(enumerate_support|lists its values)"):
        p.enumerate_support()
