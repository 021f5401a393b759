"""The loop of every training, over a step of R >= 1 models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pyro_probmix.models import DensityModel
from pyro_probmix.training.averaging import MovingAverage
from pyro_probmix.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from pyro_probmix.training.history import History
from pyro_probmix.training.settings import Settings

__all__ = ["Loop", "Result", "Step", "Taken"]


class Taken(NamedTuple):
    """What became of a step: a number a model, of shape ``(R,)``, or one for all."""

    loss: Tensor
    """Before the step."""
    finite: Tensor
    """Whether that is finite."""
    moved: Tensor
    """Whether the step was taken, which needs a finite loss and finite gradients."""
    fault: Tensor | None
    """Whether it should have been and was not; None where the host knows that there is no fault."""


class Step(Protocol):
    """R >= 1 models with their data and their optimiser: what :class:`Loop` trains."""

    models: list[DensityModel]
    dtype: torch.dtype
    """Of losses, at least in single precision."""
    validated: bool
    """Whether there are validation data."""
    deferred: bool
    """Whether a device decides which steps are taken, without the host."""

    @property
    def parameters(self) -> list[Tensor]:
        """What is optimised, in one tensor of all models or several of one."""

    def batches(self, coefficient: Any) -> Iterator[tuple[Any, Any]]:
        """The batches of an epoch under a law of λ, None for the models' own, each with its nodes, a number or R."""

    def take(self, batch: Any, running: Tensor) -> Taken:
        """Change the models that are running, but where the loss or a gradient is not finite."""

    def validate(self) -> Tensor:
        """The validation loss of each model."""

    def schedule(self, loss: Tensor | None) -> None:
        """End an epoch of this loss, None where it has not been computed."""

    def spread(self, values: Tensor) -> Tensor:
        """Numbers a model, as they broadcast with its tensors."""

    def state(self) -> dict[str, Tensor]:
        """The tensors themselves that training changes."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these models alone, given by their numbers."""

    def write(self, rows: Sequence[int]) -> None:
        """Give the models of these rows what they have learnt."""

    def culprit(self) -> tuple[str, str]:
        """What was not finite at the last fault, and why that may be."""

    def save(self) -> dict[str, Any]:
        """All that the next step depends on, as entries of a :class:`Checkpoint`."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where it was written."""


@dataclass
class Result:
    """What became of a model: its losses, and the epoch in which it failed."""

    history: History
    failed: int | None


