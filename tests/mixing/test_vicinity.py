"""Vicinity kernels and their fusion (eq. 14): laws, and expectations without sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix import DiracVicinity, LabelVicinity, LogLinearPool, NormalVicinity, linear_pool
from pyro_probmix.distributions import log_linear_pool
from pyro_probmix.mixing import Vicinity, default_vicinity
from tests.cases import CASES, NAMES, unmasked

CLASSES = 3
FUSIONS = ["linear", "log-linear"]
COEFFICIENT = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0], dtype=torch.float64)
SIZE = len(COEFFICIENT)


def normals(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


# The fused density is the pool of the two kernels.


@pytest.mark.parametrize("event_dim", [0, 1])
def test_log_linear_normal_kernels(event_dim: int) -> None:
    """N(m, β) whatever λ: the variance is not that of an average."""
    y, partner_y = normals(SIZE, 2)[:, : 1 + event_dim], normals(SIZE, 2)[:, : 1 + event_dim]
    if event_dim == 0:
        y, partner_y = y[:, 0], partner_y[:, 0]
    support = constraints.independent(constraints.real, event_dim)
    fused = NormalVicinity(0.3).fused(y, partner_y, COEFFICIENT, support)
    kernels = [dist.Normal(label, 0.3**0.5).to_event(event_dim) for label in (y, partner_y)]
    pool = LogLinearPool(kernels, [COEFFICIENT, 1 - COEFFICIENT])
    value = normals(4, *y.shape)
    torch.testing.assert_close(fused.log_prob(value), pool.log_prob(value), rtol=1e-12, atol=1e-12)
    weight = COEFFICIENT[:, None] if event_dim else COEFFICIENT
    torch.testing.assert_close(fused.mean, weight * y + (1 - weight) * partner_y)
    torch.testing.assert_close(fused.variance, torch.full_like(y, 0.3))


def test_linear_normal_kernels() -> None:
    y, partner_y = normals(SIZE), normals(SIZE)
    fused = NormalVicinity(0.3, fusion="linear").fused(y, partner_y, COEFFICIENT)
    value = normals(4, SIZE)
    densities = (scipy.stats.norm(label.numpy(), 0.3**0.5).pdf(value.numpy()) for label in (y, partner_y))
    ours, theirs = densities
    expected = COEFFICIENT.numpy() * ours + (1 - COEFFICIENT.numpy()) * theirs
    np.testing.assert_allclose(fused.log_prob(value).exp(), expected, rtol=1e-12)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_normal_draws(fusion: Any) -> None:
    fused = NormalVicinity(0.3, fusion).fused(*torch.tensor([[0.0], [2.0]]), torch.tensor([0.25]))
    draws = fused.sample((4000,)).squeeze(-1).double()
    if fusion == "log-linear":
        cdf = scipy.stats.norm(1.5, 0.3**0.5).cdf
    else:
        cdf = lambda v: sum(  # noqa: E731
            w * scipy.stats.norm(m, 0.3**0.5).cdf(v) for w, m in ((0.25, 0), (0.75, 2))
        )
    assert scipy.stats.kstest(draws.numpy(), cdf).pvalue > 1e-6


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("beta", [1e-3, 0.4])
def test_label_kernels(fusion: Any, beta: float) -> None:
    """s(k|y) ∝ 1[y = k] + β, pooled class by class."""
    y, partner_y = torch.tensor([0, 1, 2, 2, 0]), torch.tensor([0, 2, 1, 2, 1])
    kernels = [(np.eye(CLASSES)[label.numpy()] + beta) / (1 + CLASSES * beta) for label in (y, partner_y)]
    weight = COEFFICIENT.numpy()[:, None]
    if fusion == "linear":
        expected = weight * kernels[0] + (1 - weight) * kernels[1]
    else:
        expected = kernels[0] ** weight * kernels[1] ** (1 - weight)
        expected /= expected.sum(-1, keepdims=True)
    vicinity = LabelVicinity(beta, CLASSES, fusion)
    support = constraints.integer_interval(0, CLASSES - 1)
    np.testing.assert_allclose(vicinity.probabilities(y, partner_y, COEFFICIENT), expected, rtol=1e-12)
    np.testing.assert_allclose(vicinity.fused(y, partner_y, COEFFICIENT, support).probs, expected, rtol=1e-12)
    # The same labels as one-hot vectors.
    vectors = [torch.eye(CLASSES)[label] for label in (y, partner_y)]
    one_hot = vicinity.fused(*vectors, COEFFICIENT, constraints.one_hot)
    assert one_hot.event_shape == (CLASSES,)
    np.testing.assert_allclose(one_hot.probs, expected, rtol=1e-12)


def test_log_linear_label_kernels_at_a_tiny_beta() -> None:
    """β below the smallest number of the dtype: almost all mass on the two labels, and no NaN."""
    y, partner_y = torch.tensor([0, 0]), torch.tensor([1, 0])
    for beta in (1e-50, 5e-324):
        probabilities = LabelVicinity(beta, 3, "log-linear").probabilities(y, partner_y, torch.tensor([0.5, 0.25]))
        torch.testing.assert_close(probabilities, torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))


def test_integers_in_a_row_are_not_taken_for_a_one_hot_vector() -> None:
    """Three labels of three classes, and two binary ones: as many numbers in a row as classes."""
    y, partner_y = torch.tensor([[1, 0, 0]]), torch.tensor([[2, 2, 0]])
    fused = LabelVicinity(0.0, 3).fused(
        y, partner_y, torch.tensor([0.25]), constraints.independent(constraints.integer_interval(0, 2), 1)
    )
    assert (fused.batch_shape, fused.event_shape) == ((1,), (3,))
    expected = torch.tensor([[[0.0, 0.25, 0.75], [0.25, 0.0, 0.75], [1.0, 0.0, 0.0]]])
    torch.testing.assert_close(fused.base_dist.probs, expected)
    binary = LabelVicinity(0.0, 2).fused(
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[1.0, 1.0]]),
        torch.tensor([0.25]),
        constraints.independent(constraints.boolean, 1),
    )
    torch.testing.assert_close(binary.base_dist.probs[..., 1], torch.tensor([[1.0, 0.75]]))


@pytest.mark.parametrize("event_dim", [0, 1])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_dirac(fusion: Any, event_dim: int) -> None:
    support = constraints.independent(constraints.real, event_dim)
    shape = (SIZE, 2)[: 1 + event_dim]
    y, partner_y = normals(*shape), normals(*shape)
    draws = DiracVicinity(fusion).fused(y, partner_y, COEFFICIENT, support).sample((2000,))
    weight = COEFFICIENT[:, None] if event_dim else COEFFICIENT
    if fusion == "log-linear":
        torch.testing.assert_close(draws, (weight * y + (1 - weight) * partner_y).expand(draws.shape))
        return
    ours, theirs = ((draws == label).reshape(2000, SIZE, -1).all(-1) for label in (y, partner_y))
    assert bool((ours ^ theirs).all())
    assert bool((ours.double().mean(0) - COEFFICIENT).abs().max() < 5 * (0.25 / 2000) ** 0.5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_many_coefficients_a_pair(fusion: Any) -> None:
    """K samples of λ: shape (K, B) against labels of shape (B,)."""
    coefficient = torch.rand(7, SIZE, dtype=torch.float64)
    y, partner_y = normals(SIZE), normals(SIZE)
    for vicinity in (NormalVicinity(0.1, fusion), DiracVicinity(fusion)):
        assert vicinity.fused(y, partner_y, coefficient).sample().shape == (7, SIZE)
    labels = torch.randint(CLASSES, (2, SIZE))
    support = constraints.integer_interval(0, CLASSES - 1)
    fused = LabelVicinity(0.1, CLASSES, fusion).fused(*labels, coefficient, support)
    assert fused.sample().shape == (7, SIZE)


# β = 0.


@pytest.mark.parametrize("fusion", FUSIONS)
def test_normal_kernel_without_variance_is_dirac(fusion: Any) -> None:
    y, partner_y = normals(SIZE), normals(SIZE)
    p = dist.Normal(normals(SIZE), 0.7)
    at_zero, dirac = (
        v.expected_log_prob(p, y, partner_y, COEFFICIENT) for v in (NormalVicinity(0.0, fusion), DiracVicinity(fusion))
    )
    assert torch.equal(at_zero, dirac)
    near = NormalVicinity(1e-12, fusion).expected_log_prob(p, y, partner_y, COEFFICIENT)
    torch.testing.assert_close(near, dirac, rtol=1e-10, atol=1e-10)
    if fusion == "log-linear":
        assert NormalVicinity(0.0).fused(y, partner_y, COEFFICIENT).variance.max() == 0


def test_linear_label_kernel_without_beta_is_dirac() -> None:
    """Assumption 4.2: λ log p(yᵢ) + (1 - λ) log p(yⱼ)."""
    y, partner_y = torch.randint(CLASSES, (2, SIZE))
    p = dist.Categorical(logits=normals(SIZE, CLASSES))
    ours = LabelVicinity(0.0, CLASSES).expected_log_prob(p, y, partner_y, COEFFICIENT)
    expected = COEFFICIENT * p.log_prob(y) + (1 - COEFFICIENT) * p.log_prob(partner_y)
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-13)
    dirac = DiracVicinity("linear").expected_log_prob(p, y, partner_y, COEFFICIENT)
    torch.testing.assert_close(dirac, expected, rtol=1e-13, atol=1e-13)


# E[log p(ỹ)] without sampling, for every pair of a vicinity and a likelihood.


def lower_triangle() -> Tensor:
    return torch.tensor([[1.0, 0.0], [0.5, 0.8]], dtype=torch.float64)


def integers(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape)


# name -> the distribution that scores the label, and labels for it
REAL: dict[str, tuple[Callable[[], Any], Callable[[], Tensor]]] = {
    "normal": (lambda: dist.Normal(normals(SIZE), 0.5 + normals(SIZE).square()), lambda: normals(SIZE)),
    "independent": (
        lambda: dist.Normal(normals(SIZE, 2), 0.5 + normals(SIZE, 2).square()).to_event(1),
        lambda: normals(SIZE, 2),
    ),
    "matrix": (
        lambda: dist.Normal(normals(SIZE, 2, 3), 0.5 + normals(SIZE, 2, 3).square()).to_event(2),
        lambda: normals(SIZE, 2, 3),
    ),
    "multivariate": (
        lambda: dist.MultivariateNormal(normals(SIZE, 2), scale_tril=lower_triangle()),
        lambda: normals(SIZE, 2),
    ),
}
CLASS: dict[str, tuple[Callable[[], Any], Callable[[], Tensor]]] = {
    "categorical": (lambda: dist.Categorical(logits=normals(SIZE, 3)), lambda: integers(3, SIZE)),
    "one-hot": (
        lambda: dist.OneHotCategorical(logits=normals(SIZE, 3)),
        lambda: torch.eye(3, dtype=torch.float64)[integers(3, SIZE)],
    ),
    "independent": (
        lambda: dist.Categorical(logits=normals(SIZE, 3, 3)).to_event(1),
        lambda: integers(3, SIZE, 3),
    ),
    "independent one-hot": (
        lambda: dist.OneHotCategorical(logits=normals(SIZE, 2, 3)).to_event(1),
        lambda: torch.eye(3, dtype=torch.float64)[integers(3, SIZE, 2)],
    ),
    "bernoulli": (lambda: dist.Bernoulli(logits=normals(SIZE)), lambda: integers(2, SIZE).double()),
    "bernoullis": (
        lambda: dist.Bernoulli(logits=normals(SIZE, 2)).to_event(1),
        lambda: integers(2, SIZE, 2).double(),
    ),
}
OTHER: dict[str, tuple[Callable[[], Any], Callable[[], Tensor]]] = {
    "gamma": (
        lambda: dist.Gamma(1 + normals(SIZE).square(), 1.0 + normals(SIZE).square()),
        lambda: normals(SIZE).exp(),
    ),
    "student-t": (lambda: dist.StudentT(3.0, normals(SIZE), 1.0), lambda: normals(SIZE)),
}


def gauss_hermite(p: Any, mean: Tensor, beta: float) -> Tensor:
    """E[log p(ỹ)], ỹ ~ N(mean, βI), by quadrature: exact for quadratic log-densities, coordinate by coordinate."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    event_dim = len(p.event_shape)
    flat = mean.flatten(mean.dim() - event_dim) if event_dim else mean.unsqueeze(-1)
    grids = torch.cartesian_prod(*[torch.from_numpy(nodes)] * flat.shape[-1]).reshape(-1, flat.shape[-1])
    grid_weights = torch.cartesian_prod(*[torch.from_numpy(weights)] * flat.shape[-1])
    grid_weights = grid_weights.reshape(-1, flat.shape[-1]).prod(-1)
    values = (flat + beta**0.5 * grids[:, None, :]).reshape(-1, *mean.shape)
    return (p.log_prob(values) * grid_weights[:, None]).sum(0) / grid_weights.sum()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("case", REAL)
