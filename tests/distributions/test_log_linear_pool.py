"""LogLinearPool is a Pyro distribution: at any site, under any of Pyro's and PyTorch's transformations."""

from __future__ import annotations

import copy
import pickle
import shutil
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_probmix.distributions import LogLinearPool, index_select, log_linear_pool
from pyro_probmix.mixing import as_coefficient
from tests.cases import CASES, NAMES, simplex_weights, unmasked


def pool_of(name: str, batch_shape: tuple[int, ...] = (3,)) -> LogLinearPool:
    return LogLinearPool([CASES[name].draw(batch_shape, seed) for seed in range(2)], simplex_weights(batch_shape, 2))


def attribute(p: Any, name: str) -> Any:
    """The attribute, or the type of what it raises."""
    try:
        value = getattr(p, name)
        return value() if callable(value) else value
    except (NotImplementedError, AttributeError) as error:
        return type(error)


@pytest.mark.parametrize("name", NAMES)
def test_it_behaves_as_the_fused_member(name: str) -> None:
    pool = pool_of(name)
    fused = pool.fused
    assert isinstance(pool, dist.TorchDistribution)
    assert not isinstance(fused, LogLinearPool)
    assert pool.batch_shape == fused.batch_shape == (3,)
    assert pool.event_shape == fused.event_shape
    assert pool.has_rsample == fused.has_rsample
    assert pool.has_enumerate_support == fused.has_enumerate_support
    assert str(pool.support) == str(fused.support)
    for what in ("mean", "variance", "stddev"):
        ours, theirs = attribute(pool, what), attribute(fused, what)
        if isinstance(theirs, Tensor):
            torch.testing.assert_close(ours, theirs, equal_nan=True)
        else:
            assert ours is theirs
    for what in ("mode", "entropy"):  # which the pool knows of more families, and at the ends of a support
        ours, theirs = attribute(pool, what), attribute(fused, what)
        if isinstance(theirs, Tensor):
            known = ~theirs.isnan()
            torch.testing.assert_close(ours[known], theirs[known])
    if fused.has_enumerate_support:
        for expand in (True, False):
            assert torch.equal(pool.enumerate_support(expand), fused.enumerate_support(expand))
    assert "components: 2" in repr(pool)


@pytest.mark.parametrize("name", NAMES)
def test_moments_and_entropy_are_those_of_the_density(name: str) -> None:
    case, pool = CASES[name], pool_of(name)
    law = unmasked(pool.fused)
    event_dim = len(pool.event_shape)
    if case.moments and not isinstance(attribute(law, "mean"), type) and not law.mean.isnan().any():
        finite = law.variance.isfinite()  # a heavy tail has none
        mean = case.expectation(pool.fused, lambda y: y, event_dim)
        torch.testing.assert_close(law.mean[finite], mean[finite], atol=1e-6, rtol=1e-6)
        second = case.expectation(pool.fused, lambda y: (y - law.mean).square(), event_dim)
        torch.testing.assert_close(law.variance[finite], second[finite], atol=1e-5, rtol=1e-5)
    if not isinstance(attribute(pool, "entropy"), type):
        entropy = case.expectation(pool.fused, lambda y: -law.log_prob(y))
        torch.testing.assert_close(pool.entropy(), entropy, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_sample_shapes_and_expand(name: str) -> None:
    pool = pool_of(name)
    for p, shape in (
        (pool, (3,)),
        (pool.expand([4, 3]), (4, 3)),
        (pool.expand([4, 3]).expand([2, 4, 3]), (2, 4, 3)),
    ):
        y = p.sample((5,))
        assert y.shape == (5, *shape, *pool.event_shape)
        assert not y.requires_grad
        assert p.log_prob(y).shape == (5, *shape)
        assert p.log_normalizer.shape == shape
        assert p.weights.shape == (*shape, 2)
        torch.testing.assert_close(p.log_prob(y), pool.log_prob(y))
        torch.testing.assert_close(p.log_normalizer, pool.log_normalizer.expand(shape))


@pytest.mark.parametrize("name", NAMES)
def test_events_and_masks(name: str) -> None:
    pool = pool_of(name)
    y = pool.sample()
    torch.testing.assert_close(pool.to_event(1).log_prob(y), pool.log_prob(y).sum())
    mask = torch.tensor([True, False, True])
    torch.testing.assert_close(pool.mask(mask).log_prob(y), pool.log_prob(y) * mask)


@pytest.mark.parametrize("name", [name for name in NAMES if CASES[name].rsample and CASES[name].draw().has_rsample])
def test_draws_are_differentiable_in_parameters_and_weights(name: str) -> None:
    case = CASES[name]
    drawn = [case.parameters(torch.Size([2]), torch.Generator().manual_seed(seed)) for seed in range(2)]
    members = [case.make(*[t.requires_grad_() for t in parameters]) for parameters in drawn]
    first = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    y = LogLinearPool(members, [first, 1 - first]).rsample((50,))
    gradients = torch.autograd.grad(y.square().sum(), [first, drawn[0][0], drawn[1][0]])
    assert all(g.isfinite().all() and g.any() for g in gradients)


def test_the_gradient_of_draws_is_that_of_the_moments() -> None:
    loc = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.0, dtype=torch.float64)
    pool = LogLinearPool([dist.Normal(loc, scale), dist.Normal(-loc, 2 * scale)], [0.4, 0.6])
    y = pool.rsample((10,))
    assert torch.autograd.grad(y.mean(), loc, retain_graph=True)[0] == pytest.approx(
        float(torch.autograd.grad(pool.mean, loc)[0])
    )


