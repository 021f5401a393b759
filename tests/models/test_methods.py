"""The risk of the ready methods: the number of their ELBO, what it is in special cases, and what it refuses."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import pyro_probmix as pm
from pyro_probmix.models import DensityModel
from tests.models.cases import (
    CLASSES,
    FEATURES,
    LIKELIHOODS,
    METHODS,
    MIXING_METHODS,
    make_batch,
    make_data,
    make_model,
    particles,
)

LABELS = ["exact", "sample"]


def labels_of(method: str, labels: str) -> dict[str, Any]:
    return {} if method == "ERM" else {"labels": labels}


# loss / B is the risk, values and gradients.


@pytest.mark.faults("scale of a minibatch")
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("method", METHODS)
def test_loss_over_batch_size_is_the_risk(
    method: str, likelihood: str, dtype: torch.dtype, labels: Any, num_samples: int
) -> None:
    model = make_model(method, likelihood, dtype, **labels_of(method, labels))
    batch = make_batch(likelihood, dtype=dtype)
    parameters = list(model.parameters())
    pyro.set_rng_seed(1)
    elbo = Trace_ELBO(**particles(num_samples))
    loss = elbo.differentiable_loss(model, model.guide, batch) / len(batch)
    pyro.set_rng_seed(1)
    risk = model.risk(batch, num_samples)
    assert risk.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(loss, risk, rtol=tolerance, atol=tolerance)
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (loss, risk))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("method", MIXING_METHODS)
def test_one_coefficient_an_edge_serves_all_samples(method: str) -> None:
    """λ of shape (B,) is λ of shape (K, B) with equal rows: embedding and label still have K draws."""
    model, batch = make_model(method, vicinity=pm.NormalVicinity(0.3), labels="sample"), make_batch()
    coefficient = torch.rand(6, dtype=torch.float64)
    risks = []
    for given in (coefficient, coefficient.expand(4, 6)):
        pyro.set_rng_seed(2)
        risks.append(model.risk(batch, 4, coefficient=given).item())
    assert risks[0] == risks[1]


@pytest.mark.parametrize("num_samples", [1, 3])
def test_stochastic_embedding_without_mixing(num_samples: int) -> None:
    """The plain latent variable model that M-ProbMix mixes."""
    mixing = make_model("ManifoldProbMix")
    model = DensityModel(mixing.encoder, mixing.decoder, mixing.likelihood)
    batch = make_batch()
    pyro.set_rng_seed(1)
    loss = Trace_ELBO(**particles(num_samples)).loss(model, model.guide, batch) / 6
    pyro.set_rng_seed(1)
    assert loss == pytest.approx(model.risk(batch, num_samples).item(), rel=1e-13)


@pytest.mark.parametrize("method", MIXING_METHODS)
def test_labels_argument_overrules_the_model(method: str) -> None:
    """The model's own setting is only a default, and stays as it was."""
    arguments = {"vicinity": pm.NormalVicinity(0.5)}
    exact, sample = (make_model(method, labels=labels, **arguments) for labels in LABELS)
    sample.load_state_dict(exact.state_dict())
    batch = make_batch()

    def risk(model: Any, labels: Any) -> float:
        pyro.set_rng_seed(2)
        return model.risk(batch, labels=labels).item()

    assert risk(exact, "sample") == risk(sample, None) != risk(exact, None) == risk(sample, "exact")


@pytest.mark.parametrize("likelihood", ["normal", "normals", "categorical", "bernoullis"])
@pytest.mark.parametrize("method", MIXING_METHODS)
def test_sampled_labels_converge_to_the_exact_expectation(method: str, likelihood: str) -> None:
    """Eq. 16 as K grows, for fixed λ and a deterministic embedding: within five standard errors."""
    vicinity = {
        "categorical": pm.LabelVicinity(0.2, CLASSES, fusion="log-linear"),
        "bernoullis": pm.LabelVicinity(0.2, 2),
    }.get(likelihood, pm.NormalVicinity(0.3))
    arguments = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    model = make_model(method, likelihood, vicinity=vicinity, **arguments)
    batch = make_batch(likelihood)
    coefficient = torch.rand(6, dtype=torch.float64)
    with torch.no_grad():
        exact = model.risk(batch, labels="exact", coefficient=coefficient).item()
        draws = torch.stack([model.risk(batch, 100, "sample", coefficient) for _ in range(40)])
    assert abs(draws.mean().item() - exact) < 5 * draws.std().item() / 40**0.5
    assert draws.std() > 0