def test_normal_vicinity_against_quadrature(case: str, fusion: Any) -> None:
    p, y, partner_y = REAL[case][0](), REAL[case][1](), REAL[case][1]()
    vicinity = NormalVicinity(0.3, fusion)
    weight = COEFFICIENT.reshape((SIZE,) + (1,) * len(p.event_shape))
    if fusion == "log-linear":
        expected = gauss_hermite(p, weight * y + (1 - weight) * partner_y, 0.3)
    else:
        ours, theirs = (gauss_hermite(p, label, 0.3) for label in (y, partner_y))
        expected = COEFFICIENT * ours + (1 - COEFFICIENT) * theirs
    torch.testing.assert_close(
        vicinity.expected_log_prob(p, y, partner_y, COEFFICIENT), expected, rtol=1e-11, atol=1e-11
    )


@pytest.mark.faults("soft label for a hard likelihood")
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("case", CLASS)
def test_label_vicinity_against_summation(case: str, fusion: Any) -> None:
    """Σ over all labels of P(ỹ) log p(ỹ), label by label where a row has several."""
    p, y, partner_y = CLASS[case][0](), CLASS[case][1](), CLASS[case][1]()
    classes = 2 if case.startswith("bernoulli") else CLASSES
    vicinity = LabelVicinity(0.2, classes, fusion)
    fused = vicinity.fused(y, partner_y, COEFFICIENT, p.support)
    base, fused_base = p, fused
    while isinstance(base, torch.distributions.Independent):
        base, fused_base = base.base_dist, fused_base.base_dist
    labels = base.enumerate_support(expand=True)
    probability = fused_base.log_prob(labels.to(y.dtype)).exp()
    expected = (probability * base.log_prob(labels)).sum(0)
    expected = expected.reshape(SIZE, -1).sum(-1)
    torch.testing.assert_close(probability.sum(0), torch.ones_like(probability[0]))
    torch.testing.assert_close(
        vicinity.expected_log_prob(p, y, partner_y, COEFFICIENT), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("case", {**REAL, **OTHER})
def test_dirac_vicinity_against_the_definition(case: str, fusion: Any) -> None:
    make, labels = {**REAL, **OTHER}[case]
    p, y, partner_y = make(), labels(), labels()
    weight = COEFFICIENT.reshape((SIZE,) + (1,) * len(p.event_shape))
    if fusion == "log-linear":
        expected = p.log_prob(weight * y + (1 - weight) * partner_y)
    else:
        expected = COEFFICIENT * p.log_prob(y) + (1 - COEFFICIENT) * p.log_prob(partner_y)
    ours = DiracVicinity(fusion).expected_log_prob(p, y, partner_y, COEFFICIENT)
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.faults("soft label for a hard likelihood")
@pytest.mark.parametrize("fusion", FUSIONS)
def test_expectation_is_that_of_the_draws(fusion: Any) -> None:
    """The sampled and the exact label of one vicinity, at K (λ) by B (pairs)."""
    coefficient = torch.rand(3, SIZE, dtype=torch.float64)
    for vicinity, p, (y, partner_y) in (
        (NormalVicinity(0.3, fusion), dist.Normal(normals(SIZE), 0.7), (normals(SIZE), normals(SIZE))),
        (
            LabelVicinity(0.3, CLASSES, fusion),
            dist.Categorical(logits=normals(SIZE, CLASSES)),
            torch.randint(CLASSES, (2, SIZE)),
        ),
    ):
        draws = p.log_prob(vicinity.fused(y, partner_y, coefficient, p.support).sample((4000,)))
        exact = vicinity.expected_log_prob(p, y, partner_y, coefficient)
        assert exact.shape == (3, SIZE)
        assert bool(((draws.mean(0) - exact).abs() < 5 * draws.std(0) / 4000**0.5 + 1e-12).all())


@pytest.mark.faults("soft label for a hard likelihood")
def test_soft_labels_of_a_one_hot_likelihood() -> None:
    """Class probabilities for labels are scored as such, not as their largest entry."""
    y = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    p = dist.OneHotCategorical(logits=normals(1, 3))
    value = LabelVicinity(0.0, 3).expected_log_prob(p, y, y, torch.tensor([0.4], dtype=torch.float64))
    torch.testing.assert_close(value, (y * p.logits).sum(-1))


# Infinite logits.


@pytest.mark.faults("zero times minus infinity")
@pytest.mark.parametrize("kind", ["categorical", "one-hot", "bernoulli"])
def test_impossible_class_of_probability_zero(kind: str) -> None:
    """A logit of -∞ whose class the label cannot be: nothing of it in the value, nor NaN in any gradient."""
    coefficient = torch.tensor([0.25, 1.0], dtype=torch.float64, requires_grad=True)
    if kind == "bernoulli":
        logits = torch.tensor([math.inf, 0.3], dtype=torch.float64, requires_grad=True)
        p: Any = dist.Bernoulli(logits=logits)
        y, partner_y = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 1.0]).double()
        expected = torch.tensor([0.0, -math.log1p(math.exp(0.3))], dtype=torch.float64)
    else:
        logits = torch.tensor([[0.0, 0.0, -math.inf], [0.0, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
        p = dist.Categorical(logits=logits) if kind == "categorical" else dist.OneHotCategorical(logits=logits)
        y, partner_y = torch.tensor([0, 1]), torch.tensor([1, 2])
        expected = torch.stack([torch.tensor(-math.log(2.0)).double(), logits.detach()[1].log_softmax(-1)[1]])
        if kind == "one-hot":
            y, partner_y = (torch.eye(3, dtype=torch.float64)[label] for label in (y, partner_y))
    value = LabelVicinity(0.0, p.logits.shape[-1] if kind != "bernoulli" else 2).expected_log_prob(
        p, y, partner_y, coefficient
    )
    torch.testing.assert_close(value, expected)
    for gradient in torch.autograd.grad(value.sum(), [logits, coefficient]):
        assert bool(gradient.isfinite().all())


@pytest.mark.faults("zero times minus infinity")
@pytest.mark.parametrize("vicinity", [LabelVicinity(0.0, 3), DiracVicinity("linear")], ids=str)
def test_impossible_label_at_weight_zero(vicinity: Any) -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]] * 2, dtype=torch.float64, requires_grad=True)
    p = dist.Categorical(logits=logits)
    y, partner_y = torch.tensor([0, 2]), torch.tensor([2, 1])
    value = vicinity.expected_log_prob(p, y, partner_y, torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(value, torch.full((2,), -math.log(2.0), dtype=torch.float64))
    assert bool(torch.autograd.grad(value.sum(), logits)[0].isfinite().all())


@pytest.mark.faults("zero times minus infinity")
@pytest.mark.parametrize("vicinity", [LabelVicinity(0.0, 3), DiracVicinity("linear")], ids=str)
def test_impossible_label_of_positive_probability_is_minus_infinity(vicinity: Any) -> None:
    p = dist.Categorical(logits=torch.tensor([[0.0, 0.0, -math.inf]]))
    value = vicinity.expected_log_prob(p, torch.tensor([0]), torch.tensor([2]), torch.tensor([0.5]))
    assert value.tolist() == [-math.inf]


# Gradients, dtypes.


@pytest.mark.faults("dtype drift")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    coefficient = torch.rand(4, dtype=dtype)
    p = dist.Normal(torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype))
    y = torch.randn(4, dtype=dtype)
    assert NormalVicinity(0.1).expected_log_prob(p, y, y.flip(0), coefficient).dtype == dtype
    assert NormalVicinity(0.1).fused(y, y.flip(0), coefficient).sample().dtype == dtype
    q = dist.Categorical(logits=torch.zeros(4, 3, dtype=dtype))
    labels = torch.tensor([0, 1, 2, 0])
    for fusion in FUSIONS:
        value = LabelVicinity(0.1, 3, fusion).expected_log_prob(q, labels, labels.flip(0), coefficient)
        assert value.dtype == dtype


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_of_the_likelihoods_parameters(fusion: Any) -> None:
    y, partner_y = normals(SIZE), normals(SIZE)
    loc, scale = normals(SIZE).requires_grad_(), (0.5 + normals(SIZE).square()).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, s: NormalVicinity(0.3, fusion).expected_log_prob(
            dist.Normal(m, s, validate_args=False), y, partner_y, COEFFICIENT
        ),
        (loc, scale),
    )
    labels = torch.randint(CLASSES, (2, SIZE))
    assert torch.autograd.gradcheck(
        lambda logits: LabelVicinity(0.3, CLASSES, fusion).expected_log_prob(
            dist.Categorical(logits=logits, validate_args=False), *labels, COEFFICIENT
        ),
        (normals(SIZE, CLASSES).requires_grad_(),),
    )