@pytest.mark.parametrize("name", ["Normal", "LogNormal", "Exponential", "Gamma", "logit-Normal"])
def test_cdf_is_the_mass_below(name: str) -> None:
    case, pool = CASES[name], pool_of(name)
    bound = pool.sample().requires_grad_()
    below = case.expectation(pool.fused, lambda y: (y < bound).double())
    torch.testing.assert_close(pool.cdf(bound), below, atol=2e-2, rtol=0)  # to a step of the grid
    (slope,) = torch.autograd.grad(pool.cdf(bound).sum(), bound)
    torch.testing.assert_close(slope, pool.log_prob(bound).exp())
    if name != "Gamma":  # PyTorch's Gamma has no icdf
        torch.testing.assert_close(pool.icdf(pool.cdf(bound)), bound)


@pytest.mark.parametrize("name", NAMES)
def test_kl_to_and_from_members(name: str) -> None:
    pool, q = pool_of(name), CASES[name].draw((3,), 9)
    law, q_law = unmasked(pool.fused), unmasked(q)
    if name == "expanded Gamma":
        q = q_law = log_linear_pool([q], [1.0])  # Pyro has no KL of an ExpandedDistribution
    other = LogLinearPool([q], [1.0])
    for left, right, p1, p2 in (
        (pool, q, law, q_law),
        (q, pool, q_law, law),
        (pool, other, law, q_law),
        (pool, pool, law, law),
    ):
        if unmasked(q) is not q:  # nor one of a mask
            left, right = (
                LogLinearPool([unmasked(d.fused if isinstance(d, LogLinearPool) else d)], [1.0]) for d in (left, right)
            )
        expected = CASES[name].expectation(p1, lambda y, p1=p1, p2=p2: p1.log_prob(y) - p2.log_prob(y))
        torch.testing.assert_close(kl_divergence(left, right), expected, atol=1e-6, rtol=1e-6)


def test_kl_under_independent_and_from_a_point() -> None:
    p, q = (CASES["Normal"].draw((3,), seed) for seed in range(2))
    pool = LogLinearPool([p, q], [0.5, 0.5])
    kl = kl_divergence(pool, q).sum()
    torch.testing.assert_close(kl_divergence(pool.to_event(1), q.to_event(1)), kl)
    torch.testing.assert_close(kl_divergence(q.to_event(1), pool.to_event(1)), kl_divergence(q, pool).sum())
    point = dist.Delta(p.loc)
    torch.testing.assert_close(kl_divergence(point, pool), -pool.log_prob(p.loc))


