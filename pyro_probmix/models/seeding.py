"""Random numbers from a seed, the global random state being left as it was."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draws inside come from ``seed``, on the CPU and on ``device``; the global random state is put back after.

    Args:
        seed: any integer; None leaves the global state in charge.
        device: where else numbers are drawn.

    Example:
        >>> with seeded(0, torch.device("cpu")):
        ...     first = torch.rand(2)
        >>> with seeded(0, torch.device("cpu")):
        ...     torch.equal(first, torch.rand(2))
        True
    """
    if seed is None:
        yield
        return
    seed, cuda = operator.index(seed), device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        # torch.manual_seed would seed every device, those that are not put back too.
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
