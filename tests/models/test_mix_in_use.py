"""``pm.mix`` on anybody's model: weights, masks, chains, reparametrizations, other inference, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    JitTrace_ELBO,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    config_enumerate,
    infer_discrete,
)
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal, AutoNormalMessenger
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor

import pyro_probmix as pm
from tests.models.cases import make_model

BETA = dist.Beta(0.4, 0.4)
ONE = dist.Delta(torch.tensor(1.0, dtype=torch.float64))


def batch_of(y: Tensor | None, size: int = 8, **rows: Tensor) -> pm.PairBatch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, 2, generator=generator, dtype=torch.float64)
    return pm.PairBatch(x, y, torch.arange(size).roll(1), **rows)


def labels(size: int = 8) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def normal(x: Tensor, y: Tensor | None) -> Tensor:
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x[:, 0], 1.0), obs=y)


def latent(x: Tensor, y: Tensor | None) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x[:, 0], 1 + x[:, 1].square()))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def weighted(x: Tensor, y: Tensor | None) -> Tensor:
    slope = pyro.sample("slope", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(slope * x[:, 0], 1.0), obs=y)


def trace_of(model: Any, batch: pm.PairBatch) -> Any:
    trace = poutine.trace(model).get_trace(batch)
    trace.compute_log_prob()
    return trace


# Weights and masks of the batch.


def all_pairs(x: Tensor, y: Tensor, **rows: Tensor) -> list[pm.PairBatch]:
    """The cyclic shifts, which together hold every ordered pair once."""
    return [pm.PairBatch(x, y, torch.arange(len(x)).roll(shift), **rows) for shift in range(len(x))]


def fitted_mean(batches: list[pm.PairBatch]) -> float:
    """Where the gradient of the mixed loss of Normal(m, 1) vanishes: it is linear in m."""

    def gradient(value: float) -> Tensor:
        m = torch.tensor(value, dtype=torch.float64, requires_grad=True)

        def model(x: Tensor, y: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(m, 1.0), obs=y)

        mixed = pm.mix(model, at="y", coefficient=ONE)
        loss = sum(Trace_ELBO().differentiable_loss(mixed, mixed.guide, batch) for batch in batches)
        return torch.autograd.grad(loss, m)[0]

    at_zero, at_one = gradient(0.0), gradient(1.0)
    return (at_zero / (at_zero - at_one)).item()


@pytest.mark.faults("weights and masks ignored")
def test_weights_of_the_batch_weigh_the_labels() -> None:
    y = torch.tensor([12.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    weight = torch.tensor([100.0, 1, 1, 1, 1, 1], dtype=torch.float64)
    batches = all_pairs(torch.zeros(6, 1, dtype=torch.float64), y, weight=weight)
    assert fitted_mean(batches) == pytest.approx(12 * 100 / 105)


@pytest.mark.faults("weights and masks ignored")
@pytest.mark.parametrize("filler", [100.0, float("nan")])
def test_missing_labels_are_not_trained_on(filler: float) -> None:
    y = torch.tensor([100.0] + [0.0] * 9 + [filler] * 10, dtype=torch.float64)
    batches = all_pairs(torch.zeros(20, 1, dtype=torch.float64), y, mask=torch.arange(20) < 10)
    assert fitted_mean(batches) == pytest.approx(10)


@pytest.mark.faults("weights and masks ignored")
@pytest.mark.parametrize("labels_are", ["exact", "sample"])
@pytest.mark.parametrize("at", ["x", "embedding", "y"])
def test_weights_and_masks_mean_what_they_mean_in_a_ready_model(at: str, labels_are: Any) -> None:
    method = {"x": "Mixup", "embedding": "ManifoldProbMix", "y": "ProbMix"}[at]
    arguments: dict[str, Any] = {"coefficient": BETA, "vicinity": pm.NormalVicinity(0.1), "labels": labels_are}
    ready = make_model(method, "normals", **arguments)

    def model(x: Tensor, y: Tensor | None) -> None:
        with pyro.plate("data", len(x)):
            if at == "x":
                x = pyro.deterministic("x", x, event_dim=1)
            if at == "embedding":
                x = pyro.sample("embedding", ready.encoder(x))
            pyro.sample("y", ready.likelihood(ready.decoder(x)), obs=y)

    mixed = pm.mix(model, at=at, **arguments)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    for rows in ({"weight": weight}, {"mask": torch.arange(6) < 4}, {"weight": weight, "mask": torch.rand(6, 2) < 0.6}):
        batch = pm.PairBatch(x, y, torch.tensor([2, 0, 1, 5, 3, 4]), **rows)
        losses = []
        for fn in (mixed, ready):
            pyro.set_rng_seed(3)
            losses.append(Trace_ELBO().differentiable_loss(fn, fn.guide, batch))
        torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)


@pytest.mark.faults("weights and masks ignored")
def test_weights_count_at_latent_sites_of_model_and_guide() -> None:
    """A row of weight two is that row twice: its latent terms too."""
    weight = torch.tensor([2.0, 1, 1, 1, 1, 1, 1, 1], dtype=torch.float64)

    def guide(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * y, 1.0))

    arguments: dict[str, Any] = {"at": "z", "coefficient": ONE}
    mixed, own = pm.mix(latent, **arguments), pm.mix(guide, **arguments)
    plain, heavy = batch_of(labels()), batch_of(labels(), weight=weight)
    trace = poutine.trace(own).get_trace(heavy)
    trace.compute_log_prob()
    replayed = poutine.trace(poutine.replay(mixed, trace=trace)).get_trace(heavy)
    replayed.compute_log_prob()
    for found, name in ((trace, "z"), (replayed, "z"), (replayed, "y")):
        node = found.nodes[name]
        edges = weight * weight[plain.partner]
        torch.testing.assert_close(node["log_prob"], edges * node["unscaled_log_prob"])
    with pytest.raises(ValueError, match=r"guide: expected pm.mix\(guide, ...\) for a batch with weights"):
        Trace_ELBO().loss(mixed, lambda batch: guide(batch.x, batch.y), heavy)


@pytest.mark.faults("weights and masks ignored")
def test_a_mask_of_another_shape_is_refused_by_the_name_of_the_site() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(x[:, 0], 1.0), obs=y[:, 0])

    batch = batch_of(torch.zeros(8, 2, dtype=torch.float64), mask=torch.rand(8, 2) < 0.5)
    with pytest.raises(ValueError, match=r"mask: expected shape \(8,\) or that of the labels at 'a', \(8,\), got"):
        poutine.trace(pm.mix(model, at="a", coefficient=BETA)).get_trace(batch)


@pytest.mark.faults("weights and masks ignored")
def test_weights_beside_an_enumerated_site_are_refused() -> None:
    """The sum over its states to the power of a weight is no sum of powers."""
    weight = torch.full((8,), 2.0, dtype=torch.float64)
    batch = batch_of(labels(), weight=weight)
    mixed = pm.mix(mixture, at="y", coefficient=ONE)
    for guide in (mixed.guide, lambda batch: None):
        with pytest.raises(ValueError, match=r"weight: expected none where sites of the data plate are enumerated"):
            TraceEnum_ELBO(max_plate_nesting=1).loss(mixed, guide, batch)
    integrated = pm.mix(normal, at="y", coefficient=pm.GaussJacobi(0.5, num_nodes=3))
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    with pytest.raises(ValueError, match="weight: expected none where"):
        elbo.loss(integrated, lambda batch: None, batch)
    plain = elbo.loss(integrated, integrated.guide, batch_of(labels()))
    assert elbo.loss(integrated, integrated.guide, batch) == pytest.approx(4 * plain)


# The law of λ.


@pytest.mark.slow
@pytest.mark.faults("coefficient without its law")
@pytest.mark.parametrize("integrated", [False, True])
def test_under_mcmc_the_coefficient_has_its_law(integrated: bool) -> None:
    law = pm.GaussJacobi(5.0, num_nodes=4) if integrated else dist.Beta(5.0, 5.0)
    mixed = pm.mix(weighted, at="y", coefficient=law)
    mcmc = MCMC(NUTS(mixed), num_samples=200, warmup_steps=80, disable_progbar=True)
    mcmc.run(batch_of(0.01 * labels()))
    samples = mcmc.get_samples()
    assert ("mixing_coefficient" in samples) is not integrated
    if not integrated:
        assert samples["mixing_coefficient"].std().item() == pytest.approx(0.151, abs=0.025)


@pytest.mark.faults("coefficient without its law")
def test_a_delta_is_refused_under_mcmc_and_can_be_conditioned() -> None:
    law = dist.Delta(torch.tensor(0.3, dtype=torch.float64))
    mixed, batch = pm.mix(weighted, at="y", coefficient=law), batch_of(labels())
    with pytest.raises(ValueError, match=r"coefficient: expected a density under MCMC, .* got Delta; condition it"):
        MCMC(NUTS(mixed), num_samples=2, warmup_steps=1, disable_progbar=True).run(batch)
    conditioned = poutine.condition(mixed, data={"mixing_coefficient": law.v})
    mcmc = MCMC(NUTS(conditioned), num_samples=3, warmup_steps=3, disable_progbar=True)
    mcmc.run(batch)
    assert set(mcmc.get_samples()) == {"slope"}


@pytest.mark.faults("coefficient without its law")
def test_a_guide_mixed_by_another_law_is_refused() -> None:
    batch, mixed = batch_of(labels()), pm.mix(normal, at="y", coefficient=BETA)
    for law in (dist.Beta(9.0, 9.0), ONE, dist.Uniform(0.0, 1.0)):
        guide = pm.mix(lambda x, y: None, at="y", coefficient=law)
        with pytest.raises(ValueError, match="guide: expected one that is mixed with the model's law"):
            Trace_ELBO().loss(mixed, guide, batch)
    for law in (dist.Beta(0.3, 0.3), ONE, dist.Uniform(0.0, 1.0), dist.Beta(torch.full((8,), 0.3), 0.4)):
        model, guide = (pm.mix(fn, at="y", coefficient=law) for fn in (normal, lambda x, y: None))
        assert torch.isfinite(torch.tensor(Trace_ELBO().loss(model, guide, batch)))


# A run in which nothing was fused.


@pytest.mark.faults("nothing was fused")
@pytest.mark.parametrize("has_labels", [True, False])
@pytest.mark.parametrize(("at", "plate"), [("Y", "data"), ("Y", "rows"), ("y", "rows")])
def test_a_misspelt_site_or_plate_is_refused(at: str, plate: str, has_labels: bool) -> None:
    mixed = pm.mix(normal, at=at, plate=plate, coefficient=BETA)
    batch = batch_of(labels() if has_labels else None)
    with pytest.raises(ValueError, match=r"(at|plate): expected .*'y'|plate: expected site 'y' inside plate 'rows'"):
        poutine.trace(mixed).get_trace(batch)
    with pytest.raises(ValueError, match=r"(at|plate): expected"):
        Trace_ELBO().loss(mixed, lambda batch: None, batch)


# Reparametrizations, and observed covariates.


def hierarchical(x: Tensor, y: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
    with pyro.plate("data", len(x)):
        theta = pyro.sample("theta", dist.Normal(mu, 1 + x[:, 0].square()))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


@pytest.mark.faults("reparametrized sites")
def test_what_a_reparametrization_leaves_is_no_label() -> None:
    inner = poutine.reparam(hierarchical, config={"theta": LocScaleReparam()})
    mixed, batch = pm.mix(inner, at="y", coefficient=ONE), batch_of(labels())
    trace = trace_of(mixed, batch)
    assert trace.nodes["theta"]["log_prob_sum"] == 0
    with poutine.replay(trace=trace):
        plain = poutine.trace(inner).get_trace(batch.x, batch.y)
    for name in ("theta", "theta_decentered"):
        assert torch.equal(plain.nodes[name]["value"], trace.nodes[name]["value"])
    with pytest.raises(ValueError, match=r"at: expected a site with a density of its own, got 'theta', .*poutine.repa"):
        poutine.trace(pm.mix(inner, at="theta", coefficient=BETA)).get_trace(batch)


@pytest.mark.faults("reparametrized sites")
def test_the_reparametrized_mixed_model_has_the_fused_density() -> None:
    mixed, batch = pm.mix(hierarchical, at="theta", coefficient=BETA), batch_of(labels())
    outer = trace_of(poutine.reparam(mixed, config={"theta": LocScaleReparam(0.0)}), batch)
    data = {name: outer.nodes[name]["value"] for name in ("mu", "theta", "mixing_coefficient")}
    fused = trace_of(poutine.condition(mixed, data), batch).nodes["theta"]["fn"]
    torch.testing.assert_close(
        outer.nodes["theta"]["value"], fused.loc + fused.scale * outer.nodes["theta_decentered"]["value"]
    )


@pytest.mark.faults("observed covariates")
@pytest.mark.parametrize("labels_are", ["exact", "sample"])
def test_the_model_goes_on_with_the_observed_value_of_its_own(labels_are: Any) -> None:
    """Whatever is observed in the plate is a label, scored at its vicinal value; the model sees that of the node."""
    seen = []

    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            covariate = pyro.sample("covariate", dist.Normal(0.0, 1.0), obs=x[:, 0])
            seen.append(covariate)
            pyro.sample("y", dist.Normal(covariate, 1.0), obs=y)

    batch = batch_of(labels())
    half = dist.Delta(torch.tensor(0.5, dtype=torch.float64))
    trace = trace_of(pm.mix(model, at="y", coefficient=half, labels=labels_are), batch)
    assert torch.equal(seen[0], batch.x[:, 0])
    for name, values, loc in (("covariate", batch.x[:, 0], torch.zeros(8)), ("y", batch.y, batch.x[:, 0])):
        if name == "y":
            loc = (loc + loc[batch.partner]) / 2
        expected = torch.distributions.Normal(loc, 1.0).log_prob((values + values[batch.partner]) / 2)
        torch.testing.assert_close(trace.nodes[name]["log_prob"], expected)


# Discrete labels.

DISCRETE: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "categorical": (lambda x: dist.Categorical(logits=x), torch.tensor([0, 1, 1, 0, 0, 1, 0, 1])),
    "one-hot": (lambda x: dist.OneHotCategorical(logits=x), torch.eye(2).double()[[0, 1, 1, 0, 0, 1, 0, 1]]),
    "bernoulli": (lambda x: dist.Bernoulli(logits=x[:, 0]), torch.tensor([0, 1, 1, 0, 0, 1, 0, 1]).double()),
    "multinomial": (lambda x: dist.Multinomial(3, logits=x), torch.tensor([[0, 3], [1, 2]] * 4).double()),
    "poisson": (lambda x: dist.Poisson(x[:, 0].exp()), torch.tensor([0, 5, 2, 0, 1, 9, 0, 3]).double()),
    "binomial": (lambda x: dist.Binomial(9, logits=x[:, 0]), torch.tensor([0, 5, 2, 0, 1, 9, 0, 3]).double()),
    "negative binomial": (
        lambda x: dist.NegativeBinomial(3, logits=x[:, 0]),
        torch.tensor([0, 5, 2, 0, 1, 9, 0, 3]).double(),
    ),
}


@pytest.mark.faults("labels between labels")
@pytest.mark.parametrize("labels_are", ["exact", "sample"])
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_labels_are_one_of_the_pairs_by_default(name: str, validate: bool, labels_are: Any) -> None:
    """λ is the probability of the node's own label; nothing is scored between two labels."""
    make, y = DISCRETE[name]

    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", make(x), obs=y)

    coefficient = torch.tensor(0.25, dtype=torch.float64)
    batch = batch_of(y)
    with pyro.validation_enabled(validate):
        mixed = pm.mix(model, at="y", coefficient=dist.Delta(coefficient), labels=labels_are)
        log_prob = trace_of(mixed, batch).nodes["y"]["log_prob"]
        p = make(batch.x)
        fused = pm.log_linear_pool([p, pm.distributions.index_select(p, -1, batch.partner)], [0.25, 0.75])
        own, partners = fused.log_prob(y), fused.log_prob(y[batch.partner])
    if labels_are == "exact":
        torch.testing.assert_close(log_prob, 0.25 * own + 0.75 * partners)
    else:
        assert bool(torch.minimum((log_prob - own).abs(), (log_prob - partners).abs()).lt(1e-9).all())


