"""A step of one model, by any optimiser of PyTorch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from pyro_probmix._random import random_state
from pyro_probmix.mixing import EmbeddingGraph, PairBatch, PairLoader
from pyro_probmix.models import DensityModel
from pyro_probmix.models.objectives import weighted_mean
from pyro_probmix.training.checkpoints import Checkpoint, describe
from pyro_probmix.training.data import HeldOut
from pyro_probmix.training.history import VALIDATION_SAMPLES
from pyro_probmix.training.loop import Taken
from pyro_probmix.training.rates import Rate
from pyro_probmix.training.settings import Settings
from pyro_probmix.training.validation import validation_noise

__all__ = ["SingleStep"]


class SingleStep:
    """A :class:`~pyro_probmix.training.loop.Step` of one model.

    On a CUDA device, with a fused optimiser, the device decides by itself whether a step is taken; elsewhere the host
    looks at once. The optimiser and its schedule are ``described`` for a checkpoint.
    """

    def __init__(
        self,
        model: DensityModel,
        loader: PairLoader,
        validation: HeldOut | None,
        settings: Settings,
        optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
        learning_rate: Rate = 5e-3,
    ) -> None:
        self.model, self.loader, self.validation, self.settings = model, loader, validation, settings
        self.models, self.validated = [model], validation is not None
        trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        if callable(learning_rate):
            rate = learning_rate
            learning_rate, scheduler = 1.0, lambda optimizer: LambdaLR(optimizer, rate)
        if optimizer is None:
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(trained, lr=learning_rate, fused=True)
        else:
            self.optimizer = _checked(optimizer(trained))
        groups = self.optimizer.param_groups
        options = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        self.described = {"optimizer": describe([type(self.optimizer).__name__, *options]), "scheduler": None}
        self.scheduler = None if scheduler is None else scheduler(self.optimizer)
        if self.scheduler is not None:
            self.described["scheduler"] = describe([type(self.scheduler), self.scheduler.state_dict()])
        self.parameters: list[Tensor] = [p for group in groups for p in group["params"]]
        self.device, self.dtype = self.parameters[0].device, torch.promote_types(loader.x.dtype, torch.float32)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision is torch.float16)
        self._risk = torch.compile(model.risk) if settings.compile else model.risk
        self.deferred = self.device.type == "cuda" and all(group.get("fused") for group in groups)
        self._buffers = [(m, name) for m in model.modules() for name, b in m._buffers.items() if b is not None]
        self._noise = None if validation is None else validation_noise(model, validation[0])
        self._one = torch.ones((), device=self.device)
        self._culprit = torch.zeros((), device=self.device, dtype=torch.int64)

    def batches(self, coefficient: Any) -> Iterator[tuple[PairBatch, int]]:
        if coefficient is not None:
            self.model.coefficient = coefficient
        self.model.train()
        for batch in self.loader:
            yield batch.to(self.device, non_blocking=True), len(batch)

    def take(self, batch: PairBatch, running: Tensor) -> Taken:
        kept = [None if buffer is None else buffer.clone() for buffer in self._own_buffers()]
        self.optimizer.zero_grad()
        loss = self._loss(batch)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        loss = loss.detach()
        # On a CPU a norm of order two takes a sixth of the time of the largest entry, before which it overflows.
        finite = _finite(loss, gradients, math.inf if self.deferred else 2)
        sound = not self.deferred and bool(finite.all())
        if not (self.deferred or sound):
            finite = _finite(loss, gradients, math.inf)
            sound = bool(finite.all())
        if self.settings.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        moved, fault = finite.all(0, keepdim=True), None
        if sound:
            self.optimizer.step()
        else:
            moved = moved & running
            fault = moved ^ running
            if self.scaler.is_enabled():  # gradients that overflow under a scale are no fault, and it will fall
                fault = fault & ~(finite[0] & (self.scaler.scale(self._one) > 1))
            taken = moved[0]
            self._culprit = torch.where(fault[0], (~finite).to(torch.int64).argmax(), self._culprit)
            for buffer, before in zip(self._own_buffers(), kept, strict=True):
                if buffer is not None and before is not None and buffer.shape == before.shape:
                    buffer.copy_(torch.where(taken, buffer, before))
            if self.deferred:
                self.optimizer.found_inf = (~taken).float()  # type: ignore[attr-defined]  # fused ones look at it
                self.optimizer.step()
        self.scaler.update()
        return Taken(loss, finite[:1], moved, fault)

    def _own_buffers(self) -> list[Tensor | None]:
        """The buffers as they are now, for a network may have put another tensor in place of one, or none."""
        return [module._buffers[name] for module, name in self._buffers]

    def _loss(self, batch: PairBatch) -> Tensor:
        settings = self.settings
        draws: dict[str, Any] = {}
        if settings.compile:
            # Drawn outside, random numbers are the same as without compilation, and α may change.
            labels: Any = None if settings.objective == "expected-log" else "sample"
            draws = self.model.draw(batch, settings.num_samples, labels)
        cast = nullcontext() if settings.precision is None else torch.autocast(self.device.type, settings.precision)
        with cast:
            return self._risk(batch, settings.num_samples, objective=settings.objective, **draws)

    def validate(self) -> Tensor:
        assert self.validation is not None
        x, y, share = self.validation
        model, noise = self.model.eval(), self._noise
        if noise is None:
            return -weighted_mean(model.predictive(x, num_samples=VALIDATION_SAMPLES).log_prob(y), share)
        pieces = zip(x.split(noise.shape[1]), y.split(noise.shape[1]), strict=True)
        found = [model.predictive(a, VALIDATION_SAMPLES, noise=noise[:, : len(a)]).log_prob(b) for a, b in pieces]
        return -weighted_mean(torch.cat(found), share)

    def schedule(self, loss: Tensor | None) -> None:
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            if self.scheduler is not None:
                self.scheduler.step()
        elif loss is not None:
            self.scheduler.step(loss)

    def spread(self, values: Tensor) -> Tensor:
        return values[0]

    def state(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.model.state_dict().items() if isinstance(t, Tensor)}

    def keep(self, rows: Tensor) -> None: ...

    def write(self, rows: Sequence[int]) -> None: ...

    def culprit(self) -> tuple[str, str]:
        named = {id(p): f"the gradient of {name}" for name, p in self.model.named_parameters()}
        known = [p for p in self.parameters if p.grad is not None]
        names = ["the loss", *(named.get(id(p), "a gradient of no parameter of the model") for p in known)]
        hint = '; fusion="numerical" gives NaN where its nodes miss its accuracy'
        return names[int(self._culprit)], hint if self.model.mixing.fusion == "numerical" else ""

    def save(self) -> dict[str, Any]:
        sampler: dict[str, Any] = {"epoch": self.loader.epoch}
        if isinstance(self.loader.graph, EmbeddingGraph):
            sampler["neighbors"] = self.loader.graph.neighbors
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler.is_enabled() else None,
            "sampler": sampler,
            "random": random_state(self.device),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        checkpoint.restore(self.model, self.optimizer, self.scheduler)
        if checkpoint.scaler is not None:
            self.scaler.load_state_dict(checkpoint.scaler)
        self.loader.epoch = checkpoint.sampler["epoch"]
        if isinstance(self.loader.graph, EmbeddingGraph):
            self.loader.graph.neighbors = checkpoint.sampler["neighbors"]


def _finite(loss: Tensor, gradients: list[Tensor], order: float) -> Tensor:
    """Whether the loss and a norm of each gradient are finite."""
    return torch.stack([loss, *torch._foreach_norm(gradients, order)]).isfinite()


def _checked(optimizer: Any) -> torch.optim.Optimizer:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(f"optimizer: expected one whose step needs no closure, got {type(optimizer).__name__}")
    return optimizer
