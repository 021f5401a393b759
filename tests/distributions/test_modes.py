"""Modes against grids, sums and the optimisers of SciPy."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import scipy.optimize
import torch
from torch import Tensor
from torch.distributions.transforms import AffineTransform, ExpTransform, SigmoidTransform

import pyro_probmix as pm
from pyro_probmix import mode
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.exponential_family import set_validation
from tests.cases import CASES, NAMES
from tests.distributions.test_selection import MEMBERS


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def real(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unvalidated(p: Any) -> Any:
    """As it is, at the ends of its support too."""
    p = corrected(p.base_dist if isinstance(p, dist.MaskedDistribution) else p)
    set_validation(p, False)
    return p


@pytest.mark.parametrize("name", [*NAMES, "Uniform", "VonMises3D"])
def test_nothing_on_a_grid_is_higher(name: str) -> None:
    case = CASES[name]
    p = unvalidated(case.draw((3,)))
    found = mode(p)
    assert found.shape == p.batch_shape + p.event_shape
    y = case.grid()[0].unsqueeze(1)
    y = y.expand(y.shape[:1] + p.batch_shape + p.event_shape)
    heights = p.log_prob(y)
    inside = torch.where(heights.isnan(), -math.inf, heights)
    assert (p.log_prob(found) >= inside.amax(0) - 1e-9).all()


@pytest.mark.parametrize("name", sorted(MEMBERS.keys() - {"Stable", "a factor", "draws with weights"}))
def test_no_draw_is_higher(name: str) -> None:
    """Of families of no natural form, mixtures and wrappers."""
    p = MEMBERS[name]()
    law = (
        p.base_dist
        if isinstance(p, dist.MaskedDistribution)
        else dist.Cauchy(p.base_dist.base_dist.loc, 1.0).to_event(1)
        if name == "masked outputs"
        else p
    )
    found = mode(p)
    assert found.shape == p.batch_shape + p.event_shape
    set_validation(law, False)
    many = law if "Asymmetric" in name else copy.copy(law).expand((1000, *law.batch_shape))
    y = many.sample() if many is not law else law.sample((1000,))
    if not p.event_shape and not p.support.is_discrete:
        low, high = y.quantile(0.01, 0), y.quantile(0.99, 0)
        y = torch.cat([y, low + (high - low) * torch.linspace(0, 1, 2001, dtype=y.dtype).reshape(-1, 1, 1)])
    heights = law.log_prob(y)
    heights = torch.where(heights.isnan(), -math.inf, heights)
    assert (law.log_prob(found.to(y.dtype)) >= heights.amax(0) - 1e-6).all()


ENDS: dict[str, tuple[Any, list[float]]] = {
    "Beta": (
        dist.Beta(doubles(0.5, 2.0, 1.0, 0.5, 1.0, 3.0, 0.2), doubles(2.0, 0.5, 0.5, 1.0, 1.0, 1.0, 0.4)),
        [0, 1, 1, 0, 0.5, 1, 0],
    ),
    "AffineBeta": (dist.AffineBeta(doubles(0.5, 2.0), doubles(2.0, 3.0), 1.0, 3.0), [1, 2]),
    "Gamma": (dist.Gamma(doubles(0.5, 1.0, 3.0), 2.0), [0, 0, 1]),
    "Chi2": (dist.Chi2(doubles(1.0, 2.0, 5.0)), [0, 0, 3]),
    "Weibull": (dist.Weibull(2.0, doubles(0.5, 1.0, 2.0)), [0, 0, 2 * 0.5**0.5]),
    "Kumaraswamy": (
        dist.Kumaraswamy(doubles(0.5, 2.0, 2.0, 1.0, 1.0), doubles(2.0, 0.5, 3.0, 1.0, 2.0)),
        [0, 1, 0.2**0.5, 0.5, 0],
    ),
    "FisherSnedecor": (dist.FisherSnedecor(doubles(1.0, 2.0, 6.0), 4.0), [0, 0, 4 / 9]),
    "HalfCauchy": (dist.HalfCauchy(doubles(0.5, 2.0)), [0, 0]),
    "HalfNormal": (dist.HalfNormal(doubles(0.5, 2.0)), [0, 0]),
    "Exponential": (dist.Exponential(doubles(0.5, 2.0)), [0, 0]),
    "Pareto": (dist.Pareto(doubles(0.5, 2.0), 1.0), [0.5, 2]),
    "GeneralizedPareto": (dist.GeneralizedPareto(1.0, 2.0, doubles(-2.0, 0.5)), [2, 1]),
    "ContinuousBernoulli": (dist.ContinuousBernoulli(doubles(0.2, 0.5, 0.7)), [0, 0.5, 1]),
    "Bernoulli": (dist.Bernoulli(doubles(0.2, 0.5, 0.7)), [0, 0, 1]),
    "Uniform": (dist.Uniform(doubles(0.0, 1.0), 3.0), [1.5, 2]),
    "Geometric": (dist.Geometric(doubles(0.2, 0.9)), [0, 0]),
    "Poisson": (dist.Poisson(doubles(0.3, 4.5)), [0, 4]),
    "Binomial": (dist.Binomial(7, doubles(0.0, 0.3, 1.0)), [0, 2, 7]),
    "NegativeBinomial": (dist.NegativeBinomial(doubles(0.5, 3.5), 0.8), [0, 10]),
    "GammaPoisson": (dist.GammaPoisson(doubles(0.5, 3.5), 0.25), [0, 10]),
    "ZeroInflatedPoisson": (dist.ZeroInflatedPoisson(doubles(6.5, 6.5), gate=doubles(0.0, 0.5)), [6, 0]),
    "BetaBinomial": (dist.BetaBinomial(doubles(0.2, 3.0), doubles(0.3, 3.0), 6), [0, 3]),
    "Delta": (dist.Delta(doubles(0.2, 3.0)), [0.2, 3]),
    "a pole inside a mixture": (pm.LinearPool([dist.Gamma(doubles(0.5), 1.0), dist.Gamma(9.0, 1.0)]), [0]),
}


@pytest.mark.parametrize("name", ENDS)
def test_at_the_ends_of_the_support(name: str) -> None:
    p, expected = ENDS[name]
    torch.testing.assert_close(mode(p), torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=0)
    if hasattr(p, "logits") and name == "Bernoulli":
        assert mode(p).dtype == torch.float64


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["listed", "batched", "PyTorch's"])
def test_the_highest_of_the_modes_of_a_mixture(kind: str, seed: int) -> None:
    loc, weights = 4 * real(6, 5, seed=seed), real(6, 5, seed=seed + 10).softmax(-1)
    scale = (0.7 * real(6, 5, seed=seed + 20)).exp()
    if kind == "PyTorch's":
        p: Any = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, scale))
    else:
        listed = [dist.Normal(loc[:, k], scale[:, k]) for k in range(5)]
        p = pm.LinearPool(listed if kind == "listed" else dist.Normal(loc, scale), weights)
    found = mode(p)
    for row in range(6):

        def height(y: Any, row: int = row) -> Tensor:
            densities = dist.Normal(loc[row], scale[row]).log_prob(torch.as_tensor(y)[..., None]).exp()
            return (weights[row] * densities).sum(-1)

        grid = torch.linspace(float(loc[row].min()) - 1, float(loc[row].max()) + 1, 4001, dtype=torch.float64)
        top = float(grid[height(grid).argmax()])
        bounds = (top - 0.1, top + 0.1)
        refined = scipy.optimize.minimize_scalar(lambda y: -float(height(y)), bounds=bounds, method="bounded")
        assert float(found[row]) == pytest.approx(refined.x, abs=1e-4)
        assert float(height(found[row])) >= -refined.fun * (1 - 1e-10)
    if isinstance(p, pm.LinearPool):
        assert torch.equal(p.mode, found)


def test_not_the_local_one_that_is_first() -> None:
    p = pm.LinearPool([dist.Normal(doubles(0.0), 1.0), dist.Normal(3.0, 0.5)], [0.25, 0.75])

    def slope(y: float) -> float:
        return -0.25 * y * math.exp(-y * y / 2) - 6 * (y - 3) * math.exp(-2 * (y - 3) ** 2)

    exact = scipy.optimize.brentq(slope, 2, 3, xtol=1e-13)
    assert float(mode(p)) == pytest.approx(exact, abs=1e-9)


def test_components_that_are_equal_or_have_no_weight() -> None:
    alike = dist.Normal(torch.zeros(40, dtype=torch.float64), 1.0)
    two = pm.LinearPool([pm.LinearPool(alike), dist.Normal(doubles(1.5).squeeze(), 1.0)], [0.5, 0.5])
    assert float(mode(two)) == pytest.approx(0.75, abs=1e-9)
    gone = pm.LinearPool([dist.Normal(0.0, 1e-6), dist.Normal(2.0, 1.0)], [0.0, 1.0])
    assert float(mode(gone)) == pytest.approx(2)


SCALARS: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "a mixture": (lambda t: pm.LinearPool([dist.Normal(t[0], 1.0), dist.Normal(t[1], t[2])]), doubles(0.0, 3.0, 0.8)),
    "a mixture with a kink": (
        lambda t: pm.LinearPool([dist.Laplace(t[0], t[2]), dist.Normal(t[1], 1.0)]),
        doubles(0.0, 1.0, 0.5),
    ),
    "a numerical pool": (
        lambda t: pm.NumericalPool([dist.StudentT(4.0, t[0], 1.0), dist.Logistic(t[1], t[2])], [0.5, 0.5]),
        doubles(0.0, 2.0, 0.8),
    ),
    "a Hölder pool": (
        lambda t: pm.HolderPool([dist.Normal(t[0], 1.0), dist.Normal(t[1], t[2])], [0.5, 0.5], 0.5),
        doubles(0.0, 3.0, 0.8),
    ),
    "a logit-Normal": (
        lambda t: dist.TransformedDistribution(dist.Normal(t[0], t[1]), [SigmoidTransform()]),
        doubles(0.6, 0.9),
    ),
    "exponentials of a mixture": (
        lambda t: dist.TransformedDistribution(
            pm.LinearPool([dist.Normal(t[0], 1.0), dist.Normal(t[1], 0.3)]), [ExpTransform()]
        ),
        doubles(0.0, 1.0),
    ),
    "an affine map of a mixture": (
        lambda t: dist.TransformedDistribution(
            pm.LinearPool([dist.Normal(t[0], 1.0), dist.Normal(3.0, 0.5)]), [AffineTransform(t[1], t[2])]
        ),
        doubles(0.0, 1.0, 2.0),
    ),
    "a skewed law": (lambda t: dist.SkewLogistic(t[0], t[1], t[2]), doubles(0.5, 1.0, 2.0)),
    "a mixture of angles": (
        lambda t: pm.LinearPool([dist.VonMises(t[0], 3.0), dist.VonMises(t[1], 2.0)]),
        doubles(3.1, -2.6),
    ),
    "a Gamma": (lambda t: dist.Gamma(t[0], t[1]), doubles(3.0, 2.0)),
    "a LogNormal": (lambda t: dist.LogNormal(t[0], t[1]), doubles(0.3, 0.5)),
}


@pytest.mark.parametrize("name", SCALARS)
def test_scalars_against_an_optimiser_with_the_gradient_of_differences(name: str) -> None:
    make, parameters = SCALARS[name]
    p = make(parameters)
    found = float(mode(p))
    bracket = (found - 0.05, found + 0.05)
    best = scipy.optimize.minimize_scalar(
        lambda y: -float(p.log_prob(torch.tensor(y, dtype=torch.float64))), bounds=bracket, method="bounded"
    )
    assert found == pytest.approx(best.x, abs=1e-4)
    if name == "a mixture of angles":
        assert abs(found) > 2.9
    draws = p.sample((2000,))
    assert float(p.log_prob(mode(p))) >= float(p.log_prob(draws).max()) - 1e-9
    parameters = parameters.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: mode(make(t)), parameters, eps=1e-5, atol=1e-5, rtol=1e-4)


def test_of_counts_in_a_mixture_all_are_compared() -> None:
    p = pm.LinearPool(
        [dist.Poisson(doubles(2.5, 30.0)), dist.NegativeBinomial(50.0, doubles(0.2, 0.45)), dist.Geometric(0.01)],
        [0.2, 0.3, 0.5],
    )
    y = torch.arange(200.0, dtype=torch.float64).unsqueeze(-1)
    torch.testing.assert_close(mode(p), p.log_prob(y).argmax(0).double())
    far = pm.LinearPool([dist.Poisson(doubles(3.0)), dist.Poisson(1e6)], [0.01, 0.99])
    assert mode(far).item() == 2
    close = dist.Poisson(doubles(9.99e5)), dist.Poisson(1.0005e6), dist.Geometric(1e-8)
    middle = pm.LinearPool(close, [0.4, 0.5, 0.1])
    y = torch.arange(990_000.0, 1_010_000.0, dtype=torch.float64).unsqueeze(-1)
    assert mode(middle).item() == 990_000 + middle.log_prob(y).argmax().item()


def test_of_labels_in_a_mixture_the_most_probable_combination() -> None:
    """Not of each the most probable label: those of 0.4 (1, 1, 1) and 0.3 (1, 0, 0), 0.3 (0, 1, 0) are (1, 1, 0)."""
    probs = torch.tensor([[0.9, 0.9, 0.9], [0.9, 0.1, 0.1], [0.1, 0.9, 0.1]], dtype=torch.float64)
    weights = doubles(0.4, 0.3, 0.3)
    p = pm.LinearPool(dist.Bernoulli(probs).to_event(1), weights)
    masses = {
        labels: float(weights @ torch.where(doubles(*labels) == 1, probs, 1 - probs).prod(-1))
        for labels in itertools.product([0.0, 1.0], repeat=3)
    }
    assert tuple(mode(p).tolist()) == max(masses, key=masses.__getitem__) == (1, 1, 1)
    many = pm.LinearPool(dist.Bernoulli(torch.full((2, 40), 0.3)).to_event(1))
    with pytest.raises(
        NotImplementedError, match=r"p: expected a law of vectors of counts or labels .* got LinearPool"
    ):
        mode(many)


def test_classes_are_as_they_are_drawn() -> None:
    probs = torch.tensor([[0.5, 0.1, 0.4], [0.1, 0.2, 0.7]])
    for p, expected in (
        (pm.LinearPool(dist.Categorical(probs), [0.5, 0.5]), torch.tensor(2)),
        (pm.LinearPool(dist.OneHotCategorical(probs), [0.5, 0.5]), torch.tensor([0.0, 0.0, 1.0])),
        (dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Categorical(probs)), torch.tensor(2)),
        (dist.Categorical(probs).to_event(1), torch.tensor([0, 2])),
    ):
        assert torch.equal(mode(p), expected)
        assert mode(p).dtype == expected.dtype


def test_vectors_of_a_mixture_are_climbed_together() -> None:
    """The joint mode is not the marginal ones': two components agree in each entry, none in both."""
    loc = torch.tensor([[0.0, 0.0], [0.0, 4.0], [4.0, 0.3]], dtype=torch.float64)
    scale, weights = torch.tensor([[0.5, 0.5], [0.6, 0.6], [0.6, 0.6]]).double(), doubles(0.3, 0.35, 0.35)
    p = pm.LinearPool(dist.Normal(loc, scale).to_event(1), weights)

    def height(y: Any) -> float:
        return -float(p.log_prob(torch.as_tensor(y, dtype=torch.float64)))

    tops = [scipy.optimize.minimize(height, start.numpy(), tol=1e-12) for start in loc]
    best = min(tops, key=lambda top: top.fun)
    assert mode(p).tolist() == pytest.approx(list(best.x), abs=1e-6)


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "batched"])
def test_vectors_of_a_batch_of_mixtures(listed: bool) -> None:
    loc, factor = 2 * real(4, 6, 3), torch.eye(3, dtype=torch.float64)
    components: Any = dist.MultivariateNormal(loc, scale_tril=factor)
    if listed:
        components = [dist.MultivariateNormal(loc[:, k], scale_tril=factor) for k in range(6)]
    p = pm.LinearPool(components)
    found = mode(p)
    for row in range(4):
        tops = [
            scipy.optimize.minimize(
                lambda y, row=row: -float(pm.rows(p, row).log_prob(torch.as_tensor(y))), start.numpy(), tol=1e-10
            )
            for start in loc[row]
        ]
        best = min(tops, key=lambda top: top.fun)
        assert found[row].tolist() == pytest.approx(list(best.x), abs=1e-4)