# Of any family.


class Members(Vicinity):
    """Kernels that are members of a family of the registry: all that a vicinity of one's own says is its kernel."""

    def __init__(self, name: str, fusion: Any) -> None:
        super().__init__(fusion)
        self.name = name

    def kernel(self, y: Tensor, support: Any = constraints.real) -> Any:
        return unmasked(CASES[self.name].draw((SIZE,), seed=int(y.flatten()[0])))


def lenient(p: Any) -> Any:
    """The same without checks: a grid has points at the ends."""
    for part in (p, getattr(p, "base_dist", None)):
        if part is not None:
            part._validate_args = False
    return p


def is_closed(name: str) -> bool:
    """Whether the expected log-Jacobian, which not all bijections have, is known."""
    try:
        Members(name, "linear").expected_log_prob(*scored(name))
    except ValueError:
        return False
    return True


def scored(name: str) -> tuple[Any, Tensor, Tensor, Tensor]:
    """A member of a family, labels that its kernels are told from, and λ."""
    return unmasked(CASES[name].draw((SIZE,), seed=2)), torch.zeros(SIZE), torch.ones(SIZE), COEFFICIENT


CLOSED = [name for name in NAMES if is_closed(name)]


def test_most_families_have_exact_labels() -> None:
    assert set(NAMES) - set(CLOSED) <= {"AffineBeta", "LogisticNormal", "logit-Normal"}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.faults("exact labels of few families")
