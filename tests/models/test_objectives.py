"""Every objective and every fusion is one function under Pyro and in plain torch, and what its formula says."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

import pyro_probmix as pm
from tests.models.cases import (
    CLASSES,
    MIXING_METHODS,
    make_batch,
    make_model,
    particles,
)

OBJECTIVES = ["expected-log", "log-expected", "log-expected-graph"]
FUSABLE = ["ProbMix", "ManifoldProbMix"]


def log_probs(model: Any, batch: pm.PairBatch, num_samples: int) -> Tensor:
    """log p̃(ỹ) of each sample and node, from the fused likelihood itself, for the next draws of ProbMix."""
    coefficient = model.mixing.law(batch.x).expand((num_samples, len(batch))).sample()
    p = model.mixing.fuse(model.likelihood(model.decoder(batch.x)), batch.partner, coefficient)
    return p.log_prob(model.mixing.draw_label(batch.y, batch.partner, coefficient, p.support))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("weighted", [False, True])
def test_objectives_are_their_formulas(objective: Any, weighted: bool) -> None:
    model, batch = make_model("ProbMix", vicinity=pm.NormalVicinity(0.3), labels="sample"), make_batch()
    weight = torch.rand(6, dtype=torch.float64) if weighted else None
    shares = torch.full((6,), 1 / 6, dtype=torch.float64) if weight is None else weight / weight.sum()
    pyro.set_rng_seed(3)
    risk = model.risk(batch, 5, objective=objective, weight=weight)
    pyro.set_rng_seed(3)
    values = log_probs(model, batch, 5)
    expected = {
        "expected-log": -(shares * values.mean(0)).sum(),
        "log-expected": -(shares * values.exp().mean(0).log()).sum(),
        "log-expected-graph": -(shares * values.exp().mean(0)).sum().log(),
    }[objective]
    torch.testing.assert_close(risk, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("method", MIXING_METHODS)
def test_log_expected_is_the_renyi_elbo(method: str) -> None:
    """Appendix B, edge by edge: values and gradients are those of RenyiELBO(alpha=0)."""
    model, batch = make_model(method, vicinity=pm.NormalVicinity(0.3), labels="sample"), make_batch()
    pyro.set_rng_seed(1)
    risk = model.risk(batch, 4, objective="log-expected")
    ours = torch.autograd.grad(risk, list(model.parameters()))
    pyro.set_rng_seed(1)
    assert RenyiELBO(alpha=0, **particles(4)).loss(model, model.guide, batch) / 6 == pytest.approx(
        risk.item(), rel=1e-13
    )
    pyro.set_rng_seed(1)
    RenyiELBO(alpha=0, **particles(4)).loss_and_grads(model, model.guide, batch)
    for parameter, gradient in zip(model.parameters(), ours, strict=True):
        torch.testing.assert_close(parameter.grad / 6, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", MIXING_METHODS)
def test_jensen(method: str) -> None:
    """Eq. 34 for each set of draws; one sample makes the first two equal, one sample and one node all three."""
    model, batch = make_model(method, vicinity=pm.NormalVicinity(0.3), labels="sample"), make_batch()

    def risks(batch: pm.PairBatch, num_samples: int) -> list[float]:
        values = []
        for objective in OBJECTIVES:
            pyro.set_rng_seed(2)
            values.append(model.risk(batch, num_samples, objective=objective).item())
        return values

    expected_log, log_expected, whole_graph = risks(batch, 7)
    assert expected_log > log_expected > whole_graph
    expected_log, log_expected, whole_graph = risks(batch, 1)
    assert expected_log == pytest.approx(log_expected, rel=1e-14)
    assert log_expected > whole_graph
    single = pm.PairBatch(batch.x[:1], batch.y[:1], torch.tensor([0]))
    assert risks(single, 1) == pytest.approx([risks(single, 1)[0]] * 3, rel=1e-14)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("method", MIXING_METHODS)
def test_gradients_against_finite_differences(method: str, objective: Any) -> None:
    """With common random numbers, in a random direction of all parameters."""
    model, batch = make_model(method, vicinity=pm.NormalVicinity(0.3), labels="sample"), make_batch()
    parameters = list(model.parameters())
    directions = [torch.randn_like(p) for p in parameters]

    def risk() -> Tensor:
        pyro.set_rng_seed(5)
        return model.risk(batch, 3, objective=objective)

    slope = sum((g * d).sum() for g, d in zip(torch.autograd.grad(risk(), parameters), directions, strict=True))
    values, step = [], 1e-5
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters, directions, strict=True):
                p.add_(sign * step * d)
            values.append(risk().item())
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(slope), rel=1e-6, abs=1e-7)


def test_the_monte_carlo_risk_converges_at_its_rate_to_the_quadrature() -> None:
    """ProbMix with exact labels: λ alone is random, and GaussJacobi integrates it."""
    batch = make_batch()
    model = make_model("ProbMix", vicinity=pm.NormalVicinity(0.2), coefficient=dist.Beta(0.7, 0.7))
    exact = make_model("ProbMix", vicinity=pm.NormalVicinity(0.2), coefficient=pm.GaussJacobi(0.7, num_nodes=40))
    exact.load_state_dict(model.state_dict())
    target = exact.risk(batch).item()
    with torch.no_grad():
        errors = {k: torch.stack([model.risk(batch, k) for _ in range(200)]) - target for k in (4, 64)}
    for k, error in errors.items():
        assert abs(error.mean()) < 5 * error.std() / math.sqrt(200), k
    assert errors[4].std() / errors[64].std() == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("per", ["edge", "batch"])
@pytest.mark.parametrize("method", MIXING_METHODS)
def test_enumerated_coefficient_is_the_risk_over_its_nodes(method: str, per: Any) -> None:
    """TraceEnum_ELBO sums over the nodes as risk does; both are the weighted risks at each node."""
    arguments = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    law = pm.GaussJacobi(0.4, num_nodes=5)
    model, batch = make_model(method, coefficient=law, per=per, **arguments), make_batch()
    risk = model.risk(batch)
    by_node = sum(
        w * model.risk(batch, coefficient=node.expand(6)) for node, w in zip(law.nodes, law.weights, strict=True)
    )
    torch.testing.assert_close(risk, by_node, rtol=1e-12, atol=0)
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, model.guide, batch) / 6
    torch.testing.assert_close(loss, risk, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(value, list(model.parameters())) for value in (risk, loss))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    drawn = model.draw(batch)
    assert "coefficient" not in drawn
    torch.testing.assert_close(model.risk(batch, **drawn), risk, rtol=1e-12, atol=0)


def test_enumeration_weights_the_log_expected_objectives() -> None:
    law = pm.GaussJacobi(0.4, num_nodes=3)
    model, batch = make_model("ProbMix", coefficient=law), make_batch()  # Dirac labels: nothing else is random
    p = model.likelihood(model.decoder(batch.x))
    label = [model.mixing.interpolate(batch.y, batch.partner, node.expand(6)) for node in law.nodes]
    densities = torch.stack(
        [
            model.mixing.fuse(p, batch.partner, n.expand(6)).log_prob(y).exp()
            for n, y in zip(law.nodes, label, strict=True)
        ]
    )
    mixed = (law.weights.unsqueeze(-1) * densities).sum(0)
    torch.testing.assert_close(model.risk(batch, objective="log-expected"), -mixed.log().mean())
    torch.testing.assert_close(model.risk(batch, 2, objective="log-expected-graph"), -mixed.mean().log())


# Fusion functions, and one λ for all.


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("per", ["edge", "batch"])
@pytest.mark.parametrize("fusion", ["linear", "log-linear"])
@pytest.mark.parametrize("likelihood", ["normal", "categorical", "gamma"])
@pytest.mark.parametrize("method", FUSABLE)
def test_loss_over_batch_size_is_the_risk(
    method: str, likelihood: str, fusion: Any, per: Any, num_samples: int
) -> None:
    model, batch = make_model(method, likelihood, fusion=fusion, per=per), make_batch(likelihood)
    pyro.set_rng_seed(1)
    loss = Trace_ELBO(**particles(num_samples)).differentiable_loss(model, model.guide, batch) / 6
    pyro.set_rng_seed(1)
    risk = model.risk(batch, num_samples)
    torch.testing.assert_close(loss, risk, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(value, list(model.parameters())) for value in (risk, loss))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_linear_fusion_of_likelihoods_is_the_mixture() -> None:
    """Eq. 17 by hand, for numbers and for classes with their exact label expectation."""
    coefficient = torch.rand(6, dtype=torch.float64)
    batch, model = make_batch(), make_model("ProbMix", fusion="linear")
    p = model.likelihood(model.decoder(batch.x))
    y = coefficient * batch.y + (1 - coefficient) * batch.y[batch.partner]
    theirs = dist.Normal(p.loc[batch.partner], p.scale[batch.partner])
    density = coefficient * p.log_prob(y).exp() + (1 - coefficient) * theirs.log_prob(y).exp()
    torch.testing.assert_close(model.risk(batch, coefficient=coefficient), -density.log().mean())

    vicinity = pm.LabelVicinity(0.1, CLASSES)
    batch, model = make_batch("categorical"), make_model("ProbMix", "categorical", fusion="linear", vicinity=vicinity)
    ours = model.likelihood(model.decoder(batch.x)).probs
    mixed = torch.lerp(ours[batch.partner], ours, coefficient.unsqueeze(-1))
    labels = vicinity.probabilities(batch.y, batch.y[batch.partner], coefficient)
    expected = -(labels * mixed.log()).sum(-1).mean()
    torch.testing.assert_close(model.risk(batch, coefficient=coefficient), expected)


def test_linear_fusion_of_embeddings_draws_one_or_the_other() -> None:
    """A draw is a node's with probability λ, and its gradient reaches that node alone."""
    model = make_model("ManifoldProbMix", fusion="linear", coefficient=dist.Delta(torch.tensor(0.3)))
    batch = make_batch()
    q = model.encoder(batch.x)
    fused = model.mixing.fuse(q, batch.partner, torch.full((6,), 0.3, dtype=torch.float64))
    assert fused.has_rsample
    torch.manual_seed(0)
    z = fused.rsample((2000,))
    expected = 0.3 * q.mean + 0.7 * q.mean[batch.partner]
    assert ((z.mean(0) - expected).abs() < 6 * z.std(0) / math.sqrt(2000)).all()
    loc = torch.zeros(2, requires_grad=True)
    one = pm.linear_pool([dist.Normal(loc[0], 1.0), dist.Normal(loc[1] + 100, 1.0)], [0.5, 0.5]).rsample()
    (gradient,) = torch.autograd.grad(one, loc)
    assert gradient.tolist() == ([1.0, 0.0] if one < 50 else [0.0, 1.0])


