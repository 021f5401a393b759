"""What ``mix`` refuses: models, guides, batches and arguments that cannot be mixed, each by its name."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor

import pyro_probmix as pm
from tests.models.cases import make_batch, make_model

BETA = dist.Beta(0.4, 0.4)
LABELS = ["exact", "sample"]


def in_plate(p: Any, name: str = "data", size: int | None = None) -> Any:
    def model(x: Tensor, y: Tensor | None) -> None:
        with pyro.plate(name, len(x) if size is None else size):
            pyro.sample("y", p(x), obs=y)

    return model


def interpolated(x: Tensor, y: Tensor | None) -> None:
    with pyro.plate("data", len(x)):
        x = pyro.deterministic("x", x)
        pyro.sample("y", dist.Normal(x[:, 0], 1.0), obs=y)


def iterated(x: Tensor, y: Tensor) -> None:
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"y{i}", dist.Normal(x[i, 0], 1.0), obs=y[i])


def normal(x: Tensor) -> Any:
    return dist.Normal(x[:, 0], 1.0)


@pytest.mark.parametrize(
    ("model", "arguments", "error", "message"),
    [
        (in_plate(normal), {"at": "z"}, ValueError, r"at: expected a site of the model, got 'z'; .*: 'y'"),
        (in_plate(normal, "rows"), {}, ValueError, r"plate: expected site 'y' inside plate 'data', .*'rows'"),
        (
            in_plate(lambda x: dist.Normal(0.0, 1.0), size=5),
            {},
            ValueError,
            "plate: expected size 6, .* of size 5",
        ),
        (iterated, {"at": "y0"}, ValueError, "plate: expected a vectorized plate, got 'data'"),
        (interpolated, {"at": "x"}, ValueError, r"x: expected 6 nodes along dimension -3.*event_dim"),
        (
            in_plate(lambda x: dist.StudentT(3.0, x[:, 0])),
            {},
            TypeError,
            "y: expected a family .* got StudentT",
        ),
        (
            in_plate(lambda x: dist.Gamma(x[:, 0].exp(), 1.0)),
            {"vicinity": pm.NormalVicinity(0.1)},
            ValueError,
            "vicinity: expected labels that the likelihood has, in GreaterThanEq.*whose labels leave them",
        ),
        (
            in_plate(normal),
            {"vicinity": pm.NormalVicinity(0.1), "fusion": "linear"},
            ValueError,
            'labels: expected "sample" for LinearPool, .*in no exponential family',
        ),
    ],
    ids=["site", "plate", "plate size", "iterated plate", "event_dim", "family", "half-line", "no closed form"],
)
def test_model_that_cannot_be_mixed(
    model: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    mixed = pm.mix(model, **{"at": "y", "coefficient": BETA} | arguments)
    batch = make_batch("gamma")
    with pytest.raises(error, match=message):
        Trace_ELBO().loss(mixed, mixed.guide if model is not iterated else lambda batch: None, batch)


def test_site_outside_every_plate() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        z = pyro.deterministic("z", x, event_dim=1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(z[:, 0], 1.0), obs=y)

    with pytest.raises(ValueError, match="plate: expected site 'z' inside plate 'data', got plates: none"):
        poutine.trace(pm.mix(model, at="z", coefficient=BETA)).get_trace(make_batch())


@pytest.mark.faults("labels that broadcast")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("shape", [(6, 1), (6, 6), (1, 6)])
def test_labels_that_would_broadcast(shape: tuple[int, ...], labels: Any, validate: bool) -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x[:, 0], 1.0), obs=torch.zeros(shape, dtype=torch.float64))

    mixed = pm.mix(model, at="y", coefficient=BETA, labels=labels)
    batch = make_batch()
    with (
        pyro.validation_enabled(validate),
        pytest.raises(ValueError, match=r"y: expected labels of shape \(6,\), got \("),
    ):
        poutine.trace(mixed).get_trace(batch)


@pytest.mark.parametrize("labels", LABELS)
def test_labels_outside_the_support(labels: Any) -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=x), obs=torch.full((len(x),), 3))

    mixed = pm.mix(model, at="y", coefficient=BETA, labels=labels, vicinity=pm.LabelVicinity(0.1, 3))
    with pytest.raises(ValueError, match="within the support"):
        poutine.trace(mixed).get_trace(make_batch())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fn": 3}, TypeError, "fn: expected a callable, got int"),
        ({"labels": "foo"}, ValueError, 'labels: expected one of "exact", "sample", got "foo"'),
        ({"vicinity": 0.1}, TypeError, "vicinity: expected a Vicinity, got float"),
        ({"coefficient": 0.5}, TypeError, "coefficient: expected a distribution"),
        ({"coefficient": dist.Normal(0.0, 1.0)}, ValueError, "coefficient: expected a support within"),
        ({"coefficient": dist.Beta(0.0, 1.0, validate_args=False)}, ValueError, "coefficient: .*positive"),
    ],
    ids=["fn", "labels", "vicinity", "number", "support", "concentration"],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pm.mix(**{"fn": in_plate(normal), "at": "y", "coefficient": BETA} | arguments)


def test_nothing_of_the_handler_stays_behind_after_an_error() -> None:
    mixed = pm.mix(in_plate(normal, "rows"), at="y", coefficient=BETA)
    with pytest.raises(ValueError, match="plate"):
        poutine.trace(mixed).get_trace(make_batch())
    assert not poutine.runtime._PYRO_STACK
    good = pm.mix(in_plate(normal), at="y", coefficient=BETA)
    assert math.isfinite(Trace_ELBO().loss(good, good.guide, make_batch()))


@pytest.mark.parametrize("make_guide", [AutoDelta, AutoNormal])
def test_a_guide_with_a_law_of_its_own_for_lambda_is_refused(make_guide: Any) -> None:
    """It would be fitted to the data, under no prior."""
    mixed = pm.mix(in_plate(normal), at="y", coefficient=BETA)
    with pytest.raises(ValueError, match=r"guide: expected one that draws 'mixing_coefficient' as the model does"):
        Trace_ELBO().loss(mixed, make_guide(mixed), make_batch())


def test_the_observed_part_of_a_site_is_fused_by_its_own_name() -> None:
    def model(x: Tensor, y: Tensor, masked: bool) -> None:
        mask = {"obs_mask": torch.ones(len(x), dtype=torch.bool)} if masked else {}
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x[:, 0], 1.0), obs=y, **mask)

    batch = make_batch()
    with pytest.raises(ValueError, match=r"at: expected .y_observed., .* got .y."):
        poutine.trace(pm.mix(model, at="y", coefficient=BETA)).get_trace(batch, True)
    law = dist.Delta(torch.tensor(0.3, dtype=torch.float64))
    found = []
    for at, masked in (("y", False), ("y_observed", True)):
        trace = poutine.trace(pm.mix(model, at=at, coefficient=law)).get_trace(batch, masked)
        trace.compute_log_prob()
        found.append(trace.nodes[at]["log_prob"])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("ready", [True, False])
def test_what_is_no_batch_is_refused(ready: bool) -> None:
    batch = make_batch()
    model = make_model("ProbMix") if ready else pm.mix(in_plate(normal), at="y", coefficient=BETA)
    for call in (model, model.guide, *([model.risk] if ready else [])):
        with pytest.raises(TypeError, match="batch: expected a PairBatch, got tuple"):
            call((batch.x, batch.y))
