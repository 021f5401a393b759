"""The amortised posterior as guide: an exact one makes the bound of eq. 21 tight, a trained one tighter."""

from __future__ import annotations

import copy
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.models import DensityModel, PosteriorGuide
from tests.models.cases import CLASSES, EMBEDDING, FEATURES, make_batch, make_model

SIZE, DIM, SCALE, NOISE = 6, 3, 0.8, 0.5


class Amortised(nn.Module):
    """A diagonal Normal from all that the posterior may depend on."""

    def __init__(self, num_labels: int = 1, dim: int = EMBEDDING) -> None:
        super().__init__()
        self.embedding = pm.nn.NormalEmbedding(pm.nn.MLP(2 * FEATURES + num_labels + 1, [8], dim), dim)
        self.seen: list[tuple[torch.Size, ...]] = []

    def forward(self, x: Tensor, partner_x: Tensor, label: Tensor, coefficient: Tensor) -> Any:
        self.seen.append(tuple(value.shape for value in (x, partner_x, label, coefficient)))
        label = label.reshape(coefficient.shape + (-1,)).to(x.dtype)
        return self.embedding(torch.cat([x, partner_x, label, coefficient.unsqueeze(-1)], -1))


class Conjugate(nn.Module):
    """The exact posterior of z ~ N(A x̃, s²), ỹ ~ N(w·z + b, σ²): of precision 1/s² + w wᵀ/σ²."""

    def __init__(self, model: DensityModel) -> None:
        super().__init__()
        self.__dict__["model"] = model

    def prior(self, x: Tensor, partner_x: Tensor, coefficient: Tensor) -> Tensor:
        weight = coefficient.unsqueeze(-1)
        encoder = self.model._modules["encoder"].encoder
        return weight * encoder(x) + (1 - weight) * encoder(partner_x)

    def evidence(self, x: Tensor, partner_x: Tensor, label: Tensor, coefficient: Tensor) -> Tensor:
        decoder = self.model._modules["decoder"]
        mean = decoder(self.prior(x, partner_x, coefficient)).squeeze(-1)
        variance = SCALE**2 * decoder.weight.square().sum() + NOISE**2
        return -0.5 * ((label - mean).square() / variance + (2 * math.pi * variance).log())

    def forward(self, x: Tensor, partner_x: Tensor, label: Tensor, coefficient: Tensor) -> Any:
        decoder = self.model._modules["decoder"]
        w = decoder.weight[0]
        precision = torch.eye(DIM, dtype=w.dtype) / SCALE**2 + torch.outer(w, w) / NOISE**2
        pull = self.prior(x, partner_x, coefficient) / SCALE**2
        pull = pull + ((label - decoder.bias) / NOISE**2).unsqueeze(-1) * w
        loc = torch.linalg.solve(precision, pull.unsqueeze(-1)).squeeze(-1)
        return dist.MultivariateNormal(loc, precision_matrix=precision)


def conjugate_model(**arguments: Any) -> DensityModel:
    embedding = pm.nn.NormalEmbedding(nn.Linear(FEATURES, DIM), DIM, scale=SCALE)
    decoder, likelihood = nn.Linear(DIM, 1), pm.nn.NormalLikelihood(scale=NOISE)
    return pm.ManifoldProbMix(embedding, decoder, likelihood, **arguments).double()


def observed(model: DensityModel, batch: pm.PairBatch, trace: Any) -> tuple[Tensor, ...]:
    """What the posterior of each edge depends on, in a trace of the guide."""
    coefficient, label = (trace.nodes[name]["value"] for name in ("mixing_coefficient", "label"))
    return batch.x, batch.x[batch.partner], label, coefficient


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_bound_is_tight_at_the_exact_posterior(beta: float, particles: int) -> None:
    """Every draw of z gives the log-evidence of eq. 21 itself: its variance is zero."""
    model, batch = conjugate_model(vicinity=pm.NormalVicinity(beta)), make_batch()
    exact = Conjugate(model)
    guide = PosteriorGuide(model, exact)
    elbo = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    pyro.set_rng_seed(3)
    loss = elbo.loss(model, guide, batch) / SIZE
    pyro.set_rng_seed(3)
    with pyro.plate("particles", particles, dim=-2):
        trace = poutine.trace(guide).get_trace(batch)
    evidence = exact.evidence(*observed(model, batch, trace))
    assert evidence.shape[-1] == SIZE
    assert loss == pytest.approx(-evidence.mean().item(), abs=1e-12)


