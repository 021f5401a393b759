"""Mixing coefficients: the Beta sampler has the right law at any concentration; bad densities are refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
import torch

from pyro_probmix.mixing.coefficients import LogSpaceBeta, as_coefficient

NAN, INF = float("nan"), float("inf")
ALPHAS = [1e-4, 1e-3, 1e-2, 0.2, 1.0, 10.0, 1e4]
PAIRS = [(1e-4, 1e-2), (1e-2, 1e-4), (0.1, 1e4), (2.0, 0.5), (30.0, 1.0)]
CONCENTRATIONS = [(a, a) for a in ALPHAS] + PAIRS
DTYPES = [torch.float32, torch.float64]


def log_odds_cdf(t: np.ndarray, a1: float, a0: float) -> np.ndarray:
    """P(log λ - log(1 - λ) <= t); beyond |t| = 30 the leading term of the tail, exact to 1e-9 there."""
    core = scipy.stats.beta.cdf(scipy.special.expit(t), a1, a0)
    low = np.exp(a1 * t - np.log(a1) - scipy.special.betaln(a1, a0))
    high = 1 - np.exp(-a0 * t - np.log(a0) - scipy.special.betaln(a1, a0))
    return np.where(t < -30, low, np.where(t > 30, high, core))


# Law


@pytest.mark.faults("draws at tiny concentration")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("a1", "a0"), CONCENTRATIONS)
def test_law_of_the_log_odds(a1: float, a0: float, dtype: torch.dtype) -> None:
    beta = LogSpaceBeta(torch.tensor(a1, dtype=dtype), torch.tensor(a0, dtype=dtype))
    draws = beta.rsample_log_odds((20_000,))
    assert draws.dtype == dtype
    assert torch.isfinite(draws).all()
    with np.errstate(over="ignore"):  # the branch of the tail that is not taken
        fit = scipy.stats.kstest(draws.double().numpy(), log_odds_cdf, (a1, a0))
    assert fit.pvalue > 1e-6


def assert_binned_law(beta: LogSpaceBeta, edges: list[float], rounding: float = 0.0) -> None:
    """Check that each bin's count is binomial around its exact mass, give or take what rounding moves."""
    draws = beta.sample((20_000,))
    assert draws.dtype == beta.concentration1.dtype
    assert ((draws >= 0) & (draws <= 1)).all()
    a1, a0 = beta.concentration1.item(), beta.concentration0.item()
    counts = np.histogram(draws.double().numpy(), [0, *edges, 1])[0]
    masses = np.diff([0, *scipy.stats.beta.cdf(edges, a1, a0), 1]).clip(0, 1)
    slack = rounding * masses * len(draws)
    too_many = scipy.stats.binom.sf(counts - 1 - slack, len(draws), masses)
    too_few = scipy.stats.binom.cdf(counts + slack, len(draws), masses)
    assert np.minimum(too_many, too_few).min() > 1e-7, (counts, masses * len(draws))


@pytest.mark.faults("draws at tiny concentration")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("a1", "a0"), CONCENTRATIONS)
def test_law_of_the_coefficient(a1: float, a0: float, dtype: torch.dtype) -> None:
    beta = LogSpaceBeta(torch.tensor(a1, dtype=dtype), torch.tensor(a0, dtype=dtype))
    assert_binned_law(beta, [0.05, 0.4, 0.6, 0.95] if max(a1, a0) < 1e3 else [a1 / (a1 + a0)])


@pytest.mark.faults("draws at tiny concentration")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("alpha", [1e-4, 1e-2, 0.2, 1.0, 10.0])
def test_law_in_half_precision(alpha: float, dtype: torch.dtype) -> None:
    concentration = torch.tensor(alpha, dtype=dtype)
    assert_binned_law(LogSpaceBeta(concentration, concentration), [0.05, 0.4, 0.6, 0.95], rounding=0.01)