def test_positive_vectors_stay_positive() -> None:
    p = pm.LinearPool(dist.Gamma(doubles(3.0, 30.0).unsqueeze(-1), doubles(1.0, 2.0)).to_event(1), [0.4, 0.6])
    grid = torch.cartesian_prod(*[torch.linspace(0.01, 40, 1200, dtype=torch.float64)] * 2)
    top = grid[p.log_prob(grid).argmax()]
    torch.testing.assert_close(mode(p), top, atol=0.05, rtol=0)
    assert (mode(p) > 0).all()


def test_independent_entries_and_transforms_of_them() -> None:
    entries = pm.LinearPool([dist.Normal(real(4, 3), 1.0), dist.Normal(real(4, 3, seed=1), 0.5)])
    expected = mode(entries)
    assert torch.equal(mode(entries.to_event(1).mask(False)), expected)
    moved = dist.TransformedDistribution(entries.to_event(1), [AffineTransform(doubles(1, 2, 3), 2.0, event_dim=1)])
    torch.testing.assert_close(mode(moved), doubles(1, 2, 3) + 2 * expected)
    logit = dist.TransformedDistribution(entries.to_event(1), [SigmoidTransform()])
    torch.testing.assert_close(mode(logit), mode(dist.TransformedDistribution(entries, [SigmoidTransform()])))


