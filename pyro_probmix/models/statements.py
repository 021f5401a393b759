"""What the ready models and their guides have in common: names of modules and sites, and how a site is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import pyro
from pyro.infer.discrete import SamplePosteriorMessenger
from pyro.nn import PyroModule
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.messenger import block_messengers
from pyro.poutine.replay_messenger import ReplayMessenger
from torch import Tensor, nn

from pyro_probmix.models.lazy import Unscored

__all__ = [
    "EMBEDDING_SITE",
    "LABEL_SITE",
    "PLATE",
    "HiddenRows",
    "Owned",
    "Statements",
    "data_plate",
    "drawn_by_guide",
    "replay_of_guide",
]

PLATE, EMBEDDING_SITE, LABEL_SITE = "data", "embedding", "label"
_instances = count()


class Owned(PyroModule):
    """A module under a name of its own: it never meets another, nor a copy of it, in Pyro's parameter store."""

    def __init__(self) -> None:
        super().__init__(_unique_name(type(self)))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self._own(value, f"{self._pyro_name}.{name}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        old, new = self._pyro_name, _unique_name(type(self))
        for module in self.modules():
            if isinstance(module, PyroModule) and (module._pyro_name + ".").startswith(old + "."):
                module._pyro_name = new + module._pyro_name.removeprefix(old)

    def _own(self, module: nn.Module, name: str) -> None:
        """Names the modules of Pyro inside of those of torch, which Pyro leaves without a name, alike in any model."""
        for key, child in module._modules.items():
            full = f"{name}.{key}"
            if isinstance(child, PyroModule):
                if child._pyro_name and not isinstance(module, PyroModule):
                    continue  # it is another's, or has a name of the user's own
                child._pyro_name, child._pyro_context = full, self._pyro_context
            if child is not None:
                self._own(child, full)


def _unique_name(cls: type) -> str:
    return f"{cls.__name__}_{next(_instances)}"


def data_plate(size: int, num_rows: int | None) -> pyro.plate:
    """The plate of a batch of ``size`` nodes, which stands for ``num_rows`` rows, by default for itself."""
    if num_rows is None:
        return pyro.plate(PLATE, size, dim=-1)
    if num_rows < size:
        raise ValueError(f"num_rows: expected at least {size}, the number of nodes in the batch, got {num_rows}")
    return pyro.plate(PLATE, num_rows, subsample=range(size), dim=-1)  # type: ignore[arg-type]


def replay_of_guide() -> Any:
    """The handler that replays the draws of a guide, where there is one.

    The trace of a guide has come to its end: losses that enumerate replay unfinished ones too, of the guide itself.
    """

    def replays_guide(messenger: Any) -> bool:
        is_replay = isinstance(messenger, ReplayMessenger) and messenger.trace is not None
        return is_replay and (isinstance(messenger, SamplePosteriorMessenger) or "_RETURN" in messenger.trace)

    with block_messengers(replays_guide) as replays:
        return replays[-1] if replays else None


def drawn_by_guide() -> Mapping[str, Any]:
    """The sites of the guide whose draws the model is replayed with."""
    replay = replay_of_guide()
    return {} if replay is None else replay.trace.nodes


class HiddenRows(BlockMessenger):
    """Hides what a model draws of the batch, λ included, from a guide of something else."""


class Statements:
    """Pyro's statements inside the data plate, which the networks between them stay outside of.

    Args:
        plate: the data plate, entered for each statement.
        alike: whether model and guide draw the embedding alike, so that the terms cancel and neither is computed.
        lazy: whether the embedding is left to be computed when it is needed, if at all.
    """

    def __init__(self, plate: pyro.plate, alike: bool, lazy: bool) -> None:
        self.plate, self.alike, self.lazy = plate, alike, lazy

    def sample(self, name: str, p: Any, obs: Tensor | None = None) -> Tensor:
        if name == EMBEDDING_SITE:
            if not self.lazy:
                p.force()
            if self.alike:
                p = Unscored(p)
        with self.plate:
            return pyro.sample(name, p, obs=obs)

    def deterministic(self, name: str, value: Tensor, event_dim: int) -> Tensor:
        with self.plate:
            return pyro.deterministic(name, value, event_dim=event_dim)
