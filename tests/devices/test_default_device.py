"""Whatever the default device is, tensors are made where the data are: here all others are made without values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.estimators import LIKELIHOODS as NAMED
from tests.cases import CASES, NAMES
from tests.models.cases import EMBEDDING, FEATURES, LIKELIHOODS, METHODS, make_batch, make_data, make_model

pytestmark = pytest.mark.faults("tensors on another device")

CPU = torch.device("cpu")


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """The default device is one whose tensors have no values."""
    with torch.device("meta"):
        yield


def here(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a user has made on the CPU."""
    with torch.device("cpu"):
        return make(*arguments, **options)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("method", METHODS)
def test_risks_and_predictions_are_where_the_data_are(method: str, likelihood: str) -> None:
    model, batch = here(make_model, method, likelihood), here(make_batch, likelihood)
    for labels in ("exact", "sample"):
        if not (labels == "sample" and method == "ERM"):
            assert model.risk(batch, 2, labels=labels).isfinite()
    p = model.predictive(batch.x, num_samples=3)
    assert p.log_prob(batch.y).isfinite().all()
    assert pm.evaluate(p, batch.y)["nll"] > -np.inf


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("make", [pm.CompleteGraph, pm.LabelGraph, pm.NearestNeighborGraph, pm.WeightedGraph])
def test_pairs_are_drawn_where_the_data_are(make: Any) -> None:
    x, y = here(make_data, "categorical", 12)
    graphs: dict[Any, Callable[[], Any]] = {
        pm.CompleteGraph: lambda: pm.CompleteGraph(len(x)),
        pm.LabelGraph: lambda: pm.LabelGraph(y),
        pm.NearestNeighborGraph: lambda: pm.NearestNeighborGraph(x, num_neighbors=3),
        pm.WeightedGraph: lambda: pm.WeightedGraph(*here(edges), 12),
    }
    loader = pm.PairLoader(x, y, graphs[make](), batch_size=5)
    for batch in loader:
        assert batch.partner.device == CPU
        assert batch.x[batch.partner].isfinite().all()


def edges() -> tuple[Tensor, Tensor]:
    return torch.tensor([[i, (i + 1) % 12] for i in range(12)]), torch.ones(12)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("method", ["ERM", "ManifoldProbMix"])
def test_training_is_where_the_data_are(method: str) -> None:
    model, data = here(make_model, method), here(make_data)
    history = pm.fit(model, data, validation=data, batch_size=4, epochs=2, ema_decay=0.9, progress=False)
    assert np.isfinite(history.train_loss).all()
    replicas = pm.fit_replicas(
        lambda r: here(make_model, method), [data] * 2, validation=[data] * 2, epochs=2, progress=False
    )
    assert not replicas.failed
    assert replicas.ensemble(data[0]).log_prob(data[1]).isfinite().all()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("likelihood", [*NAMED, "categorical", "ordinal"])
def test_an_estimator_is_on_its_own_device_saved_or_not(likelihood: str, tmp_path: Any) -> None:
    rng = np.random.RandomState(0)
    x, y = rng.normal(size=(24, 2)), rng.normal(size=24)
    if likelihood in NAMED and not NAMED[likelihood].takes(y).all():
        y = np.floor(3 / (1 + np.exp(-y))) if not NAMED[likelihood].is_density else 1 / (1 + np.exp(-y))
    kind = pm.ProbMixRegressor if likelihood in NAMED else pm.ProbMixClassifier
    y = y if likelihood in NAMED else (y > 0).astype(int)
    options: dict[str, Any] = {"hidden_features": (4, 3), "epochs": 2, "num_samples": 3, "random_state": 0}
    model = kind(likelihood=likelihood, device="cpu", **options).fit(x, y)
    assert np.isfinite(model.predict(x)).all()
    assert np.isfinite(model.log_likelihood(x, y))
    pm.save(model, tmp_path / "model")
    np.testing.assert_array_equal(pm.load(tmp_path / "model").predict(x), model.predict(x))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "law",
    [lambda: dist.Beta(0.2, 0.2), lambda: pm.GaussJacobi(0.2), lambda: dist.Delta(torch.tensor(0.5))],
    ids=["Beta", "GaussJacobi", "Delta"],
)
def test_a_coefficient_is_drawn_where_the_data_are(law: Callable[[], Any]) -> None:
    model = here(partial(make_model, "ProbMix", coefficient=here(law), vicinity=pm.NormalVicinity(0.01)))
    assert model.risk(here(make_batch)).isfinite()


@pytest.mark.usefixtures("elsewhere")
def test_integration_nodes_are_values_wherever_the_law_is_made() -> None:
    law = pm.GaussJacobi(0.2, num_nodes=4)
    assert law.nodes.sum() == 2
    model = here(partial(make_model, "ProbMix", coefficient=law, vicinity=pm.NormalVicinity(0.01)))
    assert model.risk(here(make_batch)).isfinite()


