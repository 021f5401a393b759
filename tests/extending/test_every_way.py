"""Each extension is short, and works in SVI, in plain PyTorch, in ``fit``, in ``fit_replicas`` and in ``evaluate``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.models import assemble
from tests.training.replica_cases import assert_as_fit

HERE = Path(__file__).parent
SIZE, FEATURES = 24, 3

LINES = {
    "rayleigh": 25,
    "time_window": 12,
    "second_layer": 12,
    "gamma_vicinity": 14,
    "absolute_error": 5,
    "ordered_logistic": 20,
}


@pytest.mark.parametrize("name", LINES)
def test_it_is_short(name: str) -> None:
    source = (HERE / f"{name}.py").read_text(encoding="utf-8")
    lines = 0
    for node in ast.parse(source).body[1:]:  # after what the file says of itself
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        assert isinstance(node, (ast.ClassDef, ast.FunctionDef))
        assert ast.get_docstring(node)
        first = min(part.lineno for part in (node, *node.decorator_list))
        own = [line.strip() for line in source.splitlines()[first - 1 : node.end_lineno]]
        lines += len([line for line in own if line and not line.startswith("#")])
    assert 0 < lines <= LINES[name]
    assert f"(tests/extending/{name}.py)" in (HERE.parents[1] / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """A model that an extension is part of, its labels and its graph."""

    model: Callable[[SimpleNamespace], Any]
    labels: Callable[[Tensor], Tensor]
    graph: Callable[[SimpleNamespace], Any] = lambda extensions: pm.CompleteGraph(SIZE)
    score: str = "rmse"


def mlp(likelihood: Any) -> Any:
    return pm.nn.MLP(FEATURES, [6, 5], likelihood.num_outputs)


def probmix(likelihood: Any, **options: Any) -> Any:
    return pm.ProbMix(mlp(likelihood), likelihood, **options)


def named(method: str) -> Any:
    likelihood = pm.nn.NormalLikelihood()
    law = dist.Beta(torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))
    return assemble(method, mlp(likelihood), 6, likelihood, coefficient=law, beta=0.01)


def positive(x: Tensor) -> Tensor:
    return x[:, 0].exp() + 0.1


CASES = {
    "family": Case(lambda e: probmix(pm.nn.DistributionLikelihood(e.rayleigh.Rayleigh)), positive),
    "graph": Case(lambda _: named("mixup"), lambda x: x[:, 0], lambda e: e.time_window.TimeWindowGraph(SIZE, 3)),
    "method": Case(lambda _: named("second_layer"), lambda x: x[:, 0]),
    "vicinity": Case(
        lambda e: probmix(pm.nn.DistributionLikelihood(dist.Gamma), vicinity=e.gamma_vicinity.GammaVicinity(0.02)),
        positive,
    ),
    "metric": Case(lambda _: named("probmix"), lambda x: x[:, 0], score="mean_error"),
    "likelihood": Case(
        lambda e: probmix(e.ordered_logistic.OrderedLogisticLikelihood(4)),
        lambda x: (x[:, 0] > -1).long() + (x[:, 0] > 0).long() + (x[:, 0] > 1).long(),
        score="accuracy",
    ),
}
every = pytest.mark.parametrize("name", CASES)


def data(name: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(SIZE, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x, CASES[name].labels(x)


@every
def test_the_risk_has_a_gradient_by_every_parameter(name: str, extensions: SimpleNamespace) -> None:
    model = CASES[name].model(extensions).double()
    model.risk(CASES[name].graph(extensions).pair_batch(*data(name))).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and bool(grad.isfinite().all()) and bool((grad != 0).any()) for grad in gradients)


@every
def test_svi_trains_it(name: str, extensions: SimpleNamespace) -> None:
    model, (x, y) = CASES[name].model(extensions).double(), data(name)
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(CASES[name].graph(extensions).pair_batch(x, y)) for _ in range(60)]
    assert sum(losses[-20:]) < sum(losses[:20])


@every
def test_fit_trains_it_and_its_predictions_are_scored(name: str, extensions: SimpleNamespace) -> None:
    model, (x, y) = CASES[name].model(extensions).double(), data(name)
    before = pm.evaluate(model.predictive(x), y)
    pm.fit(model, (x, y), graph=CASES[name].graph(extensions), epochs=60, learning_rate=0.02, progress=False)
    after = pm.evaluate(model.predictive(x), y)
    assert after["nll"] < before["nll"]
    better = after[CASES[name].score] - before[CASES[name].score]
    assert better > 0 if CASES[name].score == "accuracy" else better < 0


@every
def test_replicas_are_trained_as_fit_trains(name: str, extensions: SimpleNamespace) -> None:
    def make_model(r: int) -> Any:
        return CASES[name].model(extensions).double()

    own, graph = [data(name, seed) for seed in (1, 2)], CASES[name].graph(extensions)
    options: dict[str, Any] = {"epochs": 4, "learning_rate": 0.02, "progress": False}
    replicas = pm.fit_replicas(make_model, own, graph=graph, **options)
    assert replicas.failed == {}
    assert_as_fit(replicas, make_model, own, graphs=[graph] * 2)
    assert pm.evaluate(replicas.ensemble(own[0][0]), own[0][1])[CASES[name].score] >= 0