@pytest.mark.faults("copies and transforms")
@pytest.mark.parametrize("name", NAMES)
def test_pickle_and_deepcopy(name: str) -> None:
    pool = pool_of(name)
    y = pool.sample()
    for other in (pickle.loads(pickle.dumps(pool)), copy.deepcopy(pool)):
        assert torch.equal(other.log_prob(y), pool.log_prob(y))
        assert torch.equal(other.log_normalizer, pool.log_normalizer)
        assert torch.equal(other.weights, pool.weights)


# At sample sites.


def test_observed_site() -> None:
    data = torch.tensor([0.5, -0.3, 2.0])
    pool = LogLinearPool([dist.Normal(torch.zeros(3), 1.0), dist.Normal(3.0, 2.0)], [0.3, 0.7])

    def model() -> None:
        with pyro.plate("data", 3):
            pyro.sample("y", pool, obs=data)

    trace = pyro.poutine.trace(model).get_trace()
    torch.testing.assert_close(trace.log_prob_sum(), pool.log_prob(data).sum())


def test_latent_site_is_learned_with_reparametrised_gradients() -> None:
    prior = LogLinearPool([dist.Normal(0.0, 1.0), dist.Normal(4.0, 1.0)], [0.5, 0.5])

    def model() -> None:
        z = pyro.sample("z", prior)
        pyro.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(4.0))

    def guide() -> None:
        locs = [pyro.param(f"loc_{k}", torch.tensor(0.0)) for k in range(2)]
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("z", LogLinearPool([dist.Normal(loc, scale) for loc in locs], [0.5, 0.5]))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(num_particles=20, vectorize_particles=True))
    for _ in range(300):
        svi.step()
    mean, scale = 0.5 * (pyro.param("loc_0") + pyro.param("loc_1")), pyro.param("scale")
    assert mean.item() == pytest.approx(3.0, abs=0.15)  # the posterior: Normal(3, √½)
    assert scale.item() == pytest.approx(0.5**0.5, abs=0.1)


@pytest.mark.parametrize("parallel", ["parallel", "sequential"])
def test_enumerated_site(parallel: str) -> None:
    logits = torch.randn(2, 3, 4)
    data, locs = torch.randn(3), torch.arange(4.0)
    pool = LogLinearPool([dist.Categorical(logits=logits[0]), dist.Categorical(logits=logits[1])], [0.3, 0.7])

    @config_enumerate(default=parallel)
    def model() -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", pool)
            pyro.sample("y", dist.Normal(locs[z], 1.0), obs=data)

    @config_enumerate(default=parallel)
    def guide() -> None:
        with pyro.plate("data", 3):
            pyro.sample("z", pool)

    joint = pool.fused.logits + dist.Normal(locs, 1.0).log_prob(data.unsqueeze(-1))
    exact = joint.logsumexp(-1).sum()
    if parallel == "parallel":
        loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None)
        assert loss == pytest.approx(-float(exact), rel=1e-5)
    elbo = (pool.fused.probs * (joint - pool.fused.logits)).sum()
    loss = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False).loss(model, guide)
    assert loss == pytest.approx(-float(elbo), rel=1e-5)


def test_components_that_depend_on_an_enumerated_site() -> None:
    data = torch.randn(3)

    @config_enumerate
    def model() -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            members = [dist.Normal(z, 1.0), dist.Normal(torch.full((3,), -1.0), 2.0)]
            pyro.sample("y", LogLinearPool(members, [0.5, 0.5]), obs=data)

    terms = [
        log_linear_pool([dist.Normal(z, 1.0), dist.Normal(-1.0, 2.0)], [0.5, 0.5]).log_prob(data) + log_p
        for z, log_p in zip(torch.tensor([0.0, 1.0]), torch.tensor([0.7, 0.3]).log(), strict=True)
    ]
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None)
    assert loss == pytest.approx(-float(torch.logaddexp(*terms).sum()), rel=1e-5)