@pytest.mark.faults("labels between labels")
def test_a_vicinity_between_discrete_labels_is_refused() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Poisson(x[:, 0].exp()), obs=y)

    for vicinity in (pm.DiracVicinity(), pm.NormalVicinity(0.1)):
        mixed = pm.mix(model, at="y", coefficient=BETA, vicinity=vicinity)
        with pyro.validation_enabled(False), pytest.raises(ValueError, match="vicinity: expected labels"):
            poutine.trace(mixed).get_trace(batch_of(DISCRETE["poisson"][1]))


# Enumeration and chains.


@config_enumerate
def mixture(x: Tensor, y: Tensor) -> Tensor:
    loc = torch.tensor([-2.0, 2.0], dtype=x.dtype)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.4, 0.6], dtype=x.dtype)))
        pyro.sample("y", dist.Normal(loc[z] + x[:, 0], 1.0), obs=y)
    return z


@pytest.mark.faults("other inference")
def test_infer_discrete_of_a_mixed_model() -> None:
    """At λ = 1 the most probable states are those of the model itself."""
    batch = batch_of(labels())
    mixed = pm.mix(mixture, at="y", coefficient=ONE)
    found = infer_discrete(mixed, first_available_dim=-2, temperature=0)(batch)
    expected = infer_discrete(mixture, first_available_dim=-2, temperature=0)(batch.x, batch.y)
    assert torch.equal(found, expected)


