"""``pm.mix``: any Pyro model with a data plate, fused at an observed, a latent or a deterministic site."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.nn import PyroModule
from torch import Tensor, nn

import pyro_probmix as pm
from tests.models.cases import (
    CLASSES,
    make_batch,
    make_model,
    particles,
)

BETA = dist.Beta(0.4, 0.4)
SITES = {"ProbMix": "y", "ManifoldProbMix": "embedding", "ManifoldMixup": "embedding", "Mixup": "x"}
LABELS = ["exact", "sample"]


def loss_of(elbo: Any, model: Any, guide: Any, batch: pm.PairBatch) -> Tensor:
    pyro.set_rng_seed(3)
    return elbo.differentiable_loss(model, guide, batch)


def handwritten(method: str, ready: Any) -> Any:
    """The plain model of a ready one, its stages as a Pyro user writes them."""

    def model(x: Tensor, y: Tensor | None) -> Tensor:
        pyro.module("decoder", ready.decoder)
        if ready.encoder is not None:
            pyro.module("encoder", ready.encoder)
        with pyro.plate("data", len(x)):
            if method == "Mixup":
                x = pyro.deterministic("x", x, event_dim=1)
            if method == "ManifoldMixup":
                x = pyro.deterministic("embedding", ready.encoder(x), event_dim=1)
            if method == "ManifoldProbMix":
                x = pyro.sample("embedding", ready.encoder(x))
            return pyro.sample("y", ready.likelihood(ready.decoder(x)), obs=y)

    return model


# The very loss of the ready model.


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("likelihood", ["normal", "normals", "categorical"])
@pytest.mark.parametrize("method", SITES)
def test_handwritten_model_has_the_loss_of_the_ready_one(
    method: str, likelihood: str, labels: Any, num_particles: int
) -> None:
    classes = likelihood == "categorical"
    vicinity = pm.LabelVicinity(0.1, CLASSES) if classes else pm.NormalVicinity(0.1)
    ready = make_model(method, likelihood, coefficient=BETA, vicinity=vicinity, labels=labels)
    mixed = pm.mix(handwritten(method, ready), at=SITES[method], coefficient=BETA, vicinity=vicinity, labels=labels)
    batch = make_batch(likelihood)
    elbo = Trace_ELBO(**particles(num_particles))
    ours, theirs = loss_of(elbo, mixed, mixed.guide, batch), loss_of(elbo, ready, ready.guide, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    parameters = list(ready.parameters())
    for mine, its in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-11)


def test_handwritten_guide_that_draws_the_latent_site_as_the_model_does() -> None:
    ready = make_model("ManifoldProbMix", coefficient=BETA)

    def guide(x: Tensor, y: Tensor | None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("embedding", ready.encoder(x))

    model, guide = (
        pm.mix(fn, at="embedding", coefficient=BETA) for fn in (handwritten("ManifoldProbMix", ready), guide)
    )
    batch = make_batch()
    ours, theirs = (loss_of(Trace_ELBO(), m, g, batch) for m, g in ((model, guide), (ready, ready.guide)))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_amortised_guide_of_the_users_own() -> None:
    """A guide that sees y: the loss is the ELBO of eq. 21 with the pooled prior and the pooled guide."""
    ready = make_model("ManifoldProbMix", coefficient=BETA)
    inference_network = nn.Linear(4, 4).double()
    half = torch.tensor(0.5, dtype=torch.float64)

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.module("inference", inference_network)
        with pyro.plate("data", len(x)):
            loc = inference_network(torch.cat([x, y[:, None]], -1))
            pyro.sample("embedding", dist.Normal(loc, 0.7).to_event(1))

    model, guide = (
        pm.mix(fn, at="embedding", coefficient=dist.Delta(half))
        for fn in (handwritten("ManifoldProbMix", ready), guide)
    )
    batch = make_batch()
    loss = loss_of(Trace_ELBO(), model, guide, batch)

    pyro.set_rng_seed(3)
    loc = inference_network(torch.cat([batch.x, batch.y[:, None]], -1))
    q = dist.Normal(half * (loc + loc[batch.partner]), 0.7).to_event(1)
    z = q.rsample()
    prior = ready.encoder(batch.x).base_dist
    swapped = dist.Normal(prior.loc[batch.partner], prior.scale[batch.partner])
    p = pm.log_linear_pool([prior, swapped], [0.5, 0.5]).to_event(1)
    y = half * (batch.y + batch.y[batch.partner])
    elbo = ready.likelihood(ready.decoder(z)).log_prob(y) + p.log_prob(z) - q.log_prob(z)
    torch.testing.assert_close(loss, -elbo.sum(), rtol=1e-12, atol=0)
    assert torch.autograd.grad(loss, inference_network.weight)[0].abs().max() > 0


def test_default_vicinity_interpolates_labels() -> None:
    ready = make_model("ProbMix", coefficient=BETA)
    batch = make_batch()
    one = pm.mix(handwritten("ProbMix", ready), at="y", coefficient=BETA)
    other = pm.mix(handwritten("ProbMix", ready), at="y", coefficient=BETA, vicinity=pm.DiracVicinity())
    losses = [loss_of(Trace_ELBO(), mixed, mixed.guide, batch) for mixed in (one, other)]
    assert losses[0] == losses[1]


# The coefficient and the plates.


def normal_model(x: Tensor, y: Tensor | None) -> Tensor:
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x.sum(-1), 0.5 + x[:, 0].square()), obs=y)


def trace_of(mixed: Any, batch: pm.PairBatch) -> Any:
    trace = poutine.trace(mixed).get_trace(batch)
    trace.compute_log_prob()
    return trace


def test_coefficient_inherits_the_plate() -> None:
    site = trace_of(pm.mix(normal_model, at="y", coefficient=BETA), make_batch()).nodes["mixing_coefficient"]
    assert [(frame.name, frame.dim, frame.size) for frame in site["cond_indep_stack"]] == [("data", -1, 6)]
    assert site["value"].shape == (6,)
    assert site["value"].dtype == torch.float64
    assert len(set(site["value"].tolist())) == 6
    assert bool(((site["value"] >= 0) & (site["value"] <= 1)).all())


@pytest.mark.parametrize("guide", ["default", "mixed", "unmixed"])
def test_coefficient_has_no_log_probability_where_a_guide_is_replayed(guide: str) -> None:
    """At concentration 1e-3 its own log-density would be hundreds of nats, or infinite: in model and guide alike."""
    arguments: dict[str, Any] = {"at": "y", "coefficient": dist.Beta(1e-3, 1e-3)}
    mixed, batch = pm.mix(normal_model, **arguments), make_batch()
    guides = {
        "default": mixed.guide,
        "mixed": pm.mix(lambda x, y: None, **arguments),
        "unmixed": lambda batch: None,
    }
    guide_trace = poutine.trace(guides[guide]).get_trace(batch)
    trace = poutine.trace(poutine.replay(mixed, trace=guide_trace)).get_trace(batch)
    for found in (trace, guide_trace):
        found.compute_log_prob()
        if "mixing_coefficient" in found:
            assert found.nodes["mixing_coefficient"]["log_prob"].tolist() == [0.0] * 6
    assert torch.isfinite(loss_of(Trace_ELBO(), mixed, guides[guide], batch))


def test_coefficient_is_scored_by_its_law_where_no_guide_is_replayed() -> None:
    site = trace_of(pm.mix(normal_model, at="y", coefficient=BETA), make_batch()).nodes["mixing_coefficient"]
    expected = torch.distributions.Beta(*torch.tensor([0.4, 0.4], dtype=torch.float64)).log_prob(site["value"])
    torch.testing.assert_close(site["log_prob"], expected)


FULL_SIZE = 100
ROWS = torch.tensor([90, 3, 17, 55, 2, 41])


@pytest.mark.faults("scale of a minibatch")
@pytest.mark.parametrize("given", ["subsample_size", "subsample"])
@pytest.mark.parametrize("method", ["ProbMix", "ManifoldProbMix"])
def test_loss_over_the_full_size_of_a_subsampled_plate_is_the_risk(method: str, given: str) -> None:
    ready = make_model(method, coefficient=BETA)
    how: dict[str, Any] = {"subsample_size": 6} if given == "subsample_size" else {"subsample": ROWS}

    def model(x: Tensor, y: Tensor | None) -> None:
        with pyro.plate("data", FULL_SIZE, **how):
            if ready.encoder is not None:
                x = pyro.sample("embedding", ready.encoder(x))
            pyro.sample("y", ready.likelihood(ready.decoder(x)), obs=y)

    mixed = pm.mix(model, at=SITES[method], coefficient=BETA)
    batch = make_batch()
    loss = loss_of(Trace_ELBO(), mixed, mixed.guide, batch)
    pyro.set_rng_seed(3)
    if given == "subsample_size":
        torch.randperm(FULL_SIZE)  # the plate's own draw comes first
    torch.testing.assert_close(loss / FULL_SIZE, ready.risk(batch), rtol=1e-12, atol=0)


def test_guide_without_sites_leaves_the_subsample_to_the_model() -> None:
    seen = []

    def model(x: Tensor, y: Tensor | None) -> None:
        with pyro.plate("data", FULL_SIZE, subsample=ROWS) as rows:
            seen.append(rows)
            pyro.sample("y", dist.Normal(x[:, 0], 1.0), obs=y)

    mixed, guide = (pm.mix(fn, at="y", coefficient=BETA) for fn in (model, lambda x, y: None))
    batch = make_batch()
    loss = loss_of(Trace_ELBO(), mixed, guide, batch)
    assert seen[-1].tolist() == ROWS.tolist()
    torch.testing.assert_close(loss, loss_of(Trace_ELBO(), mixed, mixed.guide, batch), rtol=1e-12, atol=0)


def with_inner_plate(order: str) -> Any:
    """M outputs of a node in a plate of their own; ``order`` is that of entering the two."""

    def model(x: Tensor, y: Tensor | None) -> None:
        loc = x.sum(-1) * torch.arange(1, 4, dtype=x.dtype)[:, None]
        data, inner = pyro.plate("data", len(x), dim=-1), pyro.plate("outputs", 3, dim=-2)
        first, second = (data, inner) if order == "data first" else (inner, data)
        with first, second:
            pyro.sample("y", dist.Normal(loc, 0.5 + x[:, 0].square()), obs=None if y is None else y.T)

    return model


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("order", ["data first", "data last"])
def test_inner_plate_shares_the_coefficient_of_the_edge(order: str, labels: Any) -> None:
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    batch = pm.CompleteGraph(6).pair_batch(x, y)

    def as_event(x: Tensor, y: Tensor | None) -> None:
        with pyro.plate("data", len(x)):
            loc = x.sum(-1, keepdim=True) * torch.arange(1, 4, dtype=x.dtype)
            scale = (0.5 + x[:, 0].square())[:, None]
            pyro.sample("y", dist.Normal(loc, scale).to_event(1), obs=y)

    arguments: dict[str, Any] = {"at": "y", "coefficient": BETA, "labels": labels}
    vicinity = pm.NormalVicinity(0.1) if labels == "exact" else pm.DiracVicinity()  # (N, M) and (M, N) draws
    plated, event = (pm.mix(fn, vicinity=vicinity, **arguments) for fn in (with_inner_plate(order), as_event))
    site = trace_of(plated, batch).nodes["mixing_coefficient"]
    assert site["value"].shape == (6,)
    assert [frame.name for frame in site["cond_indep_stack"]] == ["data"]
    elbo = Trace_ELBO(max_plate_nesting=2)
    ours, theirs = (loss_of(elbo, mixed, mixed.guide, batch) for mixed in (plated, event))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_data_plate_left_of_an_inner_plate(num_particles: int) -> None:
    """The data plate at dimension -2: λ is (N, 1), partners are taken along that dimension."""

    def model(x: Tensor, y: Tensor) -> None:
        loc = x.sum(-1, keepdim=True) * torch.arange(1, 4, dtype=x.dtype)
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(x[:, :1], 1.0))
            with pyro.plate("outputs", 3, dim=-1):
                pyro.sample("y", dist.Normal(loc + z, 0.5 + x[:, :1].square()), obs=y)

    def flipped(x: Tensor, y: Tensor) -> None:
        loc = x.sum(-1) * torch.arange(1, 4, dtype=x.dtype)[:, None]
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x[:, 0], 1.0))
            with pyro.plate("outputs", 3, dim=-2):
                pyro.sample("y", dist.Normal(loc + z, 0.5 + x[:, 0].square()), obs=y.T)

    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    batch = pm.CompleteGraph(6).pair_batch(x, y)
    for at in ("y", "z"):
        elbo = Trace_ELBO(**particles(num_particles) | {"max_plate_nesting": 2})
        left, right = (pm.mix(fn, at=at, coefficient=BETA) for fn in (model, flipped))
        assert trace_of(left, batch).nodes["mixing_coefficient"]["value"].shape == (6, 1)
        ours, theirs = (loss_of(elbo, mixed, mixed.guide, batch) for mixed in (left, right))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_iterated_inner_plate() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            for i in pyro.plate("outputs", 2):
                pyro.sample(f"y{i}", dist.Normal(x[:, i], 1.0), obs=y)

    mixed = pm.mix(model, at="y1", coefficient=BETA)
    batch = make_batch()
    coefficient = trace_of(mixed, batch).nodes["mixing_coefficient"]
    assert [frame.name for frame in coefficient["cond_indep_stack"]] == ["data"]
    assert torch.isfinite(loss_of(Trace_ELBO(), mixed, mixed.guide, batch))


# What is mixed, and what is left alone.


def test_several_observed_sites() -> None:
    """The named site is fused; every observed label in the plate is mixed; what is outside is left alone."""

    def model(x: Tensor, y: Tensor) -> None:
        pyro.sample("outside", dist.Normal(0.0, 1.0), obs=torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(x[:, 0], 1 + x[:, 1].square()), obs=y[:, 0])
            pyro.sample("b", dist.Normal(x[:, 1], 2.0), obs=y[:, 1])
            pyro.factor("penalty", -x[:, 2].square())

    coefficient = torch.tensor(0.3, dtype=torch.float64)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    batch = pm.CompleteGraph(6).pair_batch(x, y)
    mixed = pm.mix(model, at="a", coefficient=dist.Delta(coefficient), vicinity=pm.NormalVicinity(0.5))
    nodes = trace_of(mixed, batch).nodes
    label = 0.3 * y + 0.7 * y[batch.partner]
    scale = 1 + x[:, 1].square()
    precision = 0.3 / scale**2 + 0.7 / scale[batch.partner] ** 2
    loc = (0.3 * x[:, 0] / scale**2 + 0.7 * (x[:, 0] / scale**2)[batch.partner]) / precision
    a = torch.distributions.Normal(loc, precision.rsqrt()).log_prob(label[:, 0]) - 0.25 * precision
    b = torch.distributions.Normal(x[:, 1], 2.0).log_prob(label[:, 1]) - 0.25 / 4
    torch.testing.assert_close(nodes["a"]["log_prob"], a)
    torch.testing.assert_close(nodes["b"]["log_prob"], b)
    torch.testing.assert_close(nodes["penalty"]["log_prob"], -x[:, 2].square())
    assert nodes["outside"]["value"] == 2.0


@pytest.mark.faults("weights and masks ignored")
@pytest.mark.parametrize("how", ["distribution", "handler"])
def test_an_edge_counts_where_both_its_nodes_do(how: str) -> None:
    present = torch.tensor([True, True, False, True, True, True])

    def model(x: Tensor, y: Tensor) -> None:
        p = dist.Normal(x[:, 0], 1 + x[:, 1].square())
        with pyro.plate("data", len(x)):
            if how == "distribution":
                pyro.sample("y", p.mask(present), obs=y)
            else:
                with poutine.mask(mask=present):
                    pyro.sample("y", p, obs=y)

    batch = make_batch()
    batch = pm.PairBatch(batch.x, batch.y, torch.tensor([1, 2, 3, 4, 5, 0]))
    for at, labels in (("y", "exact"), ("y", "sample")):
        mixed = pm.mix(model, at=at, coefficient=BETA, labels=labels, vicinity=pm.NormalVicinity(0.1))
        log_prob = trace_of(mixed, batch).nodes["y"]["log_prob"]
        assert (log_prob != 0).tolist() == [True, False, False, True, True, True]


def test_global_latent_sites_stay_with_the_guide() -> None:
    """A Bayesian model: weights outside the plate have a guide that knows nothing of mixing."""

    def model(x: Tensor, y: Tensor | None) -> None:
        weight = pyro.sample("weight", dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ weight, 0.5), obs=y)

    guide = AutoNormal(poutine.block(model, expose=["weight"]))
    mixed = [pm.mix(fn, at="y", coefficient=BETA) for fn in (model, guide)]
    x = torch.randn(6, 3, dtype=torch.float64)
    batch = pm.CompleteGraph(6).pair_batch(x, x @ torch.tensor([5.0, -5.0, 5.0], dtype=torch.float64))
    svi = SVI(*mixed, pyro.optim.Adam({"lr": 0.2}), Trace_ELBO())
    losses = [svi.step(batch) for _ in range(60)]
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    assert guide.median()["weight"][0] > 1


def test_default_guide_samples_global_latent_sites_too() -> None:
    class Model(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = pyro.nn.PyroSample(dist.Normal(0.0, 1.0).expand([3]).to_event(1))

        def forward(self, x: Tensor, y: Tensor | None) -> None:
            loc = x @ self.weight
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(loc, 0.5), obs=y)

    mixed = pm.mix(Model(), at="y", coefficient=BETA)
    batch = make_batch(dtype=torch.float32)
    trace = poutine.trace(mixed.guide).get_trace(batch)
    assert {"weight", "mixing_coefficient"} <= set(trace.nodes)
    assert "y" not in trace.nodes
    assert torch.isfinite(loss_of(Trace_ELBO(), mixed, mixed.guide, batch))


# Modules, and other ways of inference.


class Regression(PyroModule):
    """A user's own module: a network, a learned scale, and a plate."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(3, 1).double()
        self.scale = pyro.nn.PyroParam(torch.tensor(1.0).double(), dist.constraints.positive)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        loc, scale = self.network(x).squeeze(-1), self.scale
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(loc, scale), obs=y)


