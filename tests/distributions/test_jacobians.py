"""Divergences of transformed laws: Jacobians cancel in ratios, and are expected exactly where that is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pyro.distributions as dist
import pytest
import scipy.integrate
import torch
from torch import Tensor
from torch.distributions import kl_divergence as torch_kl
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    StickBreakingTransform,
)

from pyro_probmix.distributions import LogLinearPool, cross_entropy, entropy, kl_divergence, renyi_divergence


def double(*values: Any) -> list[Tensor]:
    return [torch.tensor(v, dtype=torch.float64) for v in values]


def power(exponent: float) -> PowerTransform:
    return PowerTransform(torch.tensor(exponent, dtype=torch.float64))


NORMALS = [dist.Normal(*double(0.3, 0.5)), dist.Normal(*double(-0.2, 0.8))]
GAMMAS = [dist.Gamma(*double(2.5, 1.5)), dist.Gamma(*double(4.0, 3.0))]
BETAS = [dist.Beta(*double(2.5, 1.5)), dist.Beta(*double(4.0, 3.0))]
ANGLES = [dist.VonMises(*double(0.5, 2.0)), dist.VonMises(*double(-1.0, 3.0))]

# name: (laws, transforms, the ends of the support)
KNOWN: dict[str, tuple[list[Any], list[Any], tuple[float, float]]] = {
    "affine": (NORMALS, [AffineTransform(1.0, -3.0)], (-30.0, 30.0)),
    "exponential": (NORMALS, [ExpTransform()], (0.0, 100.0)),
    "affine, exponential, affine": (
        NORMALS,
        [AffineTransform(0.5, -2.0), ComposeTransform([ExpTransform(), AffineTransform(0.0, 0.5)])],
        (0.0, 5000.0),
    ),
    "power of an exponential": (NORMALS, [ExpTransform(), power(0.5)], (0.0, 30.0)),
    "inverse affine": (NORMALS, [AffineTransform(1.0, -3.0).inv], (-30.0, 30.0)),
    "power of a Gamma": (GAMMAS, [power(-0.5)], (0.0, 400.0)),
    "logarithm of a Gamma": (GAMMAS, [ExpTransform().inv, AffineTransform(1.0, 2.0)], (-60.0, 12.0)),
    "powers of a Beta": (BETAS, [power(2.0), power(0.25)], (0.0, 1.0)),
    "affine of an angle": (ANGLES, [AffineTransform(0.0, 2.0)], (-2 * math.pi, 2 * math.pi)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_cross_entropy_is_its_integral(name: str) -> None:
    bases, chain, (low, high) = KNOWN[name]
    p, q = (dist.TransformedDistribution(base, chain, validate_args=False) for base in bases)

    def integrand(y: float) -> float:
        log_p, log_q = (float(law.log_prob(torch.tensor(y, dtype=torch.float64))) for law in (p, q))
        return -math.exp(log_p) * log_q if log_p > -700 else 0.0

    cuts = [low, *p.sample((9,)).sort().values.tolist(), high]
    expected = sum(scipy.integrate.quad(integrand, *ends, epsabs=1e-9)[0] for ends in itertools.pairwise(cuts))
    assert cross_entropy(p, q).item() == pytest.approx(expected, abs=1e-6)


def test_exponential_of_normals_is_log_normal() -> None:
    loc, scale = torch.randn(2, 3, 2).double(), torch.rand(2, 3, 2).double() + 0.5
    transformed = [
        dist.TransformedDistribution(dist.Normal(m, s).to_event(1), [ExpTransform()])
        for m, s in zip(loc, scale, strict=True)
    ]
    named = [dist.LogNormal(m, s).to_event(1) for m, s in zip(loc, scale, strict=True)]
    torch.testing.assert_close(cross_entropy(*transformed), cross_entropy(*named))
    torch.testing.assert_close(entropy(transformed[0]), entropy(named[0]))


BIJECTIONS = {
    "sigmoid": (dist.Normal, [SigmoidTransform()], 0),
    "stick-breaking": (lambda m, s: dist.Normal(m, s).to_event(1), [StickBreakingTransform()], 0),
    "sigmoid, of an event": (dist.Normal, [SigmoidTransform()], 1),
}


@pytest.mark.parametrize("name", BIJECTIONS)
def test_divergences_are_those_of_the_bases(name: str) -> None:
    make, chain, event_dim = BIJECTIONS[name]
    bases = [make(torch.randn(4, 3).double(), torch.rand(4, 3).double() + 0.5) for _ in range(2)]
    p, q = (dist.TransformedDistribution(base, chain).to_event(event_dim) for base in bases)
    kl = torch_kl(*bases) if event_dim == 0 else torch_kl(*bases).sum(-1)
    torch.testing.assert_close(kl_divergence(p, q), kl)
    torch.testing.assert_close(torch_kl(LogLinearPool([p], [1]), q), kl)
    torch.testing.assert_close(renyi_divergence(p, q, 1.0), kl)
    torch.testing.assert_close(renyi_divergence(p, q, 1 + 1e-9), kl)
    with pytest.raises(NotImplementedError, match="expected log-Jacobian, which has no closed form here"):
        cross_entropy(p, q)


@pytest.mark.parametrize("bases", [NORMALS, ANGLES], ids=["Normal", "VonMises"])
def test_a_jacobian_that_needs_what_is_not_known_is_refused(bases: list[Any]) -> None:
    chain = [power(3.0)] if bases is NORMALS else [ExpTransform()]
    p, q = (dist.TransformedDistribution(base, chain, validate_args=False) for base in bases)
    with pytest.raises(NotImplementedError, match=rf"of {type(bases[0]).__name__}: expected affine maps"):
        cross_entropy(p, q)
    torch.testing.assert_close(kl_divergence(p, q), kl_divergence(*bases))