@pytest.mark.faults("other inference")
def test_sampled_states_belong_to_the_coefficient_of_the_same_run() -> None:
    """The states are drawn given λ; the run that returns them must not draw another λ."""
    runs: list[Tensor] = []

    def model(x: Tensor, y: Tensor) -> None:
        mixture(x, y)

    class Noting(poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg: Any) -> None:
            if msg["name"] == "mixing_coefficient":
                runs.append(msg["value"])

    mixed = pm.mix(model, at="y", coefficient=BETA)

    def noted(batch: pm.PairBatch) -> None:
        with Noting():
            mixed(batch)

    infer_discrete(noted, first_available_dim=-2)(batch_of(labels()))
    assert len(runs) == 2
    assert torch.equal(runs[0], runs[1])


def chain(x: Tensor, y: Tensor | None, first: str = "state") -> None:
    """A hidden Markov model with observations of two kinds; rows are sequences."""
    transition = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=x.dtype)
    loc = torch.tensor([-1.0, 1.0], dtype=x.dtype)
    with pyro.plate("data", len(x)):
        state: Any = 0
        for t in pyro.markov(range(y.shape[1])):
            state = pyro.sample(f"{first}_{t}", dist.Categorical(transition[state]), infer={"enumerate": "parallel"})
            pyro.sample(f"y_{t}", dist.Normal(loc[state] + x[:, 0], 1.0), obs=y[:, t])