def test_weights_with_gradient_have_no_reparameterised_draw() -> None:
    weight = torch.tensor(0.3, requires_grad=True)
    pool = pm.linear_pool([dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0)], [weight, 1 - weight])
    assert not pool.has_rsample
    assert not pool.sample().requires_grad
    with pytest.raises(NotImplementedError, match="rsample: expected components that have it"):
        pool.rsample()


@pytest.mark.parametrize("method", MIXING_METHODS)
def test_one_coefficient_a_batch(method: str) -> None:
    model, batch = make_model(method, per="batch"), make_batch()
    drawn = model.draw(batch, 3)["coefficient"].expand(3, 6)
    assert (drawn == drawn[:, :1]).all()
    assert len(set(drawn[:, 0].tolist())) == 3
    trace = pyro.poutine.trace(model).get_trace(batch)
    assert trace.nodes["mixing_coefficient"]["value"].shape == ()


# Laws of λ.


@pytest.mark.parametrize("method", ["Mixup", "ManifoldMixup", "ProbMix"])
def test_expanded_beta_extrapolates(method: str) -> None:
    """λ beyond [0, 1]: the risk is its formula at that λ, under Pyro, too."""
    arguments: dict[str, Any] = {"coefficient": pm.ExpandedBeta.variance_preserving(0.5)}
    model, batch = make_model(method, **arguments), make_batch()
    if method == "ProbMix":  # equal scales: the pool is proper at any λ
        model = pm.ProbMix(model.decoder, _Homoscedastic(), **arguments)
    pyro.set_rng_seed(1)
    loss = Trace_ELBO(**particles(8)).loss(model, model.guide, batch) / 6
    pyro.set_rng_seed(1)
    coefficient = model.draw(batch, 8)["coefficient"]
    assert (coefficient < 0).any()
    assert (coefficient > 1).any()
    risk = model.risk(batch, 8, coefficient=coefficient)
    assert loss == pytest.approx(risk.item(), rel=1e-12)
    if method == "ProbMix":
        loc = model.decoder(batch.x)[..., 0]
        distance = torch.lerp((loc - batch.y)[batch.partner], loc - batch.y, coefficient)
        torch.testing.assert_close(risk, 0.5 * distance.square().mean() + 0.5 * math.log(2 * math.pi))