@pytest.mark.usefixtures("elsewhere")
def test_a_step_of_svi_is_where_the_data_are() -> None:
    model, batch = here(make_model, "ManifoldProbMix"), here(make_batch)
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    assert np.isfinite(svi.step(batch))


# Pyro's own make tensors of a number where the default device is: so their support, and so what they are checked with.
OF_THE_DEFAULT_DEVICE = {"AffineBeta", "SineBivariateVonMises"}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", sorted(OF_THE_DEFAULT_DEVICE))
def test_families_of_the_default_device_are_known(name: str) -> None:
    pair = [here(CASES[name].draw, (3,), seed) for seed in range(2)]
    with pytest.raises(RuntimeError, match="meta"):
        pm.linear_pool(pair, [0.3, 0.7]).log_prob(here(pm.log_linear_pool(pair, [0.3, 0.7]).sample))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_THE_DEFAULT_DEVICE])
def test_pools_and_divergences_are_where_the_components_are(name: str) -> None:
    p, q = (here(CASES[name].draw, (3,), seed) for seed in range(2))
    pool, mixture = pm.LogLinearPool([p, q], [0.3, 0.7]), pm.linear_pool([p, q], [0.3, 0.7])
    assert pool.log_normalizer.isfinite().all()
    value = here(pool.sample)
    for found in (pool.log_prob(value), mixture.log_prob(value), pm.bhattacharyya_distance(p, q)):
        assert found.isfinite().all()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_THE_DEFAULT_DEVICE])
def test_rows_modes_and_entropies_are_where_the_law_is(name: str) -> None:
    p, q = (here(CASES[name].draw, (3,), seed) for seed in range(2))
    scalars = [pm.linear_pool([p, q], [0.3, 0.7])] if not (p.event_shape or "masked" in name) else []
    for law in (p, *scalars):
        taken = pm.rows(law, [2, 0])
        known = name != "LogisticNormal" and not (law is not p and name == "ExtendedBinomial")
        found = [pm.mode(taken), *([pm.entropy(taken)] if known else [])]
        if name != "LKJCholesky":  # which Pyro draws where the default device is
            found.append(pm.entropy(taken, "samples", num_samples=10))
        for values in found:
            assert values.device == CPU
            assert values.isfinite().all()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("pool", [pm.NumericalPool, pm.HolderPool])
def test_numerical_pools_are_where_the_components_are(pool: Any) -> None:
    components = here(lambda: [dist.Normal(torch.zeros(2), 1.0), dist.Laplace(torch.ones(2), 2.0)])
    arguments = (0.5,) if pool is pm.HolderPool else ()
    found = pool(components, [0.3, 0.7], *arguments)
    assert found.log_prob(here(torch.zeros, 2)).isfinite().all()
    assert found.mean.isfinite().all()


@pytest.mark.usefixtures("elsewhere")
def test_samples_for_arviz_are_where_the_data_are() -> None:
    model, (x, y) = here(make_model, "ManifoldProbMix"), here(make_data)
    data: Any = pm.to_inference_data(model, x, y, num_samples=3)
    assert np.isfinite(data.posterior_predictive["y"]).all()


@pytest.mark.usefixtures("elsewhere")
def test_posteriors_for_arviz_are_where_the_data_are() -> None:
    def model(x: Any, y: Any) -> None:
        slope = pyro.sample("slope", dist.Normal(torch.zeros_like(x[0, 0]), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(slope * x[:, 0], 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide(x: Any, y: Any) -> None:
        pyro.sample("slope", dist.Normal(torch.ones_like(x[0, 0]), 1.0))

    data: Any = pm.to_inference_data(model, guide=guide, args=here(make_data), num_samples=3, num_embeddings=5)
    for group in (data.log_likelihood, data.posterior_predictive):
        assert np.isfinite(group["y"]).all()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("family", [dist.Gamma, dist.Beta, dist.Dirichlet])
def test_an_embedding_family_is_checked_where_values_are(family: Any) -> None:
    """Its draws are looked at when it is built, before there are data."""
    size = pm.nn.DistributionLikelihood(family, EMBEDDING).num_outputs
    network = here(pm.nn.MLP, FEATURES, [], size)
    embedding = pm.nn.DistributionEmbedding(network, family, EMBEDDING)
    assert embedding(here(torch.zeros, 2, FEATURES)).mean.isfinite().all()


@pytest.mark.usefixtures("elsewhere")
def test_quantiles_are_where_the_parameters_are() -> None:
    some = here(torch.tensor, [0.5, 2.0])
    pool = here(pm.LinearPool, [dist.Normal(some, 1.0), dist.StudentT(some, some, 1.0)])
    for p in (pool, here(dist.Gamma, some, some), here(dist.BetaBinomial, some, some, 9), here(dist.Poisson, some)):
        found = (
            pm.quantile(p, 0.3),
            pm.distributions.cdf(p, 1.0),
            *pm.interval(p, 0.5),
            *pm.interval(p, 0.5, kind="hdi"),
        )
        assert all(t.device == CPU and t.isfinite().all() for t in found)
