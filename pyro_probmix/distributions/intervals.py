"""Intervals of a given mass, of any distribution, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_probmix._checks import check_choice
from pyro_probmix.distributions.cumulative.law import Law
from pyro_probmix.distributions.cumulative.scalar import law_of
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.quantiles import as_shares, ordered_marginals, quantile
from pyro_probmix.ops.devices import double
from pyro_probmix.ops.roots import bracketed_root, within_rounding

__all__ = ["interval"]

KINDS = "central", "hdi"
QUANTILES = 33  # between which there are so many parts, from one of which the shortest interval starts
PARTS = 8
AROUND = 3  # points on either side of the best one, whose intervals are compared exactly
TAIL = 14.0  # log-odds of the first and the last quantile
INTEGERS = 513  # first and last values of runs that are tried together
BEYOND = 1e-14  # share of the mass that is not looked at
TIE = 1e-9


def interval(p: Any, level: Any, kind: str = "central") -> tuple[Tensor, Tensor]:
    r"""The interval of each entry of any distribution that has a given share of the mass.

    ``"central"`` leaves the same share on both sides, :math:`[Q(\tfrac{1-l}2), Q(\tfrac{1+l}2)]`; ``"hdi"`` is the
    shortest single interval, :math:`[Q(a), Q(a + l)]` for the a of the least width: that of highest density where there
    is one mode. Of counts it is the shortest run of integers whose mass is ``level`` or more, and of those the one with
    the most.

    Args:
        p: as for :func:`~pyro_probmix.distributions.quantile`.
        level: l, a number, or a tensor, an array or a list of numbers, of any shape, in (0, 1).
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
    levels = double(as_shares("level", level, each, inside=True))
    if kind == "central":
        low, high = quantile(each, torch.stack([0.5 * (1 - levels), 0.5 * (1 + levels)]))
        return low, high
    shape = levels.shape + each.batch_shape
    reference = reference_tensor([each])
    if shape.numel() == 0:
        return reference.new_empty(shape), reference.new_empty(shape)
    with torch.no_grad():
        law = law_of(each)
        levels = levels.reshape(levels.shape + (1,) * len(each.batch_shape)).expand(shape)
        low, high = _finder(law)(law, levels)
    return low.to(reference), high.to(reference)


def _finder(law: Law) -> Callable[[Law, Tensor], tuple[Tensor, Tensor]]:
    """What finds the shortest interval."""
    if law.integers:
        return _shortest_run
    if law.values is not None:
        return _shortest_of_values
    if law.atomic:
        raise TypeError(
            f"p: expected a density, counts or draws, whose shortest interval is known, got {type(law.p).__name__} "
            'with mass at single values; it has a central one: kind="central"'
        )
    return _shortest


def _shortest(law: Law, level: Tensor) -> tuple[Tensor, Tensor]:
    """Of many intervals the shortest, and from there where the width, as a function of the lower end, turns."""
    points, shares, densities = _table(law, level.dim())
    last = law.icdf(1 - level)

    def upper(low: Tensor) -> Tensor:
        return torch.maximum(law.icdf((law.cdf(low) + level).clamp(max=1)), low)

    def width(low: Tensor, high: Tensor) -> Tensor:
        return torch.where(low.isfinite() & high.isfinite(), high - low, torch.inf)

    def rise(low: Tensor) -> Tensor:
        """Of the sign of the derivative of the width, p(low)/p(high) − 1, and bounded."""
        first, second = law.density(low), law.density(upper(low))
        between = torch.where(first == second, 0, (first - second) / (first + second))
        return torch.where(between.isnan(), torch.where(first > second, 1, -1), between)

    high = _interpolated(points, shares, densities, shares + level)
    best = torch.where(shares + level <= shares[-1], high - points, torch.inf).argmin(0, keepdim=True)
    steps = torch.arange(-AROUND, AROUND + 1, device=best.device).reshape((-1,) + (1,) * level.dim())
    around = (best + steps).clamp(0, len(points) - 1)
    lows = points.expand(points.shape[:1] + level.shape).gather(0, around).minimum(last)
    best = width(lows, upper(lows)).argmin(0, keepdim=True)
    left, at, right = (lows.gather(0, (best + k).clamp(0, len(lows) - 1))[0] for k in (-1, 0, 1))
    grows = rise(at) > 0
    turn = bracketed_root(rise, torch.where(grows, left, at), torch.where(grows, at, right))
    lows = torch.stack([law.icdf(0.5 * (1 - level)), turn, at])
    highs = torch.stack([law.icdf(0.5 * (1 + level)), *upper(lows[1:])])
    found = width(lows, highs)
    least = (found <= found.amin(0) * (1 + TIE)).to(torch.uint8).argmax(0, keepdim=True)  # of equals the central one
    return lows.gather(0, least)[0], highs.gather(0, least)[0]