class _Homoscedastic(torch.nn.Module):
    """N(first output, 1)."""

    num_outputs, event_shape, support = 2, torch.Size(), dist.constraints.real

    def forward(self, raw: Tensor) -> Any:
        return dist.Normal(raw[..., 0], 1.0)


@pytest.mark.faults("pool outside its family")
def test_an_improper_pool_beyond_the_simplex_is_refused() -> None:
    narrow_and_wide = dist.Normal(torch.zeros(2), torch.tensor([0.1, 10.0]))
    mixing = pm.models.Mixing("y", pm.ExpandedBeta(1.0, 1.0, -0.5, 1.5), pm.DiracVicinity())
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="weights: expected a pool within the domain"):
        mixing.fuse(narrow_and_wide, torch.tensor([1, 0]), torch.tensor([1.5, 1.5]))


def test_coefficient_can_be_annealed() -> None:
    model, batch = make_model("Mixup", coefficient=dist.Beta(0.1, 0.1)), make_batch()
    model.coefficient = dist.Delta(torch.tensor(1.0))
    plain = -model.likelihood(model.decoder(batch.x)).log_prob(batch.y).mean()
    torch.testing.assert_close(model.risk(batch), plain)
    with pytest.raises(ValueError, match=r"coefficient: expected a support within \[0, 1\]"):
        model.coefficient = dist.Uniform(0.0, 2.0)
    torch.testing.assert_close(model.risk(batch), plain)
    with pytest.raises(ValueError, match="coefficient: expected a model that mixes, got ERM"):
        make_model("ERM").coefficient = dist.Beta(1.0, 1.0)


