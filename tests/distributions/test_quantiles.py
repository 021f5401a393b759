"""Distribution functions and quantiles of any distribution, against SciPy and by their own derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from torch import Tensor

import pyro_probmix as pm
from tests.cases import CASES
from tests.cases import NAMES as NAMES_OF_CASES
from tests.distributions.scipy_laws import FAMILIES, NAMES, SHARES, t


def has_marginals(p: Any) -> bool:
    """Whether ``p`` is of numbers in an order, or of vectors of such whose marginals are known."""
    try:
        pm.median(p)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(("p", "exact"), FAMILIES, ids=NAMES)
def test_quantiles_and_cdf_are_those_of_scipy(p: Any, exact: Any) -> None:
    y = torch.as_tensor(exact.ppf(SHARES.numpy()), dtype=torch.float64)
    torch.testing.assert_close(pm.quantile(p, SHARES), y, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pm.distributions.cdf(p, y), torch.as_tensor(exact.cdf(y.numpy())), rtol=3e-9, atol=1e-15)


@pytest.mark.parametrize(("p", "exact"), FAMILIES, ids=NAMES)
def test_the_ends_are_those_of_the_support(p: Any, exact: Any) -> None:
    low, high = exact.support()
    assert pm.quantile(p, torch.tensor([0.0, 1.0])).tolist() == [low, high]
    beyond = torch.tensor([low - 1, high + 1, -math.inf, math.inf, math.nan], dtype=torch.float64)
    expected = torch.tensor([0.0, 1.0, 0.0, 1.0, math.nan], dtype=torch.float64)
    torch.testing.assert_close(pm.distributions.cdf(p, beyond), expected, rtol=0, atol=0, equal_nan=True)


def test_quantiles_are_differentiable_in_shares_and_parameters() -> None:
    q = torch.tensor([0.01, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    loc, scale, weights = (
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.0, 4.0], [1.0, 0.5], 0.3)
    )
    df = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def pool(q: Tensor, loc: Tensor, scale: Tensor, w: Tensor) -> Tensor:
        return pm.quantile(pm.LinearPool(dist.Normal(loc, scale), torch.stack([w, 1 - w])), q)

    assert torch.autograd.gradcheck(pool, (q, loc, scale, weights))
    assert torch.autograd.gradcheck(lambda q, df: pm.quantile(dist.StudentT(df, 0.0, 1.0), q), (q, df))
    assert torch.autograd.gradcheck(lambda q, a: pm.quantile(dist.Gamma(a, 1.0), q), (q, df))
    assert torch.autograd.gradcheck(lambda q, a: pm.quantile(dist.Beta(a, 2.0), q), (q, df))
    assert torch.autograd.gradcheck(lambda y, a: pm.distributions.cdf(dist.Beta(a, 2.0), y), (q, df))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_distribution(dtype: torch.dtype) -> None:
    p = pm.LinearPool(
        [dist.Normal(torch.zeros(2, dtype=dtype), 1.0), dist.StudentT(3.0, torch.ones(2, dtype=dtype), 1.0)]
    )
    assert pm.quantile(p, 0.3).dtype == dtype
    assert pm.distributions.cdf(p, torch.zeros((), dtype=torch.float64)).dtype == dtype
    assert pm.interval(p, 0.9, kind="hdi")[0].dtype == dtype


def test_shares_of_counts_in_single_precision_are_reached() -> None:
    assert float(pm.quantile(dist.Bernoulli(0.3), 0.7)) == 0
    p = dist.Poisson(torch.tensor(7.3))
    k = torch.arange(20.0)
    torch.testing.assert_close(pm.quantile(p, pm.distributions.cdf(p, k)), k)


def test_vectors_have_the_quantiles_of_their_entries() -> None:
    loc, scale = torch.randn(5, 3, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64) + 0.5
    each = dist.Normal(loc, scale)
    q = torch.tensor([[0.1, 0.5], [0.7, 0.9]], dtype=torch.float64)
    expected = pm.quantile(each, q)
    assert expected.shape == (2, 2, 5, 3)
    covariance = scale.square().diag_embed()
    for p in (
        each.to_event(1),
        each.to_event(1).mask(torch.tensor([True, False, True, True, False])),
        each.to_event(1).expand([5]),
        dist.MultivariateNormal(loc, covariance),
        dist.TransformedDistribution(each.to_event(1), []),
        pm.LinearPool([each.to_event(1), each.to_event(1)]),
        pm.LinearPool(dist.Normal(loc.unsqueeze(1).expand(5, 4, 3), scale.unsqueeze(1).expand(5, 4, 3)).to_event(1)),
        pm.LogLinearPool([each.to_event(1), each.to_event(1)], [0.5, 0.5]),
    ):
        torch.testing.assert_close(pm.quantile(p, q), expected)
        assert pm.distributions.marginals(p).batch_shape == (5, 3)


def test_a_pool_of_vectors_whose_components_are_one_batch() -> None:
    loc = torch.randn(5, 4, 3, dtype=torch.float64)
    for make in (lambda m: dist.Normal(m, 1.0), lambda m: dist.StudentT(3.0, m, 1.0), lambda m: dist.LogNormal(m, 1.0)):
        pool = pm.LinearPool(make(loc).to_event(1))
        apart = pm.LinearPool([make(loc[:, k]).to_event(1) for k in range(4)])
        torch.testing.assert_close(pm.quantile(pool, 0.3), pm.quantile(apart, 0.3))


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (dist.Categorical(torch.ones(3)), "order"),
        (dist.OneHotCategorical(torch.ones(3)), "order"),
        (pm.LinearPool([dist.Categorical(torch.ones(3))]), "order"),
        (dist.VonMises(0.0, 1.0), "angles"),
        (dist.LKJCholesky(3), "marginals"),
        (1.0, "expected a torch or Pyro distribution"),
    ],
)
def test_what_has_no_quantiles_is_refused(p: Any, message: str) -> None:
    for function in (pm.median, lambda p: pm.distributions.cdf(p, 0.0), lambda p: pm.interval(p, 0.5)):
        with pytest.raises(TypeError, match=message):
            function(p)


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan, torch.tensor([0.5, math.nan])])
def test_shares_outside_are_refused(q: Any) -> None:
    with pytest.raises(ValueError, match=r"q: expected shares in \[0, 1\]"):
        pm.quantile(dist.Normal(0.0, 1.0), q)


@pytest.mark.parametrize("level", [0, 1.0, -0.5, math.nan, torch.tensor([0.5, 1.5])])
@pytest.mark.parametrize("kind", ["central", "hdi"])
def test_levels_outside_are_refused(level: Any, kind: str) -> None:
    with pytest.raises(ValueError, match=r"level: expected shares in \(0, 1\)"):
        pm.interval(dist.Normal(0.0, 1.0), level, kind)


@pytest.mark.parametrize("kind", [list, tuple, np.asarray])
def test_levels_may_be_any_numbers(kind: Any) -> None:
    p, levels = dist.Normal(torch.zeros(3, dtype=torch.double), 1.0), [[0.1, 0.5], [0.9, 0.95]]
    torch.testing.assert_close(pm.quantile(p, kind(levels)), pm.quantile(p, torch.tensor(levels, dtype=torch.double)))


def test_what_is_no_share_is_refused() -> None:
    for q in ("0.5", True, None):
        with pytest.raises(TypeError, match="q: expected a number, or numbers"):
            pm.quantile(dist.Normal(0.0, 1.0), q)
    with pytest.raises(ValueError, match='kind: expected one of "central", "hdi"'):
        pm.interval(dist.Normal(0.0, 1.0), 0.5, "shortest")
    with pytest.raises(ValueError, match="y: expected a shape"):
        pm.distributions.cdf(dist.Normal(torch.zeros(3), 1.0), torch.zeros(2))


ORDERED = [name for name in NAMES_OF_CASES if has_marginals(CASES[name].draw(()))]


@pytest.mark.parametrize("name", ORDERED)
def test_quantiles_and_cdf_agree_in_every_family(name: str) -> None:
    p = CASES[name].draw((2,))
    each = pm.distributions.marginals(p)
    y = pm.quantile(p, SHARES)
    assert y.shape == SHARES.shape + p.batch_shape + p.event_shape
    share = pm.distributions.cdf(p, y)
    q = SHARES.reshape((-1,) + (1,) * (y.dim() - 1))
    if isinstance(each, dist.Delta):
        assert bool((y == each.v).all())
    elif each.support.is_discrete:
        assert bool((share >= q * (1 - 1e-12)).all())
        assert bool((pm.distributions.cdf(p, y - 1) < q).all())
    else:
        torch.testing.assert_close(share, q.expand_as(share), rtol=1e-9, atol=1e-15)
        inside = y[2:6].requires_grad_()
        (density,) = torch.autograd.grad(pm.distributions.cdf(p, inside).sum(), inside)
        torch.testing.assert_close(density, each.log_prob(inside).exp().detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["Normal", "LogNormal", "Poisson", "Beta"])
def test_quantiles_under_vmap(name: str) -> None:
    q = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    with dist.validation_enabled(False):
        parameters = CASES[name].parameters(torch.Size([3]), torch.Generator().manual_seed(0))

        def of_one(*parameters: Tensor) -> Tensor:
            p = CASES[name].make(*parameters)
            y = pm.quantile(p, q)
            return torch.stack([y, pm.distributions.cdf(p, y + 0.25)])

        found = torch.func.vmap(of_one)(*parameters)
        expected = torch.stack([of_one(*each) for each in zip(*parameters, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


# PyTorch compiles a script when its forward mode is first used.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_forward_mode_is_backward_mode() -> None:
    df, q = t(3.0, [0.01, 0.5, 0.9])

    def of(df: Tensor, q: Tensor) -> Tensor:
        return pm.quantile(pm.LinearPool([dist.StudentT(df, 0.0, 1.0), dist.Normal(df, 1.0)], validate_args=False), q)

    with dist.validation_enabled(False):
        for argument in (0, 1):
            forward, backward = (jac(of, argument)(df, q) for jac in (torch.func.jacfwd, torch.func.jacrev))
            torch.testing.assert_close(forward, backward)


class Triangular(dist.TorchDistribution):
    """A user's own: its density on [0, 1], 2y, and nothing else."""

    arg_constraints = {}
    support = torch.distributions.constraints.unit_interval

    def __init__(self, shape: Any = (), dtype: torch.dtype = torch.float64) -> None:
        self.like = torch.ones(shape, dtype=dtype)
        super().__init__(torch.Size(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return (2 * self.like * value).log()


class WithCdf(Triangular):
    """The same, with its distribution function."""

    def cdf(self, value: Tensor) -> Tensor:
        return self.like * value.square()


class Doubled(dist.Normal):
    """Of a known class, but another law."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value / 2) - math.log(2)


@pytest.mark.parametrize("make", [Triangular, WithCdf])
def test_laws_of_users(make: Any) -> None:
    q = torch.tensor([0.0, 0.01, 0.5, 1.0], dtype=torch.float64)
    for p in (make(), pm.LinearPool([make(), make()])):
        torch.testing.assert_close(pm.quantile(p, q), q.sqrt())
        assert pm.distributions.cdf(p, torch.tensor([-1.0, 0.5, 2.0])).tolist() == pytest.approx([0, 0.25, 1])
        torch.testing.assert_close(pm.interval(p, 0.75, kind="hdi")[0], t(0.5)[0])


def test_a_law_derived_from_another_is_its_own() -> None:
    q = torch.tensor([0.1, 0.9], dtype=torch.float64)
    torch.testing.assert_close(pm.quantile(Doubled(*t(0.0, 1.0)), q), torch.as_tensor(2 * st.norm.ppf(q.numpy())))


def test_rows_and_fused_members_have_the_formula_of_their_family() -> None:
    """To the last bit, as what quadrature finds of the density is not."""
    p, y, index = dist.Normal(torch.randn(4, 3).double(), 1.0), torch.randn(4).double(), torch.tensor([2, 0])
    mixed, fused = pm.LinearPool(p), pm.LogLinearPool(p, torch.full((3,), 1 / 3).double())
    assert torch.equal(pm.distributions.cdf(pm.rows(mixed, index), y[index]), pm.distributions.cdf(mixed, y)[index])
    assert torch.equal(
        pm.distributions.cdf(fused, y), pm.distributions.cdf(dist.Normal(fused.fused.loc, fused.fused.scale), y)
    )


def test_pools_answer_as_methods() -> None:
    q, y = t([0.1, 0.5, 0.9], [-1.0, 0.3, 7.0])
    p, other = dist.Gamma(*t(2.0, 1.0)), dist.StudentT(*t(3.0, 0.0, 1.0))
    log_linear = pm.LogLinearPool([p, dist.Gamma(*t(4.0, 3.0))], [0.5, 0.5])
    for pool in (
        pm.LinearPool([p, p]),
        log_linear,
        pm.NumericalPool([p, p], [0.5, 0.5]),
        pm.HolderPool([other], [1], 2.0),
    ):
        torch.testing.assert_close(pool.icdf(q), pm.quantile(pool, q))
        torch.testing.assert_close(pool.cdf(y), pm.distributions.cdf(pool, y))
    torch.testing.assert_close(log_linear.icdf(q), torch.as_tensor(st.gamma(3, scale=0.5).ppf(q.numpy())))
    with pytest.raises(ValueError, match="marginals"):
        pm.LogLinearPool([dist.MultivariateNormal(torch.zeros(2), torch.eye(2))], [1.0]).cdf(torch.zeros(2))


@pytest.mark.parametrize("name", ["linear", "log-linear", "counts", "numerical"])
def test_what_is_no_share_has_no_value(name: str) -> None:
    """As PyTorch's own ``icdf``, and not the end of the support."""
    normal, student, counts = dist.Normal(0.0, 1.0), dist.StudentT(3.0, 0.0, 1.0), dist.Poisson(2.0)
    pool = {
        "linear": pm.LinearPool([normal, student]),
        "log-linear": pm.LogLinearPool([normal, normal], [0.5, 0.5]),
        "counts": pm.LinearPool([counts, counts]),
        "numerical": pm.NumericalPool([normal, student], [0.5, 0.5]),
    }[name]
    assert pool.icdf(torch.tensor([-0.1, 0.5, 1.5, math.nan])).isnan().tolist() == [True, False, True, True]


def test_draws_have_the_quantiles_of_their_steps() -> None:
    p = dist.Empirical(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0.2, 0.5, 0.3]).log())
    assert pm.quantile(p, torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 1.0])).tolist() == [1, 1, 2, 2, 3, 3]
    assert pm.distributions.cdf(p, torch.tensor([0.5, 1.0, 2.5, 3.0])).tolist() == pytest.approx([0, 0.5, 0.8, 1])
    of_vectors = dist.Empirical(torch.randn(5, 3, 2), torch.zeros(5, 3))
    torch.testing.assert_close(pm.median(of_vectors), of_vectors._samples.median(1).values)