@pytest.mark.faults("chains")
def test_a_chain_is_enumerated_beside_the_coefficient() -> None:
    batch = batch_of(torch.randn(8, 4, dtype=torch.float64))
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    mixed = pm.mix(chain, at="y_2", coefficient=ONE)
    ours = elbo.loss(mixed, mixed.guide, batch)
    assert ours == elbo.loss(mixed, lambda batch: None, batch)
    assert ours == pytest.approx(elbo.loss(chain, lambda x, y: None, batch.x, batch.y), rel=1e-9)
    drawn = pm.mix(chain, at="y_2", coefficient=BETA)
    assert abs(elbo.loss(drawn, lambda batch: None, batch) - ours) > 1e-3


# Plates without a size, conditions, guides, compiled losses, predictions.


@pytest.mark.faults("other inference")
@pytest.mark.parametrize("particles", [1, 3])
def test_a_plate_without_a_size_takes_that_of_the_batch(particles: int) -> None:
    def sizeless(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data"):
            pyro.sample("y", dist.Normal(x[:, 0], 1 + x[:, 1].square()), obs=y)

    def sized(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x[:, 0], 1 + x[:, 1].square()), obs=y)

    elbo, losses = Trace_ELBO(particles, vectorize_particles=particles > 1, max_plate_nesting=1), []
    for fn in (sizeless, sized):
        pyro.set_rng_seed(0)
        mixed = pm.mix(fn, at="y", coefficient=BETA)
        losses.append(elbo.loss(mixed, mixed.guide, batch_of(labels())))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.faults("other inference")
