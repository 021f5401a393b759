"""``pm.fit_replicas(compile=True)``: the same trainings, of what a compiler is handed and of what it makes."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.ops import blocks
from pyro_probmix.training import compiled
from pyro_probmix.training.compiled import Compiled
from tests.models.cases import METHODS
from tests.training.global_state import global_state
from tests.training.networks import FailingBeyond
from tests.training.replica_cases import assert_same, data, fit_replicas, maker


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "COMPILED_FROM", 0)


@pytest.mark.parametrize("command", ["no-such-compiler", "no-such-compiler -O3"])
def test_no_compiler(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", command)
    with pytest.raises(ValueError, match=f"compile: expected the C\\+\\+ compiler {command} on the path"):
        fit_replicas(maker(), [data()], compile=True)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is handed to the compiler, which gives it back."""
    graphs: list[Any] = []
    monkeypatch.setenv("CXX", sys.executable)  # no compiler is needed
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graphs.append(graph) or graph)
    return graphs


def assert_alike(ours: pm.Replicas, theirs: pm.Replicas, rtol: float = 1e-9) -> None:
    assert ours.failed == theirs.failed
    for model, other, history, expected in zip(
        ours.models, theirs.models, ours.histories, theirs.histories, strict=True
    ):
        assert_same(model, other, rtol=rtol)
        assert history.train_loss == pytest.approx(expected.train_loss, rel=max(rtol, 1e-15))
        assert history.validation_loss == pytest.approx(expected.validation_loss, rel=max(rtol, 1e-15))
        assert history.best_epoch == expected.best_epoch


@pytest.mark.parametrize("likelihood", ["normal", "categorical"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_traced_is_the_training(method: str, likelihood: str, traced: list[Any]) -> None:
    """Bit by bit, with replicas of uneven length, odd last batches and validation."""
    own = [data(r, size, likelihood) for r, size in enumerate([12, 9, 12])]
    arguments: dict[str, Any] = {"batch_size": 5, "validation": own, "num_samples": 2, "epochs": 5}
    expected = fit_replicas(maker(method, likelihood), own, **arguments)
    assert_alike(fit_replicas(maker(method, likelihood), own, compile=True, **arguments), expected, rtol=0)
    assert len(traced) == 4  # batches of 5 and of 4 or 2 nodes, of 2 nodes beside one that is through; validation


@pytest.mark.parametrize("where", ["output", "gradient"])
@pytest.mark.parametrize("real", [False, True], ids=["traced", "aot"])
def test_a_replica_that_fails(real: bool, where: str, request: pytest.FixtureRequest, monkeypatch: Any) -> None:
    """It stays where it was, with steps and epochs still to come; each has a learning rate of its own."""

    def make_model(r: int) -> Any:
        return pm.ERM(FailingBeyond([math.inf, 0.09, math.inf][r], where), pm.nn.NormalLikelihood(scale=1.0))

    if real:
        torch.compiler.reset()
        monkeypatch.setenv("CXX", sys.executable)
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    else:
        request.getfixturevalue("traced")
    own = [data(r, size) for r, size in enumerate([12, 12, 9])]
    arguments: dict[str, Any] = {"epochs": 12, "batch_size": 5, "learning_rate": [0.01, 0.02, 0.03]}
    expected = fit_replicas(make_model, own, **arguments)
    assert list(expected.failed) == [1]
    assert_alike(fit_replicas(make_model, own, compile=True, **arguments), expected, rtol=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"coefficient": pm.GaussJacobi(0.3, num_nodes=3)},
        {"vicinity": pm.NormalVicinity(0.1), "labels": "sample"},
    ],
    ids=["nodes", "drawn labels"],
)
def test_what_is_mixed_and_how(arguments: dict[str, Any], traced: list[Any]) -> None:
    own = [data(r) for r in range(2)]
    expected = fit_replicas(maker(**arguments), own)
    assert_alike(fit_replicas(maker(**arguments), own, compile=True), expected, rtol=0)
    assert traced


@pytest.mark.parametrize("backbone", [pm.nn.LSTMBackbone, partial(pm.nn.TransformerBackbone, num_heads=2)])
def test_backbones_over_sequences(backbone: Callable[..., nn.Module], traced: list[Any]) -> None:
    def make_model(r: int) -> Any:
        network = nn.Sequential(nn.Unflatten(-1, (3, 1)), backbone(1, 4), nn.Linear(4, 2))
        return pm.ProbMix(network, pm.nn.NormalLikelihood()).double()

    own = [data(r) for r in range(2)]
    assert_alike(fit_replicas(make_model, own, compile=True), fit_replicas(make_model, own), rtol=0)
    assert len(traced) == 1


def large_normals(r: int) -> Any:
    """More numbers than one block of work has."""
    encoder = pm.nn.NormalEmbedding(nn.Linear(3, 64), 64)
    return pm.ManifoldProbMix(encoder, nn.Linear(64, 2), pm.nn.NormalLikelihood()).double()


