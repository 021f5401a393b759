"""Steps that are taken only where loss and gradients are finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["GuardedSteps"]


class GuardedSteps:
    """Takes the steps of an optimiser, but none on a loss or a gradient that is not finite.

    On a CUDA device, with a fused optimiser, the device decides by itself: what it has found is looked at in
    :meth:`check`, and once too much has gone wrong no step is taken any more. Elsewhere the host looks at once.

    Args:
        model: whose buffers are put back, too, when a step is not taken.
        optimizer: over the model's parameters.
        device: where they live.
        max_skipped: how many steps may be left out before it is an error.

    Attributes:
        parameters: those of the optimiser.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, max_skipped: int
    ) -> None:
        self.optimizer, self.max_skipped = optimizer, max_skipped
        names = {id(p): f"the gradient of {name}" for name, p in model.named_parameters()}
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._names = [names.get(id(p), "a gradient of no parameter of the model") for p in self.parameters]
        self._buffers = [(m, name) for m in model.modules() for name, b in m._buffers.items() if b is not None]
        self._kept: list[Tensor | None] = []
        self.deferred = device.type == "cuda" and all(group.get("fused") for group in optimizer.param_groups)
        fusion = getattr(getattr(model, "mixing", None), "fusion", None)
        self._hint = '; fusion="numerical" gives NaN where its nodes miss its accuracy' if fusion == "numerical" else ""
        self.skipped = torch.zeros((), device=device, dtype=torch.int64)
        self._failed = torch.zeros((), device=device, dtype=torch.bool)
        # Epoch, batch, and which of the loss and the gradients it was.
        self._where = torch.zeros(3, device=device, dtype=torch.int64)

    def start(self) -> None:
        """To be called before the loss is computed: networks change their buffers on the way."""
        self._kept = [None if buffer is None else buffer.clone() for buffer in self._own_buffers()]
        self.optimizer.zero_grad()

    def _own_buffers(self) -> list[Tensor | None]:
        """The buffers as they are now, for a network may have put another tensor in place of one, or none."""
        return [module._buffers[name] for module, name in self._buffers]

    def look(self, loss: Tensor) -> Tensor:
        """Which of the loss and the gradients are finite, of shape ``(1 + number of parameters,)``."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return torch.stack([loss.detach(), *torch._foreach_norm(gradients, math.inf)]).isfinite()

    def step(self, finite: Tensor, scale: Tensor | None, epoch: int, batch: int) -> Tensor:
        """Take the step or not, and tell whether it was taken.

        Args:
            finite: of :meth:`look`.
            scale: of the loss: gradients that overflow while it is above one are no fault, and it will fall.
            epoch: counted from 0, for the error.
            batch: likewise.

        Raises:
            ValueError: if one step too many was left out.
        """
        sound = finite.all()
        if not self.deferred and bool(sound):
            self.optimizer.step()
            return sound
        bad = ~sound
        fault = bad & ~self._failed
        if scale is not None:
            fault &= ~(finite[0] & (scale > 1))
        self.skipped += fault
        fault &= self.skipped > self.max_skipped
        # The host does not know where: the numbers are on the device already.
        where = torch.stack(
            [torch.full_like(self.skipped, epoch), torch.full_like(self.skipped, batch), _first(finite)]
        )
        self._where = torch.where(fault, where, self._where)
        self._failed |= fault
        stop = bad | self._failed
        for buffer, kept in zip(self._own_buffers(), self._kept, strict=True):
            if buffer is not None and kept is not None and buffer.shape == kept.shape:
                buffer.copy_(torch.where(stop, kept, buffer))
        if self.deferred:
            self.optimizer.found_inf = stop.float()  # type: ignore[attr-defined]  # fused optimisers look at it
            self.optimizer.step()
        else:
            self.check()
        return ~stop

    def check(self) -> None:
        """Raises where a step too many was left out."""
        if not bool(self._failed):
            return
        epoch, batch, index = self._where.tolist()
        names = ["the loss", *(n for n, p in zip(self._names, self.parameters, strict=True) if p.grad is not None)]
        cap = f", after {self.max_skipped} steps had been skipped" if self.max_skipped else ""
        raise ValueError(
            f"loss: expected finite losses and gradients, got one that is not in epoch {epoch}, batch {batch}: "
            f"{names[index]}{cap}{self._hint}; the parameters are those of the last finite step"
        )


def _first(finite: Tensor) -> Tensor:
    """Position of the first that is not."""
    return (~finite).to(torch.int64).argmax()
