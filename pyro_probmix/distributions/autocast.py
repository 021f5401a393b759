"""Densities in full precision beside networks in half of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["autocasts", "without_autocast"]


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
