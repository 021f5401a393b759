"""Probabilities of classes: those of mixtures and pools, by summing joint masses one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.distributions import class_log_probabilities, class_probabilities

WEIGHTS = torch.tensor([[0.2, 0.8], [0.0, 1.0], [0.6, 0.4]], dtype=torch.float64)


def real(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


# Made of logits of batch shape (3, 2), the last counting components, then labels, where there are several, and classes.
MIXTURES: dict[str, Callable[[Any], Any]] = {
    "listed": lambda components: pm.LinearPool([components(slice(0, 1)), components(slice(1, 2))], WEIGHTS),
    "batched": lambda components: pm.LinearPool(components(None), WEIGHTS),
    "PyTorch's": lambda components: dist.MixtureSameFamily(dist.Categorical(WEIGHTS), components(None)),
    "masked": lambda components: pm.LinearPool(components(None), WEIGHTS).mask(torch.tensor([True, False, True])),
}


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several labels"])
@pytest.mark.parametrize("kind", MIXTURES)
def test_classes_of_a_mixture(kind: str, several: bool) -> None:
    logits = real(3, 2, 4, 5) if several else real(3, 2, 5)

    def components(taken: slice | None) -> Any:
        own = logits if taken is None else logits[:, taken].squeeze(1)
        p = dist.Categorical(logits=own)
        return p.to_event(1) if several else p

    p = MIXTURES[kind](components)
    expected = (WEIGHTS.reshape(3, 2, *[1] * several, 1) * logits.softmax(-1)).sum(1)
    torch.testing.assert_close(class_probabilities(p), expected)
    if several and kind != "masked":  # against the joint mass
        labels = torch.tensor(list(itertools.product(range(5), repeat=4))).unsqueeze(1)
        mass = p.log_prob(labels.expand(-1, 3, -1)).exp()
        for label, k in itertools.product(range(4), range(5)):
            one = mass[labels[:, 0, label] == k].sum(0)
            torch.testing.assert_close(class_probabilities(p)[:, label, k], one, atol=2e-7, rtol=0)
    if isinstance(p, pm.LinearPool):
        torch.testing.assert_close(p.probs, expected)
        torch.testing.assert_close(p.logits, expected.log())


@pytest.mark.parametrize("kind", MIXTURES)
def test_zeros_and_ones_of_a_mixture(kind: str) -> None:
    logits = real(3, 2)
    p = MIXTURES[kind](lambda own: dist.Bernoulli(logits=logits if own is None else logits[:, own].squeeze(1)))
    one = (WEIGHTS * logits.sigmoid()).sum(1)
    torch.testing.assert_close(class_probabilities(p), torch.stack([1 - one, one], -1))
    if isinstance(p, pm.LinearPool):
        torch.testing.assert_close(p.probs, one)
        torch.testing.assert_close(p.logits, (one / (1 - one)).log())


@pytest.mark.parametrize("kind", MIXTURES)
def test_unit_vectors_of_a_mixture(kind: str) -> None:
    logits = real(3, 2, 5)
    p = MIXTURES[kind](lambda own: dist.OneHotCategorical(logits=logits if own is None else logits[:, own].squeeze(1)))
    torch.testing.assert_close(class_probabilities(p), (WEIGHTS.unsqueeze(-1) * logits.softmax(-1)).sum(1))


COMPONENTS = {
    "Bernoulli": lambda: [dist.Bernoulli(logits=real(3)), dist.Bernoulli(logits=real(3, 1)[:, 0])],
    "Categorical": lambda: [dist.Categorical(logits=real(3, 4)), dist.Categorical(logits=real(1, 3, 4)[0])],
    "OneHotCategorical": lambda: [dist.OneHotCategorical(logits=t) for t in (real(3, 4), real(1, 3, 4)[0])],
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_log_linear_pool_has_those_of_its_family(name: str) -> None:
    pool = pm.LogLinearPool(COMPONENTS[name](), WEIGHTS)
    torch.testing.assert_close(pool.probs, pool.fused.probs)
    torch.testing.assert_close(pool.logits, pool.fused.logits)
    if name == "OneHotCategorical":  # of vectors, which are no scalars
        return
    numerical = pm.NumericalPool(COMPONENTS[name](), WEIGHTS)
    torch.testing.assert_close(numerical.probs, pool.probs)
    torch.testing.assert_close(numerical.logits, pool.logits)
    holder = pm.HolderPool(COMPONENTS[name](), WEIGHTS, 1.0)
    torch.testing.assert_close(holder.probs, pm.LinearPool(COMPONENTS[name](), WEIGHTS).probs)


def test_small_probabilities_have_their_logarithms() -> None:
    pool = pm.LinearPool([dist.Bernoulli(logits=-torch.tensor(200.0)), dist.Bernoulli(logits=-torch.tensor(300.0))])
    assert pool.logits.item() == pytest.approx(-200 - math.log(2), rel=1e-6)
    assert class_log_probabilities(pool.expand([2])).shape == (2, 2)


def test_they_are_differentiable_where_a_class_has_no_mass() -> None:
    logits = torch.tensor([[0.0, -math.inf, 1.0], [2.0, -math.inf, 0.0]], dtype=torch.float64, requires_grad=True)
    pool = pm.LinearPool(dist.Categorical(logits=logits), [0.3, 0.7])
    (gradient,) = torch.autograd.grad(pool.probs[0], logits)
    share = logits.detach().softmax(-1)
    expected = torch.tensor([[0.3], [0.7]]) * share[:, :1] * (torch.eye(3)[:1] - share)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    "p",
    [
        pm.LinearPool([dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0)]),
        pm.LogLinearPool([dist.Poisson(1.0), dist.Poisson(2.0)], [0.5, 0.5]),
        pm.LogLinearPool([dist.Binomial(3, 0.5), dist.Binomial(3, 0.2)], [0.5, 0.5]),
        pm.NumericalPool([dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0)], [0.5, 0.5]),
    ],
    ids=["linear", "counts", "trials", "numerical"],
)
def test_what_is_no_class_has_none(p: Any) -> None:
    assert not hasattr(p, "probs")
    assert not hasattr(p, "logits")
    with pytest.raises(AttributeError, match="Pool has no probs: p: expected a distribution over classes, got"):
        _ = p.probs
    with pytest.raises(TypeError, match="p: expected a distribution over classes, got"):
        class_probabilities(p)


def test_no_distribution_is_named() -> None:
    with pytest.raises(TypeError, match="p: expected a distribution over classes, got Tensor"):
        class_probabilities(torch.ones(3))