def test_of_a_law_with_jumps() -> None:
    base = pm.LinearPool([dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0), dist.Normal(3.0, doubles(0.5, 0.8))])
    p = pm.distributions.RecalibratedDistribution(base, doubles(0.0, 0.5, 0.7, 1.0), doubles(0.0, 0.3, 0.8, 1.0))
    y = torch.linspace(-10, 10, 200_001, dtype=torch.float64).unsqueeze(-1)
    log_p = p.log_prob(y)
    torch.testing.assert_close(p.mode, y[log_p.argmax(0), 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(p.entropy(), -(log_p.exp() * log_p).sum(0) * 1e-4, atol=1e-4, rtol=0)
    moved = pm.distributions.AffineDistribution(dist.Gamma(doubles(3.0), 1.0), 5.0, 2.0)
    assert moved.mode.item() == 9
    assert moved.entropy().item() == pytest.approx(float(pm.entropy(dist.Gamma(doubles(3.0), 0.5))))


def test_counts_that_share_a_total() -> None:
    for p in (
        dist.Multinomial(9, logits=real(5, 3)),
        dist.DirichletMultinomial(1 + real(5, 3).abs(), 9),
        dist.DirichletMultinomial(real(5, 3).abs().clamp(max=0.9), 9),
        dist.DirichletMultinomial(torch.tensor([0.7, 1.4, 3.0]) + 0.2 * real(5, 3), 9),
        dist.DirichletMultinomial(torch.tensor([0.9, 0.6, 1.3]) + 0.05 * real(5, 3), 9),
    ):
        rows = [c for c in itertools.product(range(10), repeat=3) if sum(c) == 9]
        values = torch.tensor(rows, dtype=torch.float64).unsqueeze(1).expand(-1, 5, -1)
        heights = p.log_prob(values)
        torch.testing.assert_close(p.log_prob(mode(p)), heights.amax(0))


def test_of_weighted_draws_the_one_that_most_weight_is_on() -> None:
    draws = torch.tensor([[1.0, 2.0, 1.0, 3.0], [4.0, 5.0, 6.0, 7.0]], dtype=torch.float64)
    weights = torch.tensor([[0.3, 0.4, 0.2, 0.1], [0.1, 0.2, 0.4, 0.3]], dtype=torch.float64)
    assert mode(dist.Empirical(draws, weights.log())).tolist() == [1, 6]
    assert mode(dist.Empirical(torch.stack([draws, -draws], -1), weights.log())).tolist() == [[1, -1], [6, -6]]


def test_two_modes_of_angles() -> None:
    with pytest.warns(UserWarning, match="bimodal"):
        p = dist.SineBivariateVonMises(0.5, -1.0, doubles(1.0, 2.0), doubles(1.5, 2.0), doubles(2.0, -3.0))
    angle = torch.linspace(-math.pi, math.pi, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(angle, angle).unsqueeze(1)
    heights = p.log_prob(grid)
    found = p.log_prob(mode(p))
    assert (found >= heights.amax(0)).all()
    torch.testing.assert_close(found, heights.amax(0), atol=1e-3, rtol=0)


def test_single_precision_and_empty_batches_stay() -> None:
    p = pm.LinearPool([dist.Normal(torch.zeros(3), 1.0), dist.Normal(2.0, 0.5)])
    assert mode(p).dtype == torch.float32
    assert mode(pm.LinearPool([dist.Normal(torch.zeros(0), 1.0)])).shape == (0,)
    assert mode(dist.Normal(torch.zeros(0, 2), 1.0).to_event(1)).shape == (0, 2)


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no distribution": (lambda: mode(1.0), TypeError, "p: expected a torch or Pyro distribution, got float"),
    "no largest value": (
        lambda: mode(dist.Wishart(torch.tensor([2.5, 5.0]), scale_tril=torch.eye(2))),
        ValueError,
        r"p: expected a density with a largest value, got Wishart without at batch index \[0\]",
    ),
    "correlations at the end": (
        lambda: mode(dist.LKJCholesky(3, torch.tensor(0.5))),
        ValueError,
        "p: expected a density with a largest value, got LKJCholesky without",
    ),
    "NaN": (
        lambda: mode(dist.Normal(torch.tensor([0.0, math.nan]), 1.0, validate_args=False)),
        ValueError,
        r"p: expected a density with a largest value, got Normal without at batch index \[1\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_has_none_is_named(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_the_mode_of_points_is_the_one_of_most_mass() -> None:
    p = pm.LinearPool([dist.Delta(torch.tensor(0.0)), dist.Delta(torch.tensor(3.0))], [0.2, 0.8])
    assert mode(p) == 3


def test_a_density_flat_in_pieces_has_a_mode_within_the_highest() -> None:
    y = torch.linspace(-1, 1, 50)
    p = pm.IsotonicRecalibration().fit(dist.Uniform(-3 * torch.ones(50), 3.0), y)(dist.Uniform(-3.0, 3.0))
    every = torch.linspace(-3, 3, 1001)[1:-1]
    assert p.log_prob(mode(p)) >= p.log_prob(every).max()


def test_inference_mode_has_modes() -> None:
    with torch.inference_mode():
        p = pm.LinearPool([dist.Normal(0.0, 1.0), dist.Normal(3.0, 0.5)], [0.25, 0.75])
        assert mode(p) == pytest.approx(2.9986062)


def test_classes_of_no_probability_have_no_mode() -> None:
    p = dist.Categorical(logits=torch.tensor([math.nan, 0.0]), validate_args=False)
    with pytest.raises(ValueError, match="p: expected probabilities of classes, got NaN from Categorical"):
        mode(p)