def test_kernels_of_the_likelihoods_own_family_are_exact(name: str, fusion: Any) -> None:
    """Minus the cross-entropy, against quadrature over the whole support."""
    vicinity, case, arguments = Members(name, fusion), CASES[name], scored(name)
    p = lenient(arguments[0])
    kernels = [vicinity.kernel(label) for label in arguments[1:3]]
    if fusion == "log-linear":
        expected = case.expectation(log_linear_pool(kernels, [COEFFICIENT, 1 - COEFFICIENT]), p.log_prob)
    else:
        ours, theirs = (case.expectation(kernel, p.log_prob) for kernel in kernels)
        expected = COEFFICIENT * ours + (1 - COEFFICIENT) * theirs
    value = vicinity.expected_log_prob(*arguments)
    torch.testing.assert_close(value, expected, rtol=1e-7, atol=max(1e-7, 10 * case.precision))


BUILT_IN: dict[str, Any] = {
    "interpolated": DiracVicinity(),
    "one of the two": DiracVicinity("linear"),
    "normal": NormalVicinity(0.3),
    "normals": NormalVicinity(0.3, "linear"),
    "classes": LabelVicinity(0.2, 4),
    "classes, log-linear": LabelVicinity(0.2, 4, "log-linear"),
}
CURVED = {"LKJCholesky", "SineBivariateVonMises", "VonMises"}
QUADRATIC = {"Independent Normal", "LowRankMultivariateNormal", "MultivariateNormal"}
ON_THE_LINE = {"AsymmetricLaplace", "Gumbel", "Laplace", "Normal"}
COUNTS = {"GammaPoisson", "Geometric", "Independent Poisson", "NegativeBinomial", "Poisson"}
COUNTS |= {"ZeroInflatedDistribution", "ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson"}
DISCRETE = {name for name in NAMES if CASES[name].draw((1,)).support.is_discrete}
ACCEPTED = {
    "interpolated": set(NAMES) - DISCRETE - CURVED,
    "one of the two": set(NAMES),
    "normal": QUADRATIC | ON_THE_LINE,
    "normals": QUADRATIC | ON_THE_LINE | {"VonMises"},
    "classes": COUNTS | {"Binomial", "Categorical", "ExtendedBinomial"},
    "classes, log-linear": COUNTS | {"Binomial", "Categorical", "ExtendedBinomial"},
}


