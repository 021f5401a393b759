"""The labels of the ready models and of pm.mix: vicinities of one's own, and what is refused before training."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.distributions import constraints

import pyro_probmix as pm
from pyro_probmix.mixing import Vicinity
from tests.models.cases import FEATURES, METHODS, make_batch, make_model
from tests.training.replica_cases import assert_as_fit, data, fit_replicas, maker


class GammaVicinity(Vicinity):
    """All that a vicinity of one's own says: its kernel."""

    def __init__(self, shape: float, fusion: Any = "log-linear") -> None:
        super().__init__(fusion)
        self.shape = shape

    def kernel(self, y: Tensor, support: Any = None) -> Any:
        return dist.Gamma(torch.full_like(y, self.shape), self.shape / y)


def gamma_data(size: int = 6) -> pm.PairBatch:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(size, FEATURES, generator=generator, dtype=torch.float64)
    y = torch.rand(size, generator=generator, dtype=torch.float64) + 0.5
    return pm.PairBatch(x, y, torch.arange(size).roll(1))


@pytest.mark.parametrize("fusion", ["linear", "log-linear"])
@pytest.mark.faults("weights and masks ignored")
def test_a_vicinity_of_ones_own_has_masks_and_weights(fusion: Any) -> None:
    """It knows neither; what it scores of an edge counts if both its nodes do, as often as their product says."""
    batch = gamma_data()
    batch.mask, batch.weight = torch.tensor([True, True, False, True, True, True]), torch.arange(1.0, 7.0).double()
    model = make_model("ProbMix", "gamma", vicinity=GammaVicinity(20.0, fusion))
    coefficient = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    p = model.likelihood(model.decoder(batch.x))
    pooled = dist.Gamma(
        *[coefficient * t + (1 - coefficient) * t[batch.partner] for t in (p.concentration, p.rate)],
    )
    kernels = [GammaVicinity(20.0).kernel(y) for y in (batch.y, batch.y[batch.partner])]
    if fusion == "log-linear":
        kernels = [dist.Gamma(20.0, coefficient * kernels[0].rate + (1 - coefficient) * kernels[1].rate)]
    scores = [-pm.cross_entropy(kernel, pooled) for kernel in kernels]
    scores = [scores[0]] if len(scores) == 1 else [coefficient * scores[0] + (1 - coefficient) * scores[1]]
    counts = batch.mask & batch.mask[batch.partner]
    weight = batch.weight * batch.weight[batch.partner]
    expected = -(scores[0] * weight)[counts].sum() / 6
    torch.testing.assert_close(model.risk(batch, coefficient=coefficient), expected, rtol=1e-12, atol=0)
    batch.mask = None
    assert model.risk(batch, coefficient=coefficient) != expected


def test_a_vicinity_of_ones_own_under_mix_is_that_of_the_ready_model() -> None:
    batch, vicinity = gamma_data(), GammaVicinity(20.0)
    model = make_model("ProbMix", "gamma", vicinity=vicinity)

    def plain(x: Tensor, y: Tensor | None = None) -> Any:
        p = model.likelihood(model.decoder(x))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", p, obs=y)

    mixed = pm.mix(plain, at="y", coefficient=dist.Beta(0.2, 0.2), vicinity=vicinity)
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(mixed, mixed.guide, batch) / 6
    pyro.set_rng_seed(1)
    torch.testing.assert_close(loss, model.risk(batch))


@pytest.mark.parametrize("fusion", ["linear", "log-linear"])
def test_a_vicinity_of_ones_own_trains_alone_and_in_replicas(fusion: Any) -> None:
    make = maker("ProbMix", "gamma", vicinity=GammaVicinity(20.0, fusion))
    own = [data(r, likelihood="gamma") for r in range(2)]
    replicas = fit_replicas(make, own)
    assert replicas.failed == {}
    assert_as_fit(replicas, make, own)


REFUSED = {
    "StudentT": (
        lambda: pm.nn.DistributionLikelihood(dist.StudentT, df=4.0),
        pm.NormalVicinity(0.1),
        'labels: expected "sample" for StudentT',
    ),
    "half-line": (
        lambda: pm.nn.DistributionLikelihood(dist.Gamma),
        pm.NormalVicinity(0.1),
        "vicinity: expected labels that the likelihood has, in GreaterThanEq",
    ),
    "angles": (
        lambda: pm.nn.DistributionLikelihood(dist.VonMises, 2),
        pm.DiracVicinity(),
        "vicinity: expected labels that the likelihood has, which is curved",
    ),
    "counts": (
        lambda: pm.nn.DistributionLikelihood(dist.Poisson),
        pm.NormalVicinity(0.1, "linear"),
        "vicinity: expected labels that the likelihood has, which is discrete",
    ),
    "classes": (
        lambda: pm.nn.DistributionLikelihood(dist.Categorical, num_classes=3),
        pm.LabelVicinity(0.1, 4),
        "num_classes: expected the likelihood's 3 classes, got 4",
    ),
}


@pytest.mark.parametrize(
    ("case", "method"), [(c, m) for c in REFUSED for m in METHODS if (c, m) != ("StudentT", "ProbMix")]
)  # which has no pool, to begin with
@pytest.mark.faults("exact labels of few families")
def test_what_would_fail_in_training_is_refused_when_the_model_is_built(case: str, method: str) -> None:
    make, vicinity, message = REFUSED[case]
    likelihood = make()
    networks: list[Any] = [pm.nn.MLP(FEATURES, [4], likelihood.num_outputs)]
    if method.startswith("Manifold"):
        encoder: Any = nn.Linear(FEATURES, FEATURES)
        networks.insert(0, pm.nn.NormalEmbedding(encoder, FEATURES) if method == "ManifoldProbMix" else encoder)
    with pytest.raises(ValueError, match=message):
        getattr(pm, method)(*networks, likelihood, vicinity=vicinity)


@pytest.mark.faults("exact labels of few families")
def test_a_mixture_has_no_exact_normal_labels() -> None:
    """Each Normal has them, their linear pool has not."""
    with pytest.raises(ValueError, match='labels: expected "sample" for LinearPool'):
        make_model("ProbMix", vicinity=pm.NormalVicinity(0.1), fusion="linear")
    for arguments in ({"labels": "sample"}, {"vicinity": pm.NormalVicinity(0.0)}):
        model = make_model("ProbMix", **{"vicinity": pm.NormalVicinity(0.1), "fusion": "linear", **arguments})
        assert model.risk(make_batch()).isfinite()


class Bare(nn.Module):
    """A likelihood of one's own, of which nothing is known but what a model asks for."""

    event_shape, support = torch.Size(), constraints.nonnegative_integer

    def forward(self, raw: Tensor) -> Any:
        return dist.Poisson(raw.squeeze(-1).exp())


@pytest.mark.parametrize("labels", ["exact", "sample"])
@pytest.mark.faults("labels between labels")
def test_a_likelihood_of_ones_own_is_looked_at_with_its_first_batch(labels: Any) -> None:
    batch = make_batch("poisson")
    network = pm.nn.MLP(FEATURES, [], 1).double()
    assert repr(pm.Mixup(network, Bare()).mixing.vicinity) == 'DiracVicinity(fusion="linear")'
    assert pm.Mixup(network, Bare(), labels=labels).risk(batch).isfinite()
    model = pm.Mixup(network, Bare(), vicinity=pm.NormalVicinity(0.1), labels=labels)
    with pytest.raises(ValueError, match="vicinity: expected labels that the likelihood has, which is discrete"):
        model.risk(batch)