@pytest.mark.faults("draws at tiny concentration")
@pytest.mark.parametrize("alpha", [1e-4, 1e-3])
def test_small_concentrations_leave_the_middle_empty(alpha: float) -> None:
    middle = as_coefficient(dist.Beta(alpha, alpha)).sample((20_000,)).sub(0.5).abs() < 0.1
    chance = np.diff(scipy.stats.beta.cdf([0.4, 0.6], alpha, alpha)).item()  # 4e-5 and 4e-4
    assert scipy.stats.binom.sf(int(middle.sum()) - 1, 20_000, chance) > 1e-6


def test_batch_elements_have_their_own_laws() -> None:
    beta = LogSpaceBeta(torch.tensor([1.0, 8.0, 1.0]), torch.tensor([8.0, 1.0, 1.0]))
    draws = beta.sample((4000,))
    error = (draws.mean(0) - beta.mean).abs() / (beta.variance / 4000).sqrt()
    assert (error < 5.5).all()
    correlations = np.corrcoef(draws.numpy(), rowvar=False) - np.eye(3)
    assert np.abs(correlations).max() < 5.5 / 4000**0.5


# Gradients


@pytest.mark.parametrize(("a1", "a0"), [(0.05, 0.05), (0.2, 0.5), (1.0, 1.0), (7.0, 2.0)])
def test_gradients_of_expectations(a1: float, a0: float) -> None:
    # ∂E[λ]/∂a₁ = a₀/(a₀+a₁)², ∂E[log odds]/∂a₁ = ψ'(a₁); one copy of a₁ per draw gives the gradient of each.
    size = 20_000
    first, second = (torch.full((size,), a, dtype=torch.float64, requires_grad=True) for a in (a1, a0))
    beta = LogSpaceBeta(first, second)
    expected = {
        beta.rsample: (a0 / (a0 + a1) ** 2, -a1 / (a0 + a1) ** 2),
        beta.rsample_log_odds: (scipy.special.polygamma(1, a1), -scipy.special.polygamma(1, a0)),
    }
    for draw, gradients in expected.items():
        for got, mean in zip(torch.autograd.grad(draw().sum(), (first, second)), gradients, strict=True):
            assert abs(got.mean().item() - mean) < 5.5 * got.std().item() / size**0.5


@pytest.mark.faults("huge concentration")
@pytest.mark.parametrize("alpha", [1e-4, 2.0**16, 1e5])
def test_gradients_are_finite_at_extreme_concentrations(alpha: float) -> None:
    concentration = torch.tensor(alpha, requires_grad=True)
    draws = LogSpaceBeta(concentration, concentration.detach()).rsample((1000,))
    (gradient,) = torch.autograd.grad(draws.sum(), concentration)
    assert torch.isfinite(gradient)


def test_sample_carries_no_gradient() -> None:
    assert not LogSpaceBeta(torch.ones(2, requires_grad=True), torch.ones(2)).sample().requires_grad


# An ordinary Pyro distribution


@pytest.mark.faults("validation lost on the way")
@pytest.mark.parametrize("validate_args", [False, True])
def test_expand_keeps_class_and_validation(validate_args: bool) -> None:
    beta = LogSpaceBeta(torch.tensor(0.2), torch.tensor([[0.3], [0.4]]), validate_args=validate_args)
    assert beta.batch_shape == (2, 1)
    expanded = beta.expand([3, 2, 5])
    assert type(expanded) is LogSpaceBeta
    assert expanded._validate_args == validate_args
    assert expanded.sample((4,)).shape == (4, 3, 2, 5)
    assert (expanded.sample()[0, 0] != expanded.sample()[0, 0]).all()
    assert beta.expand_by([3]).mask(False).to_event(1).sample().shape == (3, 2, 1)


def test_density_is_the_beta_density() -> None:
    value = torch.linspace(0.1, 0.9, 5)
    ours, plain = LogSpaceBeta(torch.tensor(0.2), torch.tensor(0.7)), dist.Beta(0.2, 0.7)
    torch.testing.assert_close(ours.log_prob(value), plain.log_prob(value), rtol=0, atol=0)
    assert ours.mean == plain.mean


