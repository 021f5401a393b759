"""Work shared by processes: every result once, errors as they were, and no process left, whenever it ends."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from contextlib import closing, suppress
from typing import Any

import pytest

from pyro_probmix.training._processes import in_processes

methods = pytest.mark.parametrize(
    "start_method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()]
)
_given: list[int] = []


def give(number: int) -> None:
    _given.append(number)


def times_given(number: int) -> int:
    return number * _given[0]


def large(number: int) -> bytes:
    return bytes(2**22)


def unlucky(number: int) -> Any:
    if number == 1:
        raise KeyError("one")
    return (lambda: 0) if number == 2 else os._exit(7) if number == 3 else number


@methods
@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_every_result_comes_once(start_method: Any, num_processes: int) -> None:
    polled: list[int] = []
    with closing(
        in_processes(
            times_given,
            range(5 if start_method == "fork" else 2),
            num_processes,
            start_method=start_method,
            setup=give,
            arguments=(10,),
            poll=lambda: polled.append(1),
        )
    ) as results:
        assert sorted(results) == [0, 10, 20, 30, 40][: 5 if start_method == "fork" else 2]
    assert polled
    assert multiprocessing.active_children() == []


def test_an_end_in_the_midst_of_large_results_waits_for_nothing() -> None:
    """Half a result may be in the pipe; nothing is to wait for the rest."""
    for _ in range(10):
        results = in_processes(large, range(1000), 2, start_method="fork")
        assert len(next(results)) == 2**22
        start = time.monotonic()
        results.close()
        assert time.monotonic() - start < 10
        assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        (1, KeyError, "one"),
        (2, (AttributeError, TypeError), "lambda|local object"),
        (3, RuntimeError, "a worker process ended by itself, with exit code 7"),
    ],
)
def test_errors(item: int, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        list(in_processes(unlucky, [item], 2, start_method="fork"))
    if item < 3:
        assert "Traceback" in str(caught.value.__cause__)
    assert multiprocessing.active_children() == []


def test_a_set_up_that_fails() -> None:
    with pytest.raises(RuntimeError, match="a worker process ended by itself, with exit code 1"):
        list(in_processes(math.sqrt, [1.0], 1, start_method="fork", setup=math.sqrt, arguments=(-1.0,)))


def test_an_interrupt_while_a_process_starts_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes within a fork, where what Python calls would swallow it, and is heeded after it."""
    process = multiprocessing.get_context("fork").Process
    start, handler = process.start, signal.getsignal(signal.SIGINT)

    def interrupted(self: Any) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        start(self)

    monkeypatch.setattr(process, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(in_processes(abs, range(4), 2, start_method="fork"))
    assert signal.getsignal(signal.SIGINT) is handler
    assert not multiprocessing.active_children()
