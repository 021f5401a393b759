"""Nodes and their partners: the batch that every mixing method consumes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from pyro.distributions import is_validation_enabled
from torch import Tensor

from pyro_probmix._checks import check_tensor, name_rows
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["PairBatch"]


def may_look_at(tensor: Tensor) -> bool:
    """Whether values of ``tensor`` are checked: with validation on, where nothing has to wait for them."""
    return is_validation_enabled() and tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_batch(batch: Any) -> None:
    """Refuse what is no :class:`PairBatch`, and where values are looked at, partners that are not in it."""
    if not isinstance(batch, PairBatch):
        raise TypeError(f"batch: expected a PairBatch, got {type(batch).__name__}")
    if may_look_at(batch.partner):
        outside = (batch.partner < 0) | (batch.partner >= len(batch))
        if bool(outside.any()):
            last = len(batch) - 1
            raise ValueError(f"partner: expected positions from 0 to {last}, got others in {name_rows(outside)}")


def check_mask(mask: Tensor | None, size: int, y: Tensor | None) -> None:
    """Refuse a mask that is not boolean, or has neither one value a node nor one an output."""
    if mask is None:
        return
    check_tensor("mask", mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected dtype torch.bool, got {mask.dtype}")
    shapes = [(size,)] if y is None else [(size,), tuple(y.shape)]
    if tuple(mask.shape) not in shapes:
        expected = " or ".join(dict.fromkeys(map(str, shapes)))
        raise ValueError(f"mask: expected shape {expected}, got {tuple(mask.shape)}")


def fill_missing(y: Tensor, mask: Tensor) -> Tensor:
    """``y`` with the first observed value, which is a legal one, wherever none was observed."""
    if not bool(mask.any()):
        raise ValueError("mask: expected at least one observed output, got none")
    return legal_labels(y, mask, -y.dim())


def legal_labels(y: Tensor, mask: Tensor, dim: int) -> Tensor:
    """``y`` with the first observed value wherever none was observed, without a look at the values."""
    if mask.dim() == 1:
        mask = unsqueeze_right(mask, -1 - dim)
    first = mask.flatten().to(torch.uint8).argmax().unsqueeze(0)
    legal = y.flatten().index_select(0, first) if mask.shape == y.shape else y.index_select(dim, first)
    return torch.where(mask, y, legal)


@dataclass(eq=False, repr=False)  # not frozen: Lightning converts what is in it to another precision
class PairBatch:
    """B nodes and, for each of them, the position within the batch of the node it is mixed with.

    Node ``i`` carries the edge ``(i, partner[i])``. Only shapes, types and devices are checked, never values,
    so building a batch does not wait for a device.

    Args:
        x: Inputs, shape ``(B, ...)``, B >= 1.
        y: Outputs, shape ``(B, ...)``, or None.
        partner: Integer tensor (``torch.int64``) of shape ``(B,)`` with values in ``0..B-1``.
        weight: How much each node counts, of shape ``(B,)``, at least 0; an edge counts with the product of its
            nodes' weights, as if nodes were repeated. None for weights of one.
        mask: Which outputs are observed, boolean, of shape ``(B,)`` or that of ``y``; an output of an edge counts
            where both its nodes have it. None where all are observed.

    Raises:
        TypeError: If an argument is not a tensor, ``partner`` does not hold 64-bit integers, or ``mask`` booleans.
        ValueError: If the batch is empty, or lengths or devices do not match.

    Example:
        >>> batch = PairBatch(torch.zeros(3, 2), torch.zeros(3), torch.tensor([1, 2, 0]))
        >>> len(batch)
        3
        >>> batch.to("cpu").y[batch.partner].shape
        torch.Size([3])
    """

    x: Tensor
    y: Tensor | None
    partner: Tensor
    weight: Tensor | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        check_tensor("x", self.x)
        if self.x.ndim == 0 or self.x.shape[0] == 0:
            raise ValueError(f"x: expected shape (B, ...) with B >= 1, got {tuple(self.x.shape)}")
        for name in ("y", "partner", "weight", "mask"):
            value = getattr(self, name)
            if value is None and name != "partner":
                continue
            check_tensor(name, value)
            if value.device != self.x.device:
                raise ValueError(f"{name}: expected the device of x, {self.x.device}, got {value.device}")
        size = self.x.shape[0]
        if self.y is not None and self.y.shape[:1] != (size,):
            raise ValueError(f"y: expected shape ({size}, ...), as many rows as x, got {tuple(self.y.shape)}")
        if self.partner.dtype != torch.int64:
            raise TypeError(f"partner: expected dtype torch.int64, got {self.partner.dtype}")
        check_tensor("partner", self.partner, (size,))
        if self.weight is not None:
            check_tensor("weight", self.weight, (size,))
        check_mask(self.mask, size, self.y)

    def __len__(self) -> int:
        return self.x.shape[0]

    def __repr__(self) -> str:
        shapes = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return f"PairBatch({', '.join(f'{name}: {tuple(value.shape)}' for name, value in shapes.items())})"

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        """Return the same batch on another device."""
        if self.x.device == torch.device(device):
            return self
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: value if value is None else value.to(device, non_blocking=non_blocking)
            for name, value in given.items()
        }
        return replace(self, **moved)