def test_labels_by_condition_around_the_mixed_model_are_refused() -> None:
    conditioned = poutine.condition(pm.mix(normal, at="y", coefficient=BETA), data={"y": labels()})
    with pytest.raises(ValueError, match="y: expected the labels of 'y' in the batch"):
        Trace_ELBO().loss(conditioned, lambda batch: None, batch_of(None))
    with pytest.raises(ValueError, match="y: expected the labels of 'y' in the batch"):
        poutine.trace(conditioned).get_trace(batch_of(labels()))
    inside = pm.mix(poutine.condition(normal, data={"y": labels()}), at="y", coefficient=BETA)
    assert torch.isfinite(torch.tensor(Trace_ELBO().loss(inside, inside.guide, batch_of(None))))


@pytest.mark.faults("other inference")
def test_draws_of_an_unmixed_guide_predict_through_the_mixed_model() -> None:
    """Predictive conditions the latent sites; they are no labels, though the batch has none."""
    guide = AutoNormal(latent)
    mixed, batch = pm.mix(latent, at="y", coefficient=BETA), batch_of(labels())
    guide(batch.x, batch.y)
    samples = Predictive(mixed, guide=lambda _: guide(batch.x, batch.y), num_samples=5)(batch_of(None))
    assert samples["y"].shape == (5, 8)