def test_pyro_module_under_local_parameters_and_torch_optim() -> None:
    with pyro.settings.context(module_local_params=True):
        mixed = pm.mix(Regression(), at="y", coefficient=BETA)
        batch = make_batch()
        loss_fn = Trace_ELBO()(mixed, mixed.guide)
        loss_fn(batch)
        parameters = dict(loss_fn.named_parameters())
        assert len(parameters) == 3
        optimizer = torch.optim.Adam(parameters.values(), lr=0.05)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = loss_fn(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert len(pyro.get_param_store()) == 0


def test_plain_module_is_a_child_of_the_mixed_one() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(3, 1).double()

        def forward(self, x: Tensor, y: Tensor | None) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(self.network(x).squeeze(-1), 1.0), obs=y)

    model = Plain()
    mixed = pm.mix(model, at="y", coefficient=BETA)
    assert {id(p) for p in mixed.parameters()} == {id(p) for p in model.parameters()}
    loss_of(Trace_ELBO(), mixed, mixed.guide, make_batch()).backward()
    assert model.network.weight.grad.abs().max() > 0


@pytest.mark.parametrize("labels", LABELS)
def test_renyi_elbo_is_the_log_expected_likelihood_of_each_edge(labels: Any) -> None:
    """Appendix B: Σ over edges of the log-mean-exp over K draws."""
    ready = make_model("ProbMix", coefficient=BETA, vicinity=pm.NormalVicinity(0.2), labels=labels)
    mixed = pm.mix(
        handwritten("ProbMix", ready),
        at="y",
        coefficient=BETA,
        vicinity=pm.NormalVicinity(0.2),
        labels=labels,
    )
    batch = make_batch()
    pyro.set_rng_seed(3)
    law = ready.mixing.law(batch.x)
    coefficient = law.expand((5, 6)).sample()
    p = ready.likelihood(ready.decoder(batch.x))
    fused = pm.log_linear_pool(
        [p, dist.Normal(p.loc[batch.partner], p.scale[batch.partner])], [coefficient, 1 - coefficient]
    )
    label = coefficient * batch.y + (1 - coefficient) * batch.y[batch.partner]
    if labels == "sample":
        log_p = fused.log_prob(dist.Normal(label, 0.2**0.5).sample())
    else:
        log_p = fused.log_prob(label) - 0.1 / fused.scale**2
    expected = -(log_p.logsumexp(0) - torch.tensor(5.0).double().log()).sum()
    elbo = RenyiELBO(alpha=0, **particles(5))
    for model in (mixed, ready):
        pyro.set_rng_seed(3)
        assert elbo.loss(model, model.guide, batch) == pytest.approx(expected.item(), rel=1e-12)


