"""The incomplete gamma and beta functions against SciPy and mpmath, and their derivatives."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from pyro_probmix.ops.incomplete import betainc, gammainc, gammaincc


def t(value: object) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("a", [1e-3, 0.5, 1.0, 5.0, 19.9, 20.0, 25.0, 300.0, 1e4, 1e8])
def test_gamma_is_that_of_scipy(a: float) -> None:
    x = np.concatenate([a * np.array([0.0, 1e-6, 0.3]), np.maximum(a + np.linspace(-4, 9, 41) * a**0.5, 0), [np.inf]])
    for inverse in (False, True):  # the derivative in a is another path
        parameter = t(a).requires_grad_(inverse)
        for ours, theirs in ((gammainc, scipy.special.gammainc), (gammaincc, scipy.special.gammaincc)):
            torch.testing.assert_close(ours(parameter, t(x)).detach(), t(theirs(a, x)), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("a", "x"), [(1e6, 1e6 - 5000.0), (1e9, 1e9 - 1.5e5), (1e9, 1e9 + 1.5e5), (30.0, 2.0)])
def test_gamma_has_both_tails(a: float, x: float) -> None:
    with mpmath.workdps(40):
        start, width = mpmath.log(mpmath.mpf(x) / a), 60 / mpmath.sqrt(a)

        def density(s: mpmath.mpf) -> mpmath.mpf:
            return mpmath.exp(-a * (mpmath.expm1(s) - s))

        below, above = (
            mpmath.quad(density, [start + sign * width * k / 8 for k in range(9)]) * sign for sign in (-1, 1)
        )
        if a > 100:
            assert float(gammainc(t(a), t(x))) == pytest.approx(float(below / (below + above)), rel=1e-10)
            assert float(gammaincc(t(a), t(x))) == pytest.approx(float(above / (below + above)), rel=1e-10)
        else:
            exact = mpmath.gammainc(a, 0, x, regularized=True)
            assert float(gammainc(t(a), t(x))) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("a", [1e-3, 0.5, 1.0, 7.0, 19.0, 25.0, 400.0, 1e5])
@pytest.mark.parametrize("b", [0.01, 0.5, 3.0, 20.0, 1e3, 1e6])
def test_beta_is_that_of_scipy(a: float, b: float) -> None:
    deviation = (a * b / (a + b + 1)) ** 0.5 / (a + b)
    x = np.concatenate([[0.0, 1.0], np.clip(a / (a + b) + deviation * np.linspace(-8, 8, 41), 0, 1 - 1e-9)])
    torch.testing.assert_close(
        betainc(t(a), t(b), t(x), 1 - t(x)), t(scipy.special.betainc(a, b, x)), rtol=1e-9, atol=1e-13
    )


def test_large_and_small_parameters_are_taken_together() -> None:
    a, b, x = t([0.5, 30.0, 3.0, 500.0]), t([3.0, 40.0, 100.0, 0.3]), t([0.2, 0.45, 0.02, 0.999])
    expected = scipy.special.betainc(a.numpy(), b.numpy(), x.numpy())
    torch.testing.assert_close(betainc(a, b, x, 1 - x), t(expected), rtol=1e-12, atol=0)
    expected = scipy.special.gammainc(a.numpy(), 0.9 * a.numpy())
    torch.testing.assert_close(gammainc(a, 0.9 * a), t(expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("a", [0.3, 2.0, 19.9, 20.1, 400.0])
def test_gamma_is_differentiable(a: float) -> None:
    x = t([0.5 * a, a, 1.5 * a, a + 20]).requires_grad_()
    for function in (gammainc, gammaincc):
        assert torch.autograd.gradcheck(function, (t(a).requires_grad_(), x))


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.5), (2.0, 3.0), (30.0, 40.0), (19.0, 5000.0), (5000.0, 0.5)])
def test_beta_is_differentiable(a: float, b: float) -> None:
    x = (a / (a + b) * t([0.3, 0.8, 1.1])).clamp(max=0.999).requires_grad_()
    arguments = t(a).requires_grad_(), t(b).requires_grad_(), x
    assert torch.autograd.gradcheck(lambda a, b, x: betainc(a, b, x, 1 - x), arguments)
