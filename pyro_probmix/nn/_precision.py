"""Densities in full precision beside networks in half of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["full_precision", "without_autocast"]


def full_precision(output: Tensor) -> Tensor:
    """A network's output in single precision if autocast computed it in half.

    Rounding it has been done; the variances and precisions made of it would leave the range of float16.
    """
    if output.dtype in (torch.float16, torch.bfloat16) and torch.is_autocast_enabled(output.device.type):
        return output.float()
    return output


def without_autocast(like: Tensor) -> AbstractContextManager[None]:
    """Where densities are made and scored: the matrix products of a covariance are none for half precision.

    Args:
        like: a tensor of the device whose autocast is held off.
    """
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