def test_the_bound_is_tight_with_lambda_integrated_out() -> None:
    """The guide's λ is enumerated beside the model's, and each value has its own posterior."""
    coefficient = pm.GaussJacobi(0.2, num_nodes=5)
    model, batch = conjugate_model(coefficient=coefficient), make_batch()
    exact = Conjugate(model)
    expected = torch.zeros((), dtype=torch.float64)
    for node, weight in zip(coefficient.nodes, coefficient.weights, strict=True):
        label = node * batch.y + (1 - node) * batch.y[batch.partner]
        expected -= weight * exact.evidence(batch.x, batch.x[batch.partner], label, node.expand(SIZE)).sum()
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, PosteriorGuide(model, exact), batch)
    assert loss == pytest.approx(expected.item(), abs=1e-12)


def test_any_posterior_bounds_from_above() -> None:
    """The gap is the Kullback-Leibler divergence from the exact posterior: in closed form, within five errors."""
    half = dist.Delta(torch.tensor(0.5, dtype=torch.float64))
    model, batch = conjugate_model(coefficient=half), make_batch()
    exact = Conjugate(model)

    class Shifted(nn.Module):
        def forward(self, *arguments: Tensor) -> Any:
            q = exact(*arguments)
            return dist.Normal(q.loc + 0.3, 0.6).to_event(1)

    guide = PosteriorGuide(model, Shifted())
    arguments = observed(model, batch, poutine.trace(guide).get_trace(batch))
    p, q = exact(*arguments), Shifted()(*arguments)
    spread = dist.MultivariateNormal(q.mean, q.variance.diag_embed())
    gap = torch.distributions.kl_divergence(spread, p)
    bound = (gap - exact.evidence(*arguments)).mean().item()
    elbo = Trace_ELBO(num_particles=400, vectorize_particles=True, max_plate_nesting=1)
    draws = torch.tensor([elbo.loss(model, guide, batch) / SIZE for _ in range(20)])
    assert abs(draws.mean().item() - bound) < 5 * draws.std().item() / 20**0.5
    assert bound > -exact.evidence(*arguments).mean() + 0.1


def test_a_trained_posterior_is_between_the_prior_and_the_evidence() -> None:
    """The model being held fixed, -evidence ≤ loss of the trained guide < loss of the guide that draws as the model."""
    model, batch = conjugate_model(vicinity=pm.NormalVicinity(0.1), coefficient=dist.Beta(1.0, 1.0)), make_batch()
    nn.init.constant_(model.decoder.weight, 2.0)
    guide = PosteriorGuide(model, Amortised(dim=DIM).double())
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=1)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        elbo.differentiable_loss(model, guide, batch).backward()
        optimizer.step()
    exact = PosteriorGuide(model, Conjugate(model))
    many = Trace_ELBO(num_particles=4000, vectorize_particles=True, max_plate_nesting=1)
    prior, trained, evidence = (many.loss(model, g, batch) / SIZE for g in (model.guide, guide, exact))
    assert evidence - 0.02 < trained < prior - 0.5 * (prior - evidence)


def test_pyro_trains_model_and_posterior_together() -> None:
    model, batch = make_model("ManifoldProbMix", dtype=torch.float32), make_batch(dtype=torch.float32)
    guide = PosteriorGuide(model, Amortised())
    before = copy.deepcopy((model.state_dict(), guide.state_dict()))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(2):
        svi.step(batch)
    store = pyro.get_param_store()
    trained = {id(store._params[name]) for name in store.keys()}  # noqa: SIM118
    assert trained == {id(p) for module in (model, guide) for p in module.parameters()}
    for module, state in zip((model, guide), before, strict=True):
        for name, parameter in module.named_parameters():
            assert not torch.equal(parameter, state[name]), name