# Prediction: with y absent the mixed model samples from the fused predictive (eq. 13).


def test_absent_labels_are_drawn_from_the_fused_normal() -> None:
    size = 3000
    x = torch.randn(size, 3, dtype=torch.float64)
    batch = pm.CompleteGraph(size).pair_batch(x)
    mixed = pm.mix(normal_model, at="y", coefficient=dist.Delta(torch.tensor(0.3).double()))
    y = mixed_sample(mixed, batch)
    precision = 1 / (0.5 + x[:, 0].square()) ** 2
    fused_precision = 0.3 * precision + 0.7 * precision[batch.partner]
    eta = x.sum(-1) * precision
    loc = (0.3 * eta + 0.7 * eta[batch.partner]) / fused_precision
    standardised = (y - loc) * fused_precision.sqrt()
    assert scipy.stats.kstest(standardised.numpy(), "norm").pvalue > 1e-6


def mixed_sample(mixed: Any, batch: pm.PairBatch) -> Tensor:
    return poutine.trace(mixed).get_trace(batch).nodes["y"]["value"]


def test_absent_labels_are_drawn_from_the_fused_categorical() -> None:
    size = 4000
    logits = torch.tensor([[2.0, 0.0, -1.0], [-1.0, 1.0, 0.5]]).double()

    def model(x: Tensor, y: Tensor | None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=logits[x]), obs=y)

    x = torch.arange(size) % 2
    batch = pm.PairBatch(x, None, torch.arange(size).roll(1))  # every node with one of the other kind
    mixed = pm.mix(model, at="y", coefficient=dist.Delta(torch.tensor(0.25)))
    y = mixed_sample(mixed, batch)
    for kind in (0, 1):
        probabilities = (0.25 * logits[kind] + 0.75 * logits[1 - kind]).softmax(-1)
        counts = torch.bincount(y[x == kind], minlength=3)
        expected = probabilities * counts.sum()
        assert scipy.stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-6


