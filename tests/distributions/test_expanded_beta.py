"""ExpandedBeta: a Beta on any interval, and the stretch that preserves variance."""

from __future__ import annotations

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import Tensor

from pyro_probmix.distributions import ExpandedBeta

PARAMETERS = [(2.0, 3.0, -0.3, 1.4), (0.2, 0.2, -0.1, 1.1), (1.0, 1.0, 0.0, 1.0), (0.3, 0.5, -1.0, 4.0)]


def tensors(*values: float) -> list[Tensor]:
    return [torch.tensor(v, dtype=torch.float64) for v in values]


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_density_moments_and_draws_are_those_of_scipy(parameters: tuple[float, ...]) -> None:
    a1, a0, low, high = parameters
    p, q = ExpandedBeta(*tensors(*parameters)), scipy.stats.beta(a1, a0, low, high - low)
    y = torch.linspace(low, high, 9, dtype=torch.float64)[1:-1]
    torch.testing.assert_close(p.log_prob(y), torch.from_numpy(q.logpdf(y.numpy())))
    assert float(p.mean) == pytest.approx(q.mean())
    assert float(p.variance) == pytest.approx(q.var())
    assert float(p.entropy()) == pytest.approx(q.entropy())
    draws = p.sample((2000,))
    assert bool(((draws >= low) & (draws <= high)).all())
    assert scipy.stats.kstest(draws.numpy(), q.cdf).pvalue > 1e-6


@pytest.mark.parametrize("concentrations", [(0.2,), (1.0,), (8.0,), (0.3, 2.0), (5.0, 0.1)])
def test_variance_is_preserved(concentrations: tuple[float, ...]) -> None:
    p = ExpandedBeta.variance_preserving(*tensors(*concentrations))
    a1, a0 = concentrations[0], concentrations[-1]
    second = p.variance + p.mean.square()
    assert float(p.mean - second) == pytest.approx(0, abs=1e-12)  # E[λ(1 − λ)]
    assert float(p.mean) == pytest.approx(a1 / (a1 + a0))  # where it was
    if len(concentrations) == 1:
        assert float(p.high - p.low) == pytest.approx(math.sqrt(2 * a1 + 1))
        assert float(p.high + p.low) == pytest.approx(1)


def test_mixing_with_it_preserves_the_variance_of_data() -> None:
    x, other = torch.randn(2, 200_000)
    weight = ExpandedBeta.variance_preserving(0.5).sample((200_000,))
    assert float((weight * x + (1 - weight) * other).var()) == pytest.approx(1, abs=0.02)


def test_derivatives() -> None:
    inputs = [t.requires_grad_() for t in tensors(0.8, 1.7, -0.4, 1.3)]
    y = torch.tensor(0.6, dtype=torch.float64)

    def values(*parameters: Tensor) -> tuple[Tensor, ...]:
        p = ExpandedBeta(*parameters)
        return p.log_prob(y), p.mean, p.variance, p.entropy()

    assert torch.autograd.gradcheck(values, inputs)
    p = ExpandedBeta(*inputs)
    draws = p.rsample((20_000,))
    actual = torch.autograd.grad(draws.mean(), inputs)
    expected = torch.autograd.grad(p.mean, inputs)
    torch.testing.assert_close(actual, expected, atol=0.02, rtol=0.02)


@pytest.mark.faults("value on the boundary")
def test_outside_is_impossible_without_a_nan_gradient() -> None:
    inputs = [t.requires_grad_() for t in tensors(0.8, 1.7, -0.4, 1.3)]
    p = ExpandedBeta(*inputs, validate_args=False)
    value = p.log_prob(torch.tensor([-0.5, 0.2, 2.0], dtype=torch.float64))
    assert value.isfinite().tolist() == [False, True, False]
    assert all(g.isfinite().all() for g in torch.autograd.grad(value[1] + p.mean, inputs))
    with pytest.raises(ValueError, match="within the support"):
        ExpandedBeta(*tensors(0.8, 1.7, -0.4, 1.3)).log_prob(torch.tensor(2.0))


def test_it_is_a_pyro_distribution() -> None:
    p = ExpandedBeta(torch.ones(3), 2.0, -0.5, torch.tensor([1.5, 2.0, 3.0]))
    wide = p.expand([2, 3])
    assert wide.rsample((4,)).shape == (4, 2, 3)
    assert wide.log_prob(wide.sample()).shape == wide.mean.shape == (2, 3)
    assert wide.to_event(1).log_prob(wide.sample()).shape == (2,)
    y = p.sample()
    for other in (pickle.loads(pickle.dumps(p)), copy.deepcopy(p)):
        assert torch.equal(other.log_prob(y), p.log_prob(y))
    assert "concentration1" in repr(ExpandedBeta(1.0, 1.0, 0.0, 2.0))

    def model() -> None:
        with pyro.plate("data", 3):
            pyro.sample("weight", p)

    assert pyro.poutine.trace(model).get_trace().log_prob_sum().isfinite()
    half = ExpandedBeta(*[t.half() for t in tensors(1.0, 1.0, 0.0, 2.0)])
    assert half.sample().dtype == torch.float16


def test_it_is_the_beta_on_the_unit_interval() -> None:
    p, q = ExpandedBeta(2.0, 3.0, 0.0, 1.0), dist.Beta(2.0, 3.0)
    y = q.sample((5,))
    torch.testing.assert_close(p.log_prob(y), q.log_prob(y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1.0, 1.0, 0.0), r"low: expected less than high, got low 1 and high 0"),
        ((1.0, 1.0, torch.tensor([0.0, 2.0]), 1.0), r"low: .* at batch index \[1\]"),
        ((0.0, 1.0, 0.0, 1.0), r"concentration1"),
        ((1.0, -1.0, 0.0, 1.0), r"concentration0"),
        ((1.0, 1.0, float("nan"), 1.0), r"low"),
    ],
)
def test_refusals(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpandedBeta(*arguments)


def test_integer_concentrations() -> None:
    assert ExpandedBeta.variance_preserving(torch.tensor(2)).sample().is_floating_point()


def test_single_and_double_precision_mix() -> None:
    single, double = torch.tensor(2.0), torch.tensor([-0.1, 1.1], dtype=torch.float64)
    draw = ExpandedBeta(single, single, *double).sample((5,))
    assert draw.dtype == torch.float64
    assert ((draw >= -0.1) & (draw <= 1.1)).all()