@pytest.mark.faults("copies and transforms")
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies(duplicate: Callable[[LogSpaceBeta], LogSpaceBeta]) -> None:
    beta = LogSpaceBeta(torch.tensor(0.2), torch.tensor(0.7))
    torch.manual_seed(0)
    draw = beta.sample((3,))
    torch.manual_seed(0)
    assert torch.equal(duplicate(beta).sample((3,)), draw)


def test_the_random_state_decides() -> None:
    beta = as_coefficient(dist.Beta(0.2, 0.2))
    torch.manual_seed(4)
    first, second = beta.sample((5,)), beta.sample((5,))
    torch.manual_seed(4)
    assert torch.equal(beta.sample((5,)), first)
    assert not torch.equal(first, second)


@pytest.mark.faults("copies and transforms")
@pytest.mark.parametrize("alpha", [1e-3, 0.2])
def test_vmap(alpha: float) -> None:
    # Both with a concentration shared by all replicas and with one each.
    shared = LogSpaceBeta(torch.tensor(alpha), torch.tensor(alpha))

    def draw(concentration: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own = LogSpaceBeta(concentration, concentration, validate_args=False)
        return shared.rsample_log_odds((2000,)), own.rsample_log_odds((2000,))

    for draws in torch.func.vmap(draw, randomness="different")(torch.full((3,), alpha)):
        assert draws.shape == (3, 2000)
        assert len(draws.unique()) > 5900
        fit = scipy.stats.kstest(draws.flatten().double().numpy(), log_odds_cdf, (alpha, alpha))
        assert fit.pvalue > 1e-6


@pytest.mark.faults("copies and transforms")
def test_compile_without_a_graph_break() -> None:
    beta = as_coefficient(dist.Beta(0.2, 0.2)).expand([2000])
    with pyro.validation_enabled(False):  # the compiler itself switches off PyTorch's
        draws = torch.compile(lambda: beta.sample(), fullgraph=True, backend="aot_eager")()
    assert scipy.stats.kstest(draws.double().numpy(), scipy.stats.beta(0.2, 0.2).cdf).pvalue > 1e-6


@pytest.mark.faults("a device lacks an operation")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_law_on_a_gpu() -> None:
    for a1, a0 in CONCENTRATIONS:
        beta = LogSpaceBeta(torch.tensor(a1, device="cuda"), torch.tensor(a0, device="cuda"))
        draws = beta.rsample_log_odds((20_000,)).cpu().double().numpy()
        with np.errstate(over="ignore"):
            assert scipy.stats.kstest(draws, log_odds_cdf, (a1, a0)).pvalue > 1e-6, (a1, a0)


# as_coefficient


def test_beta_becomes_log_space_beta() -> None:
    for beta in (dist.Beta, torch.distributions.Beta):
        coefficient = as_coefficient(beta(torch.tensor(0.2), torch.tensor([0.3, 0.4]), validate_args=False))
        assert type(coefficient) is LogSpaceBeta
        assert coefficient._validate_args is False
        assert coefficient.batch_shape == (2,)
        torch.testing.assert_close(coefficient.concentration0, torch.tensor([0.3, 0.4]))
        assert as_coefficient(coefficient) is coefficient
    assert type(as_coefficient(dist.Beta(0.2, 0.2).mask(False))) is LogSpaceBeta


GOOD = {
    "Delta": lambda: dist.Delta(torch.tensor([0.0, 0.5, 1.0])),
    "Uniform": lambda: dist.Uniform(0.25, 0.75),
    "Uniform of torch": lambda: torch.distributions.Uniform(0.0, 1.0),
    "Bernoulli": lambda: dist.Bernoulli(0.5),
    "Kumaraswamy": lambda: dist.Kumaraswamy(torch.tensor(0.5), torch.tensor(2.0)),
    "logistic of a Normal": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0), [dist.transforms.SigmoidTransform()]
    ),
    "mixture": lambda: dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.Uniform(torch.tensor([0.0, 0.5]), torch.tensor([0.1, 1.0]))
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_other_densities_are_kept(case: str) -> None:
    given = GOOD[case]()
    coefficient = as_coefficient(given)
    if case == "Uniform of torch":
        assert coefficient.mask(False).sample((3,)).shape == (3,)  # what Pyro asks of a distribution
    else:
        assert coefficient is given
    draws = coefficient.sample((100,))
    assert ((draws >= 0) & (draws <= 1)).all()