class Loop:
    """Epochs, the best of them, patience, steps that are not taken, averages and checkpoints.

    What it learns stays on the device until the host asks: after each epoch, or every 50 where the device decides.
    A checkpoint at ``path`` that is resumed must have been ``described`` alike. A model that fails stops ``alone``, or
    is an error.
    """

    def __init__(
        self,
        step: Step,
        epochs: Sequence[int],
        settings: Settings,
        path: Path | None = None,
        described: Mapping[str, Any] | None = None,
        alone: bool = False,
    ) -> None:
        self.step, self.settings, self.path, self.alone = step, settings, path, alone
        self.described = dict(described or {})
        self.epochs, self.done = max(epochs), 0
        self.ends, self.numbers = list(epochs), list(range(len(epochs)))  # of the models that are still here
        self.results: dict[int, Result] = {}
        first, size = step.parameters[0], len(epochs)
        device = first.device
        self.interval = 50 if step.deferred else 1
        self.end = torch.tensor(self.ends, device=device)
        # The epochs after which a model stopped by itself, at the end of one or in the midst of it.
        self.stop = torch.full_like(self.end, torch.iinfo(torch.int64).max)
        self.failed = torch.zeros(size, device=device, dtype=torch.bool)
        self.skipped, self.batch, self.best_epoch = (torch.zeros_like(self.end) for _ in range(3))
        # Who goes on, of how many the host knows, and whether there may be fewer by now.
        self.running, self.active, self.doubt = ~self.failed, size, False
        self.losses = torch.zeros(2, self.epochs, size, device=device, dtype=step.dtype)
        self.best_loss = torch.full((size,), math.inf, device=device, dtype=step.dtype)
        self.best = {name: t.clone() for name, t in step.state().items()} if step.validated else {}
        decay = settings.ema_decay
        self.average = None if decay is None else MovingAverage(step.parameters, decay, step.spread, size)
        if settings.resume and path is not None and path.exists():
            self.resume(load_checkpoint(path, self.described))

    def run(self, bar: Any) -> list[Result]:
        """Train all of them, with a bar that counts the epochs."""
        bar.update(self.done)
        while self.active:
            epoch, self.done = self.done, self.done + 1
            self._train(epoch)
            validated = self._validate(epoch)
            losses = self.losses[int(self.step.validated), epoch]
            self.step.schedule(losses if validated == self.step.validated else None)
            if self.done in self.ends:
                self.running, self.doubt = self.running & (self.end > self.done), True
            bar.update()
            due = self.path is not None and self.done % self.settings.checkpoint_every == 0
            if due or self.done == self.epochs or self.done % self.interval == 0:
                self._look()
                if not bar.disable and self.done % 50 == 0:
                    self._show(bar, epoch)
            if self.path is not None and (due or not self.active):
                save_checkpoint(self.path, self.checkpoint())
            if 0 < 2 * self.active <= len(self.numbers):  # those that have stopped take as much time as the others
                self._finish(~self.running)
                self._keep(self.running.nonzero().squeeze(1))
        self._finish(torch.ones_like(self.failed))
        return [self.results[number] for number in sorted(self.results)]

    # An epoch.

    def _train(self, epoch: int) -> None:
        settings, step = self.settings, self.step
        began = self.running
        total, num_nodes = torch.zeros_like(self.best_loss), torch.zeros_like(self.best_epoch)
        law = None if settings.coefficient is None else settings.coefficient(epoch)
        for number, (batch, size) in enumerate(step.batches(law)):
            loss, finite, moved, fault = step.take(batch, self.running)
            if self.average is not None:
                self.average.update(moved)
            loss = loss.to(total.dtype) * size
            if fault is None:
                total += loss
                num_nodes += size
                continue
            total += torch.where(finite, loss, 0)
            num_nodes += finite * size if settings.max_skipped else size
            if settings.max_skipped:
                self.skipped += fault
                fault = fault & (self.skipped > settings.max_skipped)
            self.batch = torch.where(fault, number, self.batch)
            self.running, self.doubt = self.running ^ fault, True
            if self.interval == 1 and not bool(self.running.any()):
                break
        self.losses[0, epoch] = total / num_nodes
        if self.running is not began:
            failed = began ^ self.running
            self.failed |= failed
            self.stop = torch.where(failed, epoch, self.stop)

    def _validate(self, epoch: int) -> bool:
        """Whether this epoch is one of those that are validated, and all that follows from it."""
        due = (epoch + 1) % self.settings.validation_every == 0
        if not self.step.validated or not (due or epoch + 1 in self.ends):
            return False
        judged = self.running
        if not due:  # the last of some, and none of the others'
            judged = judged & (self.end == epoch + 1)
        with torch.no_grad(), nullcontext() if self.average is None else self.average.applied():
            self.losses[1, epoch] = self.step.validate()
            loss = self.losses[1, epoch]
            improved = (loss < self.best_loss) & judged
            self.best_loss = torch.where(improved, loss, self.best_loss)
            self.best_epoch = torch.where(improved, epoch, self.best_epoch)
            self._copy(self.step.state(), self.best, improved)
        if self.settings.patience is not None:
            settled = (epoch - self.best_epoch >= self.settings.patience) & judged
            self.stop = torch.where(settled, epoch + 1, self.stop)
            self.running, self.doubt = self.running & ~settled, True
        return True

    def _copy(self, state: Mapping[str, Tensor], into: Mapping[str, Tensor], chosen: Tensor) -> None:
        """The state of the chosen models; a network may have put another buffer in place of one, or grown it."""
        chosen = self.step.spread(chosen)
        for name, kept in into.items():
            if name in state and state[name].shape == kept.shape:
                kept.copy_(torch.where(chosen, state[name], kept))

    # Who goes on.

    def _look(self) -> None:
        """See how many go on, for which the host waits, and refuse one that has failed and was not to stop alone."""
        if not self.doubt:
            return
        if not self.alone and bool(self.failed.any()):
            row = int(self.failed.to(torch.uint8).argmax())
            skipped = self.settings.max_skipped
            cap = f", after {skipped} steps had been skipped" if skipped else ""
            what, hint = self.step.culprit()
            raise ValueError(
                "loss: expected finite losses and gradients, got one that is not in epoch "
                f"{int(self.stop[row])}, batch {int(self.batch[row])}: {what}{cap}{hint}; the parameters are those of "
                "the last finite step"
            )
        self.active, self.doubt = int(self.running.sum()), False

    def _keep(self, rows: Tensor) -> None:
        """Go on with these models alone."""
        self.step.keep(rows)
        if self.average is not None:
            self.average.keep(rows, self.step.parameters)
        self.ends, self.numbers = ([own[row] for row in rows.tolist()] for own in (self.ends, self.numbers))
        for name in ("end", "stop", "running", "failed", "skipped", "batch", "losses", "best_loss", "best_epoch"):
            setattr(self, name, getattr(self, name)[..., rows])
        self.best = {name: kept[rows] for name, kept in self.best.items()}

    @torch.no_grad()
    def _finish(self, chosen: Tensor) -> None:
        """Give the chosen models what they are to keep, and write down what happened."""
        blind = ~self.failed & ~self.best_loss.isfinite() & self.step.validated
        sound = chosen & ~self.failed & ~blind  # others keep their last parameters
        if self.best:
            self._copy(self.best, self.step.state(), sound)
        elif self.average is not None:
            for parameter, value in zip(self.step.parameters, self.average.values, strict=True):
                parameter.copy_(torch.where(self.step.spread(sound), value.to(parameter.dtype), parameter))
        rows = chosen.nonzero().squeeze(1).tolist()
        self.step.write(rows)
        best = torch.where(sound & self.step.validated, self.best_epoch, -1)
        columns = torch.stack([torch.minimum(self.stop, self.end), self.failed, blind, best, self.skipped], 1).tolist()
        losses: Any = self.losses.tolist()
        for row in rows:
            end, failed, unseen, epoch, skipped = columns[row]
            train, validation = ([of_epoch[row] for of_epoch in kind[:end]] for kind in losses)
            last, every = max(0, end - 1), self.settings.validation_every
            due = [(e + 1) % every == 0 or e + 1 == self.ends[row] for e in range(end)]
            validation = list(compress(validation, due)) if self.step.validated else []
            history = History(train, validation, last if epoch < 0 else epoch, skipped)
            result = Result(history, end if failed else 0 if unseen else None)
            self.results[self.numbers[row]] = result
            self._anneal(row, result)

    def _anneal(self, row: int, result: Result) -> None:
        """Give a model the law of λ that it ended under."""
        if self.settings.coefficient is not None:
            end = len(result.history.train_loss)
            epoch = end if result.failed == end else max(0, end - 1)
            self.step.models[row].coefficient = self.settings.coefficient(epoch)

    def _show(self, bar: Any, epoch: int) -> None:
        shown = {"train": 0, "validation": 1} if self.step.validated else {"train": 0}
        postfix = {name: f"{self.losses[i, epoch].nanmedian():.3f}" for name, i in shown.items()}
        gone = sum(result.failed is not None for result in self.results.values())
        if self.alone:
            postfix["failed"] = str(gone + int(self.failed.sum()))
        bar.set_postfix(postfix)

    # Checkpoints.

    def checkpoint(self) -> Checkpoint:
        """The training as it is now, between two epochs."""
        history: dict[str, Any] = {"losses": self.losses[:, : self.done], "finished": {}}
        for name in ("skipped", "stop", "failed"):
            history[name] = getattr(self, name)
        if self.average is not None:
            history |= {"average": self.average.values, "count": self.average.count}
        for number, result in self.results.items():
            history["finished"][number] = {**asdict(result.history), "failed": result.failed}
        best: dict[str, Any] = {}
        if self.best:
            best = {"loss": self.best_loss, "epoch": self.best_epoch, "model": self.best}
        return Checkpoint(self.done, best=best, history=history, settings=self.described, **self.step.save())

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes back to where the checkpoint was written, whose settings have been compared."""
        if checkpoint.epoch > self.epochs:
            raise ValueError(
                f"epochs: expected at least {checkpoint.epoch}, which the checkpoint has, got {self.epochs}"
            )
        history, best = checkpoint.history, checkpoint.best
        for number, result in history.get("finished", {}).items():
            failed = result.pop("failed")
            self.results[number] = Result(History(**result), failed)
            self._anneal(number, self.results[number])
        if self.results:
            self._keep(torch.tensor([n for n in self.numbers if n not in self.results], device=self.end.device))
        self.step.restore(checkpoint)
        self.done = checkpoint.epoch
        kept = self.losses[:, : self.done]
        kept.copy_(history["losses"].reshape(kept.shape))
        for name in ("skipped", "stop", "failed"):
            if name in history:  # which an older file has not
                getattr(self, name).copy_(history[name])
        self.running, self.doubt = torch.minimum(self.stop, self.end) > self.done, True
        self._look()
        if self.average is not None:
            self.average.count.copy_(history["count"])
            torch._foreach_copy_(self.average.values, history["average"])
        if self.best:
            self.best_loss.copy_(best["loss"])
            self.best_epoch.copy_(best["epoch"])
            for name, value in self.best.items():
                value.copy_(best["model"][name])
