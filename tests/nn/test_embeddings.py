"""Normal embedding densities: mean, the three sources of the standard deviation, and what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pyro_probmix.nn import MLP, Embedding, NormalEmbedding

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


@variants
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(make: Any, copied: Any) -> None:
    embedding = make()
    x = torch.randn(5, 3)
    before, after = embedding(x), copied(embedding)(x)
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.stddev, after.stddev)


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
        def _distribution(self, x: Tensor, features: Tensor) -> dist.TorchDistribution:
            return dist.Laplace(features, 1.0).to_event(1)

    q = LaplaceEmbedding(nn.Linear(3, DIM), DIM)(torch.randn(5, 3))
    assert (q.batch_shape, q.event_shape) == ((5,), (DIM,))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"embedding_dim": 0}, ValueError, "embedding_dim: expected an integer >= 1, got 0"),
        ({"embedding_dim": 2.0}, TypeError, "embedding_dim: expected an integer >= 1, got 2.0"),
        ({"initial_scale": 0.0}, ValueError, "initial_scale: expected a finite number > 0, got 0.0"),
        (
            {"initial_scale": 1e-7},
            ValueError,
            "initial_scale: expected a number > min_scale = 1e-06, got 1e-07",
        ),
        ({"scale": float("nan")}, ValueError, "scale: expected a finite number > 0, got nan"),
        ({"scale": torch.ones(2)}, TypeError, "scale: expected a number > 0, got tensor"),
        ({"min_scale": -1.0}, ValueError, "min_scale: expected a finite number > 0, got -1.0"),
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


def test_refuses_a_variance_network_that_would_broadcast() -> None:
    embedding = NormalEmbedding(nn.Linear(3, DIM), DIM, nn.Linear(3, 1))
    with pytest.raises(ValueError, match=r"variance_network: expected .* \(7, 4\), as the encoder's, got \(7, 1\)"):
        embedding(torch.zeros(7, 3))
