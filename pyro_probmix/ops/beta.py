"""The incomplete beta function, which torch.special lacks."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_probmix.ops.values import can_be_read

__all__ = ["betainc"]

MAX_STEPS = 10_000
FIXED_STEPS = 300  # where values cannot be looked at
TINY = 1e-300


def betainc(a: Tensor, b: Tensor, x: Tensor, rest: Tensor) -> Tensor:
    r"""The regularised incomplete beta function :math:`I_x(a, b)`, differentiable in all of its arguments.

    Where x is above the mean it is 1 − I_{1−x}(b, a). The continued fraction converges in about √max(a, b) steps.

    Args:
        a: positive, in double precision, as the others are.
        b: positive.
        x: from 0 to 1.
        rest: 1 − x, of which x alone may know too few digits.

    Source: the modified Lentz method for DLMF 8.17.22.
    """
    a, b, x, rest = torch.broadcast_tensors(a, b, x, rest)
    swap = x > (a + 1) / (a + b + 2)
    a, b, x, rest = (
        torch.where(swap, b, a),
        torch.where(swap, a, b),
        torch.where(swap, rest, x),
        torch.where(swap, x, rest),
    )
    empty = x <= 0
    x, rest = x.masked_fill(empty, 0.5), rest.masked_fill(empty, 0.5)
    log_front = a * x.log() + b * torch.where(x < 0.5, torch.log1p(-x), rest.log())
    log_front = log_front + (a + b).lgamma() - a.lgamma() - b.lgamma() - a.log()
    share = (log_front.exp() * _fraction(a, b, x)).masked_fill(empty, 0).clamp(0, 1)
    return torch.where(swap, 1 - share, share)


def _fraction(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """The continued fraction, to where it does not change."""
    looks = all(map(can_be_read, (a, b, x)))
    eps = 2 * torch.finfo(x.dtype).eps
    c, d = torch.ones_like(x), 1 / _away(1 - (a + b) * x / (a + 1))
    product = d
    for k in range(1, MAX_STEPS if looks else FIXED_STEPS):
        even = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        odd = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        for numerator in (even, odd):
            d = 1 / _away(1 + numerator * d)
            c = _away(1 + numerator / c)
            product = product * (c * d)
        if looks and not bool(((c * d - 1).abs() >= eps).any()):
            break
    return product


def _away(t: Tensor) -> Tensor:
    return torch.where(t.abs() < TINY, TINY, t)
