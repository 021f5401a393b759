"""The loop of ``fit``."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm.auto import tqdm

from pyro_probmix._random import random_state
from pyro_probmix.mixing import EmbeddingGraph, PairBatch, PairLoader
from pyro_probmix.models import DensityModel
from pyro_probmix.models.objectives import Objective
from pyro_probmix.training._averaging import MovingAverage
from pyro_probmix.training._guard import GuardedSteps
from pyro_probmix.training.checkpoints import Checkpoint, save_checkpoint
from pyro_probmix.training.history import VALIDATION_SAMPLES, History

__all__ = ["Plan", "Training"]


@dataclass(frozen=True)
class Plan:
    """What :func:`~pyro_probmix.fit` was asked for, checked."""

    epochs: int
    num_samples: int
    objective: Objective
    max_grad_norm: float | None
    precision: torch.dtype | None
    compile: bool
    coefficient: Callable[[int], Any] | None
    max_skipped: int
    ema_decay: float | None
    path: Path | None
    checkpoint_every: int
    progress: bool
    settings: dict[str, Any] = field(default_factory=dict)


class Training:
    """One training. What it learns on the way stays on the device until the host asks, every ``interval`` epochs.

    Args:
        model: trained in place.
        loader: of the training data.
        validation: data on the model's device that choose the epoch.
        plan: everything else.
        optimizer: over the model's parameters.
        scheduler: stepped once an epoch.
        device: the model's.
    """

    def __init__(
        self,
        model: DensityModel,
        loader: PairLoader,
        validation: tuple[Tensor, Tensor] | None,
        plan: Plan,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        device: torch.device,
    ) -> None:
        self.model, self.loader, self.validation, self.plan = model, loader, validation, plan
        self.optimizer, self.scheduler, self.device = optimizer, scheduler, device
        self.interval = 1 if device.type == "cpu" else 50
        self.steps = GuardedSteps(model, optimizer, device, plan.max_skipped)
        self.average = None if plan.ema_decay is None else MovingAverage(self.steps.parameters, plan.ema_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=plan.precision is torch.float16)
        self._one = torch.ones((), device=device)
        self._risk = torch.compile(model.risk) if plan.compile else model.risk
        self.done = 0
        dtype = torch.promote_types(loader.x.dtype, torch.float32)
        self.losses = torch.zeros(2, plan.epochs, device=device, dtype=dtype)
        self.best_loss = torch.full((), math.inf, device=device, dtype=dtype)
        self.best_epoch = torch.zeros((), device=device, dtype=torch.int64)
        state = {} if validation is None else model.state_dict()
        self.best = {name: t.clone() for name, t in state.items() if isinstance(t, Tensor)}

    def run(self) -> History:
        plan = self.plan
        name = type(self.model).__name__
        with tqdm(
            total=plan.epochs, initial=self.done, desc=name, unit="epoch", disable=not plan.progress, leave=False
        ) as bar:
            for epoch in range(self.done, plan.epochs):
                self._train(epoch)
                if self.validation is not None:
                    self._validate(epoch, *self.validation)
                if self.scheduler is not None:
                    self._schedule(epoch)
                self.done = epoch + 1
                bar.update()
                last = self.done == plan.epochs
                due = plan.path is not None and (last or self.done % plan.checkpoint_every == 0)
                if last or due or self.done % self.interval == 0:
                    self.steps.check()
                    if plan.progress and self.done % 50 == 0:
                        self._show(bar, epoch)
                if plan.path is not None and due:
                    save_checkpoint(plan.path, self.checkpoint())
        return self._finish()

    def _train(self, epoch: int) -> None:
        if self.plan.coefficient is not None:
            self.model.coefficient = self.plan.coefficient(epoch)
        self.model.train()
        total, num_nodes = torch.zeros_like(self.best_loss), torch.zeros_like(self.best_epoch)
        for number, batch in enumerate(self.loader):
            self.steps.start()
            loss = self._loss(batch.to(self.device, non_blocking=True))
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            finite = self.steps.look(loss)
            if self.plan.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.steps.parameters, self.plan.max_grad_norm)
            scale = self.scaler.scale(self._one) if self.scaler.is_enabled() else None
            taken = self.steps.step(finite, scale, epoch, number)
            self.scaler.update()
            if self.average is not None:
                self.average.update(taken)
            total += torch.where(finite[0], loss.detach().to(total.dtype) * len(batch), 0)
            num_nodes += finite[0] * len(batch)
        self.losses[0, epoch] = total / num_nodes

    def _loss(self, batch: PairBatch) -> Tensor:
        plan = self.plan
        draws: dict[str, Any] = {}
        if plan.compile:
            # Drawn outside, random numbers are the same as without compilation, and α may change.
            labels: Any = None if plan.objective == "expected-log" else "sample"
            draws = self.model.draw(batch, plan.num_samples, labels)
        with nullcontext() if plan.precision is None else torch.autocast(self.device.type, plan.precision):
            return self._risk(batch, plan.num_samples, objective=plan.objective, **draws)

    def _validate(self, epoch: int, x: Tensor, y: Tensor) -> None:
        self.model.eval()
        with torch.no_grad(), nullcontext() if self.average is None else self.average.applied():
            loss = -self.model.predictive(x, num_samples=VALIDATION_SAMPLES).log_prob(y).mean()
            self.losses[1, epoch] = loss
            improved = self.losses[1, epoch] < self.best_loss
            self.best_loss = torch.where(improved, self.losses[1, epoch], self.best_loss)
            self.best_epoch = torch.where(improved, epoch, self.best_epoch)
            own = self.model.state_dict()  # anew: a network may have put another buffer in place of one
            for name, kept in self.best.items():
                if name in own and own[name].shape == kept.shape:
                    kept.copy_(torch.where(improved, own[name], kept))

    def _schedule(self, epoch: int) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(self.losses[0 if self.validation is None else 1, epoch])
        else:
            self.scheduler.step()

    def _show(self, bar: Any, epoch: int) -> None:
        names = ("train",) if self.validation is None else ("train", "validation")
        bar.set_postfix({name: f"{self.losses[i, epoch]:.3f}" for i, name in enumerate(names)})

    def _finish(self) -> History:
        train, validation = self.losses.tolist()
        skipped = int(self.steps.skipped)
        if self.validation is None:
            if self.average is not None:
                self.average.write()
            return History(train, [], self.done - 1, skipped)
        if not self.best_loss.isfinite():
            raise ValueError(f"validation: expected a finite loss in some epoch, got {validation[-1]} in the last")
        own = self.model.state_dict()
        for name, kept in self.best.items():
            if name in own and own[name].shape == kept.shape:  # not so a cache, which has grown
                own[name].copy_(kept)
        return History(train, validation, int(self.best_epoch), skipped)

    # Checkpoints.

    def checkpoint(self) -> Checkpoint:
        """The training as it is now, between two epochs."""
        sampler: dict[str, Any] = {"epoch": self.loader.epoch}
        if isinstance(self.loader.graph, EmbeddingGraph):
            sampler["neighbors"] = self.loader.graph.neighbors
        best = {"loss": self.best_loss, "epoch": self.best_epoch, "model": self.best}
        history: dict[str, Any] = {"losses": self.losses[:, : self.done], "skipped": self.steps.skipped}
        if self.average is not None:
            history |= {"average": self.average.values, "count": self.average.count}
        return Checkpoint(
            epoch=self.done,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scheduler=None if self.scheduler is None else self.scheduler.state_dict(),
            scaler=self.scaler.state_dict() if self.scaler.is_enabled() else None,
            best=best if self.best else {},
            history=history,
            sampler=sampler,
            random=random_state(self.device),
            settings=self.plan.settings,
        )

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes back to where the checkpoint was written, whose settings have been compared.

        Raises:
            ValueError: if it has more epochs than are asked for, or is another model's.
        """
        if checkpoint.epoch > self.plan.epochs:
            raise ValueError(
                f"epochs: expected at least {checkpoint.epoch}, which the checkpoint has, got {self.plan.epochs}"
            )
        checkpoint.restore(self.model, self.optimizer, self.scheduler)
        if checkpoint.scaler is not None:
            self.scaler.load_state_dict(checkpoint.scaler)
        self.done = checkpoint.epoch
        if self.plan.coefficient is not None:
            self.model.coefficient = self.plan.coefficient(self.done - 1)
        self.loader.epoch = checkpoint.sampler["epoch"]
        if isinstance(self.loader.graph, EmbeddingGraph):
            self.loader.graph.neighbors = checkpoint.sampler["neighbors"]
        self.losses[:, : self.done] = checkpoint.history["losses"].to(self.device)
        self.steps.skipped.copy_(checkpoint.history["skipped"])
        if self.average is not None:
            self.average.count.copy_(checkpoint.history["count"])
            torch._foreach_copy_(self.average.values, checkpoint.history["average"])
        if self.best:
            self.best_loss.copy_(checkpoint.best["loss"])
            self.best_epoch.copy_(checkpoint.best["epoch"])
            for name, kept in self.best.items():
                kept.copy_(checkpoint.best["model"][name])