def test_predictive_of_pyro() -> None:
    mixed = pm.mix(normal_model, at="y", coefficient=BETA)
    batch = make_batch()
    batch = pm.PairBatch(batch.x, None, batch.partner)
    samples = Predictive(mixed, num_samples=7)(batch)
    assert samples["y"].shape == (7, 6)
    assert samples["mixing_coefficient"].shape == (7, 6)


def test_further_arguments_reach_the_model() -> None:
    def model(x: Tensor, y: Tensor | None, shift: float, *, scale: float) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x[:, 0] + shift, scale), obs=y)

    node = poutine.trace(pm.mix(model, at="y", coefficient=BETA)).get_trace(make_batch(), 2.0, scale=3.0).nodes["y"]
    assert node["fn"].base_dist.scale.tolist() == pytest.approx([3.0] * 6)


def test_maximum_a_posteriori_guide() -> None:
    """A guide with parameters and no draw of its own in the plate: λ is drawn for it."""

    def model(x: Tensor, y: Tensor | None) -> None:
        weight = pyro.sample("weight", dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ weight, 0.5), obs=y)

    guide = pm.mix(AutoDelta(poutine.block(model, expose=["weight"])), at="y", coefficient=BETA)
    trace = poutine.trace(guide).get_trace(make_batch())
    assert trace.nodes["mixing_coefficient"]["value"].shape == (6,)
