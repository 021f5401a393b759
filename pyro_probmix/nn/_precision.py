"""Densities in full precision beside networks in half of it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["full_precision"]


def full_precision(output: Tensor) -> Tensor:
    """A network's output in single precision if autocast computed it in half.

    Rounding it has been done; the variances and precisions made of it would leave the range of float16.
    """
    if output.dtype in (torch.float16, torch.bfloat16) and torch.is_autocast_enabled(output.device.type):
        return output.float()
    return output