def test_large_tensors_are_traced_whole(traced: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither divided into blocks nor looked at, and equal to what is."""
    monkeypatch.setattr(blocks, "BLOCK", 500)
    own = [data(r) for r in range(2)]
    expected = fit_replicas(large_normals, own)
    assert_alike(fit_replicas(large_normals, own, compile=True), expected, rtol=1e-12)
    (graph,) = traced
    assert not [node for node in graph.graph.nodes if "split.Tensor" in str(node.target)]


def test_what_a_compiler_is_handed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole; nothing global is touched."""
    torch.compiler.reset()
    monkeypatch.setenv("CXX", sys.executable)  # no compiler is needed
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    own = [data(r) for r in range(3)]
    arguments: dict[str, Any] = {"validation": own, "epochs": 8}
    expected = fit_replicas(maker("ManifoldProbMix"), own, **arguments)
    before = global_state()
    assert_alike(fit_replicas(maker("ManifoldProbMix"), own, compile=True, **arguments), expected)
    assert global_state() == before


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile takes a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # what the compiler warns of is its own
@pytest.mark.parametrize("workers", [0, 2])
def test_compiled_by_the_compiler(workers: int) -> None:
    torch.compiler.reset()
    own = [data(r) for r in range(3)]
    arguments: dict[str, Any] = {"validation": own, "num_workers": workers, "epochs": 8}
    expected = fit_replicas(maker("ManifoldProbMix"), own, **arguments)
    assert_alike(fit_replicas(maker("ManifoldProbMix"), own, compile=True, **arguments), expected)


def dropout(r: int) -> Any:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    return pm.ERM(network, pm.nn.NormalLikelihood()).double()


def test_what_networks_draw(traced: list[Any]) -> None:
    """Dropout is drawn anew in every step, as without compilation, and is off in validation."""
    own = [data()] * 3
    arguments: dict[str, Any] = {"validation": own, "epochs": 12}
    expected = fit_replicas(dropout, own, **arguments)
    assert_alike(fit_replicas(dropout, own, compile=True, **arguments), expected, rtol=0)
    assert len(traced) == 2


def test_those_that_remain_are_compiled_anew(traced: list[Any]) -> None:
    own = [data(r) for r in range(4)]
    validation = [(x, y if r == 2 else -5 * y) for r, (x, y) in enumerate(own)]
    arguments: dict[str, Any] = {"validation": validation, "epochs": 40, "patience": 2}
    expected = fit_replicas(maker("ERM"), own, **arguments)
    assert_alike(fit_replicas(maker("ERM"), own, compile=True, **arguments), expected)
    assert len(traced) == 4


class Looking(nn.Module):
    """A network whose statements depend on its numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.detach().sum() > 0 else -x


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    function: Callable[..., Tensor] = Compiled(Looking(), len)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="compile: expected False for a model whose steps cannot be traced"):
        function(torch.ones(3))
    assert torch.equal(before, torch.get_rng_state())


def test_shapes_are_traced_and_compiled_once_it_pays(traced: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "TRACED_FROM", 2)
    monkeypatch.setattr(compiled, "COMPILED_FROM", 8)
    calls = []

    def double(x: Tensor, others: dict[str, Tensor]) -> Tensor:
        calls.append(x.shape)
        return 2 * x + others["y"]

    function = Compiled(double, lambda x, _: len(x))
    lengths = []
    for size in (2, 2, 3, 2, 10, 2, 3):
        x = torch.arange(float(size))
        assert torch.equal(function(x, {"y": x}), 3 * x)
        lengths.append(len(traced))
    assert calls == [(2,), (2,), (3,), (10,), (3,)]  # tracing runs it too
    assert lengths == [0, 0, 0, 0, 1, 2, 2]


def test_tensors_are_changed_once(traced: list[Any]) -> None:
    """Tracing runs a step, but of copies."""
    function = Compiled(lambda x, others: others["y"].add_(x), lambda *_: 1)
    x, y = torch.ones(3), torch.zeros(3)
    for step in range(1, 5):
        function(x, {"y": y})
        assert torch.equal(y, torch.full((3,), float(step)))


def test_random_numbers_are_drawn_once(traced: list[Any]) -> None:
    """Tracing runs a step, but leaves the random state."""
    torch.manual_seed(0)
    expected = [torch.randn(3) for _ in range(6)]
    torch.manual_seed(0)
    function = Compiled(lambda x: x + torch.randn(3), len)
    assert all(torch.equal(function(torch.zeros(3)), drawn) for drawn in expected)


def test_replicas_of_other_laws_share_a_graph(traced: list[Any]) -> None:
    """λ is drawn outside: replicas of other laws share a graph."""
    own = [data(r) for r in range(3)]

    def make_model(r: int) -> Any:
        return maker(coefficient=dist.Beta(0.1 + r, 0.1 + r))(r)

    assert_alike(fit_replicas(make_model, own, compile=True), fit_replicas(make_model, own), rtol=0)
    assert len(traced) == 1
