"""Likelihoods: every family of one table against SciPy, in its domain at extremes, in any shape and dtype."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.special as sp
import scipy.stats as st
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints
from torch.func import functional_call, stack_module_state, vmap

from pyro_probmix.nn import CategoricalLikelihood, DistributionLikelihood, Likelihood, NormalLikelihood

FLOOR = 1e-6


def above_zero(raw: Any) -> Any:
    return np.logaddexp(0.0, raw) + FLOOR


def lower_triangle(raw: np.ndarray, size: int) -> np.ndarray:
    factor = np.diag(above_zero(raw[:size]))
    factor[np.tril_indices(size, -1)] = raw[size:]
    return factor


@dataclass
class Row:
    """A likelihood, what it predicts, one y, and SciPy's log p(y) at one vector of raw outputs."""

    family: type
    predicted: tuple[str, ...]
    num_outputs: int
    y: Any
    log_prob: Callable[[np.ndarray], Any]
    options: dict[str, Any] = field(default_factory=dict)
    rtol: float = 1e-9

    def make(self, **more: Any) -> DistributionLikelihood:
        return DistributionLikelihood(self.family, **{**self.options, **more})

    def values(self, num: int, dtype: torch.dtype = torch.float64) -> Tensor:
        y = torch.from_numpy(np.asarray(self.y))
        return (y.to(dtype) if y.is_floating_point() else y).expand(num, *y.shape)


