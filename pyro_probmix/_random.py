"""Random numbers from a seed and random states, the global one being left as it was."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

__all__ = ["RandomState", "derived_seed", "random_state", "seed_generators", "seeded", "set_random_state"]


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draws inside come from ``seed``, on the CPU and on ``device``; the global random state is put back after.

    Without a seed, the global state stays in charge.

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
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed_generators(operator.index(seed), device)
        yield


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the CPU and ``device``: ``torch.manual_seed`` would seed every device, those that are not put back too."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def derived_seed(*entropy: int) -> int:
    """A seed from numbers such as a user's seed, a process and an epoch: other numbers give an independent one."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def random_state(device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Torch's random states on the CPU and, where that is another, on a CUDA device.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(2)
        >>> set_random_state(state)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    states = {"cpu": torch.get_rng_state()}
    if torch.device(device).type == "cuda":
        states[str(device)] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: Mapping[str, Tensor]) -> None:
    """Puts the states of :func:`random_state` back."""
    for device, state in states.items():
        if device == "cpu":
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, device)


class RandomState:
    """A random state of its own, on the CPU and a device: inside the context, numbers are drawn from it.

    Attributes:
        states: of the generators, that of the CPU first.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        with seeded(seed, device):
            self.states = [generator.get_state() for generator in self._generators()]

    def _generators(self) -> list[torch.Generator]:
        on_device = [torch.cuda.default_generators[self.device.index]] if self.device.type == "cuda" else []
        return [torch.default_generator, *on_device]

    def __enter__(self) -> None:
        for generator, state in zip(self._generators(), self.states, strict=True):
            generator.set_state(state)

    def __exit__(self, *error: object) -> None:
        self.states = [generator.get_state() for generator in self._generators()]