# Under transformations of PyTorch.


@pytest.mark.faults("copies and transforms")
@pytest.mark.parametrize(
    "name",
    [n for n in NAMES if CASES[n].vmap and n not in ("expanded Gamma", "masked Exponential")],  # by batch
)
def test_vmap_over_the_parameters_of_components(name: str) -> None:
    case = CASES[name]
    drawn = [case.parameters(torch.Size([5]), torch.Generator().manual_seed(seed)) for seed in range(2)]
    weights = simplex_weights((5,), 2)
    weights[0], weights[1] = torch.eye(2).to(weights)
    count = len(drawn[0])
    y = case.make(*drawn[0]).sample()
    expected = log_linear_pool([case.make(*p) for p in drawn], weights)

    def log_prob(y: Tensor, weights: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        members = [case.make(*parameters[:count]), case.make(*parameters[count:])]
        pool = LogLinearPool(members, weights)
        return pool.log_prob(y), pool.log_normalizer

    inputs = (y, weights, *drawn[0], *drawn[1])
    with pyro.validation_enabled(False):
        value, xi = torch.func.vmap(log_prob)(*inputs)
        gradients = torch.func.vmap(torch.func.grad(lambda *a: log_prob(*a)[0], argnums=(1, 2)))(*inputs)
        outside = torch.func.grad(lambda *a: torch.func.vmap(log_prob)(*a)[0].sum(), argnums=(1, 2))(*inputs)
    torch.testing.assert_close(outside, gradients)
    torch.testing.assert_close(value, expected.log_prob(y))
    torch.testing.assert_close(xi, LogLinearPool([case.make(*p) for p in drawn], weights).log_normalizer)
    assert all(g.isfinite().all() for g in gradients)


def test_vmap_without_validation_of_the_components() -> None:
    loc = torch.randn(5)

    def mean(loc: Tensor) -> Tensor:
        members = [dist.Normal(loc, 1.0, validate_args=False), dist.Normal(0.0, 1.0, validate_args=False)]
        return log_linear_pool(members, [0.25, 0.75]).mean

    torch.testing.assert_close(torch.func.vmap(mean)(loc), 0.25 * loc)


@pytest.mark.faults("copies and transforms")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of the compiler itself
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler")
def test_compile() -> None:
    y, labels, first = torch.randn(8), torch.eye(3)[torch.arange(8) % 3], torch.rand(8)

    def log_prob(loc: Tensor, logits: Tensor) -> Tensor:
        normals = [dist.Normal(loc, 1.0, validate_args=False), dist.Normal(-loc, 2.0, validate_args=False)]
        one_hot = [dist.OneHotCategorical(logits=t, validate_args=False) for t in (logits, -logits)]
        weights = [first, 1 - first]
        return log_linear_pool(normals, weights).log_prob(y) + log_linear_pool(one_hot, weights).log_prob(labels)

    parameters = [torch.randn(8, requires_grad=True), torch.randn(8, 3, requires_grad=True)]
    expected = log_prob(*parameters)
    # Pyro's Categorical compares id(self) in log_prob, a graph break of its own.
    with pyro.validation_enabled(False):  # compiling switches PyTorch's validation off; this switches it on again
        actual = torch.compile(log_prob, fullgraph=True)(*parameters)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual.sum(), parameters), torch.autograd.grad(expected.sum(), parameters)
    )


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # forward mode's own
def test_derivatives_of_the_normal_pool_of_every_mode_and_order() -> None:
    """Its derivatives are written out: reverse, forward, batched and second ones are those of finite differences."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64).add(0.3).requires_grad_()

    inputs = *(draw(2, 3) for _ in range(3)), *(draw(2, 3) for _ in range(3)), draw(2, 1)

    def pool(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        members = [dist.Normal(loc, scale) for loc, scale in zip(inputs[:3], inputs[3:6], strict=True)]
        w = inputs[6] / 2
        fused = log_linear_pool(members, [w, (1 - w) / 4, 3 * (1 - w) / 4])
        return fused.loc, fused.scale

    everything = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    with pyro.validation_enabled(False):
        assert torch.autograd.gradcheck(pool, inputs, **everything)
        assert torch.autograd.gradgradcheck(pool, inputs, check_fwd_over_rev=True)


@pytest.mark.faults("odd batches")
@pytest.mark.parametrize("simplex", [True, False])
@pytest.mark.parametrize(
    "p",
    [
        lambda: dist.Uniform(torch.zeros(0), torch.ones(0)),
        lambda: dist.Categorical(torch.ones(0, 3)),
        lambda: dist.Normal(torch.zeros(0), 1.0),
    ],
)
def test_empty_batches(p: Any, simplex: bool) -> None:
    assert log_linear_pool([p(), p()], [0.5, 0.5], simplex=simplex).batch_shape == (0,)


@pytest.mark.parametrize("form", ["full", "low rank", "wishart"])
def test_single_and_double_precision_are_pooled_in_double(form: str) -> None:
    def make(dtype: torch.dtype) -> Any:
        eye = torch.eye(2, dtype=dtype)
        if form == "wishart":
            return dist.Wishart(torch.tensor(4.0, dtype=dtype), scale_tril=eye)
        if form == "full":
            return dist.MultivariateNormal(eye[0], scale_tril=eye)
        return dist.LowRankMultivariateNormal(eye[0], eye[:, :1], eye.diagonal())

    both = LogLinearPool([make(torch.float32), make(torch.float64)], [0.5, 0.5])
    alike = LogLinearPool([make(torch.float64)] * 2, [0.5, 0.5])
    assert both.mean.dtype == torch.float64
    torch.testing.assert_close((both.mean, both.log_normalizer), (alike.mean, alike.log_normalizer))


@pytest.mark.faults("draws at tiny concentration")
def test_small_concentrations_keep_their_sampler() -> None:
    """In single precision, a Gamma of shape 1e-3 is 0 more often than not, and half of their ratios are undefined."""
    p = as_coefficient(dist.Beta(torch.tensor(1e-3), torch.tensor(1e-3)))
    draws = log_linear_pool([p, p], [0.25, 0.75]).sample((4000,))
    assert ((draws > 0.4) & (draws < 0.6)).float().mean() < 0.01


def test_points_under_vmap() -> None:
    def log_prob(weight: Tensor) -> Tensor:
        p = dist.Delta(torch.tensor(1.0), validate_args=False)
        return log_linear_pool([p, p], torch.stack([weight, 1 - weight])).log_prob(torch.tensor(1.0))

    assert torch.func.vmap(log_prob)(torch.tensor([0.2, 0.3])).tolist() == [0, 0]


def test_transforms_of_fewer_dimensions_than_the_event() -> None:
    base = dist.Normal(torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 4, 2, 3), 1.0).to_event(3)
    p = dist.TransformedDistribution(base, [dist.transforms.AffineTransform(torch.ones(2, 3), 2.0)])
    assert index_select(p, 0, torch.tensor([4, 1])).base_dist.mean[:, 0, 0, 0].tolist() == [4, 1]


def test_the_entropy_of_a_pool_of_multinomials_has_its_gradient() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    even = dist.Multinomial(4, logits=torch.zeros(3, dtype=torch.float64))
    pooled = log_linear_pool([dist.Multinomial(4, logits=logits), even], [0.7, 0.3])
    gradients = [
        torch.autograd.grad(p.entropy(), logits)[0] for p in (pooled, dist.Multinomial(4, logits=0.7 * logits))
    ]
    torch.testing.assert_close(*gradients)