ROWS = {
    "Normal": Row(dist.Normal, ("loc", "scale"), 2, 0.7, lambda r: st.norm.logpdf(0.7, r[0], above_zero(r[1]))),
    "Normal, torch class, three outputs": Row(
        torch.distributions.Normal,
        ("loc", "scale"),
        6,
        [0.7, -0.1, 1.3],
        lambda r: st.norm.logpdf([0.7, -0.1, 1.3], r[:3], above_zero(r[3:])).sum(),
        {"event_shape": 3},
    ),
    "Normal, matrix, known scale": Row(
        dist.Normal,
        ("loc",),
        4,
        [[0.7, -0.1], [1.3, 0.0]],
        lambda r: st.norm.logpdf([0.7, -0.1, 1.3, 0.0], r, [0.5, 2.0, 0.5, 2.0]).sum(),
        {"event_shape": (2, 2), "scale": torch.tensor([0.5, 2.0])},
    ),
    "MultivariateNormal": Row(
        dist.MultivariateNormal,
        ("loc", "scale_tril"),
        9,
        [0.7, -0.1, 1.3],
        lambda r: st.multivariate_normal.logpdf(
            [0.7, -0.1, 1.3], r[:3], lower_triangle(r[3:], 3) @ lower_triangle(r[3:], 3).T
        ),
        {"event_shape": 3},
    ),
    "MultivariateNormal of one": Row(
        dist.MultivariateNormal,
        ("loc", "scale_tril"),
        2,
        [0.7],
        lambda r: st.norm.logpdf(0.7, r[0], above_zero(r[1])),
        {"event_shape": 1},
    ),
    "MultivariateStudentT": Row(
        dist.MultivariateStudentT,
        ("df", "loc", "scale_tril"),
        6,
        [0.7, -0.1],
        lambda r: st.multivariate_t.logpdf(
            [0.7, -0.1], r[1:3], lower_triangle(r[3:], 2) @ lower_triangle(r[3:], 2).T, df=above_zero(r[0])
        ),
        {"event_shape": 2},
    ),
    "LogNormal": Row(
        dist.LogNormal,
        ("loc", "scale"),
        2,
        0.7,
        lambda r: st.lognorm.logpdf(0.7, above_zero(r[1]), scale=np.exp(r[0])),
    ),
    "StudentT": Row(
        dist.StudentT,
        ("df", "loc", "scale"),
        3,
        0.7,
        lambda r: st.t.logpdf(0.7, above_zero(r[0]), r[1], above_zero(r[2])),
    ),
    "StudentT, known df": Row(
        dist.StudentT,
        ("loc", "scale"),
        2,
        0.7,
        lambda r: st.t.logpdf(0.7, 4.0, r[0], above_zero(r[1])),
        {"df": 4.0},
    ),
    "Laplace": Row(dist.Laplace, ("loc", "scale"), 2, 0.7, lambda r: st.laplace.logpdf(0.7, r[0], above_zero(r[1]))),
    "VonMises": Row(
        dist.VonMises,
        ("loc", "concentration"),
        2,
        0.7,
        lambda r: st.vonmises.logpdf(0.7, above_zero(r[1]), r[0]),
        rtol=1e-6,  # torch's Bessel function is a single precision approximation
    ),
    "Exponential": Row(dist.Exponential, ("rate",), 1, 0.7, lambda r: st.expon.logpdf(0.7, scale=1 / above_zero(r[0]))),
    "Gamma": Row(
        dist.Gamma,
        ("concentration", "rate"),
        2,
        0.7,
        lambda r: st.gamma.logpdf(0.7, above_zero(r[0]), scale=1 / above_zero(r[1])),
    ),
    "Gamma, other order": Row(
        dist.Gamma,
        ("rate", "concentration"),
        2,
        0.7,
        lambda r: st.gamma.logpdf(0.7, above_zero(r[1]), scale=1 / above_zero(r[0])),
        {"parameters": ("rate", "concentration")},
    ),
    "InverseGamma": Row(
        dist.InverseGamma,
        ("concentration", "rate"),
        2,
        0.7,
        lambda r: st.invgamma.logpdf(0.7, above_zero(r[0]), scale=above_zero(r[1])),
    ),
    "Weibull": Row(
        dist.Weibull,
        ("scale", "concentration"),
        2,
        0.7,
        lambda r: st.weibull_min.logpdf(0.7, above_zero(r[1]), scale=above_zero(r[0])),
    ),
    "Pareto, known scale": Row(
        dist.Pareto,
        ("alpha",),
        1,
        0.7,
        lambda r: st.pareto.logpdf(0.7, above_zero(r[0]), scale=0.5),
        {"scale": 0.5},
    ),
    "Beta": Row(
        dist.Beta,
        ("concentration1", "concentration0"),
        2,
        0.7,
        lambda r: st.beta.logpdf(0.7, above_zero(r[0]), above_zero(r[1])),
    ),
    "Dirichlet": Row(
        dist.Dirichlet,
        ("concentration",),
        3,
        [0.5, 0.3, 0.2],
        lambda r: st.dirichlet.logpdf([0.5, 0.3, 0.2], above_zero(r)),
        {"event_shape": 3},
    ),
    "Dirichlet, two": Row(
        dist.Dirichlet,
        ("concentration",),
        6,
        [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]],
        lambda r: (
            st.dirichlet.logpdf([0.5, 0.3, 0.2], above_zero(r[:3]))
            + st.dirichlet.logpdf([0.1, 0.8, 0.1], above_zero(r[3:]))
        ),
        {"event_shape": (2, 3)},
    ),
    "Bernoulli": Row(dist.Bernoulli, ("logits",), 1, 1.0, lambda r: np.log(sp.expit(r[0]))),
    "Bernoulli, probs": Row(
        dist.Bernoulli, ("probs",), 1, 0.0, lambda r: np.log1p(-sp.expit(r[0])), {"parameters": ["probs"]}
    ),
    "Categorical": Row(dist.Categorical, ("logits",), 3, 2, lambda r: sp.log_softmax(r)[2], {"num_classes": 3}),
    "Categorical, two": Row(
        dist.Categorical,
        ("logits",),
        6,
        [2, 0],
        lambda r: sp.log_softmax(r[:3])[2] + sp.log_softmax(r[3:])[0],
        {"num_classes": 3, "event_shape": 2},
    ),
    "OneHotCategorical": Row(
        dist.OneHotCategorical,
        ("logits",),
        3,
        [0.0, 0.0, 1.0],
        lambda r: sp.log_softmax(r)[2],
        {"event_shape": 3},
    ),
    "OneHotCategorical, probs": Row(
        dist.OneHotCategorical,
        ("probs",),
        3,
        [0.0, 0.0, 1.0],
        lambda r: sp.log_softmax(r)[2],
        {"event_shape": 3, "parameters": ["probs"]},
    ),
    "Multinomial": Row(
        dist.Multinomial,
        ("logits",),
        3,
        [2.0, 0.0, 3.0],
        lambda r: st.multinomial.logpmf([2, 0, 3], 5, sp.softmax(r)),
        {"event_shape": 3, "total_count": 5},
    ),
    "Binomial": Row(
        dist.Binomial,
        ("logits",),
        1,
        3.0,
        lambda r: st.binom.logpmf(3, 7, sp.expit(r[0])),
        {"total_count": 7},
    ),
    "Poisson": Row(dist.Poisson, ("rate",), 1, 3.0, lambda r: st.poisson.logpmf(3, above_zero(r[0]))),
    "Geometric": Row(dist.Geometric, ("logits",), 1, 3.0, lambda r: st.geom.logpmf(4, sp.expit(r[0]))),
    "NegativeBinomial, known count": Row(
        dist.NegativeBinomial,
        ("logits",),
        1,
        3.0,
        lambda r: st.nbinom.logpmf(3, 7, sp.expit(-r[0])),
        {"total_count": 7},
    ),
    "NegativeBinomial": Row(
        dist.NegativeBinomial,
        ("total_count", "logits"),
        2,
        3.0,
        lambda r: st.nbinom.logpmf(3, above_zero(r[0]), sp.expit(-r[1])),
    ),
    "ZeroInflatedPoisson": Row(
        dist.ZeroInflatedPoisson,
        ("rate", "gate_logits"),
        2,
        3.0,
        lambda r: st.poisson.logpmf(3, above_zero(r[0])) + np.log(sp.expit(-r[1])),
    ),
}
rows = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
MAKERS: dict[str, Callable[[], Likelihood]] = {
    **{name: row.make for name, row in ROWS.items()},
    "NormalLikelihood": NormalLikelihood,
    "NormalLikelihood, three outputs": lambda: NormalLikelihood(3),
    "NormalLikelihood, matrix": lambda: NormalLikelihood((2, 3)),
    "NormalLikelihood, homoscedastic": lambda: NormalLikelihood(homoscedastic=True),
    "NormalLikelihood, homoscedastic matrix": lambda: NormalLikelihood((2, 3), homoscedastic=True),
    "NormalLikelihood, known scale": lambda: NormalLikelihood((2, 3), scale=0.5),
    "CategoricalLikelihood": lambda: CategoricalLikelihood(3),
}
likelihoods = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def parameters_of(likelihood: Likelihood, p: Any) -> dict[str, Tensor]:
    """Return what the likelihood sets, read from inside Independent."""
    while isinstance(p, dist.Independent):
        p = p.base_dist
    known = {NormalLikelihood: ("loc", "scale"), CategoricalLikelihood: ("logits",)}
    names = known.get(type(likelihood)) or likelihood.parameter_names
    return {name: getattr(p, name) for name in names}


