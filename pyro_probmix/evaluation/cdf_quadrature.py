r"""The CRPS of any scalar law from its distribution function, :math:`\int (F(t) - 1\{y \le t\})^2 \, dt`."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from pyro_probmix.distributions import rows as members
from pyro_probmix.distributions.cumulative.law import Law
from pyro_probmix.distributions.cumulative.scalar import law_of
from pyro_probmix.distributions.landmarks import landmarks
from pyro_probmix.distributions.numerical.integrals import log_integral, of_all_members

__all__ = ["integrated_score"]

ACCURACY = 1e-6
NUM_POINTS = 9  # about the mass, from which the quadrature starts
NUM_SUMMED = 1024  # integers that are summed one by one
LEAST_SHARE = 1e-9  # of the mass, on either side of them
BLOCK = 2**20  # shares that are computed together


@torch.no_grad()
def integrated_score(p: Any, y: Tensor) -> Tensor:
    """The score of a scalar distribution, by adaptive quadrature; infinite for tails as heavy as |t|^(−1/2).

    Integers are summed one by one. Where they are many the sum is the integral of what is linear between them, less
    what the square of that lacks.

    Args:
        p: a distribution of event shape (), without masks.
        y: labels, of shape ``p.batch_shape``, in double precision.

    Returns:
        Scores in double precision, without gradient.
    """
    law = law_of(p)
    if not law.integers:
        low, high = law.bounds()
        return _integral(law, y, low.minimum(y - 1), high.maximum(y + 1))
    first, last = (law.icdf(torch.full_like(y, share)) for share in (LEAST_SHARE, 1 - LEAST_SHARE))
    width = last - first + 1
    kind = torch.where(width > NUM_SUMMED, math.inf, width.clamp(max=NUM_SUMMED).log2().ceil())
    groups = kind[~kind.isnan()].unique().tolist()
    if len(groups) > 1:
        index = [(kind == group).nonzero(as_tuple=True) for group in groups]
        with suppress(TypeError):  # where it is not known where the parameters have the batch
            laws = [law_of(members(law.p, some)) for some in index]
            total = torch.full_like(y, math.nan)
            for some, own, group in zip(index, laws, groups, strict=True):
                total[some] = _of_integers(own, y[some], first[some], last[some], group == math.inf)
            return total
    return _of_integers(law, y, first, last, math.inf in groups)


def _of_integers(law: Law, y: Tensor, first: Tensor, last: Tensor, many: bool) -> Tensor:
    if many:
        return _integral(law, y, first.minimum(y) - 1, last.maximum(y))
    total = (first - y).clamp(min=0) + (y - last - 1).clamp(min=0)  # where all terms are one
    steps = torch.arange(int((last - first).nan_to_num(0).max()) + 1, dtype=y.dtype, device=y.device)
    for block in steps.split(max(1, BLOCK // max(1, law.size * y.numel()))):
        k = first + block.reshape((-1,) + (1,) * y.dim())
        share = law.cdf(k.minimum(last))
        total = total + torch.where(k > last, 0, torch.where(k < y, share, 1 - share).square()).sum(0)
    return total


def _gap(law: Law, y: Tensor, t: Tensor) -> Tensor:
    """|F(t) − 1{y ≤ t}|."""
    return torch.where(t < y, law.cdf(t), law.survival(t))


def _integral(law: Law, y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    inner, like, batch = law.p, y, y.shape

    def log_squares(law: Law, y: Tensor, t: Tensor) -> Tensor:
        if not law.integers:
            return 2 * _gap(law, y, t).log()
        k = t.floor()
        below, above = _gap(law, y, k), _gap(law, y, k + 1)
        between = below + (t - k) * (above - below)
        squares = between.square() + (above - below).square() / 6
        return squares.masked_fill((t > y - 1) & (t < y), 0).log()

    def log_f(t: Tensor, index: Tensor | None = None) -> Tensor:
        if index is None:
            return log_squares(law, y, t).nan_to_num(nan=-math.inf)
        try:
            some = law_of(members(inner, torch.unravel_index(index, batch)))
        except TypeError:  # of which it is not known where its parameters have the batch
            return of_all_members(log_f, t, index, like)
        return log_squares(some, y.reshape(-1)[index], t).nan_to_num(nan=-math.inf)

    points = landmarks(inner).sort(-1).values
    some = torch.linspace(0, points.shape[-1] - 1, min(NUM_POINTS, points.shape[-1]), device=y.device).round().long()
    points = torch.cat([points[..., some].expand(*batch, -1), y.unsqueeze(-1)], -1)
    if law.integers:
        points = torch.cat([points, y.unsqueeze(-1) - 1], -1)
    total = log_integral(log_f, low, high, points, ACCURACY).exp()
    if law.integers:
        total = total + 0.5 * (law.cdf(y - 1).square() + law.survival(y).square())
    return total + 0 * law.cdf(y)  # NaN where the law is
