"""Random numbers ahead of the risk, and weights of its nodes."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch

import pyro_probmix as pm
from tests.models.cases import CLASSES, EMBEDDING, METHODS, make_batch, make_data, make_model


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("labels", ["exact", "sample"])
@pytest.mark.parametrize("likelihood", ["normal", "normals", "categorical", "one-hot", "bernoullis"])
@pytest.mark.parametrize("method", METHODS)
def test_draws_are_those_of_the_risk(method: str, likelihood: str, labels: Any, num_samples: int) -> None:
    """The risk at numbers drawn ahead is the risk that draws them; with them it draws nothing."""
    model, batch = make_model(method, likelihood), make_batch(likelihood)
    torch.manual_seed(1)
    expected = model.risk(batch, num_samples, labels)
    torch.manual_seed(1)
    draws = model.draw(batch, num_samples, labels)
    state = torch.get_rng_state()
    assert torch.equal(model.risk(batch, num_samples, labels, **draws), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert ("label" in draws) == (labels == "sample" and method != "ERM")


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("arguments", [{"per": "batch"}, {"coefficient": pm.GaussJacobi(0.5, num_nodes=4)}])
def test_draws_of_other_laws(arguments: Any, num_samples: int) -> None:
    """One λ a batch, and λ at fixed nodes, which are not drawn."""
    model, batch = make_model("ManifoldProbMix", **arguments), make_batch()
    torch.manual_seed(1)
    expected = model.risk(batch, num_samples)
    torch.manual_seed(1)
    draws = model.draw(batch, num_samples)
    assert torch.equal(model.risk(batch, num_samples, **draws), expected)
    assert ("coefficient" in draws) == ("per" in arguments)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("labels", ["exact", "sample"])
@pytest.mark.parametrize("arguments", [{}, {"per": "batch"}, {"coefficient": dist.Uniform(0.0, 1.0)}], ids=str)
def test_draws_in_parts(arguments: Any, labels: Any, num_samples: int) -> None:
    """A λ ~ Beta of an edge's own is made from its parts, unless a label is drawn with it; others stay whole."""
    model, batch = make_model("ManifoldProbMix", **arguments), make_batch()
    torch.manual_seed(1)
    expected = model.draw(batch, num_samples, labels)
    torch.manual_seed(1)
    draws = model.draw(batch, num_samples, labels, parts=True)
    assert ("gamma" in draws) == (not arguments and labels == "exact")
    if "gamma" in draws:
        draws["coefficient"] = model.mixing.law(batch.x).from_parts(draws.pop("gamma"), draws.pop("uniform"))
    assert draws.keys() == expected.keys()
    for name, drawn in draws.items():
        assert torch.equal(drawn, expected[name])


def test_noise_of_the_predictive() -> None:
    model, (x, y) = make_model("ManifoldProbMix"), make_data()
    expected = model.predictive(x, num_samples=5).log_prob(y)
    with pm.models.seeded(0, x.device):
        noise = model.draw_noise(x, (5, len(x)))
    assert torch.equal(model.predictive(x, num_samples=5, noise=noise).log_prob(y), expected)
    with pytest.raises(ValueError, match=r"noise: expected shape \(5, 6, 4\), got \(6, 5, 4\)"):
        model.predictive(x, num_samples=5, noise=noise.transpose(0, 1))


@pytest.mark.parametrize("method", ["ProbMix", "ManifoldMixup"])
def test_no_noise_without_a_stochastic_embedding(method: str) -> None:
    assert make_model(method).draw_noise(torch.zeros(3, 3), (3,)) is None


def test_no_noise_for_means() -> None:
    assert make_model("ManifoldProbMix", propagate="mean").draw_noise(torch.zeros(3, 3), (3,)) is None


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_weights(method: str, num_samples: int) -> None:
    """Σ wᵢ lᵢ / Σ wᵢ, of which one node alone is the weight's indicator; equal weights are none."""
    model, batch = make_model(method), make_batch()
    draws = model.draw(batch, num_samples)
    alone = torch.stack([model.risk(batch, num_samples, weight=row, **draws) for row in torch.eye(6).double()])
    weight = torch.tensor([0.0, 1.0, 0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
    weighted = model.risk(batch, num_samples, weight=weight, **draws)
    torch.testing.assert_close(weighted, (weight * alone).sum() / weight.sum(), rtol=1e-12, atol=0)
    equal = model.risk(batch, num_samples, weight=torch.full((6,), 0.1).double(), **draws)
    torch.testing.assert_close(equal, model.risk(batch, num_samples, **draws), rtol=1e-12, atol=0)
    torch.testing.assert_close(equal, alone.mean(), rtol=1e-12, atol=0)


def test_a_node_of_weight_zero_counts_for_nothing() -> None:
    """Not even where its likelihood is zero."""
    likelihood = pm.nn.DistributionLikelihood(dist.Poisson)
    model = pm.ERM(torch.nn.Identity(), likelihood)
    batch = pm.CompleteGraph(2).pair_batch(torch.zeros(2, 1), torch.tensor([1.0, torch.inf]).nan_to_num(posinf=3e38))
    assert model.risk(batch) > 1e30
    alone = model.risk(pm.CompleteGraph(1).pair_batch(batch.x[:1], batch.y[:1]))
    assert torch.equal(model.risk(batch, weight=torch.tensor([2.0, 0.0])), alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coefficient": torch.zeros(5)}, r"coefficient: expected shape \(6,\) or \(2, 6\), got \(5,\)"),
        ({"noise": torch.zeros(6, 3)}, r"noise: expected shape \(6, 4\) or \(2, 6, 4\), got \(6, 3\)"),
        ({"label": torch.zeros(6, 1)}, r"label: expected shape \(6,\) or \(2, 6\), got \(6, 1\)"),
        ({"weight": torch.ones(2, 6)}, r"weight: expected shape \(6,\), got \(2, 6\)"),
    ],
)
def test_shapes(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model("ManifoldProbMix").risk(make_batch(), 2, **arguments)


def test_labels_are_needed() -> None:
    x, _ = make_data("categorical")
    model = make_model("ProbMix", "categorical", vicinity=pm.LabelVicinity(0.1, CLASSES), labels="sample")
    with pytest.raises(ValueError, match="batch: expected labels y, got None"):
        model.draw(pm.CompleteGraph(6).pair_batch(x))


def test_noise_is_for_normal_embeddings() -> None:
    class Laplace(pm.nn.Embedding):
        def distribution(self, x: torch.Tensor, features: torch.Tensor) -> Any:
            return dist.Laplace(features, 1.0).to_event(1)

    encoder = Laplace(pm.nn.MLP(3, [], EMBEDDING), EMBEDDING)
    model = pm.models.DensityModel(encoder, pm.nn.MLP(EMBEDDING, [], 2), pm.nn.NormalLikelihood()).double()
    batch = make_batch()
    assert model.draw(batch) == {}
    with pytest.raises(TypeError, match="noise: expected a Normal embedding density, got Laplace"):
        model.risk(batch, noise=torch.zeros(6, EMBEDDING).double())