@rows
def test_log_prob_is_that_of_scipy(row: Row) -> None:
    likelihood = row.make()
    assert (likelihood.parameter_names, likelihood.num_outputs) == (row.predicted, row.num_outputs)
    raw = 1.5 * torch.randn(6, row.num_outputs, dtype=torch.float64)
    expected = [float(row.log_prob(r)) for r in raw.numpy()]
    actual = likelihood(raw).log_prob(row.values(6))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=row.rtol, atol=1e-9)


@likelihoods
@pytest.mark.parametrize("leading", [(), (1,), (5,), (2, 5)])
def test_batch_is_the_leading_dimensions(make: Any, leading: tuple[int, ...]) -> None:
    likelihood = make()
    p = likelihood(torch.randn(*leading, likelihood.num_outputs))
    assert tuple(p.batch_shape) == leading
    assert p.event_shape == likelihood.event_shape
    assert isinstance(p, TorchDistributionMixin)


@likelihoods
def test_support_is_that_of_the_distributions(make: Any) -> None:
    likelihood = make()
    p = likelihood(torch.randn(5, likelihood.num_outputs))
    assert str(likelihood.support) == str(make().support)
    assert likelihood.support.event_dim == p.support.event_dim == len(likelihood.event_shape)
    assert likelihood.support.is_discrete == p.support.is_discrete
    y = p.sample((20,))
    assert likelihood.support.check(y).all()
    assert likelihood.support.check(y).shape == (20, 5)


@pytest.mark.faults("dtype drift")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@likelihoods
def test_keeps_dtype(make: Any, dtype: torch.dtype) -> None:
    likelihood = make()
    p = likelihood(torch.randn(5, likelihood.num_outputs, dtype=dtype))
    assert {v.dtype for v in parameters_of(likelihood, p).values()} == {dtype}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@likelihoods