@pytest.mark.parametrize(
    ("elbo", "particles", "per"),
    [(Trace_ELBO, 1, "edge"), (Trace_ELBO, 3, "edge"), (Trace_ELBO, 3, "batch"), (RenyiELBO, 3, "edge")],
)
@pytest.mark.parametrize(
    ("likelihood", "vicinity"),
    [
        ("normals", pm.NormalVicinity(0.1)),
        ("categorical", pm.LabelVicinity(0.1, CLASSES)),
        ("one-hot", pm.LabelVicinity(0.1, CLASSES)),
        ("poisson", None),
    ],
)
def test_loss_is_the_formula(likelihood: str, vicinity: Any, per: Any, particles: int, elbo: Any) -> None:
    """log p(ỹ|z) + log q̃(z|xᵢ, xⱼ, λ) − log q(z|xᵢ, xⱼ, ỹ, λ), spelled out from the guide's draws."""
    model, batch = make_model("ManifoldProbMix", likelihood, vicinity=vicinity, per=per), make_batch(likelihood)
    num_labels = math.prod(model.likelihood.event_shape)
    network = Amortised(num_labels).double()
    guide = PosteriorGuide(model, network)
    arguments = {"num_particles": particles, "vectorize_particles": particles > 1, "max_plate_nesting": 1}
    if elbo is RenyiELBO:
        arguments["alpha"] = 0
    pyro.set_rng_seed(5)
    loss = elbo(**arguments).loss(model, guide, batch)
    pyro.set_rng_seed(5)
    with poutine.trace() as tracer:
        if particles == 1:
            guide(batch)
        else:
            with pyro.plate("particles", particles, dim=-2):
                guide(batch)
    names = ("mixing_coefficient", "label", "embedding")
    coefficient, label, z = (tracer.trace.nodes[name]["value"] for name in names)
    shape = (SIZE,) if particles == 1 else (particles, SIZE)
    assert z.shape == (*shape, EMBEDDING)
    assert label.shape == shape + model.likelihood.event_shape
    assert coefficient.numel() == math.prod(shape) // (SIZE if per == "batch" else 1)
    q = model.encoder(batch.x)
    partner = pm.distributions.index_select(q, -1, batch.partner)
    prior = pm.log_linear_pool([q, partner], [coefficient, 1 - coefficient])
    p = model.likelihood(model.decoder(z))
    posterior = tracer.trace.nodes["embedding"]["fn"]
    score = p.log_prob(label) + prior.log_prob(z) - posterior.log_prob(z)
    if elbo is RenyiELBO:
        score = score.logsumexp(0) - math.log(particles)
    assert loss == pytest.approx(-score.sum().item() / (particles if score.dim() == 2 else 1), rel=1e-12)


@pytest.mark.faults("weights and masks ignored")
def test_weights_are_those_of_edges() -> None:
    """Σ wᵢ wⱼ log p(ỹ), a weight of zero taking out all its edges."""
    half = dist.Delta(torch.tensor(0.5, dtype=torch.float64))
    model, plain = conjugate_model(coefficient=half), make_batch()
    weight = torch.tensor([0.0, 1.0, 0.5, 2.0, 3.0, 1.0], dtype=torch.float64)
    batch = pm.PairBatch(plain.x, plain.y, plain.partner, weight=weight)
    exact = Conjugate(model)
    guide = PosteriorGuide(model, exact)
    trace = poutine.trace(guide).get_trace(batch)
    evidence = exact.evidence(*observed(model, batch, trace))
    expected = -(weight * weight[batch.partner] * evidence).sum().item()
    assert Trace_ELBO().loss(model, guide, batch) == pytest.approx(expected, abs=1e-12)