def is_accepted(vicinity: Any, p: Any) -> bool:
    try:
        vicinity.check(p)
    except ValueError as error:
        return not str(error).startswith(
            ("vicinity: expected", 'labels: expected "sample" for', "num_classes: expected")
        )
    return True


@pytest.mark.parametrize("kind", BUILT_IN)
@pytest.mark.faults("exact labels of few families")
def test_every_family_has_its_exact_labels_or_is_refused_before_training(kind: str) -> None:
    vicinity = BUILT_IN[kind]
    accepted = {name for name in NAMES if is_accepted(vicinity, unmasked(CASES[name].draw((2,))))}
    assert accepted == ACCEPTED[kind]
    for name in accepted:
        p = lenient(unmasked(CASES[name].draw((SIZE,))))
        y, partner_y = p.sample(), p.sample()
        if kind.startswith("classes"):
            y, partner_y = y.clamp(max=3), partner_y.clamp(max=3)
        value = vicinity.expected_log_prob(p, y, partner_y, COEFFICIENT)
        expected = by_the_definition(vicinity, p, y, partner_y)
        torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-6 if name == "VonMises" else 1e-7, msg=name)


def by_the_definition(vicinity: Any, p: Any, y: Tensor, partner_y: Tensor) -> Tensor:
    """E[log p(ỹ)] by points, sums over classes, and quadrature."""
    weight = COEFFICIENT.reshape((SIZE,) + (1,) * len(p.event_shape))
    if isinstance(vicinity, LabelVicinity):
        kernels = [(torch.eye(4)[label.long()] + 0.2) / 1.8 for label in (y, partner_y)]
        weight = weight.unsqueeze(-1)
        if vicinity.fusion == "linear":
            probabilities = weight * kernels[0] + (1 - weight) * kernels[1]
        else:
            probabilities = kernels[0] ** weight * kernels[1] ** (1 - weight)
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        base = p.base_dist if p.event_shape else p
        log_p = torch.stack([base.log_prob(torch.full(y.shape, k, dtype=torch.float64)) for k in range(4)], -1)
        return (probabilities * log_p).sum(-1).reshape(SIZE, -1).sum(-1)
    if not isinstance(vicinity, NormalVicinity):
        kernel = p.log_prob
    elif p.event_shape:
        kernel = lambda mean: gauss_hermite(p, mean, 0.3)  # noqa: E731
    else:
        z = torch.linspace(-9, 9, 60_001, dtype=torch.float64).unsqueeze(-1)
        mass = (-0.5 * z * z).exp() / (2 * math.pi) ** 0.5 * (z[1] - z[0])
        kernel = lambda mean: (mass * p.log_prob(mean + 0.3**0.5 * z)).sum(0)  # noqa: E731
    if vicinity.fusion == "log-linear":
        return kernel(weight * y + (1 - weight) * partner_y)
    ours, theirs = kernel(y), kernel(partner_y)
    return torch.where(COEFFICIENT == 1, 0, (1 - COEFFICIENT) * theirs) + torch.where(
        COEFFICIENT == 0, 0, COEFFICIENT * ours
    )


