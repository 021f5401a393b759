"""Replicas in chunks that are trained side by side, as many as memory takes."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from tqdm.auto import tqdm

from pyro_probmix._random import seeded
from pyro_probmix.mixing import PairBatch
from pyro_probmix.training.checkpoints import describe, describe_training
from pyro_probmix.training.data import without_validation
from pyro_probmix.training.loop import Loop, Result
from pyro_probmix.training.settings import Settings
from pyro_probmix.training.stacked_steps import Replica, StackedStep
from pyro_probmix.training.stacking import configuration, saved_bytes
from pyro_probmix.training.validation import validation_noise

__all__ = ["MEMORY", "Chunk", "divide", "train_apart"]

MEMORY = 2**30
"""Bytes that the replicas trained at once may take on a CPU."""


@dataclass
class Chunk:
    """Replicas that are trained side by side."""

    replicas: list[Replica]
    settings: Settings
    path: Path | None

    @property
    def epochs(self) -> int:
        """The most that one of them is trained."""
        return max(replica.epochs for replica in self.replicas)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (_pickled(vars(self)),)

    def __str__(self) -> str:
        numbers = ", ".join(str(replica.number) for replica in self.replicas)
        return f"replicas {numbers}" if len(self.replicas) > 1 else f"replica {numbers}"

    def train(self, bar: Any) -> list[Result]:
        """Train all of them, in place."""
        ends = [replica.epochs for replica in self.replicas]
        with seeded(self.replicas[0].seed, self.replicas[0].device), without_validation():
            step = StackedStep(self.replicas, self.settings)
            return Loop(step, ends, self.settings, self.path, self._described(), alone=True).run(bar)

    def _described(self) -> dict[str, Any]:
        if self.path is None:
            return {}
        ends = [replica.epochs for replica in self.replicas]
        described: dict[str, Any] = {"replicas": [replica.number for replica in self.replicas]}
        if len(set(ends)) > 1:  # those that have ended do not go on
            described["epochs"] = ends
        for r in self.replicas:
            optimizer = {"optimizer": ["Adam", {"lr": describe(r.learning_rate)}], "scheduler": None}
            own = describe_training(r.model, r.loader, r.validation, self.settings, r.seed, optimizer)
            described[f"replica {r.number}"] = own
        return described


def _pickled(content: dict[str, Any]) -> bytes:
    """By the pickler of joblib; parametrized networks too, which PyTorch refuses, for a file of them would not last."""
    from joblib.externals.loky.backend.reduction import get_loky_pickler  # here, for it is slow to import

    class Pickler(get_loky_pickler()):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, nn.Module) and is_parametrized(obj):
                return copyreg.__newobj__, (type(obj),), vars(obj)  # type: ignore[attr-defined]
            return super().reducer_override(obj)

    file = io.BytesIO()
    Pickler(file).dump(content)
    return file.getvalue()


def _unpickled(content: bytes) -> Chunk:
    return Chunk(**pickle.loads(content))


def train_apart(chunk: Chunk) -> tuple[list[Result], list[tuple[dict[str, Tensor], Any]]]:
    """In a worker: what became of the replicas, and what they have learnt."""
    with pyro.get_param_store().scope(), tqdm(disable=True) as bar:
        results = chunk.train(bar)
    models = [replica.model for replica in chunk.replicas]
    annealed = chunk.settings.coefficient is not None
    return results, [
        ({name: p.detach() for name, p in m.named_parameters()}, m.coefficient if annealed else None) for m in models
    ]


def divide(replicas: Sequence[Replica], settings: Settings, size: int | None, num_workers: int) -> list[Chunk]:
    """Chunks of this size, or of as many replicas as fit, that can be trained together."""
    groups: dict[tuple, list[Replica]] = {}
    for replica in replicas:
        loader = replica.loader
        tensors = (loader.x, loader.y, loader.weight, loader.mask, *(replica.validation or ()))
        shapes = (None if t is None else (t.shape[1:], t.dtype, t.device) for t in tensors)
        groups.setdefault((configuration(replica.model), *shapes), []).append(replica)
    places = max(1, num_workers)
    chunks: list[Chunk] = []
    for group in groups.values():
        num_at_once = _num_at_once(group, settings)  # refuses networks that cannot be stacked
        step = size
        if step is None:
            at_once = max(1, num_at_once // places)
            rounds = -(-len(group) // (places * at_once))
            step = -(-len(group) // (places * rounds))  # chunks of one size, as many for each place
        for start in range(0, len(group), step):
            path = settings.path(f"chunk_{len(chunks)}.pt")
            chunks.append(Chunk(group[start : start + step], settings, path))
    return chunks


def _num_at_once(group: Sequence[Replica], settings: Settings) -> int:
    """How many replicas fit, their validation noise included where each has its own."""
    largest = max(group, key=lambda replica: replica.loader.x.numel())
    step = _step_bytes(largest, settings)
    held_out = [replica.validation[0] for replica in group if replica.validation is not None]
    noise = None
    if len({len(x) for x in held_out}) > 1:
        x = max(held_out, key=len)  # to which all are padded
        noise = validation_noise(largest.model, x)
    held = 0 if noise is None else noise.numel() * noise.element_size()
    free = torch.cuda.mem_get_info(largest.device)[0] // 2 if largest.device.type == "cuda" else MEMORY
    return max(1, free // max(1, 3 * step + held))


def _step_bytes(replica: Replica, settings: Settings) -> int:
    """How much a step keeps for its backward pass, on any rows: its random state and its graph see none of this.

    A network that changes its buffers, of which replicas keep the first, is refused.
    """
    model, loader = replica.model, replica.loader
    assert loader.y is not None
    rows = min(loader.batch_size or len(loader.x), len(loader.x))
    batch = PairBatch(loader.x[:rows], loader.y[:rows], torch.arange(rows, device=loader.x.device)).to(replica.device)
    names = {id(buffer): name for name, buffer in model.named_buffers()}
    before = [
        (m._buffers, key, b, b.clone()) for m in model.modules() for key, b in m._buffers.items() if b is not None
    ]
    with seeded(0, replica.device):
        size = saved_bytes(lambda: model.risk(batch, settings.num_samples, objective=settings.objective))
    changed = []
    for owner, key, buffer, value in before:
        if owner[key] is not buffer or not torch.allclose(buffer, value, rtol=0, atol=0, equal_nan=True):
            changed.append(names[id(buffer)])
            owner[key] = value
    if changed:
        raise ValueError(
            f"make_model: expected networks whose buffers stay as they are in training, got {', '.join(changed)}"
        )
    return size
