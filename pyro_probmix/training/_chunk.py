"""Replicas that are trained side by side, by this process or by several."""

from __future__ import annotations

import io
import math
import multiprocessing
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_probmix._random import RandomState, seeded
from pyro_probmix.training._processes import in_processes
from pyro_probmix.training._replica import Batches, Replica, held_out_data
from pyro_probmix.training._stack import ModelStack
from pyro_probmix.training.history import VALIDATION_SAMPLES, History

__all__ = ["Chunk", "Settings", "num_epochs", "train_chunks"]


@dataclass(frozen=True)
class Settings:
    """What the replicas of a call have in common."""

    num_samples: int
    patience: float
    validation_every: int
    ema_decay: float | None = None
    compile: bool = False


class Chunk:
    """The loop of ``fit``, with a row a replica. What it learns stays on the device until the host asks."""

    def __init__(self, replicas: Sequence[Replica], settings: Settings) -> None:
        self.replicas, self.settings, self.device = list(replicas), settings, replicas[0].device
        models = [replica.model for replica in replicas]
        rates = [replica.learning_rate for replica in replicas]
        self._models = ModelStack(
            models, rates, settings.num_samples, VALIDATION_SAMPLES, settings.compile, settings.ema_decay
        )
        # What the networks draw themselves they draw side by side, apart from what each replica draws.
        network_seed = np.random.SeedSequence([replica.seed for replica in replicas]).generate_state(1).item()
        self._network_state = RandomState(network_seed, self.device)
        self._batches = Batches(self.replicas, settings.num_samples)
        self._held_out = held_out_data(self.replicas)
        size, dtype = len(self.replicas), torch.promote_types(self._models.flat.dtype, torch.float32)
        self._end = torch.tensor([replica.epochs for replica in self.replicas], device=self.device)
        self._losses = torch.zeros(size, 2, self.epochs, device=self.device, dtype=dtype)
        self._failed = torch.zeros(size, device=self.device, dtype=torch.bool)
        self._stopped = self._end.clone()
        self._best_loss = torch.full((size,), math.inf, device=self.device, dtype=dtype)
        self._best_epoch = torch.zeros(size, device=self.device, dtype=torch.int64)
        self._best = self._models.flat.clone()
        self._num_gone_failed = 0

    @property
    def epochs(self) -> int:
        """The most that a replica is trained."""
        return num_epochs([self.replicas])

    @property
    def num_failed(self) -> int:
        """How many have failed, those that are gone included."""
        return self._num_gone_failed + int(self._failed.sum())

    def median_loss(self, epoch: int) -> float:
        """The median training loss of an epoch."""
        return self._losses[:, 0, epoch].nanmedian().item()

    def train(self, epoch: int) -> None:
        """One epoch of steps."""
        running = self._stopped > epoch
        sound, num_nodes = running.clone(), torch.zeros_like(self._stopped)
        total = torch.zeros_like(self._best_loss)
        for arguments, sizes in self._batches.epoch():
            moving = sound & (sizes > 0)
            with self._network_state:
                loss, moved = self._models.step(arguments, moving)
            sound ^= moving ^ moved  # all that was to move and has not
            total += torch.where(moving, loss.to(total.dtype) * sizes, 0)
            num_nodes += sizes
        self._losses[:, 0, epoch] = torch.where(running, total / num_nodes, math.nan)
        self._failed |= running & ~sound
        self._stopped = torch.where(running & ~sound, epoch, self._stopped)

    def validate(self, epoch: int) -> None:
        """The validation losses after an epoch, where there are validation data and this epoch is one of those."""
        due = (epoch + 1) % self.settings.validation_every == 0
        if not self._held_out or not (due or any(replica.epochs == epoch + 1 for replica in self.replicas)):
            return
        loss = self._losses[:, 1, epoch] = self._models.validation(self._held_out)
        judged = self._stopped > epoch
        if not due:  # the last of some, and none of the others'
            judged &= self._end == epoch + 1
        improved = (loss < self._best_loss) & judged
        self._best_loss = torch.where(improved, loss, self._best_loss)
        self._best_epoch = torch.where(improved, epoch, self._best_epoch)
        self._best = torch.where(improved.unsqueeze(1), self._models.kept, self._best)
        settled = (epoch - self._best_epoch >= self.settings.patience) & judged
        self._stopped = torch.where(settled, epoch + 1, self._stopped)

    def release(self, epoch: int) -> None:
        """Let those that have stopped go once they are half of all, for they take as much time as the others."""
        running = self._stopped > epoch + 1
        if 2 * int(running.sum()) > len(self.replicas):
            return
        self._write(~running)
        self._num_gone_failed += int(self._failed[~running].sum())
        rows = running.nonzero().squeeze(1)
        self.replicas = [self.replicas[row] for row in rows.tolist()]
        if not self.replicas:
            return
        self._models.keep(rows)
        self._batches = Batches(self.replicas, self.settings.num_samples)
        self._held_out = held_out_data(self.replicas)
        for name in ("_end", "_losses", "_failed", "_stopped", "_best_loss", "_best_epoch", "_best"):
            setattr(self, name, getattr(self, name)[rows])

    def finish(self) -> None:
        """Write what all that are still here have learnt."""
        self._write(torch.ones_like(self._failed))

    def _write(self, chosen: Tensor) -> None:
        """The parameters of the chosen rows into their models, and what happened into their histories."""
        failed, best_epoch, learnt = self._failed, self._best_epoch, self._models.kept
        blind = torch.zeros_like(failed)
        if self._held_out:
            blind = ~failed & ~self._best_loss.isfinite()
            learnt = self._best
        else:
            best_epoch = self._stopped - 1
        rows = chosen.nonzero().squeeze(1)
        learnt = torch.where((failed | blind).unsqueeze(1), self._models.flat, learnt)
        self._models.write(learnt[rows], rows)
        settings, columns = self.settings, (self._losses, failed, blind, self._stopped, best_epoch)
        for row, found, has_failed, is_blind, stop, best in zip(
            rows.tolist(), *(c[rows].tolist() for c in columns), strict=True
        ):
            replica, (train, validation) = self.replicas[row], found
            validated = list(range(settings.validation_every - 1, stop, settings.validation_every))
            if stop == replica.epochs and stop % settings.validation_every:
                validated.append(stop - 1)
            kept = [] if replica.validation is None else [validation[e] for e in validated]
            replica.history = History(train[:stop], kept, max(0, stop - 1) if has_failed or is_blind else best)
            replica.failed = stop if has_failed else 0 if is_blind else None