def test_one_value_and_what_is_mixed_with_it() -> None:
    zero = dist.Delta(*t(0.0))
    assert pm.quantile(zero, torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 0, 0]
    assert pm.distributions.cdf(zero, torch.tensor([-0.1, 0.0, 0.1])).tolist() == [0, 1, 1]
    values = dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), dist.Delta(torch.tensor([-1.0, 0.5, 4.0])))
    assert pm.quantile(values, torch.tensor([0.1, 0.4, 0.6, 0.7])).tolist() == [-1, 0.5, 0.5, 4]


def test_ordered_classes_have_quantiles() -> None:
    p = dist.OrderedLogistic(*t([0.3, -1.0], [-1.0, 0.0, 2.0]))
    total = p.probs.cumsum(-1)
    torch.testing.assert_close(pm.distributions.cdf(p, torch.arange(4.0).unsqueeze(-1)), total.T)
    assert pm.quantile(p, total[0, 1] + 0.01)[0] == 2


def test_memory_is_that_of_blocks() -> None:
    loc = torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    p = pm.LinearPool(dist.Normal(loc, 0.5))
    q = torch.linspace(0.01, 0.99, 50)
    y = pm.quantile(p, q)
    assert y.shape == (50, 300)
    torch.testing.assert_close(y[7], pm.quantile(p, q[7]))
    torch.testing.assert_close(pm.distributions.cdf(p, y), q.unsqueeze(-1).expand(50, 300))


