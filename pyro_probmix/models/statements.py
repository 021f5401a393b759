"""What the ready models and their guides have in common: names of modules and sites, and how an embedding is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import pyro
from pyro.infer.discrete import SamplePosteriorMessenger
from pyro.nn import PyroModule
from pyro.poutine.messenger import block_messengers
from pyro.poutine.replay_messenger import ReplayMessenger
from torch import Tensor

from pyro_probmix.models.lazy import Unscored

__all__ = [
    "EMBEDDING_SITE",
    "LABEL_SITE",
    "PLATE",
    "Owned",
    "drawn_by_guide",
    "replay_of_guide",
    "sample_alike",
    "sample_scored",
]

PLATE, EMBEDDING_SITE, LABEL_SITE = "data", "embedding", "label"
_instances = count()


class Owned(PyroModule):
    """A module under a name of its own: it never meets another, nor a copy of it, in Pyro's parameter store."""

    def __init__(self) -> None:
        super().__init__(_unique_name(type(self)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        old, new = self._pyro_name, _unique_name(type(self))
        for module in self.modules():
            if isinstance(module, PyroModule):
                module._pyro_name = new + module._pyro_name.removeprefix(old)


def _unique_name(cls: type) -> str:
    return f"{cls.__name__}_{next(_instances)}"


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


def sample_alike(name: str, p: Any, obs: Tensor | None = None) -> Tensor:
    """``pyro.sample`` where model and guide draw the embedding alike: the terms cancel, and neither is computed."""
    return pyro.sample(name, Unscored(p) if name == EMBEDDING_SITE else p, obs=obs)


def sample_scored(name: str, p: Any, obs: Tensor | None = None) -> Tensor:
    """``pyro.sample`` of an embedding that is scored: its parameters are registered now, not when it is scored."""
    if name == EMBEDDING_SITE:
        p.force()
    return pyro.sample(name, p, obs=obs)
