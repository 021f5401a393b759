"""Work that several processes share."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any, Literal, TypeVar

__all__ = ["in_processes"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_processes: int,
    *,
    start_method: Literal["spawn", "fork"] = "spawn",
    setup: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
    poll: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """The results of ``function`` in the order in which they come. Closing ends what is still at work.

    Args:
        function: what a process can find by its name; its results are pickled.
        items: pickled too.
        num_processes: at least 1.
        start_method: ``"fork"`` hands ``arguments`` over as they are.
        setup: called with ``arguments`` by each process as it starts.
        arguments: see ``setup``.
        poll: called several times a second while this process waits.
    """
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        num_processes,
        mp_context=multiprocessing.get_context(start_method),
        initializer=_start,
        initargs=(setup, arguments),
    )
    finished = False
    try:
        pending = {executor.submit(function, item) for item in items}
        while pending:
            done, pending = wait(pending, None if poll is None else 0.2, FIRST_COMPLETED)
            if poll is not None:
                poll()
            for future in done:
                yield future.result()
        finished = True
    finally:
        executor.shutdown(wait=finished, cancel_futures=True)
        if not finished:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()


def _start(setup: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """Leave the end to the parent: no interrupt of its own, and no life after the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if setup is not None:
        setup(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
