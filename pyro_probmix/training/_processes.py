"""Work that several processes share."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Literal, TypeVar

from tqdm.auto import tqdm

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

    Each process has a pipe of its own. In a queue that all share, as in ``concurrent.futures``, one that is ended while
    it writes leaves half a result, for the rest of which the parent waits for ever.

    Args:
        function: what a process can find by its name; its results are pickled.
        items: pickled too.
        num_processes: at least 1.
        start_method: ``"fork"`` hands ``arguments`` over as they are.
        setup: called with ``arguments`` by each process as it starts.
        arguments: see ``setup``.
        poll: called several times a second while this process waits.

    Raises:
        RuntimeError: if a process ends by itself.
        Exception: what ``function`` raises.
    """
    context: Any = multiprocessing.get_context(start_method)
    waiting = iter(items)
    processes: dict[Any, Any] = {}
    try:
        for _ in range(num_processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, function, setup, arguments), daemon=True)
            # What is forked computes with one thread, and takes no lock of others.
            with _interrupted_later(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
                process.start()
                theirs.close()
                processes[ours] = process
        for ours in processes:  # once all of them are starting
            _hand(ours, waiting)
        while processes:
            ready: list[Any] = wait(list(processes), None if poll is None else 0.2)
            if poll is not None:
                poll()
            for ours in ready:
                answer = _receive(ours, processes[ours])
                if answer is None:
                    ours.close()
                    processes.pop(ours).join()
                    continue
                result, error, trace = answer
                if error is not None:
                    raise error from RuntimeError(f"in a worker process:\n{trace}")
                _hand(ours, waiting)
                yield result
    finally:
        for process in processes.values():
            process.terminate()
        for ours, process in processes.items():
            ours.close()
            process.join()


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Hold an interrupt back: what Python calls around a fork would swallow it."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *arguments: came.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for arguments in came[:1]:
            handler(*arguments)


def _hand(ours: Any, waiting: Iterator[Any]) -> None:
    """Send the next item, or nothing where nothing is left; of one that has ended, ``_receive`` will tell."""
    with suppress(OSError):
        ours.send(tuple(islice(waiting, 1)))


def _receive(ours: Any, process: Any) -> Any:
    try:
        return ours.recv()
    except (EOFError, OSError):
        process.join()
        raise RuntimeError(f"a worker process ended by itself, with exit code {process.exitcode}") from None


def _serve(
    theirs: Connection, function: Callable[[Any], Any], setup: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    # The end is left to the parent: no interrupt of its own, and no life after the parent's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler of the parent's would be here too
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own would be shared by processes, and missed where this one is ended
    if setup is not None:
        setup(*arguments)
    answer: tuple[Any, Exception | None, str]
    while item := theirs.recv():
        try:
            answer = function(*item), None, ""
        except Exception as error:
            answer = None, error, traceback.format_exc()
        try:
            theirs.send(answer)
        except (pickle.PicklingError, AttributeError, TypeError) as error:  # what cannot be pickled
            theirs.send((None, error, answer[2] or traceback.format_exc()))
    theirs.send(None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
