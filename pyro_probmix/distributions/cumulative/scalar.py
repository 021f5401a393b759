"""The distribution function and the quantiles of any scalar distribution, in its own precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.cumulative import _continuous, _steps
from pyro_probmix.distributions.cumulative._made_of_others import law
from pyro_probmix.distributions.cumulative.law import Law
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.landmarks import in_double

__all__ = ["law_of", "scalar_cdf", "scalar_icdf"]

ROUNDING = 4  # by how many roundings of its precision a share of integers may miss what it is to reach

_ROWS = _continuous, _steps  # which register what they know


def law_of(p: Any) -> Law:
    """The shares of a distribution of event shape () without a mask, in double precision."""
    return law(in_double(corrected(resolved(p))))


def scalar_cdf(p: Any, y: Tensor) -> Tensor:
    """F(y) of a distribution of event shape () without a mask: 0 before its support and 1 behind it.

    Args:
        p: of batch shape ``(...)``.
        y: broadcasts with the batch shape.

    Returns:
        A tensor of what the two shapes broadcast to, in the dtype of ``p``.
    """
    reference = reference_tensor([p])
    shape = torch.broadcast_shapes(y.shape, p.batch_shape)
    if shape.numel() == 0:
        return reference.new_empty(shape)
    return law_of(p).cdf(y.double()).to(reference.dtype).expand(shape)


def scalar_icdf(p: Any, q: Tensor) -> Tensor:
    """The least value whose F reaches q, of a distribution of event shape () without a mask.

    Args:
        p: of batch shape ``(...)``.
        q: from 0 to 1, broadcasts with the batch shape.

    Returns:
        A tensor of what the two shapes broadcast to, in the dtype of ``p``; at 0 and 1 the ends of the support.
    """
    reference = reference_tensor([p])
    shape = torch.broadcast_shapes(q.shape, p.batch_shape)
    if shape.numel() == 0:
        return reference.new_empty(shape)
    found, shares = law_of(p), q.double()
    if found.integers:
        slack = ROUNDING * torch.finfo(reference.dtype).eps * torch.minimum(shares, 1 - shares)
        shares = (shares - slack - torch.finfo(q.dtype).eps * shares).clamp(min=0)
        shares = torch.where(q >= 1, 1, torch.where(q <= 0, 0, shares))
    return found.icdf(shares).to(reference.dtype).expand(shape)