def unvalidated_beta(a1: float | list[float], a0: float) -> dist.Beta:
    return dist.Beta(torch.tensor(a1), torch.tensor(a0), validate_args=False)


POSITIVE = "expected a positive, finite"
BAD = {
    "a number": (lambda: 0.3, TypeError, "expected a distribution, .*got float"),
    "zero": (lambda: unvalidated_beta(0.0, 1.0), ValueError, f"{POSITIVE} concentration1, got 0.0"),
    "negative": (lambda: unvalidated_beta(1.0, -1.0), ValueError, f"{POSITIVE} concentration0, got -1"),
    "NaN": (lambda: unvalidated_beta(NAN, 1.0), ValueError, f"{POSITIVE} concentration1, got nan"),
    "infinite": (lambda: unvalidated_beta(1.0, INF), ValueError, f"{POSITIVE} concentration0, got inf"),
    "one of many": (
        lambda: unvalidated_beta([1.0, 0.0], 1.0),
        ValueError,
        f"{POSITIVE} concentration1, got 0.0",
    ),
    "masked": (
        lambda: unvalidated_beta(0.0, 1.0).mask(False),
        ValueError,
        f"{POSITIVE} concentration1, got 0.0",
    ),
    "Delta above": (lambda: dist.Delta(torch.tensor(1.5)), ValueError, r"got Delta on \[1.5, 1.5\]"),
    "Delta below": (lambda: dist.Delta(torch.tensor([0.5, -0.5])), ValueError, r"got Delta on \[-0.5, 0.5\]"),
    "Delta at NaN": (lambda: dist.Delta(torch.tensor(NAN)), ValueError, r"got Delta on \[nan, nan\]"),
    "wide": (lambda: dist.Uniform(0.0, torch.tensor([1.0, 2.0])), ValueError, r"got Uniform on \[0.0, 2.0\]"),
    "Normal": (lambda: dist.Normal(0.0, 1.0), ValueError, r"got Normal on \[-inf, inf\]"),
    "Gamma": (lambda: dist.Gamma(1.0, 1.0), ValueError, r"got Gamma on \[0.0, inf\]"),
    "Categorical": (lambda: dist.Categorical(torch.ones(2)), ValueError, "got Categorical, whose support is"),
    "Dirichlet": (
        lambda: dist.Dirichlet(torch.ones(2)),
        ValueError,
        r"got Dirichlet with event shape \(2,\)",
    ),
    "vector": (
        lambda: dist.Beta(torch.ones(2), 1.0).to_event(1),
        ValueError,
        r"got Independent .*shape \(2,\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_densities_are_refused(case: str) -> None:
    make, error, message = BAD[case]
    with pytest.raises(error, match=f"^coefficient: .*{message}"):
        as_coefficient(make())


def test_nothing_random_is_drawn_by_the_check() -> None:
    before = torch.get_rng_state()
    for make in GOOD.values():
        as_coefficient(make())
    as_coefficient(dist.Beta(0.2, 0.2))
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_parts_are_refused() -> None:
    beta = LogSpaceBeta(torch.tensor(0.2), torch.tensor(0.2))
    with pytest.raises(ValueError, match=r"gamma: expected shape \(\.\.\., 2\), got \(5, 3\)"):
        beta.from_parts(torch.ones(5, 3), torch.rand(5, 3))
    with pytest.raises(ValueError, match=r"uniform: expected the shape of gamma, \(5, 2\), got \(4, 1, 2\)"):
        beta.from_parts(torch.ones(5, 2), torch.rand(4, 1, 2))