@pytest.mark.faults("unequal fixed parameters")
def test_what_cannot_be_pooled_is_refused_by_the_name_of_the_site() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.NegativeBinomial(1 + x[:, 0].abs().ceil(), logits=x[:, 1]), obs=y)

    batch = batch_of(DISCRETE["poisson"][1])
    for validate in (True, False):
        with (
            pyro.validation_enabled(validate),
            pytest.raises(ValueError, match=r"y: expected a total_count of Negativ"),
        ):
            poutine.trace(pm.mix(model, at="y", coefficient=BETA)).get_trace(batch)


@pytest.mark.faults("other inference")
@pytest.mark.parametrize("make", [AutoNormal, AutoDelta, AutoDiagonalNormal])
def test_an_autoguide_at_the_fused_latent_stays_unmixed(make: Any) -> None:
    mixed, batch, guide = pm.mix(latent, at="z", coefficient=BETA), batch_of(labels()), make(latent)
    with pytest.raises(ValueError, match=r"at: expected a density at 'z', got Delta; a guide .* stays unmixed: lambda"):
        Trace_ELBO().loss(mixed, pm.mix(guide, at="z", coefficient=BETA), batch)
    pyro.clear_param_store()
    svi = SVI(mixed, lambda batch: guide(batch.x, batch.y), pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step(batch) for _ in range(150)]
    assert sum(losses[-30:]) < sum(losses[:30])