@pytest.mark.faults("weights and masks ignored")
@pytest.mark.parametrize("rows", [True, False], ids=["rows", "outputs"])
def test_missing_labels_are_not_seen(rows: bool) -> None:
    model, plain = make_model("ManifoldProbMix", "normals"), make_batch("normals")
    mask = torch.tensor([[True, True], [False, False], [True, False], [True, True], [True, True], [True, True]])
    losses = []
    network = Amortised(2).double()
    for filler in (0.3, -7.0):
        y = torch.where(mask[:, :1] if rows else mask, plain.y, filler)
        batch = pm.PairBatch(plain.x, y, plain.partner, mask=mask[:, 0] if rows else mask)
        pyro.set_rng_seed(4)
        losses.append(Trace_ELBO().loss(model, PosteriorGuide(model, network), batch))
    assert math.isfinite(losses[0])
    assert losses[0] == losses[1]


def test_without_mixing() -> None:
    """The plain latent variable model; the posterior is of its own label."""
    mixing = make_model("ManifoldProbMix")
    model, batch = DensityModel(mixing.encoder, mixing.decoder, mixing.likelihood), make_batch()
    network = Amortised().double()
    loss = Trace_ELBO().loss(model, PosteriorGuide(model, network), batch)
    assert math.isfinite(loss)
    assert network.seen[-1] == ((SIZE, FEATURES), (SIZE, FEATURES), (SIZE,), (SIZE,))


def test_a_guide_of_the_users_own_is_scored() -> None:
    """One that draws the embedding as the model does, but says so, has the loss of the model's guide."""
    half = dist.Delta(torch.tensor(0.5, dtype=torch.float64))
    model, batch = make_model("ManifoldProbMix", coefficient=half), make_batch()

    def guide(batch: pm.PairBatch) -> None:
        with pyro.plate("data", len(batch)):
            coefficient = pyro.sample("mixing_coefficient", half.mask(False))
            q = model.encoder(batch.x)
            pool = pm.log_linear_pool(
                [q, pm.distributions.index_select(q, -1, batch.partner)], [coefficient, 1 - coefficient]
            )
            pyro.sample("embedding", pool)

    losses = []
    for candidate in (guide, model.guide):
        pyro.set_rng_seed(6)
        losses.append(Trace_ELBO().loss(model, candidate, batch))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.faults("models that meet in the store")
def test_two_guides_never_meet() -> None:
    model, batch = make_model("ManifoldProbMix"), make_batch()
    guides = [PosteriorGuide(model, Amortised().double()) for _ in range(2)]
    guides.append(copy.deepcopy(guides[0]))
    names = set()
    for guide in guides:
        pyro.clear_param_store()
        guide(batch)
        names |= set(pyro.get_param_store().keys())
    assert len(names) == 3 * len(list(guides[0].parameters()))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: PosteriorGuide(make_model("ProbMix"), nn.Identity()),
            TypeError,
            "model: expected one with a stochastic embedding, got ProbMix",
        ),
        (
            lambda: PosteriorGuide(make_model("ManifoldMixup"), nn.Identity()),
            TypeError,
            "model: expected one with a stochastic embedding, got ManifoldMixup",
        ),
        (
            lambda: PosteriorGuide(make_model("ManifoldProbMix", propagate="mean"), nn.Identity()),
            ValueError,
            'model: expected propagate="sample", got "mean"',
        ),
        (
            lambda: PosteriorGuide(make_model("ManifoldProbMix"), abs),  # type: ignore[arg-type]
            TypeError,
            "network: expected an nn.Module, got <built-in function abs>",
        ),
        (
            lambda: PosteriorGuide(make_model("ManifoldProbMix"), Amortised(dim=2).double())(make_batch()),
            ValueError,
            r"network: expected .* batch shape \(6,\) and event shape \(4,\), got \(6,\) and \(2,\)",
        ),
        (
            lambda: PosteriorGuide(make_model("ManifoldProbMix"), Amortised().double())(
                pm.CompleteGraph(6).pair_batch(torch.zeros(6, 3))
            ),
            ValueError,
            "batch: expected labels y, got None",
        ),
    ],
)
def test_refuses(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