def _table(law: Law, dim: int) -> list[Tensor]:
    """Points from the lower end of the support on, close together where the mass is, shares below, and densities."""
    size = len(law.p.batch_shape)
    levels = torch.linspace(-TAIL, TAIL, QUANTILES, dtype=torch.float64, device=law.bounds()[0].device).sigmoid()
    quantiles = law.icdf(levels.reshape((-1,) + (1,) * size))
    low, _ = law.bounds()
    quantiles = torch.cat([torch.where(low.isfinite(), low, quantiles[:1]), quantiles])
    parts = torch.arange(PARTS, dtype=torch.float64, device=low.device).reshape((-1,) + (1,) * size) / PARTS
    points = quantiles[:-1].unsqueeze(1) + quantiles.diff(dim=0).unsqueeze(1) * parts
    points = torch.cat([points.flatten(0, 1), quantiles[-1:]])
    shares = law.cdf(points).cummax(0).values
    found = points, shares, law.density(points)
    return [t.reshape(t.shape[:1] + (1,) * (dim - size) + t.shape[1:]) for t in found]


def _interpolated(points: Tensor, shares: Tensor, densities: Tensor, wanted: Tensor) -> Tensor:
    """The values at which the wanted shares are below, by cubics between points, kept monotone."""
    table = [t.expand_as(wanted).movedim(0, -1).contiguous() for t in (points, shares, densities)]
    wanted = wanted.movedim(0, -1).contiguous()
    index = torch.searchsorted(table[1], wanted).clamp(1, len(points) - 1)
    (x0, x1), (f0, f1), (p0, p1) = ([t.gather(-1, index - k) for k in (1, 0)] for t in table)
    rise, mass = x1 - x0, f1 - f0
    t = torch.where(mass > 0, (wanted - f0) / mass, 1).clamp(max=1)
    m0, m1 = (torch.minimum(mass / p, 3 * rise).nan_to_num(0) for p in (p0, p1))
    cubic = x0 + t * m0 + t.square() * (3 * rise - 2 * m0 - m1 + t * (m0 + m1 - 2 * rise))
    return cubic.movedim(-1, 0)


def _shortest_of_values(law: Law, level: Tensor) -> tuple[Tensor, Tensor]:
    """From one of the values to another, of single ones."""
    level = within_rounding(level, level.dtype)
    low = law.values.movedim(-1, 0)
    low = low.reshape(low.shape[:1] + (1,) * (level.dim() - low.dim() + 1) + low.shape[1:])
    low = low.expand(low.shape[:1] + level.shape)
    wanted = law.cdf(low.nextafter(torch.full_like(low, -torch.inf))) + level
    high = law.icdf(wanted.clamp(max=1))
    best = torch.where(law.cdf(high) >= wanted, high - low, torch.inf).argmin(0, keepdim=True)
    return low.gather(0, best)[0], high.gather(0, best)[0]


def _shortest_run(law: Law, level: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest run of integers: of those from and to some at equal distances, then of those between."""
    level = within_rounding(level, level.dtype)
    least = torch.full_like(level, BEYOND)
    quantiles = [law.icdf(share) for share in (least, 1 - level, level, 1 - least * (1 - level))]
    unknown = quantiles[0].isnan()
    from_least, from_most, to_least, to_most = (t.masked_fill(unknown, 0) for t in quantiles)
    starts, ends = (from_least, from_most), (to_least, to_most)
    while True:
        (first, last), (stride, other) = zip(*[_spaced(*span) for span in (starts, ends)], strict=True)
        below, reached = law.cdf(first - 1), law.cdf(last)
        index = _first_at(reached, below + level)
        length, mass = (t.gather(0, index.clamp(max=len(t) - 1)) for t in (last, reached))
        length, mass = torch.where(index < len(last), length - first, torch.inf), mass - below
        mass = torch.where(length == length.amin(0), mass, -torch.inf)
        best = (mass >= mass.amax(0) * (1 - TIE)).to(torch.uint8).argmax(0, keepdim=True)
        low = first.gather(0, best)[0]
        high = low + length.gather(0, best)[0]
        if bool(((stride == 1) & (other == 1)).all()):
            return low.masked_fill(unknown, torch.nan), high.masked_fill(unknown, torch.nan)
        starts = (low - 2 * stride).maximum(from_least), (low + 2 * stride).minimum(from_most)
        ends = (high - 2 * other).maximum(to_least), (high + 2 * other).minimum(to_most)


def _spaced(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Integers at equal distances from the first to the last or beyond, along a new first dimension, and how far."""
    span = last - first
    count = int(min(float(span.max()) + 1, INTEGERS))
    stride = (span / max(count - 1, 1)).ceil().clamp(min=1)
    steps = torch.arange(count, dtype=span.dtype, device=span.device).reshape((-1,) + (1,) * span.dim())
    return first + stride * steps, stride


def _first_at(shares: Tensor, wanted: Tensor) -> Tensor:
    """The first index along the first dimension at which increasing shares reach each of the wanted ones."""
    shares, wanted = (t.movedim(0, -1).contiguous() for t in (shares, wanted))
    return torch.searchsorted(shares, wanted).movedim(-1, 0)