def test_transformed_counts() -> None:
    for scale in (0.1, -0.1):
        p = dist.TransformedDistribution(dist.Poisson(*t(3.0)), torch.distributions.AffineTransform(1.0, scale))
        k = torch.arange(9.0, dtype=torch.float64)
        exact = st.poisson.cdf(k, 3) if scale > 0 else st.poisson.sf(k - 1, 3)
        torch.testing.assert_close(pm.distributions.cdf(p, 1 + scale * k), torch.as_tensor(exact))


NAN = torch.tensor(math.nan)
UNKNOWN = {
    "Beta": dist.Beta(NAN, torch.tensor(2.0), validate_args=False),
    "Gamma": dist.Gamma(NAN, torch.tensor(1.0), validate_args=False),
    "Geometric": dist.Geometric(NAN, validate_args=False),
    "Poisson": dist.Poisson(NAN, validate_args=False),
    "StudentT": dist.StudentT(torch.tensor(3.0), NAN, validate_args=False),
    "pool": pm.LinearPool([dist.Gamma(NAN, 1.0, validate_args=False), dist.Gamma(1.0, 1.0)], validate_args=False),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_nan_has_no_quantiles_and_no_mode(name: str) -> None:
    p = UNKNOWN[name]
    assert pm.median(p).isnan()
    for kind in ("central", "hdi"):
        assert all(end.isnan() for end in pm.interval(p, 0.9, kind))
    with pytest.raises(ValueError, match="p: expected a density with a largest value"):
        pm.mode(p)


def test_nan_in_one_row_leaves_the_others_alone() -> None:
    p = dist.Poisson(torch.tensor([math.nan, 1e6, 4.0], dtype=torch.float64), validate_args=False)
    good = dist.Poisson(p.rate[1:])
    for ends, own in zip(pm.interval(p, 0.9, "hdi"), pm.interval(good, 0.9, "hdi"), strict=True):
        assert ends[0].isnan()
        assert ends[1:].tolist() == own.tolist()


@pytest.mark.parametrize("total", [0.6, 3.0, 10.0])
@pytest.mark.parametrize("logits", [-3.0, -1.0, 1.0])
def test_far_quantiles_of_a_negative_binomial_are_scipys(total: float, logits: float) -> None:
    """Where the search for them meets counts whose incomplete beta function is no number."""
    n, x = torch.tensor(total, dtype=torch.float64), torch.tensor(logits, dtype=torch.float64)
    shares = 1 - torch.tensor([1e-2, 1e-8, 1e-10, 1e-12], dtype=torch.float64)
    expected = st.nbinom(total, 1 / (1 + np.exp(logits))).ppf(shares.numpy())
    for p in (dist.NegativeBinomial(n, logits=x), dist.GammaPoisson(n, (-x).exp())):
        np.testing.assert_array_equal(pm.quantile(p, shares), expected)
        low, high = pm.interval(p, 0.9, kind="hdi")
        assert low == 0 or bool(low < high)