def test_parameters_are_finite_and_valid_at_extreme_outputs(make: Any, dtype: torch.dtype) -> None:
    likelihood = make()
    extremes = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], dtype=dtype)
    raw = extremes[torch.randint(5, (200, likelihood.num_outputs))]
    p = likelihood(torch.cat([raw, extremes.repeat_interleave(likelihood.num_outputs).view(5, -1)]))
    while isinstance(p, dist.Independent):
        p = p.base_dist
    for name, value in parameters_of(likelihood, p).items():
        assert value.isfinite().all()
        assert type(p).arg_constraints[name].check(value).all()


@likelihoods
def test_gradients_are_finite_and_reach_every_output(make: Any) -> None:
    likelihood = make()
    raw = torch.randn(20, likelihood.num_outputs, dtype=torch.float64, requires_grad=True)
    p = likelihood(raw)
    (gradient,) = torch.autograd.grad(p.log_prob(p.sample()).sum(), raw)
    assert gradient.isfinite().all()
    assert (gradient != 0).any(0).all()


@pytest.mark.faults("copies and transforms")
@likelihoods
def test_maps_over_replicas(make: Any) -> None:
    replicas = [make() for _ in range(3)]
    parameters, buffers = stack_module_state(replicas)
    for i, value in enumerate(parameters.values()):
        value.data += torch.randn_like(value) * (i + 1)
    raw = torch.randn(3, 5, replicas[0].num_outputs)

    def predicted(parameters: Any, buffers: Any, raw: Tensor) -> dict[str, Tensor]:
        return parameters_of(replicas[0], functional_call(replicas[0], (parameters, buffers), (raw,)))

    with pyro.validation_enabled(False):
        together = vmap(predicted)(parameters, buffers, raw)
        for i in range(3):
            alone = predicted({k: v[i] for k, v in parameters.items()}, {k: v[i] for k, v in buffers.items()}, raw[i])
            torch.testing.assert_close({name: value[i] for name, value in together.items()}, alone)


@pytest.mark.faults("copies and transforms")
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@likelihoods
def test_copies_compute_the_same(make: Any, copied: Any) -> None:
    likelihood = make()
    again = copied(likelihood)
    raw = torch.randn(5, likelihood.num_outputs)
    y = likelihood(raw).sample()
    assert torch.equal(again(raw).log_prob(y), likelihood(raw).log_prob(y))
    assert repr(again) == repr(likelihood)
    assert str(again.support) == str(likelihood.support)


@likelihoods
def test_refuses_raw_outputs_of_another_size(make: Any) -> None:
    likelihood = make()
    n = likelihood.num_outputs
    for shape in [(5, n + 1), (n, n + 1), ()]:
        message = rf"raw: expected shape \(\.\.\., {n}\), as num_outputs of {type(likelihood).__name__}, got \("
        with pytest.raises(ValueError, match=message):
            likelihood(torch.zeros(shape))


@pytest.mark.faults("random state disturbed")
@likelihoods
def test_construction_draws_no_random_numbers(make: Any) -> None:
    before = torch.get_rng_state()
    make()
    assert torch.equal(torch.get_rng_state(), before)


COMPILED = [
    "NormalLikelihood",
    "CategoricalLikelihood",
    "Normal, matrix, known scale",
    "MultivariateNormal",
    "Beta",
]


@pytest.mark.faults("copies and transforms")
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_a_break(name: str) -> None:
    likelihood = MAKERS[name]()
    raw = torch.randn(5, likelihood.num_outputs)

    def predicted(raw: Tensor) -> dict[str, Tensor]:
        return parameters_of(likelihood, likelihood(raw))

    with pyro.validation_enabled(False):
        compiled = torch.compile(predicted, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(raw), predicted(raw))


@pytest.mark.faults("validation lost on the way")
def test_ambient_validation_is_kept() -> None:
    likelihood = DistributionLikelihood(dist.Gamma)
    bad = torch.full((5, 2), float("nan"))
    with pytest.raises(ValueError, match="concentration"):
        likelihood(bad)
    with pyro.validation_enabled(False):
        assert likelihood(bad).mean.isnan().all()
    unchecked = DistributionLikelihood(dist.Gamma, validate_args=False)
    assert unchecked(bad).mean.isnan().all()


@pytest.mark.parametrize("event_shape", [(), 1, 3, (2, 3)])
def test_normal_likelihood_is_the_general_one(event_shape: Any) -> None:
    polished = NormalLikelihood(event_shape, min_scale=0.01)
    general = DistributionLikelihood(dist.Normal, event_shape, floor=0.01)
    raw = torch.randn(5, general.num_outputs, dtype=torch.float64)
    assert polished.num_outputs == general.num_outputs
    assert polished.event_shape == general.event_shape
    assert str(polished.support) == str(general.support)
    assert torch.equal(polished(raw).mean, general(raw).mean)
    assert torch.equal(polished(raw).stddev, general(raw).stddev)


