"""Intervals of a given mass, of any distribution, entry by entry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_probmix._checks import check_choice
from pyro_probmix.distributions.cumulative.scalar import law_of
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.quantiles import as_shares, ordered_marginals, quantile
from pyro_probmix.ops.roots import increasing_root

__all__ = ["interval"]

KINDS = "central", "hdi"
STARTS = 65  # intervals of which the shortest is improved
INTEGERS = 2049  # of counts, first values that are tried together
TIE = 1e-9


def interval(p: Any, level: float | Tensor, kind: str = "central") -> tuple[Tensor, Tensor]:
    r"""The interval of each entry of any distribution that has a given share of the mass.

    ``"central"`` leaves the same share on both sides, :math:`[Q(\tfrac{1-l}2), Q(\tfrac{1+l}2)]`; ``"hdi"`` is the
    shortest single interval, :math:`[Q(a), Q(a + l)]` for the a of the least width: that of highest density where there
    is one mode. Of counts it is the shortest run of integers whose mass is ``level`` or more, and of those the one with
    the most.

    Args:
        p: as for :func:`~pyro_probmix.distributions.quantile`.
        level: l, a number or a tensor of any shape, in (0, 1).
        kind: ``"central"`` or ``"hdi"``.

    Returns:
        The lower and the upper ends, of shape ``level.shape + batch_shape + event_shape`` each. The central ones are
        differentiable as quantiles are, the shortest ones have no gradient.

    Raises:
        TypeError: as :func:`~pyro_probmix.distributions.quantile`.
        ValueError: if a level is not in (0, 1), or the kind is another.

    Example:
        >>> interval(dist.Exponential(1.0), 0.9)
        (tensor(0.0513), tensor(2.9957))
        >>> interval(dist.Exponential(1.0), 0.9, kind="hdi")
        (tensor(0.), tensor(2.3026))
    """
    check_choice("kind", kind, KINDS)
    each = ordered_marginals(p)
    levels = as_shares("level", level, each, inside=True)
    if kind == "central":
        return quantile(each, 0.5 * (1 - levels)), quantile(each, 0.5 * (1 + levels))
    shape = levels.shape + each.batch_shape
    reference = reference_tensor([each])
    if shape.numel() == 0:
        return reference.new_empty(shape), reference.new_empty(shape)
    with torch.no_grad():
        law = law_of(each)
        levels = levels.double().reshape(levels.shape + (1,) * len(each.batch_shape)).expand(shape)
        low, high = (_shortest_run if law.integers else _shortest)(law, levels)
    return low.to(reference.dtype), high.to(reference.dtype)


def _shortest(law: Any, level: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest of many intervals, and from there where the width, as a function of what is left below, turns."""
    free = 1 - level

    def ends(a: Tensor) -> tuple[Tensor, Tensor]:
        low = law.icdf(a)
        return low, torch.maximum(law.icdf((a + level).clamp(max=1)), low)

    share = torch.linspace(0, 1, STARTS, dtype=torch.float64, device=level.device)
    share = (share * share * (3 - 2 * share)).reshape((-1,) + (1,) * level.dim())  # closer together at both ends
    starts = free * share
    low, high = ends(starts)
    width = high - low
    width = torch.where(width.isnan(), torch.inf, width)
    near = width <= width.amin(0) * (1 + TIE)
    best = torch.where(near, -(share - 0.5).abs(), -torch.inf).argmax(0, keepdim=True)  # of equals, the middle one
    left, right = (starts.gather(0, (best + k).clamp(0, STARTS - 1))[0] for k in (-1, 1))
    at = starts.gather(0, best)[0]

    def slope(a: Tensor) -> Tensor:
        """The derivative of the width, 1/p(Q(a + level)) − 1/p(Q(a)), of bounded size."""
        low, high = ends(a)
        first, last = (law.density_at(y) for y in (low, high))
        return torch.where(first == last, 0, (first - last) / (first + last).clamp(min=torch.finfo(a.dtype).tiny))

    flat = width.amax(0) <= width.amin(0) * (1 + TIE)
    turn = increasing_root(lambda a: 1 + slope(a), torch.ones_like(left), left, right, looks=True)
    found = torch.where(flat, at, turn)
    ends_of = [ends(a) for a in (left, right, found, at)]
    widths = torch.stack([high - low for low, high in ends_of])
    widths = torch.where(widths.isnan(), torch.inf, widths)
    least = widths.argmin(0, keepdim=True)
    low, high = (torch.stack(list(each)).gather(0, least)[0] for each in zip(*ends_of, strict=True))
    return low, high


def _shortest_run(law: Any, level: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest run of integers, from which first value on: of some at equal distances, then of those between."""
    level = level.double() - 4 * torch.finfo(level.dtype).eps * torch.minimum(level, 1 - level)
    first, last = law.icdf(torch.full_like(level, 1e-12)), law.icdf(1 - level)
    steps = torch.arange(INTEGERS, dtype=torch.float64, device=level.device).reshape((-1,) + (1,) * level.dim())
    while True:
        stride = ((last - first) / (INTEGERS - 1)).ceil().clamp(min=1)
        low = (first + stride * steps).minimum(last)
        below = law.cdf(low - 1)
        wanted = below + level
        high = torch.where(wanted < 1, law.icdf(wanted.clamp(max=1)), torch.inf)
        length = high - low
        mass = torch.where(length == length.amin(0), law.cdf(high) - below, -torch.inf)
        best = mass.argmax(0, keepdim=True)
        low, high = low.gather(0, best)[0], high.gather(0, best)[0]
        if bool((stride == 1).all()):
            return low, high
        first, last = (low - stride).maximum(first), (low + stride).minimum(last)
