"""M-ProbMix with embeddings of many families: fused, trained, predicted with, evaluated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import pyro_probmix as pm
from pyro_probmix.distributions import index_select
from tests.models.cases import FEATURES, make_batch, make_data, randomize

DIM, SIZE = 4, 6


def encoder(num_outputs: int) -> nn.Module:
    return pm.nn.MLP(FEATURES, [5], num_outputs, activation=nn.Tanh)


def of(family: Any, shape: Any = DIM, **arguments: Any) -> Callable[[], nn.Module]:
    num_outputs = pm.nn.DistributionLikelihood(family, shape, **arguments).num_outputs
    return lambda: pm.nn.DistributionEmbedding(encoder(num_outputs), family, shape, **arguments)


EMBEDDINGS: dict[str, Callable[[], nn.Module]] = {
    "diagonal": lambda: pm.nn.NormalEmbedding(encoder(DIM), DIM),
    "separate": lambda: pm.nn.NormalEmbedding(encoder(DIM), DIM, encoder(DIM)),
    "sequence": lambda: pm.nn.NormalEmbedding(nn.Sequential(encoder(2 * DIM), nn.Unflatten(-1, (2, DIM))), (2, DIM)),
    "low rank": lambda: pm.nn.LowRankNormalEmbedding(encoder(DIM), DIM, 2),
    "normal": of(dist.Normal, (2, DIM)),
    "multivariate normal": of(dist.MultivariateNormal),
    "fixed low rank": of(
        dist.LowRankMultivariateNormal,
        parameters=("loc", "cov_diag"),
        cov_factor=torch.linspace(-1, 1, 2 * DIM).reshape(DIM, 2),
    ),
    "log normal": of(dist.LogNormal),
    "half normal": of(dist.HalfNormal),
    "gumbel": of(dist.Gumbel, scale=0.7),
    "continuous bernoulli": of(dist.ContinuousBernoulli),
    "gamma": of(dist.Gamma),
    "inverse gamma": of(dist.InverseGamma),
    "chi2": of(dist.Chi2),
    "exponential": of(dist.Exponential),
    "weibull": of(dist.Weibull, concentration=2.0),
    "pareto": of(dist.Pareto, scale=1.0),
    "laplace": of(dist.Laplace, loc=0.0),
    "beta": of(dist.Beta),
    "dirichlet": of(dist.Dirichlet),
    "dirichlets": of(dist.Dirichlet, (2, DIM)),
    "von mises": of(dist.VonMises),
}
embeddings = pytest.mark.parametrize("name", EMBEDDINGS)


def make_model(name: str, dtype: torch.dtype = torch.float64, **arguments: Any) -> Any:
    likelihood = pm.nn.NormalLikelihood()
    embedding: Any = EMBEDDINGS[name]()
    decoder = pm.nn.MLP(embedding.event_shape.numel(), [5], likelihood.num_outputs, activation=nn.Tanh)
    flat = nn.Sequential(nn.Flatten(), decoder)
    return randomize(pm.ManifoldProbMix(embedding, flat, likelihood, **arguments)).to(dtype)


@pytest.mark.parametrize("num_samples", [1, 3])
@embeddings
def test_loss_over_batch_size_is_the_risk(name: str, num_samples: int) -> None:
    model, batch = make_model(name), make_batch()
    parameters = list(model.parameters())
    results = []
    elbo = Trace_ELBO(num_particles=num_samples, vectorize_particles=num_samples > 1, max_plate_nesting=1)
    for loss in (
        lambda: elbo.differentiable_loss(model, model.guide, batch) / SIZE,
        lambda: model.risk(batch, num_samples),
    ):
        pyro.set_rng_seed(1)
        value = loss()
        results.append((value.detach(), *torch.autograd.grad(value, parameters)))
    for one, other in zip(*results, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@embeddings
def test_draws_are_of_the_fused_density(name: str) -> None:
    """The numbers of the family's own sampler at the pool of the pair, where it has the same stream of numbers."""
    model, batch = make_model(name), make_batch()
    coefficient = torch.rand(SIZE, dtype=torch.float64)
    q = model.encoder(batch.x)
    pool = pm.log_linear_pool([q, index_select(q, -1, batch.partner)], [coefficient, 1 - coefficient])
    seen = []
    model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    pyro.set_rng_seed(2)
    model.risk(batch, coefficient=coefficient)
    pyro.set_rng_seed(2)
    torch.testing.assert_close(seen[0].detach(), pool.sample(), rtol=1e-12, atol=1e-13)


@embeddings
def test_svi_predictive_and_evaluation(name: str) -> None:
    model, (x, y) = make_model(name, torch.float32), make_data(dtype=torch.float32)
    before = copy.deepcopy(model.state_dict())
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(make_batch(dtype=torch.float32, graph="neighbors"))
    for key, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[key]), key
    p = model.predictive(x, num_samples=5)
    assert p.log_prob(y).shape == (SIZE,)
    assert torch.equal(p.log_prob(y), model.predictive(x, num_samples=5).log_prob(y))
    assert all(torch.tensor(value).isfinite() for value in pm.evaluate(p, y).values())


@embeddings
def test_fit(name: str) -> None:
    model, data = make_model(name, torch.float32), make_data(dtype=torch.float32)
    history = pm.fit(model, data, validation=data, epochs=2, progress=False)
    assert len(history.validation_loss) == 2


@embeddings
def test_many_at_once_under_vmap(name: str) -> None:
    """Each replica has its own draws, as :func:`fit_replicas` needs them."""
    model, batch = make_model(name), make_batch()

    class Losses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self) -> Any:
            p = model.predictive(batch.x, num_samples=3, seed=None)
            return torch.stack([model.risk(batch), -p.log_prob(batch.y).mean()])

    losses = Losses()
    parameters, buffers = stack_module_state([losses] * 3)
    with pyro.validation_enabled(False):
        together = vmap(lambda p, b: functional_call(losses, (p, b), ()), randomness="different")(parameters, buffers)
    assert together.isfinite().all()
    assert len(set(together[:, 0].tolist())) == len(set(together[:, 1].tolist())) == 3


@pytest.mark.parametrize("name", ["low rank", "gamma", "beta", "dirichlets", "weibull", "von mises"])
def test_replicas(name: str) -> None:
    data = make_data(dtype=torch.float32)
    replicas = pm.fit_replicas(
        lambda r: make_model(name, torch.float32), [data] * 2, validation=[data] * 2, epochs=3, progress=False
    )
    assert not replicas.failed
    assert replicas.histories[0].train_loss != replicas.histories[1].train_loss


def test_a_family_that_is_not_closed_is_refused() -> None:
    likelihood = pm.nn.NormalLikelihood()
    embedding = of(dist.StudentT, df=4.0)()
    with pytest.raises(TypeError, match=r"embedding: expected a family that is closed .* StudentT"):
        pm.ManifoldProbMix(embedding, pm.nn.MLP(DIM, [], 2), likelihood)
