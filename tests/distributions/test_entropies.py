"""Entropies by each method, against sums, quadrature and closed forms of others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor
from torch.distributions.transforms import AffineTransform, ExpTransform, SigmoidTransform, TanhTransform

import pyro_probmix as pm
from pyro_probmix import entropy
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.recalibrated import RecalibratedDistribution
from tests.cases import CASES, NAMES

# Of two dimensions, or to be summed over grids that do not reach far enough for the logarithm of their density.
COARSE = {"LKJCholesky": 1e-5, "Wishart": 1e-3, "SineBivariateVonMises": 1e-6}


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_of_the_registry(name: str) -> None:
    case = CASES[name]
    p = case.draw((2,))
    law = p.base_dist if isinstance(p, dist.MaskedDistribution) else p
    expected = case.expectation(corrected(law), lambda y: -corrected(law).log_prob(y))
    # One of few draws has no gross error.
    torch.testing.assert_close(entropy(p, "samples"), expected, atol=0.1, rtol=0.05)
    if name == "LogisticNormal":  # the mean logarithms of what a stick is broken into are not known
        with pytest.raises(NotImplementedError, match=r'LogisticNormal .* method="samples" estimates it from draws'):
            entropy(p)
        return
    tolerance = COARSE.get(name, 1e-7)
    torch.testing.assert_close(entropy(p), expected, atol=tolerance, rtol=tolerance)
    if not p.event_shape and name != "ExtendedBinomial":  # of any integers, as it says
        torch.testing.assert_close(entropy(p, "quadrature"), entropy(p), atol=1e-8, rtol=1e-8)


def by_scipy(p: Any, low: float, high: float, points: list[float]) -> float:
    def integrand(y: float) -> float:
        log_p = float(p.log_prob(torch.tensor(y, dtype=torch.float64)))
        return -math.exp(log_p) * log_p if log_p > -700 else 0.0

    edges = [low, *points, high]
    return sum(scipy.integrate.quad(integrand, a, b, epsabs=1e-11, limit=200)[0] for a, b in itertools.pairwise(edges))


SCALARS: dict[str, tuple[Callable[[Tensor], Any], Tensor, tuple[float, float, list[float]]]] = {
    "a mixture of Normals": (
        lambda t: pm.LinearPool([dist.Normal(t[0], 1.0), dist.Normal(t[1], t[2])], [0.25, 0.75]),
        doubles(0.0, 3.0, 0.5),
        (-15, 15, [0, 3]),
    ),
    "PyTorch's mixture": (
        lambda t: dist.MixtureSameFamily(dist.Categorical(logits=t[:2]), dist.Normal(t[:2], t[2])),
        doubles(0.0, 3.0, 0.5),
        (-15, 15, [0, 3]),
    ),
    "a mixture of unlike laws": (
        lambda t: pm.LinearPool([dist.Laplace(t[0], 1.0), dist.Logistic(t[1], t[2])], [0.5, 0.5]),
        doubles(0.5, 3.0, 0.5),
        (-60, 60, [0.5, 3.0]),
    ),
    "a numerical pool": (
        lambda t: pm.NumericalPool([dist.Laplace(t[0], 1.0), dist.Normal(t[1], t[2])], [0.5, 0.5]),
        doubles(0.5, 3.0, 0.5),
        (-30, 30, [0.5, 3.0]),
    ),
    "an affine map of a mixture": (
        lambda t: dist.TransformedDistribution(
            pm.LinearPool([dist.Normal(t[0], 1.0), dist.Normal(3.0, 0.5)]), [AffineTransform(t[1], t[2])]
        ),
        doubles(0.0, 3.0, 0.5),
        (-15, 15, [3.0, 4.5]),
    ),
    "a logistic map of a mixture": (
        lambda t: dist.TransformedDistribution(
            pm.LinearPool([dist.Normal(t[0], 1.0), dist.Normal(t[1], t[2])]), [SigmoidTransform()]
        ),
        doubles(0.0, 1.5, 0.5),
        (1e-12, 1 - 1e-12, [0.5, 0.8]),
    ),
    "a logistic map of a Normal": (
        lambda t: dist.TransformedDistribution(dist.Normal(t[0], t[1]), [SigmoidTransform()]),
        doubles(0.3, 0.7),
        (1e-12, 1 - 1e-12, [0.5]),
    ),
    "Student's t": (lambda t: dist.StudentT(t[0], t[1], t[2]), doubles(5.0, 1.0, 0.5), (-2e3, 2e3, [-9, 1, 9])),
    "logistic": (lambda t: dist.Logistic(t[0], t[1]), doubles(1.0, 0.5), (-40, 40, [1])),
    "a skewed law of no family": (lambda t: dist.SoftLaplace(t[0], t[1]), doubles(1.0, 0.5), (-40, 40, [1])),
    "a mixture of angles": (
        lambda t: pm.LinearPool([dist.VonMises(t[0], 3.0), dist.VonMises(t[1], 8.0)]),
        doubles(0.5, 3.0),
        (-math.pi, math.pi, [0.5, 3.0]),
    ),
}


@pytest.mark.parametrize("name", SCALARS)
def test_scalars_against_another_quadrature(name: str) -> None:
    make, parameters, (low, high, points) = SCALARS[name]
    found = float(entropy(make(parameters)))
    assert found == pytest.approx(by_scipy(make(parameters), low, high, points), abs=1e-7)
    assert float(entropy(make(parameters), "quadrature")) == pytest.approx(found, abs=1e-7)


def test_as_many_pieces_as_panels() -> None:
    shares = torch.linspace(0.0, 1.0, 1101, dtype=torch.float64)
    base = dist.Normal(2.0, 3.0)
    assert float(entropy(RecalibratedDistribution(base, shares, shares))) == pytest.approx(float(base.entropy()))


@pytest.mark.parametrize("name", SCALARS)
def test_they_are_differentiable(name: str) -> None:
    make, parameters, _ = SCALARS[name]
    parameters = parameters.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: entropy(make(t)), parameters, eps=1e-5, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("df", [2.5, 60.0])
def test_student_of_vectors(df: float) -> None:
    loc, factor = doubles(1.0, 2.0), torch.tensor([[1.0, 0.0], [0.4, 0.7]], dtype=torch.float64)
    p = dist.MultivariateStudentT(torch.tensor(df, dtype=torch.float64), loc, factor)
    expected = scipy.stats.multivariate_t(loc.numpy(), (factor @ factor.mT).numpy(), df).entropy()
    assert float(entropy(p)) == pytest.approx(float(expected), rel=1e-9)


def test_a_mixture_of_counts_is_summed() -> None:
    p = pm.LinearPool([dist.Poisson(doubles(0.5, 30.0)), dist.NegativeBinomial(3.0, doubles(0.2, 0.9))], [0.3, 0.7])
    y = torch.arange(2000.0, dtype=torch.float64).unsqueeze(-1)
    log_p = p.log_prob(y)
    torch.testing.assert_close(entropy(p), -(log_p.exp() * log_p).sum(0), atol=1e-8, rtol=1e-8)


def test_a_mixture_of_many_one_of_which_is_narrow() -> None:
    generator = torch.Generator().manual_seed(0)
    loc, scale = torch.rand(2, 2, 60, generator=generator, dtype=torch.float64)
    loc, scale = 20 * loc - 10, scale + 0.3
    scale[:, 7] = 1e-4
    p = pm.LinearPool(dist.Normal(loc, scale))
    for row in range(2):
        narrow = float(loc[row, 7])
        fine = torch.linspace(narrow - 2e-3, narrow + 2e-3, 20_001, dtype=torch.float64)
        left, right = (torch.linspace(a, b, 50_001, dtype=torch.float64) for a, b in ((-40, fine[0]), (fine[-1], 40)))
        y = torch.cat([left[:-1], fine, right[1:]])
        log_p = p[row].log_prob(y)
        expected = torch.trapezoid(-log_p.exp() * log_p, y)
        torch.testing.assert_close(entropy(p)[row], expected, atol=1e-6, rtol=0)


def entropy_of(masses: list[float]) -> float:
    return float(scipy.stats.entropy(masses))


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "batched"])
def test_a_mixture_over_several_labels_is_counted_jointly(listed: bool) -> None:
    """Not as if the labels were independent, which they are given the component alone."""
    probs = torch.tensor([[0.1, 0.9, 0.3], [0.8, 0.2, 0.7]], dtype=torch.float64)
    weights = doubles(0.4, 0.6)
    components: Any = dist.Bernoulli(probs).to_event(1)
    if listed:
        components = [dist.Bernoulli(own).to_event(1) for own in probs]
    p = pm.LinearPool(components, weights)
    masses = []
    for labels in itertools.product([0, 1], repeat=3):
        each = np.where(np.array(labels) == 1, probs.numpy(), 1 - probs.numpy()).prod(-1)
        masses.append(float(weights.numpy() @ each))
    assert float(entropy(p, "exact")) == pytest.approx(entropy_of(masses), rel=1e-12)
    assert float(p.entropy()) == pytest.approx(entropy_of(masses), rel=1e-12)


@pytest.mark.parametrize("kind", [dist.Categorical, dist.OneHotCategorical])
@pytest.mark.parametrize("mixture", [pm.LinearPool, lambda c, w: dist.MixtureSameFamily(dist.Categorical(w), c)])
def test_a_mixture_of_classes(kind: Any, mixture: Any) -> None:
    probs = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    p = mixture(kind(logits=probs.log()), doubles(0.25, 0.75))
    assert float(entropy(p)) == pytest.approx(entropy_of([0.4, 0.6, 0.0]), rel=1e-9)


def test_independent_entries_add_up_whatever_masks_them() -> None:
    loc = torch.zeros(4, 3, dtype=torch.float64)
    entries = pm.LinearPool([dist.Normal(loc, 1.0), dist.Normal(loc + 2, 1.0)])
    mask = torch.arange(12).reshape(4, 3) % 2 == 0
    expected = entropy(entries).sum(-1)
    for p in (entries.to_event(1), entries.mask(mask).to_event(1), entries.to_event(1).mask(mask[:, 0])):
        torch.testing.assert_close(entropy(p), expected)
        torch.testing.assert_close(entropy(p, "samples", num_samples=1000), expected, atol=0.3, rtol=0)
    with pytest.raises(ValueError, match='method: expected another than "exact" for MaskedDistribution'):
        entropy(entries.mask(mask).to_event(1).mask(mask[:, 0]), "exact")


@pytest.mark.parametrize("base", [dist.Normal, dist.Logistic], ids=["a family", "of no family"])
def test_transforms_of_entries(base: Any) -> None:
    loc, scale = torch.zeros(2, 3, dtype=torch.float64), doubles(0.5, 1.0, 2.0)
    vector = dist.TransformedDistribution(
        base(loc, scale).to_event(1), [AffineTransform(doubles(1.0, 2.0, 3.0), 0.5, event_dim=1), TanhTransform()]
    )
    entries = dist.TransformedDistribution(base(loc, scale), [AffineTransform(doubles(1, 2, 3), 0.5), TanhTransform()])
    torch.testing.assert_close(entropy(vector), entropy(entries).sum(-1))


def test_a_map_whose_mean_jacobian_is_known_is_exact() -> None:
    inner = dist.MultivariateStudentT(doubles(5.0), torch.zeros(1, 2, dtype=torch.float64), torch.eye(2).double())
    p = dist.TransformedDistribution(inner, [AffineTransform(doubles(1, 2), doubles(2, 3), event_dim=1)])
    torch.testing.assert_close(entropy(p, "exact"), entropy(inner) + math.log(6))
    q = dist.TransformedDistribution(dist.StudentT(doubles(5.0), 1.0, 0.1), [ExpTransform()])
    torch.testing.assert_close(entropy(q, "exact"), entropy(q.base_dist) + 1)


def test_draws_are_seeded_and_have_a_gradient_in_the_law() -> None:
    loc, scale = torch.zeros(2, 2, dtype=torch.float64), doubles(0.5, 2.0).requires_grad_()
    p = pm.LinearPool(dist.MultivariateNormal(loc, scale_tril=(scale.unsqueeze(-1) * torch.ones(2)).diag_embed()))
    state = torch.get_rng_state()
    first, second, third = (entropy(p, "samples", 20_000, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, second)
    assert not torch.equal(first, third)

    def radial(r: float) -> float:  # of a mixture of two isotropic Normals in the plane
        density = sum(math.exp(-0.5 * (r / s) ** 2) / (4 * math.pi * s * s) for s in (0.5, 2.0))
        return -2 * math.pi * r * density * math.log(density)

    assert first.item() == pytest.approx(scipy.integrate.quad(radial, 0, 25)[0], abs=0.05)
    rate = doubles(0.3, 6.0).requires_grad_()
    (found,) = torch.autograd.grad(entropy(dist.Poisson(rate), "samples", 100_000).sum(), rate)
    (expected,) = torch.autograd.grad(entropy(dist.Poisson(rate)).sum(), rate)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0)


def test_single_precision_stays() -> None:
    p = pm.LinearPool([dist.Normal(torch.zeros(3), 1.0), dist.Normal(2.0, 0.5)])
    for method in (None, "quadrature", "samples"):
        assert (entropy(p, method).dtype, entropy(p, method).shape) == (torch.float32, (3,))
    assert entropy(pm.LinearPool([dist.Normal(torch.zeros(0), 1.0)])).shape == (0,)


VECTORS = pm.LinearPool(dist.MultivariateNormal(torch.eye(2), torch.eye(2)))
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no distribution": (lambda: entropy(1.0), TypeError, "p: expected a torch or Pyro distribution, got float"),
    "no method": (lambda: entropy(VECTORS, "guess"), ValueError, 'method: expected one of "exact", .* got "guess"'),
    "no draws": (lambda: entropy(VECTORS, "samples", 0), ValueError, "num_samples: expected an integer >= 1, got 0"),
    "a mixture of vectors": (
        lambda: entropy(VECTORS),
        NotImplementedError,
        r'p: expected scalars, .* got LinearPool of event shape \(2,\); method="samples" estimates it from draws',
    ),
    "a mixture of vectors, exactly": (
        lambda: entropy(VECTORS, "exact"),
        ValueError,
        'method: expected another than "exact" for LinearPool: there is no closed form here',
    ),
    "vectors by quadrature": (
        lambda: entropy(dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), "quadrature"),
        ValueError,
        'method: expected another than "quadrature" for MultivariateNormal: expected scalars',
    ),
    "a mixture, exactly": (
        lambda: entropy(pm.LinearPool([dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0)]), "exact"),
        ValueError,
        'method: expected another than "exact" for LinearPool: there is no closed form here',
    ),
    "many labels": (
        lambda: entropy(pm.LinearPool(dist.Bernoulli(torch.full((2, 40), 0.3)).to_event(1)), "exact"),
        ValueError,
        'method: expected another than "exact" for LinearPool: there is no closed form here',
    ),
    "no density": (
        lambda: entropy(dist.Stable(1.5, 0.0, 1.0, 0.0)),
        NotImplementedError,
        "p: expected densities that can be evaluated, got Stable",
    ),
    "no mass": (
        lambda: entropy(pm.LinearPool([dist.Normal(math.nan, 1.0, validate_args=False)], [1.0], validate_args=False)),
        ValueError,
        "p: expected a law whose mass can be found, got LinearPool: expected a pool with a finite integral",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_has_none_is_named(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