# Label smoothing.


def test_label_smoothing_is_that_of_cross_entropy() -> None:
    """ERM with a label vicinity is PyTorch's CrossEntropyLoss(label_smoothing), under Pyro, too."""
    model = make_model("ERM", "categorical", vicinity=pm.LabelVicinity.smoothing(0.3, CLASSES))
    batch = make_batch("categorical")
    expected = torch.nn.functional.cross_entropy(model.decoder(batch.x), batch.y, label_smoothing=0.3)
    torch.testing.assert_close(model.risk(batch), expected)
    assert Trace_ELBO().loss(model, model.guide, batch) / 6 == pytest.approx(expected.item(), rel=1e-12)


# Refusals.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "elbo"}, 'objective: expected one of "expected-log"'),
        ({"objective": "log-expected", "labels": "exact"}, 'labels: expected "sample" with objective="log-expected"'),
    ],
)
def test_bad_arguments_of_the_risk_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model("ProbMix").risk(make_batch(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fusion": "geometric"}, 'fusion: expected one of "log-linear", "linear", "numerical"'),
        ({"per": "epoch"}, 'per: expected one of "edge", "batch"'),
        (
            {"fusion": "linear", "coefficient": pm.ExpandedBeta(1.0, 1.0, -0.5, 1.5)},
            "coefficient: expected a support within .* with linear fusion, got ExpandedBeta",
        ),
    ],
)
def test_bad_arguments_of_the_method_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model("ProbMix", **arguments)


def test_labels_are_not_drawn_with_negative_weights() -> None:
    law = pm.ExpandedBeta(1.0, 1.0, -0.5, 1.5)
    model = make_model("Mixup", "categorical", coefficient=law, labels="sample")
    with pytest.raises(ValueError, match='labels: expected "exact" where λ leaves'):
        model.risk(make_batch("categorical"))
    assert model.risk(make_batch("categorical"), labels="exact").isfinite()


def test_label_smoothing_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing: expected a number in \[0, 1\), got 1.0"):
        pm.LabelVicinity.smoothing(1.0, 3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [False, True])
def test_what_is_not_observed_is_in_no_sum(outputs: bool, weighted: bool) -> None:
    """A node of which nothing is observed is as if it were not there, in whatever unit y is."""
    likelihood = "normals" if outputs else "normal"
    model, batch = make_model("ERM", likelihood), make_batch(likelihood)
    mask = torch.tensor([True, True, False, True, False, True])
    weight = torch.rand(6, dtype=torch.float64) if weighted else None
    rows = mask.nonzero().squeeze(1)
    if outputs:
        mask = mask.unsqueeze(1).expand(6, 2)
    masked = pm.PairBatch(batch.x, batch.y, batch.partner, mask=mask)
    observed = pm.PairBatch(batch.x[rows], batch.y[rows], torch.arange(len(rows)))
    loss = model.risk(masked, objective="log-expected-graph", weight=weight)
    expected = model.risk(observed, objective="log-expected-graph", weight=None if weight is None else weight[rows])
    torch.testing.assert_close(loss, expected)


@pytest.mark.faults("zero times minus infinity")
def test_nothing_observed_has_no_gradient() -> None:
    model, batch = make_model("ERM"), make_batch()
    masked = pm.PairBatch(batch.x, batch.y, batch.partner, mask=torch.zeros(6, dtype=torch.bool))
    loss = model.risk(masked, objective="log-expected-graph")
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in model.parameters())


@pytest.mark.faults("zero times minus infinity")
def test_nothing_observed_of_any_weight_has_no_gradient() -> None:
    model, batch = make_model("ERM", dtype=torch.float64), make_batch(size=2)
    weight, mask = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.tensor([True, False])
    masked = pm.PairBatch(batch.x, batch.y, torch.arange(2), weight, mask)
    loss = model.risk(masked, objective="log-expected-graph")
    loss.backward()
    assert loss.isfinite()
    assert all(not p.grad.any() for p in model.parameters())