class GammaVicinity(Vicinity):
    """A kernel of one's own: mean y, coefficient of variation 1/√shape."""

    def __init__(self, shape: float, fusion: Any = "log-linear") -> None:
        super().__init__(fusion)
        self.shape = shape

    def kernel(self, y: Tensor, support: Any = constraints.real) -> Any:
        return dist.Gamma(torch.full_like(y, self.shape), self.shape / y).to_event(support.event_dim)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("family", [dist.Gamma, dist.LogNormal, dist.InverseGamma, dist.Weibull])
def test_a_vicinity_of_ones_own_scores_what_its_draws_do(family: Any, fusion: Any) -> None:
    y, partner_y = normals(SIZE).exp(), normals(SIZE).exp()
    p, vicinity = family(1 + normals(SIZE).square(), 1 + normals(SIZE).square()), GammaVicinity(4.0, fusion)
    vicinity.check(p)
    draws = p.log_prob(vicinity.fused(y, partner_y, COEFFICIENT, p.support).sample((20_000,)))
    exact = vicinity.expected_log_prob(p, y, partner_y, COEFFICIENT)
    assert bool(((draws.mean(0) - exact).abs() < 5 * draws.std(0) / 20_000**0.5).all())


def test_kernels_are_pooled_beyond_the_unit_interval() -> None:
    """λ of an ExpandedBeta: Gammas of rates r and s are pooled to λ r + (1 − λ) s, expectations are extrapolated."""
    coefficient = torch.tensor([-0.1, 1.2], dtype=torch.float64)
    y, partner_y = torch.tensor([[1.0, 2.0], [1.5, 1.8]], dtype=torch.float64)
    fused = GammaVicinity(4.0).fused(y, partner_y, coefficient, constraints.positive)
    torch.testing.assert_close(fused.rate, coefficient * 4 / y + (1 - coefficient) * 4 / partner_y)
    p = dist.Gamma(torch.tensor([2.0, 3.0], dtype=torch.float64), 1.0)
    linear = GammaVicinity(4.0, "linear")
    expected = sum(
        w * (p.concentration.lgamma() * -1 + (p.concentration - 1) * (label.log() + C4) - label)
        for w, label in ((coefficient, y), (1 - coefficient, partner_y))
    )
    torch.testing.assert_close(linear.expected_log_prob(p, y, partner_y, coefficient), expected)


