"""Replicas that are trained side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_probmix.training._replica import Batches, RandomState, Replica, held_out_data
from pyro_probmix.training._stack import Adam, ModelStack
from pyro_probmix.training.history import VALIDATION_SAMPLES, History

__all__ = ["Chunk", "Settings"]


@dataclass(frozen=True)
class Settings:
    """What the replicas of a call have in common."""

    epochs: int
    num_samples: int
    patience: float
    validation_every: int


class Chunk:
    """The loop of ``fit``, with a row a replica. What it learns stays on the device until the host asks."""

    def __init__(self, replicas: Sequence[Replica], settings: Settings) -> None:
        self.replicas, self.settings, self.device = list(replicas), settings, replicas[0].device
        self._models = ModelStack([replica.model for replica in replicas], settings.num_samples, VALIDATION_SAMPLES)
        dtype = torch.promote_types(self._models.flat.dtype, torch.float32)
        rates = torch.tensor([[replica.learning_rate] for replica in replicas], device=self.device, dtype=dtype)
        self._optimizer = Adam(self._models.flat, rates)
        # What the networks draw themselves they draw side by side, apart from what each replica draws.
        network_seed = np.random.SeedSequence([replica.seed for replica in replicas]).generate_state(1).item()
        self._network_state = RandomState(network_seed, self.device)
        self._batches = Batches(self.replicas, settings.num_samples)
        self._held_out = held_out_data(self.replicas)
        size = len(self.replicas)
        self._losses = torch.zeros(size, 2, settings.epochs, device=self.device, dtype=dtype)
        self._failed = torch.zeros(size, device=self.device, dtype=torch.bool)
        self._stopped = torch.full((size,), settings.epochs, device=self.device)
        self._best_loss = torch.full((size,), math.inf, device=self.device, dtype=dtype)
        self._best_epoch = torch.zeros(size, device=self.device, dtype=torch.int64)
        self._best = self._models.flat.detach().clone()
        self._num_gone_failed = 0

    @property
    def num_failed(self) -> int:
        """How many have failed, those that are gone included."""
        return self._num_gone_failed + int(self._failed.sum())

    def median_loss(self, epoch: int) -> float:
        """The median training loss of an epoch."""
        return self._losses[:, 0, epoch].nanmedian().item()

    def train(self, epoch: int) -> None:
        """One epoch of steps."""
        models, losses = self._models, self._losses
        models.train(True)
        num_nodes = torch.zeros_like(self._stopped)
        for arguments, sizes in self._batches.epoch():
            with self._network_state:
                loss = models("risk", arguments)
            (gradient,) = torch.autograd.grad(loss.sum(), models.flat)
            loss = loss.detach()
            moving = (self._stopped > epoch) & (sizes > 0)
            bad = moving & ~(loss.isfinite() & gradient.abs().amax(1).isfinite())
            self._failed |= bad
            self._stopped = torch.where(bad, epoch, self._stopped)
            self._optimizer.step(gradient, (moving & ~bad).unsqueeze(1))
            losses[:, 0, epoch] += torch.where(moving, loss * sizes, 0)
            num_nodes += sizes
        losses[:, 0, epoch] /= num_nodes

    @torch.no_grad()
    def validate(self, epoch: int) -> None:
        """The validation losses after an epoch, where there are validation data and this epoch is one of those."""
        settings = self.settings
        if not self._held_out or ((epoch + 1) % settings.validation_every and epoch + 1 < settings.epochs):
            return
        self._models.train(False)
        loss = self._losses[:, 1, epoch] = self._models("validation", self._held_out)
        improved = (loss < self._best_loss) & (self._stopped > epoch)
        self._best_loss = torch.where(improved, loss, self._best_loss)
        self._best_epoch = torch.where(improved, epoch, self._best_epoch)
        self._best = torch.where(improved.unsqueeze(1), self._models.flat, self._best)
        settled = (epoch - self._best_epoch >= settings.patience) & (self._stopped > epoch)
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
        self._optimizer.keep(rows, self._models.flat)
        self._batches = Batches(self.replicas, self.settings.num_samples)
        self._held_out = held_out_data(self.replicas)
        for name in ("_losses", "_failed", "_stopped", "_best_loss", "_best_epoch", "_best"):
            setattr(self, name, getattr(self, name)[rows])

    def finish(self) -> None:
        """Write what all that are still here have learnt."""
        self._write(torch.ones_like(self._failed))

    def _write(self, chosen: Tensor) -> None:
        """The parameters of the chosen rows into their models, and what happened into their histories."""
        failed, best_epoch, flat = self._failed, self._best_epoch, self._models.flat.detach()
        blind = torch.zeros_like(failed)
        if self._held_out:
            blind = ~failed & ~self._best_loss.isfinite()
            flat = torch.where((failed | blind).unsqueeze(1), flat, self._best)
        else:
            best_epoch = self._stopped - 1
        rows = chosen.nonzero().squeeze(1)
        self._models.write(flat[rows], rows)
        settings, columns = self.settings, (self._losses, failed, blind, self._stopped, best_epoch)
        for row, found, has_failed, is_blind, stop, best in zip(
            rows.tolist(), *(c[rows].tolist() for c in columns), strict=True
        ):
            replica, (train, validation) = self.replicas[row], found
            validated = list(range(settings.validation_every - 1, stop, settings.validation_every))
            if stop == settings.epochs and stop % settings.validation_every:
                validated.append(stop - 1)
            kept = [] if replica.validation is None else [validation[e] for e in validated]
            replica.history = History(train[:stop], kept, max(0, stop - 1) if has_failed or is_blind else best)
            replica.failed = stop if has_failed else 0 if is_blind else None
