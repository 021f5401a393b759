"""Outputs of networks in the precision of densities."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_probmix.distributions.autocast import autocasts, without_autocast

__all__ = ["full_precision", "without_autocast"]


def full_precision(output: Tensor) -> Tensor:
    """A network's output in single precision if autocast computed it in half.

    Rounding it has been done; the variances and precisions made of it would leave the range of float16.
    """
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) and autocasts(output) else output
