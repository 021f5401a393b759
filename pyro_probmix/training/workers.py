"""Work that processes share, by joblib: those of this machine, or what ``joblib.parallel_config`` says."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

__all__ = ["in_workers", "one_thread"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_workers(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
) -> Generator[tuple[int, Result], None, None]:
    """The positions and results of the items, in the order in which they come; closing ends what is still at work.

    Each process computes with one thread; 0 of them is this one. Where the backend of joblib knows threads alone, as
    within the work of another process, the items are taken in turn, for threads share one random state. A process that
    ends by itself is an error, and what has come before is not lost.

    Example:
        >>> dict(in_workers(abs, [-3, 4], num_workers=0))
        {0: 3, 1: 4}
    """
    from joblib import Parallel, delayed  # here, for it is slow to import
    from joblib.parallel import get_active_backend

    backend, _ = get_active_backend()
    if not num_workers or getattr(backend, "supports_sharedmem", False):
        yield from ((number, function(item)) for number, item in enumerate(items))
        return
    left = dict(enumerate(items))
    as_they_come = "generator_unordered" if backend.supports_return_generator else "list"
    share = Parallel(num_workers, return_as=as_they_come, batch_size=1, pre_dispatch="n_jobs")
    work = delayed(_work)
    results: Any = share(work(os.getpid(), function, *numbered) for numbered in enumerate(items))
    try:
        for number, result in results:
            del left[number]
            yield number, result
    except BrokenExecutor as error:
        at_work = " or ".join(str(item) for item in list(left.values())[:num_workers])
        raise RuntimeError(
            f"a worker process ended by itself, at {at_work}; {len(items) - len(left)} of {len(items)} had been "
            f"finished: {error}"
        ) from error
    finally:
        if as_they_come != "list":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what an early end leaves
                results.close()
        if left:
            # Where this process ends next, a queue's thread must have given its semaphores back.
            for thread in threading.enumerate():
                if thread.name == "QueueFeederThread":
                    thread.join(timeout=1)


def _work(parent: int, function: Callable[[Item], Result], number: int, item: Item) -> tuple[int, Result]:
    """The number and the result of an item, computed with one thread."""
    if os.getppid() == parent:
        _begin(parent)
    with one_thread():
        return number, function(item)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, this process computes with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _begin(parent: int) -> None:
    """Have this process end where its parent has been killed, and leave nothing where it is killed itself."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own would be a semaphore of the system