def test_categorical_likelihood_is_the_general_one() -> None:
    polished, general = CategoricalLikelihood(4), DistributionLikelihood(dist.Categorical, num_classes=4)
    raw = torch.randn(5, 4)
    assert torch.equal(polished(raw).logits, general(raw).logits)
    assert str(polished.support) == str(general.support)


def test_homoscedastic_normal_learns_one_scale_per_output() -> None:
    likelihood = NormalLikelihood(3, homoscedastic=True, min_scale=0.01)
    assert {name: p.shape for name, p in likelihood.named_parameters()} == {"log_scale": (3,)}
    assert likelihood.num_outputs == 3
    scale = torch.tensor([0.1, 1.0, 10.0])
    y = scale * torch.randn(4000, 3)
    optimizer = torch.optim.LBFGS(likelihood.parameters(), max_iter=50)

    def closure() -> float:
        optimizer.zero_grad()
        loss = -likelihood(torch.zeros(4000, 3)).log_prob(y).mean()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    learned = likelihood(torch.zeros(3)).stddev.detach()
    torch.testing.assert_close(learned, y.square().mean(0).sqrt(), rtol=1e-3, atol=0)


def test_normal_with_a_known_scale_has_no_parameters() -> None:
    likelihood = NormalLikelihood(2, scale=0.25)
    assert not list(likelihood.parameters())
    p = likelihood(torch.tensor([[1.0, 2.0]]))
    assert torch.equal(p.mean, torch.tensor([[1.0, 2.0]]))
    assert torch.equal(p.stddev, torch.tensor([[0.25, 0.25]]))