C4 = torch.digamma(torch.tensor(4.0, dtype=torch.float64)) - math.log(4)  # E[log of a Gamma of shape 4 and mean 1]


# What would go wrong later is refused before.


class Misshapen(Vicinity):
    def kernel(self, y: Tensor, support: Any = constraints.real) -> Any:
        return dist.Normal(y, 1.0)


@pytest.mark.parametrize(
    ("vicinity", "p", "message"),
    [
        (DiracVicinity(), dist.Poisson(torch.ones(2)), r"vicinity: .* discrete, got DiracVicinity.*lie between them"),
        (NormalVicinity(0.1, "linear"), dist.Bernoulli(torch.ones(2)), "vicinity: .* discrete, got NormalVicinity"),
        (
            DiracVicinity(),
            dist.VonMises(torch.ones(2), 1.0),
            r'vicinity: .* curved, .*; use DiracVicinity\(fusion="lin',
        ),
        (NormalVicinity(0.1), dist.VonMises(torch.ones(2), 1.0).to_event(1), "vicinity: .* curved"),
        (DiracVicinity(), dist.LKJCholesky(2, torch.ones(2)), "vicinity: .* curved"),
        (NormalVicinity(0.1), dist.Gamma(torch.ones(2), 1.0), r"vicinity: .*in GreaterThanEq.*leave them.*of Gamma"),
        (NormalVicinity(0.1), dist.Dirichlet(torch.ones(2, 3)), r"vicinity: .*in Simplex.*leave them"),
        (GammaVicinity(4.0), dist.Beta(torch.ones(2), 1.0), r"vicinity: .*in Interval.*leave them"),
        (GammaVicinity(4.0), dist.Pareto(1.0, torch.ones(2)), r"vicinity: .*in GreaterThanEq.*leave them"),
        (LabelVicinity(0.1, 3), dist.Normal(torch.ones(2), 1.0), r"vicinity: .*in Real.*are classes"),
        (LabelVicinity(0.1, 5), dist.Multinomial(4, torch.ones(2, 3)), r"vicinity: .*discrete.*are classes"),
        (LabelVicinity(0.1, 3), dist.Binomial(1, torch.ones(2)), r"vicinity: .*discrete.*lie between them"),
        (LabelVicinity(0.1, 3), dist.Bernoulli(torch.zeros(2)), "num_classes: .* 2 classes, got 3"),
        (
            Misshapen("linear"),
            dist.Normal(torch.ones(2, 3), 1.0).to_event(1),
            r"vicinity: expected a kernel .* batch shape \(2,\) and event shape \(3,\), got \(2, 3\) and \(\)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("labels", ["exact", "sample"])
@pytest.mark.faults("labels between labels")
def test_labels_that_the_likelihood_does_not_have(vicinity: Any, p: Any, message: str, labels: str) -> None:
    with pytest.raises(ValueError, match=message):
        vicinity.check(p, labels)


@pytest.mark.parametrize(
    ("vicinity", "p", "message"),
    [
        (NormalVicinity(0.1), dist.StudentT(3.0, torch.ones(2)), "StudentT is in no exponential family"),
        (NormalVicinity(0.1), dist.StudentT(torch.ones(2, 3)).to_event(1), "StudentT is in no exponential family"),
        (NormalVicinity(0.1), linear_pool(dist.Normal(torch.ones(2, 3), 1.0)), "LinearPool is in no exponential"),
        (NormalVicinity(0.1, "linear"), dist.SineBivariateVonMises(0.0, 0.0, torch.ones(2), 1.0, 0.1), "got Indep"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.faults("exact labels of few families")
def test_what_has_no_exact_value_names_the_draws(vicinity: Any, p: Any, message: str) -> None:
    vicinity.check(p, "sample")
    with pytest.raises(ValueError, match=f'labels: expected "sample" for .*: .*{message}'):
        vicinity.check(p)


def test_a_bad_label_is_not_taken_for_an_unknown_expectation() -> None:
    coefficient, labels = torch.tensor([0.5, 0.5]), torch.tensor([1.0, -3.0])
    for p in (dist.Gamma(torch.ones(2), 1.0), dist.FisherSnedecor(3.0, torch.ones(2))):
        with pytest.raises(ValueError, match="Expected value argument"):
            DiracVicinity().expected_log_prob(p, labels, labels, coefficient)
    with pytest.raises(ValueError, match="Expected parameter rate"):
        GammaVicinity(4.0).expected_log_prob(dist.Gamma(torch.ones(2), 1.0), labels, labels, coefficient)


def test_checks_draw_nothing_and_keep_no_graph() -> None:
    state = torch.get_rng_state()
    rate = torch.ones(2, requires_grad=True)
    NormalVicinity(0.1).check(dist.Normal(rate, 1.0))
    GammaVicinity(4.0).check(dist.Gamma(rate, 1.0))
    assert torch.equal(torch.get_rng_state(), state)
    assert rate.grad is None


# Where none is given.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.faults("labels between labels")
def test_default_is_interpolation_where_that_is_a_label(name: str) -> None:
    p = unmasked(CASES[name].draw((SIZE,)))
    vicinity = default_vicinity(p)
    vicinity.check(p)
    kind = "log-linear" if name not in DISCRETE | CURVED else "linear"
    classes = {"Bernoulli": 2, "Categorical": 4, "Independent Categorical": 3}
    classes |= {"OneHotCategorical": 3, "OneHotCategoricalStraightThrough": 3}
    expected: Any = LabelVicinity(0.0, classes[name]) if name in classes else DiracVicinity(kind)
    assert repr(vicinity) == repr(expected)


@pytest.mark.parametrize("name", ["Categorical", "Bernoulli", "OneHotCategorical", "Independent Categorical"])
def test_default_of_classes_is_either_of_the_two(name: str) -> None:
    """Faster than points, and right for soft labels; the same law."""
    p = CASES[name].draw((SIZE,))
    y, partner_y = p.sample(), p.sample()
    points = DiracVicinity("linear").expected_log_prob(p, y, partner_y, COEFFICIENT)
    value = default_vicinity(p).expected_log_prob(p, y, partner_y, COEFFICIENT)
    torch.testing.assert_close(value, points, rtol=1e-12, atol=1e-12)


@pytest.mark.faults("soft label for a hard likelihood")
def test_soft_binary_labels_are_probabilities() -> None:
    p = dist.Bernoulli(logits=normals(SIZE), validate_args=False)
    y, partner_y = torch.rand(2, SIZE, dtype=torch.float64)
    share = COEFFICIENT * y + (1 - COEFFICIENT) * partner_y
    value = LabelVicinity(0.0, 2).expected_log_prob(p, y, partner_y, COEFFICIENT)
    torch.testing.assert_close(value, share * p.probs.log() + (1 - share) * (-p.probs).log1p())


# Bad input.


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: NormalVicinity(-0.1), ValueError, r"beta: expected a number in \[0, inf\), got -0.1"),
        (lambda: NormalVicinity(math.nan), ValueError, "beta: .*got nan"),
        (lambda: NormalVicinity(math.inf), ValueError, "beta: .*got inf"),
        (lambda: LabelVicinity(-1e-9, 3), ValueError, "beta: .*got -1e-09"),
        (lambda: LabelVicinity(math.nan, 3), ValueError, "beta: .*got nan"),
        (
            lambda: LabelVicinity(0.0, 3, fusion="log-linear"),
            ValueError,
            r'beta: expected beta > 0 with log-linear fusion, got 0.*fusion="linear"',
        ),
        (lambda: LabelVicinity(0.1, 1), ValueError, "num_classes: expected an integer >= 2, got 1"),
        (lambda: LabelVicinity(0.1, 0), ValueError, "num_classes: expected an integer >= 2, got 0"),
        (lambda: LabelVicinity(0.1, 2.0), TypeError, "num_classes: expected an integer >= 2, got 2.0"),
        (
            lambda: NormalVicinity(0.1, fusion="log"),
            ValueError,
            'fusion: expected one of "linear", "log-linear", got "log"',
        ),
        (lambda: LabelVicinity(0.1, 3, fusion="loglinear"), ValueError, "fusion: expected"),
        (lambda: DiracVicinity("mean"), ValueError, "fusion: expected"),
    ],
)
def test_bad_arguments(build: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_representation_is_the_call_that_builds_it() -> None:
    for text in (
        'DiracVicinity(fusion="linear")',
        'NormalVicinity(0.01, fusion="log-linear")',
        'LabelVicinity(0.1, 3, fusion="linear")',
    ):
        assert repr(eval(text)) == text


@pytest.mark.parametrize("fusion", FUSIONS)
def test_normal_kernels_about_integers(fusion: Any) -> None:
    """The kernel's scale is no integer."""
    y, partner_y = torch.randint(9, (2, SIZE))
    vicinity = NormalVicinity(0.3, fusion)
    ours, expected = (
        vicinity.fused(y, partner_y, COEFFICIENT),
        vicinity.fused(y.float(), partner_y.float(), COEFFICIENT),
    )
    torch.testing.assert_close(ours.variance, expected.variance)
    torch.testing.assert_close(ours.log_prob(torch.zeros(SIZE)), expected.log_prob(torch.zeros(SIZE)))
    assert ours.sample().is_floating_point()


def test_smoothing_of_no_classes() -> None:
    with pytest.raises(ValueError, match="num_classes: expected an integer >= 2, got 0"):
        LabelVicinity.smoothing(0.1, 0)
