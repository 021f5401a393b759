"""``pm.fit_replicas(num_workers=...)``: the same trainings, shared by processes that leave nothing behind."""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import signal
import threading
import time
from typing import Any

import pytest
import torch
from torch import nn

import pyro_probmix as pm
from pyro_probmix.training import _chunk
from pyro_probmix.training import replicas as module
from tests.training.replica_cases import assert_same, data, fit_replicas, maker
from tests.training.test_replicas_that_stop import Failing

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no process can be forked here"
)


@pytest.mark.faults("workers that repeat draws")
@pytest.mark.parametrize("method", ["ProbMix", "ManifoldProbMix"])
def test_workers_train_what_one_process_trains(method: str) -> None:
    """Bit by bit, where the replicas are divided alike."""
    own = [data(r) for r in range(5)]
    validation = [data(10 + r, 7) for r in range(5)]
    arguments: dict[str, Any] = {"validation": validation, "patience": 2, "epochs": 30, "learning_rate": 0.3}
    torch.manual_seed(7)
    before = torch.get_rng_state()
    shared = fit_replicas(maker(method), own, num_workers=2, **arguments)
    assert torch.equal(before, torch.get_rng_state())
    alone = fit_replicas(maker(method), own, chunk_size=3, **arguments)
    assert min(len(history.train_loss) for history in alone.histories) < 30
    assert shared.histories == alone.histories
    assert shared.seeds == alone.seeds
    for ours, theirs in zip(shared.models, alone.models, strict=True):
        assert_same(ours, theirs, rtol=0)
        assert not ours.training
    assert multiprocessing.active_children() == []


def test_a_replica_that_fails_is_told() -> None:
    def make_model(r: int) -> Any:
        return pm.ERM(Failing(0.09 if r == 1 else math.inf, "output"), pm.nn.NormalLikelihood(scale=1.0))

    own = [data(r) for r in range(4)]
    shared = fit_replicas(make_model, own, num_workers=2, epochs=12)
    assert list(shared.failed) == [1]
    assert shared.failed == fit_replicas(make_model, own, chunk_size=2, epochs=12).failed


def test_replicas_of_two_kinds_and_more_workers_than_replicas() -> None:
    def make_model(r: int) -> Any:
        return maker("ProbMix" if r % 2 else "ERM")(r)

    own = [data(r) for r in range(3)]
    shared = fit_replicas(make_model, own, num_workers=8)
    alone = fit_replicas(make_model, own, chunk_size=1)
    for ours, theirs in zip(shared.models, alone.models, strict=True):
        assert_same(ours, theirs, rtol=0)


def test_memory_bounds_how_many_all_workers_train_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def train(chunks: Any, settings: Any, num_workers: int, bar: Any) -> None:
        seen.append([len(chunk) for chunk in chunks])
        _chunk.train_chunks(chunks, settings, 0, bar)

    monkeypatch.setattr(module, "train_chunks", train)
    monkeypatch.setattr(module, "_num_at_once", lambda *_: 4)
    fit_replicas(maker(), [data(r) for r in range(9)], num_workers=2)
    fit_replicas(maker(), [data(r) for r in range(3)], num_workers=2)
    monkeypatch.setattr(module, "_num_at_once", lambda *_: 8)
    fit_replicas(maker(), [data(r) for r in range(10)], num_workers=2)
    assert seen == [[2, 2, 2, 2, 1], [2, 1], [3, 3, 3, 1]]


class Broken(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(3, 2), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if multiprocessing.parent_process() is None:
            return self.layer(x)  # the parent tries how much memory a step takes
        if self.how == "raises":
            raise ArithmeticError("no such network")
        os._exit(3)


def broken(how: str) -> Any:
    return lambda r: pm.ProbMix(Broken(how), pm.nn.NormalLikelihood()).double()


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [("raises", ArithmeticError, "no such network"), ("dies", RuntimeError, "ended by itself, with exit code 3")],
)
def test_an_error_of_a_worker_is_raised_and_no_process_is_left(how: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        fit_replicas(broken(how), [data(r) for r in range(4)], num_workers=2)
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def test_workers_end_whatever_the_parent_does_with_their_signal() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(ArithmeticError, match="no such network"):
            fit_replicas(broken("raises"), [data(r) for r in range(4)], num_workers=2, chunk_size=1)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interrupt_ends_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches the parent while it waits; nothing of a training that would last for hours goes on."""

    class Bar:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.n, self.disable = 0, True

        def update(self, n: int) -> None:
            if n > 0:
                raise KeyboardInterrupt

    bar: Any = Bar()

    def train(chunks: Any, settings: Any, num_workers: int, _: Any) -> None:
        _chunk.train_chunks(chunks, settings, num_workers, bar)

    monkeypatch.setattr(module, "train_chunks", train)
    with pytest.raises(KeyboardInterrupt):
        fit_replicas(maker(), [data(r) for r in range(4)], num_workers=2, epochs=10_000_000)
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def test_the_bar_counts_the_epochs_of_all_chunks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "tqdm", functools.partial(module.tqdm, mininterval=0, miniters=1))
    fit_replicas(maker(), [data(r) for r in range(4)], num_workers=2, epochs=6, progress=True)
    assert "12/12" in capfd.readouterr().err


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [data(r) for r in range(2)]
    for number in (-1, 1.5):
        with pytest.raises((TypeError, ValueError), match="num_workers: expected"):
            fit_replicas(maker(), own, num_workers=number)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(ValueError, match="num_workers: expected 0 where no process can be forked, got 2"):
        fit_replicas(maker(), own, num_workers=2)


def test_threads_are_left_alone() -> None:
    threads, running = torch.get_num_threads(), threading.active_count()
    fit_replicas(maker(), [data(r) for r in range(2)], num_workers=2)
    assert torch.get_num_threads() == threads
    assert threading.active_count() == running