@pytest.mark.faults("other inference")
def test_guides_that_run_the_model_are_refused_or_hide_its_labels() -> None:
    mixed, batch = pm.mix(latent, at="z", coefficient=BETA), batch_of(labels())
    with pytest.raises(ValueError, match=r"guide: expected one that does not run the mixed model, got AutoNormalMess"):
        Trace_ELBO().loss(mixed, AutoNormalMessenger(mixed), batch)
    guide = AutoNormalMessenger(latent)
    with pytest.raises(ValueError, match=r"guide: expected one without 'y', .*poutine.block\(guide, hide=\[.y.\]\)"):
        Trace_ELBO().loss(mixed, lambda batch: guide(batch.x, batch.y), batch)
    hidden = poutine.block(lambda batch: guide(batch.x, batch.y), hide=["y"])
    svi = SVI(mixed, hidden, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step(batch) for _ in range(150)]
    assert sum(losses[-30:]) < sum(losses[:30])


@pytest.mark.faults("other inference")
def test_a_guide_with_observed_sites_of_its_own() -> None:
    def guide(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("calibration", dist.Normal(y, 1.0), obs=y, infer={"is_auxiliary": True})

    mixed, batch = pm.mix(normal, at="y", coefficient=BETA), batch_of(labels())
    with pytest.raises(ValueError, match=r"at: expected .* a guide without it that observes sites, .*unmixed: lambda"):
        Trace_ELBO().loss(mixed, pm.mix(guide, at="y", coefficient=BETA), batch)


@pytest.mark.faults("other inference")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_loss_takes_the_tensors_of_a_batch() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        slope = pyro.param("slope", torch.ones((), dtype=x.dtype))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(slope * x[:, 0], 1.0), obs=y)

    mixed, batch = pm.mix(model, at="y", coefficient=ONE), batch_of(labels())
    svi = SVI(mixed, mixed.guide, pyro.optim.Adam({"lr": 0.0}), JitTrace_ELBO())
    with pytest.raises(RuntimeError, match=r"Tracer cannot infer type of .*PairBatch\(x: \(8, 2\), y: \(8,\)"):
        svi.step(batch)

    def unpacked(fn: Any) -> Any:
        return lambda x, y, partner: fn(pm.PairBatch(x, y, partner))

    svi = SVI(unpacked(mixed), unpacked(mixed.guide), pyro.optim.Adam({"lr": 0.0}), JitTrace_ELBO())
    expected = Trace_ELBO().loss(mixed, mixed.guide, batch)
    for _ in range(2):
        assert svi.step(batch.x, batch.y, batch.partner) == pytest.approx(expected, rel=1e-9)


@pytest.mark.faults("other inference")
@pytest.mark.parametrize("is_mixed", [True, False])
def test_predictions_after_training_under_mix(is_mixed: bool) -> None:
    """Predictive takes the model and the guide without mix; the mixed model gives the fused predictive (eq. 13)."""
    guide, batch = AutoNormal(weighted), batch_of(3 * batch_of(None).x[:, 0])
    mixed: Any = pm.mix(weighted, at="y", coefficient=BETA)
    own: Any = pm.mix(guide, at="y", coefficient=BETA) if is_mixed else lambda batch: guide(batch.x, batch.y)
    svi = SVI(mixed, own, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(200):
        svi.step(batch)
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    samples = Predictive(weighted, guide=guide, num_samples=400)(x, None)
    assert samples["y"].mean(0).tolist() == pytest.approx([2.2, -2.2], abs=0.6)
    fused = Predictive(mixed, guide=lambda batch: guide(batch.x, batch.y), num_samples=7)(batch_of(None))
    assert fused["y"].shape == (7, 8)
    assert fused["mixing_coefficient"].shape == (7, 8)
