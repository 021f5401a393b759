"""Embedding densities: Normal with a diagonal or a low-rank covariance, other families, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import pyro_probmix as pm
from pyro_probmix.distributions import index_select
from pyro_probmix.nn import (
    MLP,
    DistributionEmbedding,
    DistributionLikelihood,
    Embedding,
    LowRankNormalEmbedding,
    NormalEmbedding,
)

DIM = 4
VARIANTS = {
    "shared": lambda: NormalEmbedding(MLP(3, [5], DIM), DIM),
    "separate": lambda: NormalEmbedding(MLP(3, [5], DIM), DIM, MLP(3, [5], DIM)),
    "fixed": lambda: NormalEmbedding(MLP(3, [5], DIM), DIM, scale=0.3),
}
variants = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)


def scale_of(q: dist.TorchDistribution) -> Tensor:
    return q.base_dist.scale


@variants
@pytest.mark.parametrize("leading", [(), (5,), (2, 5)])
def test_is_an_independent_normal_around_the_encoder(make: Any, leading: tuple[int, ...]) -> None:
    embedding = make()
    x = torch.randn(*leading, 3)
    q = embedding(x)
    assert isinstance(q, dist.Independent)
    assert isinstance(q.base_dist, dist.Normal)
    assert (q.batch_shape, q.event_shape) == (leading, embedding.event_shape)
    assert embedding.event_shape == torch.Size([DIM])
    assert embedding.embedding_dim == DIM
    assert torch.equal(q.mean, embedding.encoder(x))


@pytest.mark.parametrize("initial_scale", [1e-5, 0.1, 1.0, 50.0])
def test_shared_head_starts_at_the_initial_scale_everywhere(initial_scale: float) -> None:
    embedding = NormalEmbedding(MLP(3, [5], DIM), DIM, initial_scale=initial_scale).double()
    scale = scale_of(embedding(100 * torch.randn(5, 3, dtype=torch.float64)))
    torch.testing.assert_close(scale, torch.full_like(scale, initial_scale), rtol=1e-6, atol=0)


def test_shared_head_reads_the_mean() -> None:
    embedding = NormalEmbedding(MLP(3, [5], DIM), DIM, min_scale=1e-3).double()
    nn.init.normal_(embedding.variance_head.weight)
    x = torch.randn(5, 3, dtype=torch.float64)
    q = embedding(x)
    raw = q.mean @ embedding.variance_head.weight.T + embedding.variance_head.bias
    torch.testing.assert_close(scale_of(q), raw.exp().log1p() + 1e-3)


def test_separate_network_starts_at_the_initial_scale_where_it_is_zero() -> None:
    variance_network = MLP(3, [], DIM)
    embedding = NormalEmbedding(MLP(3, [5], DIM), DIM, variance_network, initial_scale=0.2).double()
    scale = scale_of(embedding(torch.randn(5, 3, dtype=torch.float64)))
    assert scale.std() > 0
    nn.init.zeros_(variance_network[0].weight)
    nn.init.zeros_(variance_network[0].bias)
    scale = scale_of(embedding(torch.randn(5, 3, dtype=torch.float64)))
    torch.testing.assert_close(scale, torch.full_like(scale, 0.2))


def test_separate_network_has_no_shared_head_and_leaves_the_encoder_alone() -> None:
    embedding = VARIANTS["separate"]()
    scale_of(embedding(torch.randn(5, 3))).sum().backward()
    assert all(p.grad is None for p in embedding.encoder.parameters())
    assert all(p.grad is not None for p in embedding.variance_network.parameters())
    assert not hasattr(embedding, "variance_head")


def test_fixed_scale_has_no_parameters_of_its_own() -> None:
    embedding = VARIANTS["fixed"]()
    own = set(embedding.parameters()) - set(embedding.encoder.parameters())
    assert not own
    assert torch.equal(scale_of(embedding(torch.randn(5, 3))), torch.full((5, DIM), 0.3))


@variants
def test_encoder_runs_once(make: Any) -> None:
    embedding = make()
    calls: list[nn.Module] = []
    embedding.encoder.register_forward_hook(lambda module, *_: calls.append(module))
    embedding(torch.randn(5, 3)).rsample()
    assert len(calls) == 1


@variants
def test_all_parameters_learn_from_a_draw(make: Any) -> None:
    embedding = make()
    embedding(torch.randn(5, 3)).rsample().square().sum().backward()
    for parameter in embedding.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


@pytest.mark.faults("dtype drift")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@variants
def test_keeps_dtype(make: Any, dtype: torch.dtype) -> None:
    q = make().to(dtype)(torch.randn(5, 3, dtype=dtype))
    assert q.mean.dtype == scale_of(q).dtype == dtype


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_scale_stays_in_its_domain_at_extreme_features(extreme: float) -> None:
    for variance_network in (None, nn.Identity()):
        embedding = NormalEmbedding(nn.Identity(), DIM, variance_network)
        if variance_network is None:
            nn.init.eye_(embedding.variance_head.weight)
        scale = scale_of(embedding(torch.full((DIM,), extreme)))
        assert scale.isfinite().all()
        assert (scale >= embedding.min_scale).all()


@pytest.mark.faults("copies and transforms")
@variants
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(make: Any, copied: Any) -> None:
    embedding = make()
    x = torch.randn(5, 3)
    before, after = embedding(x), copied(embedding)(x)
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.stddev, after.stddev)


@pytest.mark.faults("copies and transforms")
@variants
def test_many_at_once_under_vmap(make: Any) -> None:
    replicas = [make() for _ in range(3)]
    x, z = torch.randn(5, 3), torch.randn(5, DIM)
    parameters, buffers = stack_module_state(replicas)

    def log_prob(parameters: Any, buffers: Any) -> Tensor:
        return functional_call(replicas[0], (parameters, buffers), (x,)).log_prob(z)

    with pyro.validation_enabled(False):
        together = vmap(log_prob)(parameters, buffers)
        torch.testing.assert_close(together, torch.stack([replica(x).log_prob(z) for replica in replicas]))


def test_other_embedding_densities_fill_one_hook() -> None:
    class LaplaceEmbedding(Embedding):
        def distribution(self, x: Tensor, features: Tensor) -> dist.TorchDistribution:
            return dist.Laplace(features, 1.0).to_event(1)

    q = LaplaceEmbedding(nn.Linear(3, DIM), DIM)(torch.randn(5, 3))
    assert (q.batch_shape, q.event_shape) == ((5,), (DIM,))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"embedding_dim": (5, 0)}, ValueError, "embedding_dim: expected an integer >= 1, got 0"),
        ({"embedding_dim": 0}, ValueError, "embedding_dim: expected an integer >= 1, got 0"),
        ({"embedding_dim": 2.0}, TypeError, "embedding_dim: expected an integer >= 1, got 2.0"),
        ({"initial_scale": 0.0}, ValueError, r"initial_scale: expected a number in \(0, inf\), got 0.0"),
        (
            {"initial_scale": 1e-7},
            ValueError,
            "initial_scale: expected a number > min_scale = 1e-06, got 1e-07",
        ),
        ({"scale": float("nan")}, ValueError, r"scale: expected a number in \(0, inf\), got nan"),
        ({"scale": torch.ones(2)}, TypeError, r"scale: expected a number in \(0, inf\), got tensor"),
        ({"min_scale": -1.0}, ValueError, r"min_scale: expected a number in \(0, inf\), got -1.0"),
        (
            {"scale": 0.1, "variance_network": nn.Identity()},
            ValueError,
            "scale: expected None beside a variance",
        ),
        ({"encoder": torch.relu}, TypeError, "encoder: expected an nn.Module, got <built-in"),
        ({"variance_network": True}, TypeError, "variance_network: expected an nn.Module, got True"),
    ],
)
def test_refuses(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NormalEmbedding(**{"encoder": nn.Linear(3, DIM), "embedding_dim": DIM, **options})


def test_refuses_an_encoder_of_another_size() -> None:
    embedding = NormalEmbedding(nn.Linear(3, DIM + 1), DIM)
    with pytest.raises(ValueError, match=r"encoder: expected an output of shape \(\.\.\., 4\), got \(7, 5\)"):
        embedding(torch.zeros(7, 3))


@pytest.mark.faults("labels that broadcast")
def test_refuses_a_variance_network_that_would_broadcast() -> None:
    embedding = NormalEmbedding(nn.Linear(3, DIM), DIM, nn.Linear(3, 1))
    with pytest.raises(ValueError, match=r"variance_network: expected .* \(7, 4\), as the encoder's, got \(7, 1\)"):
        embedding(torch.zeros(7, 3))


def test_m_probmix_is_an_m_probmix_star() -> None:
    """The shared head is a variance network that runs the encoder and maps its output."""
    shared = NormalEmbedding(MLP(3, [5], DIM), DIM, initial_scale=0.3).double()
    nn.init.normal_(shared.variance_head.weight)
    head = copy.deepcopy(shared.variance_head)
    separate = NormalEmbedding(shared.encoder, DIM, nn.Sequential(shared.encoder, head), initial_scale=0.3)
    with torch.no_grad():
        head.bias.sub_(math.log(math.expm1(0.3 - separate.min_scale)))  # which makes the initial scale
    x = torch.randn(6, 3, dtype=torch.float64)
    torch.testing.assert_close(scale_of(separate(x)), scale_of(shared(x)), rtol=1e-12, atol=0)
    assert torch.equal(separate(x).mean, shared(x).mean)


@pytest.mark.parametrize("separate", [False, True])
def test_fused_embeddings_against_the_product_of_densities(separate: bool) -> None:
    """Eq. 22 for eq. 24: precisions add with their weights, and means in proportion to them."""
    arguments = {"variance_network": MLP(3, [5], DIM)} if separate else {}
    embedding = NormalEmbedding(MLP(3, [5], DIM), DIM, **arguments).double()
    nn.init.normal_(embedding.variance_network[0].weight if separate else embedding.variance_head.weight)
    q = embedding(torch.randn(2, 3, dtype=torch.float64))
    fused = pm.log_linear_pool([index_select(q, -1, torch.tensor([i])) for i in (0, 1)], [0.3, 0.7])
    weight = torch.tensor([[0.3], [0.7]], dtype=torch.float64) / q.variance
    torch.testing.assert_close(fused.variance, 1 / weight.sum(0, keepdim=True), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        fused.mean, (weight * q.mean).sum(0, keepdim=True) / weight.sum(0), rtol=1e-12, atol=1e-14
    )


# A sequence of vectors, and covariances of low rank.

SEQUENCES = {
    "shared": lambda encoder: NormalEmbedding(encoder, (5, DIM)),
    "separate": lambda encoder: NormalEmbedding(encoder, (5, DIM), MLP(3, [], DIM)),
    "fixed": lambda encoder: NormalEmbedding(encoder, (5, DIM), scale=0.3),
    "low rank": lambda encoder: LowRankNormalEmbedding(encoder, (5, DIM), 2),
}


@pytest.mark.parametrize("make", SEQUENCES.values(), ids=SEQUENCES)
def test_sequences_of_vectors(make: Any) -> None:
    embedding, x = make(MLP(3, [5], DIM)), torch.randn(6, 5, 3)
    q = embedding(x)
    assert (q.batch_shape, q.event_shape) == ((6,), (5, DIM))
    assert torch.equal(q.mean, embedding.encoder(x))
    assert q.log_prob(q.rsample()).shape == (6,)
    with pytest.raises(ValueError, match=r"encoder: expected an output of shape \(\.\.\., 5, 4\), got \(6, 7, 4\)"):
        embedding(torch.randn(6, 7, 3))


def low_rank(**arguments: Any) -> LowRankNormalEmbedding:
    embedding = LowRankNormalEmbedding(MLP(3, [5], DIM), DIM, 2, **arguments).double()
    for head in (embedding.factor_head, embedding.variance_head):
        nn.init.normal_(head.weight, std=0.3)
    return embedding


def test_low_rank_against_its_formula() -> None:
    embedding, x = low_rank(min_scale=0.1), torch.randn(6, 3, dtype=torch.float64)
    q, h = embedding(x), embedding.encoder(x)
    factor = embedding.factor_head(h).reshape(6, DIM, 2)
    scale = F.softplus(embedding.variance_head(h)) + 0.1
    covariance = factor @ factor.mT + scale.square().diag_embed()
    expected = dist.MultivariateNormal(h, covariance)
    z = torch.randn(6, DIM, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(z), expected.log_prob(z), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("initial_scale", [0.05, 0.7, 20.0])
def test_low_rank_starts_at_the_initial_scale(initial_scale: float) -> None:
    embedding = LowRankNormalEmbedding(MLP(3, [5], DIM), DIM, 2, initial_scale=initial_scale)
    q = embedding(torch.randn(6, 3))
    torch.testing.assert_close(q.stddev, torch.full((6, DIM), initial_scale))
    factor_variance = q.cov_factor.square().sum(-1)
    torch.testing.assert_close(factor_variance, torch.full((6, DIM), initial_scale**2 / 2))


def test_fused_low_rank_embeddings() -> None:
    """Eq. 22: the rank doubles, and precisions add with their weights."""
    q = low_rank()(torch.randn(2, 3, dtype=torch.float64))
    fused = pm.log_linear_pool([index_select(q, -1, torch.tensor([i])) for i in (0, 1)], [0.3, 0.7])
    assert fused.cov_factor.shape == (1, DIM, 4)
    weighted = torch.tensor([0.3, 0.7], dtype=torch.float64)[:, None, None] * q.precision_matrix
    torch.testing.assert_close(fused.precision_matrix[0], weighted.sum(0), rtol=1e-9, atol=1e-10)
    pull = (weighted @ q.mean.unsqueeze(-1)).sum(0).squeeze(-1)
    torch.testing.assert_close(fused.mean[0], torch.linalg.solve(weighted.sum(0), pull), rtol=1e-9, atol=1e-10)


def test_low_rank_learns_from_a_draw() -> None:
    embedding = low_rank()
    embedding(torch.randn(5, 3, dtype=torch.float64)).rsample().square().sum().backward()
    for parameter in embedding.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


# Any family.


def distribution_embedding(family: Any, shape: Any, **arguments: Any) -> DistributionEmbedding:
    num_outputs = DistributionLikelihood(family, shape, **arguments).num_outputs
    return DistributionEmbedding(MLP(3, [5], num_outputs), family, shape, **arguments)


def test_a_family_is_that_of_the_likelihood() -> None:
    embedding, x = distribution_embedding(dist.Gamma, (2, DIM)), torch.randn(6, 3)
    q = embedding(x)
    assert isinstance(q.base_dist, dist.Gamma)
    assert (q.batch_shape, q.event_shape) == ((6,), (2, DIM))
    raw_concentration, raw_rate = embedding.encoder(x).chunk(2, -1)
    for name, raw in (("concentration", raw_concentration), ("rate", raw_rate)):
        parameter = getattr(q.base_dist, name)
        torch.testing.assert_close(parameter, F.softplus(raw).reshape(6, 2, DIM) + 1e-6)


def test_fixed_parameters_of_a_family() -> None:
    scale_tril = torch.tensor([[1.0, 0.0], [0.5, 0.2]])
    embedding = distribution_embedding(dist.MultivariateNormal, 2, parameters=("loc",), scale_tril=scale_tril)
    q = embedding(torch.randn(6, 3))
    assert torch.equal(q.scale_tril[3], scale_tril)
    assert {name for name, _ in embedding.named_buffers()} == {"family.fixed_scale_tril"}


@pytest.mark.parametrize("family", [dist.Poisson, dist.Bernoulli, dist.Geometric, dist.OneHotCategorical])
def test_refuses_a_family_without_differentiable_draws(family: Any) -> None:
    message = rf"distribution_class: expected .* differentiable draws \(rsample\), got {family.__name__}"
    with pytest.raises(ValueError, match=message):
        DistributionEmbedding(nn.Linear(3, DIM), family, DIM)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRankNormalEmbedding(nn.Linear(3, DIM), DIM, 0), "rank: expected an integer >= 1, got 0"),
        (lambda: LowRankNormalEmbedding(nn.Linear(3, DIM), DIM, 5), "rank: expected at most embedding_dim = 4, got 5"),
        (
            lambda: LowRankNormalEmbedding(nn.Linear(3, DIM), DIM, 1, initial_scale=1e-3),
            r"initial_scale / sqrt\(2\): expected a number > min_scale = 0.001, got 0.0007",
        ),
        (
            lambda: DistributionEmbedding(nn.Linear(3, DIM), dist.Gamma, DIM)(torch.zeros(6, 3)),
            r"encoder: expected an output of shape \(\.\.\., 8\), got \(6, 4\)",
        ),
        (lambda: DistributionEmbedding(nn.Linear(3, DIM), dist.Gamma, 0), "event_shape: expected an integer >= 1"),
    ],
)
def test_refuses_other_families(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [NormalEmbedding, lambda *a: LowRankNormalEmbedding(*a, rank=1)], ids=["full", "low"])
def test_an_embedding_has_a_dimension(make: Any) -> None:
    with pytest.raises(ValueError, match=r"embedding_dim: expected at least one dimension, got \(\)"):
        make(nn.Linear(3, 1), ())


def test_an_initial_scale_that_is_not_used_is_not_looked_at() -> None:
    assert NormalEmbedding(nn.Linear(3, 4), 4, scale=2.0, min_scale=1.0)(torch.zeros(2, 3)).stddev.unique() == 2.0


@pytest.mark.faults("a device lacks an operation")
@pytest.mark.parametrize("rank", [None, 2])
def test_a_device_that_knows_no_autocast(rank: int | None) -> None:
    encoder = nn.Linear(3, 4, device="meta")
    embedding = NormalEmbedding(encoder, 4) if rank is None else LowRankNormalEmbedding(encoder, 4, rank)
    with pyro.validation_enabled(False):
        q = embedding.to("meta")(torch.zeros(5, 3, device="meta"))
    assert q.batch_shape + q.event_shape == (5, 4)