@pytest.mark.faults("tensors on another device")
def test_fixed_tensors_belong_to_the_module() -> None:
    likelihood = DistributionLikelihood(dist.Normal, 2, scale=torch.tensor([0.5, 2.0]))
    assert likelihood.num_outputs == 2
    again = DistributionLikelihood(dist.Normal, 2, scale=torch.ones(2))
    again.load_state_dict(likelihood.state_dict())
    assert torch.equal(again(torch.zeros(2)).stddev, torch.tensor([0.5, 2.0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_fixed_tensors_take_the_dtype_of_the_outputs(dtype: torch.dtype) -> None:
    likelihood = DistributionLikelihood(dist.Normal, 2, scale=torch.tensor([0.5, 2.0]))
    p = likelihood(torch.zeros(2, dtype=dtype))
    assert p.stddev.dtype == p.sample().dtype == dtype


@pytest.mark.faults("validation lost on the way")
def test_fixed_values_are_checked_without_ambient_validation() -> None:
    with pyro.validation_enabled(False), pytest.raises(ValueError, match="df"):
        DistributionLikelihood(dist.StudentT, df=-1.0)


def test_fixing_one_form_of_a_parameter_fixes_the_others() -> None:
    likelihood = DistributionLikelihood(dist.MultivariateNormal, 2, covariance_matrix=torch.eye(2))
    assert likelihood.parameter_names == ("loc",)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"event_shape": 0}, ValueError, "event_shape: expected an integer >= 1, got 0"),
        ({"event_shape": (2, 1.5)}, TypeError, "event_shape: expected an integer >= 1, got 1.5"),
        ({"min_scale": 0.0}, ValueError, r"min_scale: expected a number in \(0, inf\), got 0.0"),
        ({"scale": -1.0}, ValueError, r"scale: expected a number in \(0, inf\), got -1.0"),
        ({"scale": True}, TypeError, r"scale: expected a number in \(0, inf\), got True"),
        ({"scale": "1"}, TypeError, r"scale: expected a number in \(0, inf\), got '1'"),
        ({"scale": 1.0, "homoscedastic": True}, ValueError, "scale: expected None with homoscedastic=True"),
    ],
)
def test_normal_likelihood_refuses(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NormalLikelihood(**options)


def test_categorical_likelihood_refuses_a_single_class() -> None:
    with pytest.raises(ValueError, match="num_classes: expected an integer >= 2, got 1"):
        CategoricalLikelihood(1)


@pytest.mark.parametrize(
    ("family", "options", "error", "message"),
    [
        (torch.nn.ReLU, {}, TypeError, "distribution_class: expected a Pyro distribution class, got <class"),
        (dist.Normal(0.0, 1.0), {}, TypeError, "distribution_class: expected a Pyro .* got Normal"),
        (torch.distributions.Distribution, {}, TypeError, "distribution_class: expected one that Pyro has"),
        (dist.Uniform, {}, ValueError, "distribution_class: expected a family whose .* own, got Uniform"),
        (dist.Delta, {}, ValueError, "distribution_class: expected a family .* dimensions of y, got Delta"),
        (dist.Dirichlet, {}, ValueError, r"event_shape: expected at least 1 dim.* for Dirichlet, got \(\)"),
        (dist.Categorical, {}, TypeError, "num_classes: expected an integer >= 2, got None"),
        (dist.Normal, {"num_classes": 3}, ValueError, "num_classes: expected None for Normal, .* got 3"),
        (dist.Gamma, {"floor": 0.0}, ValueError, r"floor: expected a number in \(0, inf\), got 0.0"),
        (
            dist.Gamma,
            {"parameters": ["rat"]},
            ValueError,
            r"parameters: expected .* 'rate'\], got \('rat',\)",
        ),
        (dist.Gamma, {"parameters": ["rate"]}, ValueError, "concentration: expected it predicted or fixed"),
        (dist.Gamma, {"parameters": ["rate", "rate"]}, ValueError, "parameters: expected distinct names"),
        (
            dist.Gamma,
            {"rate": 1.0, "parameters": ["rate"]},
            ValueError,
            "parameters: expected distinct names",
        ),
        (dist.Gamma, {"rates": 1.0}, ValueError, r"rates: expected one of \['concentration', 'rate',"),
        (dist.Bernoulli, {"probs": 0.3}, ValueError, r"parameters: expected at least one of \['logits'\]"),
        (dist.StudentT, {"df": -1.0}, ValueError, "StudentT: expected fixed arguments .* got: .* df "),
        (
            dist.Binomial,
            {"total_count": 2.5},
            ValueError,
            "Binomial: expected fixed arguments .* total_count",
        ),
        (dist.Gamma, {"rate": torch.ones(4)}, ValueError, r"event_shape: expected .* batch_shape \(4,\)"),
        (dist.Pareto, {}, ValueError, "Pareto: expected a support that no predicted parameter moves"),
        (
            dist.Binomial,
            {"parameters": ["total_count"], "logits": 0.0},
            ValueError,
            "total_count: expected a parameter with a continuous domain",
        ),
        (
            dist.MultivariateNormal,
            {"event_shape": 2, "parameters": ["loc", "covariance_matrix"]},
            ValueError,
            "covariance_matrix: expected .* scale_tril",
        ),
        (
            dist.LowRankMultivariateNormal,
            {"event_shape": 3},
            ValueError,
            "cov_factor: expected a parameter whose shape follows from event_shape",
        ),
        (
            dist.Normal,
            {"scale": torch.ones((), requires_grad=True)},
            ValueError,
            "scale: expected a fixed tensor, got one that requires a gradient",
        ),
    ],
)
def test_general_likelihood_refuses(family: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        DistributionLikelihood(family, **options)


@pytest.mark.faults("tensors on another device")
def test_the_support_moves_with_the_likelihood() -> None:
    likelihood = DistributionLikelihood(dist.Binomial, 3, total_count=torch.tensor([7.0, 8.0, 9.0]))
    support = likelihood.support
    assert bool(support.check(torch.tensor([7.0, 8.0, 9.0])))
    assert likelihood.to("meta").support.base_constraint.upper_bound.device.type == "meta"
    assert support.base_constraint.upper_bound.device.type == "cpu"
    assert NormalLikelihood().double().support is constraints.real


def test_fixed_tensors_are_copies() -> None:
    scale = torch.tensor([0.5, 2.0])
    one, other = (DistributionLikelihood(dist.Normal, 2, scale=scale) for _ in range(2))
    other.load_state_dict(DistributionLikelihood(dist.Normal, 2, scale=torch.ones(2)).state_dict())
    assert torch.equal(one(torch.zeros(2)).stddev, scale)


def test_a_family_that_takes_rows_for_coordinates_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LogisticNormal: expected a family that takes parameters of two rows"):
        DistributionLikelihood(dist.LogisticNormal, 2)
