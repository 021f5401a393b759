"""Processes that share replicas, or any work: the same results, errors as they were, and nothing still at work."""

from __future__ import annotations

import functools
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import joblib
import pytest
import torch
from torch import nn

import pyro_probmix as pm
from pyro_probmix.training import load_checkpoint
from pyro_probmix.training.workers import in_workers
from tests.training.global_state import global_state
from tests.training.networks import FailingBeyond
from tests.training.replica_cases import assert_same, data, fit_replicas, maker

ROOT = Path(__file__).resolve().parents[2]
PARENT = os.getpid()


@pytest.mark.faults("workers that repeat draws")
@pytest.mark.parametrize("method", ["ProbMix", "ManifoldProbMix"])
def test_workers_train_what_one_process_trains(method: str) -> None:
    """Bit by bit, where the replicas are divided alike; what is global stays."""
    own = [data(r) for r in range(5)]
    validation = [data(10 + r, 7) for r in range(5)]
    arguments: dict[str, Any] = {"validation": validation, "patience": 2, "epochs": 30, "learning_rate": 0.3}
    torch.manual_seed(7)
    before, threads = global_state(), torch.get_num_threads()
    shared = fit_replicas(maker(method), own, num_workers=2, **arguments)
    assert global_state() == before
    assert torch.get_num_threads() == threads
    alone = fit_replicas(maker(method), own, chunk_size=3, **arguments)
    assert min(len(history.train_loss) for history in alone.histories) < 30
    assert shared.histories == alone.histories
    assert shared.seeds == alone.seeds
    for ours, theirs in zip(shared.models, alone.models, strict=True):
        assert_same(ours, theirs, rtol=0)
        assert not ours.training


def test_a_replica_that_fails_is_told() -> None:
    def make_model(r: int) -> Any:
        return pm.ERM(FailingBeyond(0.09 if r == 1 else math.inf, "output"), pm.nn.NormalLikelihood(scale=1.0))

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


class Broken(nn.Module):
    """A network that a worker cannot train."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how, self.parent = nn.Linear(3, 2), how, PARENT

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() == self.parent or not self.how:
            return self.layer(x)  # the parent tries how much memory a step takes
        if self.how == "raises":
            raise ArithmeticError("no such network")
        time.sleep(2)  # in which the other chunk is finished
        os._exit(3)


def broken(how: str, first: int = 0) -> Any:
    return lambda r: pm.ProbMix(Broken(how if r >= first else ""), pm.nn.NormalLikelihood()).double()


def test_an_error_of_a_worker_is_raised_as_it_was() -> None:
    with pytest.raises(ArithmeticError, match="no such network"):
        fit_replicas(broken("raises"), [data(r) for r in range(4)], num_workers=2)


@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given to the executor:UserWarning")
def test_a_worker_that_dies_is_told_by_its_replicas_and_what_was_finished_is_kept(tmp_path: Path) -> None:
    own = [data(r) for r in range(4)]
    options: dict[str, Any] = {"num_workers": 2, "chunk_size": 2, "checkpoint_dir": tmp_path}
    with pytest.raises(RuntimeError, match=r"a worker process ended by itself, at replicas 2, 3; 1 of 2 had been"):
        fit_replicas(broken("dies", first=2), own, **options)
    assert [(path.name, load_checkpoint(path).epoch) for path in tmp_path.iterdir()] == [("chunk_0.pt", 4)]
    resumed = fit_replicas(broken(""), own, resume=True, **options)
    through = fit_replicas(broken(""), own, chunk_size=2)
    assert resumed.histories == through.histories
    for ours, theirs in zip(resumed.models, through.models, strict=True):
        assert_same(ours, theirs, rtol=0)


def test_parametrized_networks_are_trained() -> None:
    def make_model(r: int) -> Any:
        layer = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3))
        return pm.ProbMix(nn.Sequential(layer, nn.Linear(3, 2)), pm.nn.NormalLikelihood()).double()

    own = [data(r) for r in range(2)]
    shared, alone = fit_replicas(make_model, own, num_workers=2), fit_replicas(make_model, own, chunk_size=1)
    for ours, theirs in zip(shared.models, alone.models, strict=True):
        assert_same(ours, theirs, rtol=0)


def test_what_cannot_be_pickled_is_refused() -> None:
    def make_model(r: int) -> Any:
        model = maker("ProbMix")(r)
        model.decoder.lock = threading.Lock()
        return model

    message = r"^num_workers: expected 0 for replicas that cannot be pickled, got TypeError: cannot pickle"
    with pytest.raises(ValueError, match=message):
        fit_replicas(make_model, [data(0)] * 2, num_workers=2)


SCRIPT = """
import sys, time
import torch
import pyro_probmix as pm

x = torch.linspace(-1, 1, 6).unsqueeze(-1)

def make_model(r):
    return pm.ProbMix(pm.nn.MLP(1, [2], 2), pm.nn.NormalLikelihood())

data = [(x, x.squeeze(-1))] * 4
print(len(pm.fit_replicas(make_model, data, epochs=2, num_workers=2, progress=False).models), flush=True)
pm.fit_replicas(make_model, data, epochs=int(sys.argv[1]), num_workers=2, progress=False)
"""


def running(group: int) -> bool:
    """Whether a process of the group is."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_script_needs_no_guard_and_an_interrupt_ends_its_workers(tmp_path: Path) -> None:
    """Ctrl-C reaches the parent while it waits; nothing of a training that would last for hours goes on."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), "10_000_000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests in the background are to ignore it
    pipe: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    script = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=heed, **pipe)
    assert script.stdout is not None
    assert script.stdout.readline() == "4\n"
    time.sleep(1)
    script.send_signal(signal.SIGINT)
    _, errors = script.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    end = time.monotonic() + 20
    while running(script.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not running(script.pid)


def test_the_bar_counts_the_epochs_of_all_chunks(capfd: pytest.CaptureFixture[str]) -> None:
    fit_replicas(maker(), [data(r) for r in range(4)], num_workers=2, epochs=6, progress=True)
    assert re.search(r"2 replicas|4 replicas", capfd.readouterr().err)


def test_what_is_no_number_of_workers_is_refused() -> None:
    for number in (-1, 1.5):
        with pytest.raises((TypeError, ValueError), match="num_workers: expected an integer >= 0"):
            fit_replicas(maker(), [data(r) for r in range(2)], num_workers=number)


# Any work.


def large(number: int) -> bytes:
    return bytes(2**22)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_every_result_comes_once(num_workers: int) -> None:
    assert sorted(in_workers(abs, [0, -1, -2, -3, -4], num_workers)) == [(k, k) for k in range(5)]


def test_where_there_are_threads_alone_work_is_done_in_turn() -> None:
    """They would share one random state, as within the work of another process."""
    with joblib.parallel_config("threading", n_jobs=2):
        shared = fit_replicas(maker(), [data(r) for r in range(3)], num_workers=2)
    alone = fit_replicas(maker(), [data(r) for r in range(3)], chunk_size=2)
    assert shared.histories == alone.histories


def test_a_cluster_of_dask_trains_the_same() -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        shared = fit_replicas(maker(), [data(r) for r in range(4)], num_workers=2)
    alone = fit_replicas(maker(), [data(r) for r in range(4)], chunk_size=2)
    assert shared.histories == alone.histories


def test_an_end_in_the_midst_of_large_results_waits_for_nothing() -> None:
    with closing(in_workers(large, range(1000), 2)) as results:
        _, result = next(results)
        assert len(result) == 2**22
        start = time.monotonic()
    assert time.monotonic() - start < 10
