"""Densities of any kind are fused: log-linearly by quadrature, or linearly; alone, by SVI and in replicas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.mixing import PairBatch
from tests.training.replica_cases import assert_as_fit, initial

SIZE = 8


class MixtureLikelihood(pm.nn.Likelihood):
    """A mixture of three Normals."""

    def __init__(self) -> None:
        super().__init__(9, torch.Size(), torch.distributions.constraints.real)

    def distribution(self, raw: Tensor) -> Any:
        logits, loc, scale = raw.unflatten(-1, (3, 3)).unbind(-2)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, scale.exp() + 0.1))


def real(seed: int, size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def counts(seed: int, size: int) -> Tensor:
    return real(seed, size).mul(2).exp().floor().clamp(max=30)


# name: (the likelihood, its labels)
LIKELIHOODS: dict[str, tuple[Callable[[], Any], Callable[[int, int], Tensor]]] = {
    "StudentT": (lambda: pm.nn.DistributionLikelihood(dist.StudentT, df=4.0), real),
    "StudentT with its df": (lambda: pm.nn.DistributionLikelihood(dist.StudentT), real),
    "StudentTs": (
        lambda: pm.nn.DistributionLikelihood(dist.StudentT, 2, df=4.0),
        lambda seed, size: real(seed, 2 * size).reshape(size, 2),
    ),
    "Logistic": (lambda: pm.nn.DistributionLikelihood(dist.Logistic), real),
    "mixture": (MixtureLikelihood, real),
    "NegativeBinomial": (lambda: pm.nn.DistributionLikelihood(dist.NegativeBinomial), counts),
    "Laplace": (lambda: pm.nn.DistributionLikelihood(dist.Laplace), real),
    "Normal": (pm.nn.NormalLikelihood, real),
}
OPEN = [name for name in LIKELIHOODS if name != "Normal"]
EXACT = {"Normal": "log-linear", "Laplace": "numerical"}


def make_model(name: str, fusion: str = "numerical", **arguments: Any) -> Any:
    likelihood = LIKELIHOODS[name][0]()
    network = pm.nn.MLP(2, [4], likelihood.num_outputs)
    return pm.ProbMix(network, likelihood, coefficient=dist.Beta(0.8, 0.8), fusion=fusion, **arguments).double()


def data(name: str, seed: int = 0, size: int = SIZE) -> tuple[Tensor, Tensor]:
    return real(seed, 2 * size).reshape(size, 2), LIKELIHOODS[name][1](seed + 100, size)


def batch_of(name: str, seed: int = 0) -> PairBatch:
    return pm.CompleteGraph(SIZE).pair_batch(*data(name, seed))


@pytest.mark.faults("families that are not closed")
@pytest.mark.parametrize("vicinity", [None, pm.NormalVicinity(0.1), pm.NormalVicinity(0.1, fusion="linear")])
def test_it_is_the_log_linear_fusion_where_that_has_a_closed_form(vicinity: Any) -> None:
    """With exact labels, too."""
    model, batch = make_model("Normal", "log-linear", vicinity=vicinity), batch_of("Normal")
    draws = model.draw(batch, num_samples=3)
    expected = model.risk(batch, num_samples=3, **draws)
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    model.mixing = replace(model.mixing, fusion="numerical")
    actual = model.risk(batch, num_samples=3, **draws)
    torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)
    gradients = torch.autograd.grad(actual, list(model.parameters()))
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-8, rtol=1e-8)


@pytest.mark.faults("families that are not closed")
@pytest.mark.parametrize("name", OPEN)
def test_the_risk_is_that_of_pools_made_edge_by_edge(name: str) -> None:
    model, batch = make_model(name), batch_of(name)
    draws = model.draw(batch)
    p, weight = model.likelihood(model.decoder(batch.x)), draws["coefficient"]
    pair = [p, pm.distributions.index_select(p, 0, batch.partner)]
    pool = pm.distributions.numerical_pool(pair, [weight, 1 - weight])
    vicinity = model.mixing.vicinity
    score = vicinity.expected_log_prob(pool, batch.y, batch.y[batch.partner], weight)
    torch.testing.assert_close(model.risk(batch, **draws), -score.mean(), atol=1e-9, rtol=1e-9)


@pytest.mark.faults("families that are not closed")
@pytest.mark.parametrize("name", OPEN)
def test_replicas_train_as_single_models_do(name: str) -> None:
    """A fixed rule in the one, an adaptive one in the other: equal within the accuracy."""
    own = [data(name, seed) for seed in range(2)]
    replicas = pm.fit_replicas(
        lambda r: make_model(name), own, validation=own, epochs=3, learning_rate=0.02, progress=False
    )
    assert replicas.failed == {}
    for r in range(2):
        settings = {"validation": own[r], "epochs": 3, "learning_rate": 0.02, "seed": replicas.seeds[r]}
        single = pm.fit(initial(lambda r: make_model(name), r), own[r], progress=False, **settings)
        assert replicas.histories[r].train_loss == pytest.approx(single.train_loss, abs=2e-6)


@pytest.mark.faults("families that are not closed")
@pytest.mark.parametrize("name", ["StudentT", "NegativeBinomial"])
def test_svi_trains_it_and_its_loss_is_the_risk(name: str) -> None:
    model, batch = make_model(name), batch_of(name)
    drawn = pyro.poutine.trace(model.guide).get_trace(batch)
    scored = pyro.poutine.trace(pyro.poutine.replay(model, drawn)).get_trace(batch)
    coefficient = drawn.nodes["mixing_coefficient"]["value"]
    assert -scored.log_prob_sum().item() / SIZE == pytest.approx(model.risk(batch, coefficient=coefficient).item())
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(batch) for _ in range(25)]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_pm_mix_takes_it() -> None:
    batch = batch_of("StudentT")

    def model(x: Tensor, y: Tensor | None) -> Tensor:
        slope = pyro.param("slope", torch.tensor(0.5).double())
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.StudentT(4.0, slope * x[:, 0], 1.0), obs=y)

    mixed = pm.mix(model, at="y", coefficient=dist.Beta(0.2, 0.2), fusion="numerical")
    loss = Trace_ELBO().differentiable_loss(mixed, mixed.guide, batch)
    loss.backward()
    assert pyro.get_param_store()._params["slope"].grad.isfinite()
    assert mixed(PairBatch(batch.x, None, batch.partner)).shape == (SIZE,)  # drawn from the pool


def test_a_mask_of_outputs_leaves_the_others_as_they_are() -> None:
    model, batch = make_model("StudentTs"), batch_of("StudentTs")
    coefficient = torch.linspace(0.1, 0.9, SIZE, dtype=torch.float64)
    mask = torch.ones(SIZE, 2, dtype=torch.bool)
    risk = model.risk(batch, coefficient=coefficient)
    assert model.risk(PairBatch(batch.x, batch.y, batch.partner, mask=mask), coefficient=coefficient) == risk
    mask[0, 1] = False
    fewer = PairBatch(batch.x, batch.y, batch.partner, mask=mask)
    p = model.mixing.fuse(model.likelihood(model.decoder(batch.x)), batch.partner, coefficient)
    gone = model.mixing.vicinity.expected_log_prob(
        p.base_dist, batch.y, batch.y[batch.partner], coefficient.unsqueeze(-1)
    )
    both = mask & mask[batch.partner]
    expected = -(gone * both).sum() / SIZE
    torch.testing.assert_close(model.risk(fewer, coefficient=coefficient), expected)


def test_an_embedding_is_drawn_from_its_numerical_pool() -> None:
    def make(fusion: str) -> Any:
        family = pm.nn.DistributionLikelihood(dist.Laplace, 2)
        embedding = pm.nn.DistributionEmbedding(nn.Linear(2, family.num_outputs), dist.Laplace, 2)
        likelihood = pm.nn.NormalLikelihood()
        return pm.ManifoldProbMix(embedding, nn.Linear(2, 2), likelihood, fusion=fusion).double()

    with pytest.raises(ValueError, match=r'embedding: expected a loc of Laplace that is held fixed.* or "numerical"'):
        make("log-linear")
    model, batch = make("numerical"), batch_of("Normal")
    model.risk(batch, num_samples=2).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    own = [data("Normal", seed) for seed in range(2)]
    replicas = pm.fit_replicas(lambda r: make("numerical"), own, epochs=2, progress=False)
    assert replicas.failed == {}


@pytest.mark.slow
def test_a_compiler_makes_one_graph_of_the_risk() -> None:
    torch._dynamo.reset()  # what has been compiled before, of other shapes, makes sizes symbols
    model, batch = make_model("NegativeBinomial"), batch_of("NegativeBinomial")
    coefficient = torch.linspace(0, 1, SIZE, dtype=torch.float64)
    with pyro.validation_enabled(False):
        expected = model.risk(batch, coefficient=coefficient)
        risk = torch.compile(model.risk, fullgraph=True, backend="eager")
        torch.testing.assert_close(risk(batch, coefficient=coefficient), expected, atol=1e-6, rtol=0)


def test_vectors_of_one_density_and_unknown_fusions_are_refused_when_the_model_is_built() -> None:
    likelihood = pm.nn.DistributionLikelihood(dist.MultivariateNormal, 3)
    network = nn.Linear(2, likelihood.num_outputs)
    with pytest.raises(
        ValueError, match=r"likelihood: expected a density of numbers.* got MultivariateNormal of event"
    ):
        pm.ProbMix(network, likelihood, fusion="numerical")
    with pytest.raises(ValueError, match='labels: expected "sample"'):
        make_model("StudentT", vicinity=pm.NormalVicinity(0.1))
    with pytest.raises(ValueError, match='fusion: expected one of "log-linear", "linear", "numerical", got "pool"'):
        make_model("StudentT", "pool")
    sampled = make_model("StudentT", vicinity=pm.NormalVicinity(0.1), labels="sample")
    assert sampled.risk(batch_of("StudentT")).isfinite()


@pytest.mark.faults("families that are not closed")
def test_a_loss_that_is_not_finite_names_what_gives_that() -> None:
    x, y = data("StudentT")
    far = y + 1e200, "loss: expected finite losses and gradients, got one that is not in epoch 0, batch 0: the loss; "
    hint = 'fusion="numerical" gives NaN where its nodes miss its accuracy; '
    for fusion, named in (("numerical", hint), ("linear", "")):
        model = make_model("StudentT", fusion)
        before = [p.detach().clone() for p in model.parameters()]
        with pytest.raises(ValueError, match=f"{far[1]}{named}the parameters are those"):
            pm.fit(model, (x, far[0]), epochs=2, progress=False)
        assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


@pytest.mark.faults("families that are not closed")
def test_replicas_that_meet_the_end_of_the_rule_stop() -> None:
    """Where nothing is looked at, as in replicas and on a GPU, the risk is not a number."""

    def make(log_odds: float) -> Any:
        network = nn.Linear(2, 1)
        nn.init.zeros_(network.weight)
        nn.init.constant_(network.bias, log_odds)
        likelihood = pm.nn.DistributionLikelihood(dist.Geometric)
        return pm.ProbMix(network, likelihood, coefficient=dist.Beta(0.8, 0.8), fusion="numerical").double()

    own = [data("NegativeBinomial", seed) for seed in range(2)]
    replicas = pm.fit_replicas(lambda r: make((-9.0, 0.0)[r]), own, epochs=2, progress=False)
    assert replicas.failed == {0: 0}


LINEAR: dict[str, tuple[Callable[[], Any], Callable[[int, int], Tensor]]] = {
    "StudentT": LIKELIHOODS["StudentT"],
    "Cauchy": (lambda: pm.nn.DistributionLikelihood(dist.Cauchy), real),
    "mixture": LIKELIHOODS["mixture"],
    "Binomial": (lambda: pm.nn.DistributionLikelihood(dist.Binomial, total_count=30), counts),
    "Binomial of a tensor": (
        lambda: pm.nn.DistributionLikelihood(dist.Binomial, total_count=torch.tensor(30.0)),
        counts,
    ),
    "Pareto": (
        lambda: pm.nn.DistributionLikelihood(dist.Pareto, scale=torch.tensor(1.0)),
        lambda seed, size: real(seed, size).exp() + 1,
    ),
    "BetaBinomial": (lambda: pm.nn.DistributionLikelihood(dist.BetaBinomial, total_count=30), counts),
    "NegativeBinomial": LIKELIHOODS["NegativeBinomial"],
}


@pytest.mark.faults("families that are not closed")
@pytest.mark.parametrize("name", LINEAR)
def test_linear_fusion_takes_any_density_alone_and_in_replicas(name: str) -> None:
    make_likelihood, labels = LINEAR[name]

    def make(r: int) -> Any:
        likelihood = make_likelihood()
        network = nn.Linear(2, likelihood.num_outputs)
        return pm.ProbMix(network, likelihood, coefficient=dist.Beta(0.8, 0.8), fusion="linear").double()

    own = [(data("Normal", seed)[0], labels(seed, SIZE)) for seed in range(2)]
    model, batch = make(0), pm.CompleteGraph(SIZE).pair_batch(*own[0])
    coefficient = torch.linspace(0, 1, SIZE, dtype=torch.float64)
    p = model.likelihood(model.decoder(batch.x))

    def mixture(y: Tensor) -> Tensor:
        ours = coefficient.log() + p.log_prob(y)
        theirs = (1 - coefficient).log() + _at(p, batch.partner, y)
        return torch.logaddexp(ours, theirs)

    vicinity = model.mixing.vicinity
    if vicinity.fusion == "linear":
        score = coefficient * mixture(batch.y) + (1 - coefficient) * mixture(batch.y[batch.partner])
    else:
        score = mixture(coefficient * batch.y + (1 - coefficient) * batch.y[batch.partner])
    torch.testing.assert_close(model.risk(batch, coefficient=coefficient), -score.mean())
    replicas = pm.fit_replicas(make, own, epochs=4, learning_rate=0.02, progress=False)
    assert_as_fit(replicas, make, own)


def _at(p: Any, rows: Tensor, y: Tensor) -> Tensor:
    """log p of row ``rows[i]`` at ``y[i]``."""
    table = p.log_prob(y.unsqueeze(-1).expand(len(y), len(rows)))
    return table.gather(1, rows.unsqueeze(-1)).squeeze(-1)