def test_risk_with_many_samples_converges() -> None:
    """All of λ, the embedding and the label: the means of two large halves agree."""
    model = make_model("ManifoldProbMix", vicinity=pm.NormalVicinity(0.1), labels="sample")
    batch = make_batch()
    with torch.no_grad():
        draws = torch.stack([model.risk(batch, 200) for _ in range(40)])
    first, second = draws.chunk(2)
    assert (first.mean() - second.mean()).abs() < 5 * (draws.var() / 10).sqrt()
    singles = torch.stack([model.risk(batch).detach() for _ in range(200)])
    assert draws.std() < 0.25 * singles.std()


# What the methods are in special cases.


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_erm_is_the_negative_log_likelihood(likelihood: str) -> None:
    model, batch = make_model("ERM", likelihood), make_batch(likelihood)
    expected = -model.predictive(batch.x).log_prob(batch.y).mean()
    torch.testing.assert_close(model.risk(batch), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("coefficient", [0.0, 1.0])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("method", MIXING_METHODS)
def test_coefficient_zero_or_one_is_erm_of_the_partner_or_the_node(
    method: str, likelihood: str, coefficient: float, labels: Any
) -> None:
    arguments: dict[str, Any] = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    law = dist.Delta(torch.tensor(coefficient))
    model = make_model(method, likelihood, coefficient=law, labels=labels, **arguments)
    batch = make_batch(likelihood)
    log_p = model.predictive(batch.x).log_prob(batch.y)
    expected = -(log_p if coefficient == 1 else log_p[batch.partner]).mean()
    torch.testing.assert_close(model.risk(batch), expected, rtol=1e-12, atol=1e-12)


VICINITIES: dict[str, Any] = {
    "normal": pm.NormalVicinity(0.2),
    "categorical": pm.LabelVicinity(0.2, CLASSES, fusion="log-linear"),
    "poisson": None,
}


@pytest.mark.parametrize("likelihood", VICINITIES)
@pytest.mark.parametrize("method", MIXING_METHODS)
def test_an_edge_is_the_same_from_both_its_ends(method: str, likelihood: str) -> None:
    """(i, j, λ) and (j, i, 1 - λ): the loss of each edge, not only their sum."""
    arguments: dict[str, Any] = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    batch = pm.PairBatch(*make_data(likelihood, size=2), torch.tensor([1, 0]))
    law = dist.Delta(torch.tensor([0.3, 0.7], dtype=torch.float64))
    model = make_model(method, likelihood, vicinity=VICINITIES[likelihood], coefficient=law, **arguments)
    trace = poutine.trace(model).get_trace(batch)
    trace.compute_log_prob()
    ours, theirs = trace.nodes["y"]["log_prob"]
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)


@pytest.mark.faults("dtype drift")
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("method", METHODS)
def test_single_precision_agrees_with_double(method: str, likelihood: str) -> None:
    arguments: dict[str, Any] = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    single = make_model(method, likelihood, torch.float32, **arguments)
    double = copy.deepcopy(single).double()
    batch = make_batch(likelihood, dtype=torch.float32)
    y = batch.y.double() if batch.y.is_floating_point() else batch.y
    coefficient = torch.rand(6)
    ours = single.risk(batch, coefficient=coefficient)
    theirs = double.risk(pm.PairBatch(batch.x.double(), y, batch.partner), coefficient=coefficient.double())
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.faults("dtype drift")
def test_a_law_of_the_coefficient_in_another_dtype() -> None:
    """A law that stays where it is, here a mixture in single precision, with a model in double precision."""
    law = dist.Uniform(torch.tensor(0.0), torch.tensor(1.0))
    for method in MIXING_METHODS:
        model = make_model(method, coefficient=law)
        assert model.risk(make_batch()).dtype == torch.float64
        assert SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(make_batch()) < 1e4


@pytest.mark.faults("odd batches")
@pytest.mark.parametrize("method", METHODS)
def test_batch_of_one(method: str) -> None:
    model, batch = make_model(method), make_batch(size=1)
    assert torch.isfinite(model.risk(batch))
    assert SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(batch) < 1e4


# Bad input.


@pytest.mark.faults("labels that broadcast")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("shape", [(6, 1), (6, 2)])
@pytest.mark.parametrize("method", METHODS)
def test_labels_of_another_shape(method: str, shape: tuple[int, ...], validate: bool) -> None:
    model, batch = make_model(method), make_batch()
    wrong = pm.PairBatch(batch.x, torch.zeros(shape, dtype=torch.float64), batch.partner)
    message = rf"y: expected shape \(6,\), got \(6, {shape[1]}\)"
    with pyro.validation_enabled(validate):
        with pytest.raises(ValueError, match=message):
            model.risk(wrong)
        with pytest.raises(ValueError, match=message):
            Trace_ELBO().loss(model, model.guide, wrong)