def num_epochs(chunks: Sequence[Sequence[Replica]]) -> int:
    """How many epochs all chunks are trained, if none stops early."""
    return sum(max(replica.epochs for replica in chunk) for chunk in chunks)


def train_chunks(chunks: Sequence[Sequence[Replica]], settings: Settings, num_workers: int, bar: Any) -> None:
    """Train every replica, with a bar that counts the epochs of all chunks.

    Raises:
        ValueError: if there are workers where no process can be forked, or for replicas that are not on a CPU.
    """
    if not num_workers:
        for number, chunk in enumerate(chunks):
            _train(chunk, settings, bar)
            bar.update(num_epochs(chunks[: number + 1]) - bar.n)
        return
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ValueError(f"num_workers: expected 0 where no process can be forked, got {num_workers}")
    devices = {replica.device.type for chunk in chunks for replica in chunk}
    if devices != {"cpu"}:
        raise ValueError(f"num_workers: expected 0 for replicas that are not on a CPU, got {num_workers}")
    epochs = multiprocessing.get_context("fork").Value("q", 0)
    if settings.compile:
        torch.compile(torch.nn.Identity())  # loads the compiler, for all workers
    work = _Work(chunks, settings, epochs)
    trained = in_processes(
        _train_number,
        range(len(chunks)),
        min(num_workers, len(chunks)),
        start_method="fork",
        setup=_begin,
        arguments=(work,),
        poll=lambda: bar.update(epochs.value - bar.n),
    )
    with closing(trained):
        for number, content in trained:
            states = torch.load(io.BytesIO(content), weights_only=True)
            for replica, state in zip(chunks[number], states, strict=True):
                replica.learn(state)
    bar.update(num_epochs(chunks) - bar.n)  # a chunk may have stopped early


@dataclass
class _Work:
    """What a worker has in hand; it counts the epochs as a bar would."""

    chunks: Sequence[Sequence[Replica]]
    settings: Settings
    epochs: Any
    disable: bool = True

    def update(self, n: int = 1) -> None:
        with self.epochs.get_lock():
            self.epochs.value += n


_work: _Work | None = None


def _begin(work: _Work) -> None:
    global _work
    torch.set_num_threads(1)  # those of the parent have not been forked
    if work.settings.compile:
        from torch._inductor import config  # takes a second to import, and the parent has

        config.compile_threads = 1  # nor have the parent's compilers
    _work = work


def _train_number(number: int) -> tuple[int, bytes]:
    """Number of a chunk, and what its replicas have learnt, in bytes: tensors themselves would be shared."""
    assert _work is not None
    chunk = _work.chunks[number]
    _train(chunk, _work.settings, _work)
    content = io.BytesIO()
    torch.save([replica.learnt() for replica in chunk], content)
    return number, content.getvalue()


def _train(replicas: Sequence[Replica], settings: Settings, bar: Any) -> None:
    with seeded(replicas[0].seed, replicas[0].device):
        chunk = Chunk(replicas, settings)
        interval = 1 if chunk.device.type == "cpu" else 50  # epochs after which the host asks who has stopped
        for epoch in range(chunk.epochs):
            chunk.train(epoch)
            chunk.validate(epoch)
            bar.update()
            if not bar.disable and (epoch + 1) % 50 == 0:
                bar.set_postfix(train=f"{chunk.median_loss(epoch):.3f}", failed=chunk.num_failed)
            if (epoch + 1) % interval == 0:
                chunk.release(epoch)
                if not chunk.replicas:
                    return
        chunk.finish()
