"""Densities in full precision beside networks in half of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["autocasts", "full_precision", "without_autocast"]


def without_autocast(like: Tensor) -> AbstractContextManager[None]:
    """Where densities are made and scored: the matrix products of a covariance are none for half precision.

    Args:
        like: a tensor of the device whose autocast is held off.
    """
    return torch.autocast(like.device.type, enabled=False) if autocasts(like) else nullcontext()


def autocasts(like: Tensor) -> bool:
    """Whether networks on the device of ``like`` compute in half precision."""
    try:
        return torch.is_autocast_enabled(like.device.type)
    except RuntimeError:  # of a device that has no autocast
        return False


def full_precision(output: Tensor) -> Tensor:
    """A network's output in single precision if autocast computed it in half.

    Rounding it has been done; the variances and precisions made of it would leave the range of float16.
    """
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) and autocasts(output) else output