@pytest.mark.parametrize("method", METHODS)
def test_labels_outside_the_support(method: str) -> None:
    model, batch = make_model(method, "bernoullis"), make_batch("bernoullis")
    wrong = pm.PairBatch(batch.x, torch.full((6, 2), 0.5, dtype=torch.float64), batch.partner)
    with pytest.raises(ValueError, match="within the support"):
        model.risk(wrong)
    with pytest.raises(ValueError, match="within the support"):
        Trace_ELBO().loss(model, model.guide, wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples: expected an integer >= 1, got 0"),
        ({"labels": "foo"}, 'labels: expected one of "exact", "sample"'),
        ({"coefficient": torch.rand(5)}, r"coefficient: expected shape \(6,\) or \(1, 6\), got \(5,\)"),
        ({"coefficient": torch.rand(2, 6)}, r"coefficient: .* got \(2, 6\)"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_bad_arguments_of_the_risk(method: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(method).risk(make_batch(), **arguments)


def test_absent_labels_have_no_risk() -> None:
    batch = make_batch()
    with pytest.raises(ValueError, match="batch: expected labels y, got None"):
        make_model("ProbMix").risk(pm.PairBatch(batch.x, None, batch.partner))


def test_predictive_of_no_samples() -> None:
    with pytest.raises(ValueError, match="num_samples: expected an integer >= 1, got 0"):
        make_model("ManifoldProbMix").predictive(torch.zeros(2, FEATURES).double(), num_samples=0)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: pm.ManifoldProbMix(nn.Linear(2, 2), nn.Linear(2, 2), pm.nn.NormalLikelihood()),
            TypeError,
            "embedding: expected a module with an event_shape",
        ),
        (
            lambda: pm.ManifoldMixup(
                pm.nn.NormalEmbedding(nn.Linear(2, 2), 2), nn.Linear(2, 2), pm.nn.NormalLikelihood()
            ),
            TypeError,
            "encoder: expected a network whose output is the embedding, .*ManifoldProbMix",
        ),
        (lambda: pm.ERM(nn.Linear(2, 2), nn.Identity()), TypeError, "likelihood: expected a module with"),
        (
            lambda: make_model("ManifoldProbMix", propagate="foo"),
            ValueError,
            'propagate: expected one of "sample", "mean", got "foo"',
        ),
        (lambda: make_model("ProbMix", labels="foo"), ValueError, "labels: expected"),
        (lambda: make_model("ProbMix", coefficient=0.2), TypeError, "coefficient: expected a distribution"),
        (lambda: make_model("ProbMix", vicinity="normal"), TypeError, "vicinity: expected a Vicinity"),
    ],
    ids=["embedding", "encoder", "likelihood", "propagate", "labels", "coefficient", "vicinity"],
)
def test_bad_arguments_of_the_methods(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_a_likelihood_of_no_exponential_family() -> None:
    likelihood = pm.nn.DistributionLikelihood(dist.StudentT, df=4.0)
    network = pm.nn.MLP(FEATURES, [], 2).double()
    with pytest.raises(
        TypeError, match=r"likelihood: expected a family that is closed .*StudentT: .*\(ManifoldProbMix"
    ):
        pm.ProbMix(network, likelihood)
    # Mixup fuses its input, so any likelihood will do.
    assert torch.isfinite(pm.Mixup(network, likelihood).risk(make_batch()))


PREDICTED: dict[str, tuple[Any, dict[str, Any]]] = {
    "total_count of NegativeBinomial": (dist.NegativeBinomial, {"parameters": ("total_count", "logits")}),
    "concentration of GammaPoisson": (dist.GammaPoisson, {}),
    "concentration of Weibull": (dist.Weibull, {}),
    "concentration1 of Kumaraswamy": (dist.Kumaraswamy, {}),
    "loc of Laplace": (dist.Laplace, {}),
    "loc of AsymmetricLaplace": (dist.AsymmetricLaplace, {}),
    "scale of Gumbel": (dist.Gumbel, {}),
    "total_count of ZeroInflatedNegativeBinomial": (dist.ZeroInflatedNegativeBinomial, {}),
}


@pytest.mark.faults("unequal fixed parameters")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("name", PREDICTED)
def test_a_fixed_parameter_that_is_predicted_is_refused_at_construction(name: str, validate: bool) -> None:
    """It could not be compared under vmap or on a GPU, where the pool would silently be that of another density."""
    family, arguments = PREDICTED[name]
    likelihood = pm.nn.DistributionLikelihood(family, **arguments)
    network = pm.nn.MLP(FEATURES, [], likelihood.num_outputs)
    with pyro.validation_enabled(validate), pytest.raises(ValueError, match=f"likelihood: expected a {name}") as e:
        pm.ProbMix(network, likelihood)
    assert "hold it fixed, fuse an embedding (ManifoldProbMix), or use fusion=" in str(e.value)
    pm.Mixup(network, likelihood)
    pm.ProbMix(network, likelihood, fusion="linear")


# Labels that the likelihood has.


@pytest.mark.faults("soft label for a hard likelihood")
@pytest.mark.parametrize("likelihood", ["categorical", "one-hot", "bernoullis", "poisson"])
@pytest.mark.parametrize("vicinity", [pm.DiracVicinity(), pm.NormalVicinity(0.1), pm.NormalVicinity(0.1, "linear")])
@pytest.mark.parametrize("method", ["Mixup", "ManifoldProbMix"])
def test_labels_between_classes_are_refused(method: str, vicinity: Any, likelihood: str) -> None:
    """In training values are not checked: a half of class 0 and a half of class 2 would be class 1."""
    with pytest.raises(ValueError, match=r"vicinity: expected labels that the likelihood has.*LabelVicinity.*β > 0"):
        make_model(method, likelihood, vicinity=vicinity)


@pytest.mark.parametrize(("likelihood", "size"), [("categorical", CLASSES), ("one-hot", CLASSES), ("bernoullis", 2)])
@pytest.mark.parametrize("labels", ["exact", "sample"])
def test_another_number_of_classes_is_refused(likelihood: str, size: int, labels: Any) -> None:
    with pytest.raises(ValueError, match=f"num_classes: expected the likelihood's {size} classes, got 5"):
        make_model("ProbMix", likelihood, vicinity=pm.LabelVicinity(0.1, 5), labels=labels)


@pytest.mark.parametrize(
    ("likelihood", "labels"),
    [
        (lambda: pm.nn.DistributionLikelihood(dist.VonMises), lambda: torch.tensor([3.1, -3.1])),
        (
            lambda: pm.nn.DistributionLikelihood(dist.LKJCholesky, (2, 2), parameters=["concentration"], dim=2),
            lambda: dist.LKJCholesky(2, 1.0).sample((2,)),
        ),
    ],
    ids=["angles", "correlations"],
)
def test_labels_on_a_curve_are_not_interpolated(likelihood: Any, labels: Any) -> None:
    """Between 3.1 and -3.1 is π, not 0: by default the label is one of the two."""
    head, y = likelihood(), labels()
    model = pm.Mixup(pm.nn.MLP(FEATURES, [], head.num_outputs), head)
    assert repr(model.mixing.vicinity) == 'DiracVicinity(fusion="linear")'
    batch = pm.PairBatch(torch.randn(2, FEATURES), y, torch.tensor([1, 0]))
    drawn = model.draw(batch, num_samples=20, labels="sample")["label"]
    for own in drawn.flatten(0, 1):
        assert any(torch.equal(own, label) for label in y)
    assert model.risk(batch, 20, labels="sample").isfinite()


@pytest.mark.parametrize("num_samples", [1, 3])
def test_draws_of_embeddings_that_are_pooled_linearly(num_samples: int) -> None:
    """A mixture is no loc and scale that noise could be put into: the risk draws it itself."""
    model, batch = make_model("ManifoldProbMix", fusion="linear"), make_batch()
    draws = model.draw(batch, num_samples)
    assert set(draws) == {"coefficient"}
    assert model.risk(batch, num_samples, **draws).isfinite()
    data = [(batch.x, batch.y)] * 2
    replicas = pm.fit_replicas(lambda r: make_model("ManifoldProbMix", fusion="linear"), data, epochs=3, progress=False)
    assert replicas.failed == {}


def test_no_gradient_of_weights_through_a_choice_of_component() -> None:
    """It would be that of the label alone."""
    model, batch = make_model("ManifoldProbMix", fusion="linear"), make_batch()
    coefficient = torch.full((6,), 0.3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(NotImplementedError, match="rsample: expected weights without gradient"):
        model.risk(batch, coefficient=coefficient)


def test_a_likelihood_that_names_no_class() -> None:
    """An attribute of that name may be anything in a likelihood of the user's own."""
    likelihood = pm.nn.NormalLikelihood()
    likelihood.distribution_class = functools.partial(dist.Normal, validate_args=False)
    assert repr(pm.Mixup(nn.Linear(2, 2), likelihood).mixing.vicinity) == 'DiracVicinity(fusion="log-linear")'


@pytest.mark.parametrize("method", METHODS)
def test_noise_of_an_embedding_that_is_not_drawn(method: str) -> None:
    model = make_model(method, **({"propagate": "mean"} if method == "ManifoldProbMix" else {}))
    with pytest.raises(TypeError, match="noise: expected None, since no embedding is drawn, got Tensor"):
        model.risk(make_batch(), noise=torch.randn(6))
