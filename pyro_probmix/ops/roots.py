"""Roots of functions within brackets, of a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["bracketed_root", "increasing_root", "least_integer", "within_rounding"]

MAX_STEPS, UNSEEN_STEPS = 140, 80  # if values can be looked at, twice as many as halve all numbers to one
NEAR = 1e-9  # log-odds so near that Newton's next step takes the rest
ROUNDING = 4  # units in the last place
FAR = 16.0  # ratio of ends from which on they are halved by the order of numbers


def increasing_root(
    share: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor] | None,
    wanted: Tensor,
    low: Tensor,
    high: Tensor,
    origin: Tensor,
    looks: bool,
) -> Tensor:
    """The least x between ``low`` and ``high`` at which an increasing function from 0 to 1 reaches ``wanted``.

    Newton's method for the log-odds, which are smooth in tails too. Where it leaves what is known to hold the root, or
    its steps do not fall, that is halved instead: on the line or, where the ends are of other magnitudes, in the order
    of floating-point numbers. So an end may be infinite, and no root is too near to zero.

    Args:
        share: the function, of a tensor in double precision of the shape of ``wanted``.
        slope: its derivative; None where it has jumps, at which the result is to be exact.
        wanted: between 0 and 1, exclusive.
        low: where the function is not above ``wanted``; of the same shape, in double precision.
        high: where it is not below.
        origin: where the function begins, from which distances are taken by their logarithms; −∞ if nowhere.
        looks: whether values may be looked at, to end when all are found.
    """
    bounded = origin.isfinite()
    goal = wanted.logit()
    left, right = low, high
    before, behind = (share(end).logit() - goal for end in (low, high))
    at_low = before >= 0
    found, done = torch.where(at_low, low, high), at_low | (behind <= 0) | ~(low < high)
    new = low - before * ((high - low) / (behind - before)) if slope else torch.full_like(low, math.nan)
    near_enough = (4 * torch.finfo(wanted.dtype).eps / (1 - wanted)).clamp(min=NEAR)  # shares next to 1 are rounded
    step = last = torch.full_like(wanted, math.inf)
    for k in range(MAX_STEPS if looks else UNSEEN_STEPS):
        if looks and bool(done.all()):
            break
        halved = ~((new > left) & (new < right) & (step <= 0.7 * last))
        x = torch.where(halved, _middle(left, right, k), new)
        f = share(x)
        below = f < wanted
        left, right = torch.where(below, x, left), torch.where(below, right, x)
        best, near = right, _adjacent(left, right)
        if slope:
            excess, density = f.logit() - goal, slope(x)
            move = torch.where(density > 0, excess * (f * (1 - f) / density), math.inf)
            distance = x - origin
            new = torch.where(bounded, origin + distance * (-move / distance).exp(), x - move)
            step, last = (move / distance.where(bounded, 1)).abs(), torch.where(halved, math.inf, step)
            close = excess.abs() <= near_enough
            best, near = torch.where(close, torch.where(density > 0, new, x), best), near | close
        found, done = torch.where(done, found, best), done | near
    if slope and looks:
        flat = found.isfinite() & (slope(_number(_order(found) - 1)) == 0) & (left < found)
        if bool(flat.any()):
            return _first_of_flat(share, wanted, found, torch.where(flat, left, found))
    return found


def _first_of_flat(share: Callable[[Tensor], Tensor], wanted: Tensor, found: Tensor, left: Tensor) -> Tensor:
    """The least x from ``left`` on at which the function is ``wanted``, as it is at the one that was found."""
    least = wanted * (1 - 2 * torch.finfo(wanted.dtype).eps)
    right = found
    for k in range(MAX_STEPS):
        if bool((_adjacent(left, right) | (right - left <= 1e-15 * right.abs())).all()):
            break
        x = _middle(left, right, k)
        reaches = share(x) >= least
        left, right = torch.where(reaches, left, x), torch.where(reaches, x, right)
    return right


def bracketed_root(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """An x between two finite ends at which a function goes from below zero to above, or the end where it does not.

    Chandrupatla's method: the inverse quadratic through three points where it may be trusted, else halving.
    """
    x1, f1, x2, f2 = low, function(low), high, function(high)
    x3, f3 = x2, f2
    found, done = torch.where(f1 >= 0, low, high), (f1 >= 0) | (f2 <= 0)
    share = torch.full_like(low, 0.5)
    for _ in range(MAX_STEPS):
        if bool(done.all()):
            break
        x = x1 + share * (x2 - x1)
        f = function(x)
        same = (f < 0) == (f1 < 0)
        x3, f3 = torch.where(same, x1, x2), torch.where(same, f1, f2)
        x2, f2 = torch.where(same, x2, x1), torch.where(same, f2, f1)
        x1, f1 = x, f
        best = torch.where(f1.abs() < f2.abs(), x1, x2)
        tolerance = 8 * torch.finfo(x.dtype).eps * best.abs() + torch.finfo(x.dtype).tiny
        found = torch.where(done, found, best)
        least = tolerance / (x2 - x1).abs()
        done = done | (least >= 0.5) | (torch.minimum(f1.abs(), f2.abs()) <= NEAR**2)
        xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
        quadratic = (phi.square() < xi) & ((1 - phi).square() < 1 - xi)
        share = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
        share = torch.where(quadratic, share, 0.5).clamp(least.clamp(max=0.5), 1 - least.clamp(max=0.5))
    return found


def least_integer(reaches: Callable[[Tensor], Tensor], below: Tensor, high: Tensor, looks: bool) -> Tensor:
    """The least integer above ``below`` and not above ``high`` for which ``reaches`` is true, ``high`` if for no less.

    Args:
        reaches: from integers, in double precision, whether each is large enough.
        below: integers that are not, or −∞.
        high: integers that are, or ∞.
        looks: whether values may be looked at, to end when all are found.
    """
    for _ in range(MAX_STEPS if looks else UNSEEN_STEPS):
        middle = _middle(below, high, 1).floor()
        middle = torch.where(middle <= below, below + 1, middle)
        done = ~(middle < high)
        if looks and bool(done.all()):
            break
        enough = reaches(torch.where(done, high, middle)) | done
        high = torch.where(enough & ~done, middle, high)
        below = torch.where(enough, below, middle)
    return high


def within_rounding(shares: Tensor, *dtypes: torch.dtype) -> Tensor:
    """Shares in double precision, lowered by what they or the sums that are to reach them lose by rounding.

    In the first dtype that is a few units in the last place of the nearer tail, in the others one of the share itself.
    """
    first, *others = [torch.finfo(dtype).eps for dtype in dtypes]
    lowered = shares - ROUNDING * first * torch.minimum(shares, 1 - shares) - sum(others) * shares
    return torch.where((shares > 0) & (shares < 1), lowered.clamp(min=0), shares)


def _middle(a: Tensor, b: Tensor, step: int) -> Tensor:
    """What is halfway between two numbers: on the line or, at every other step, in their order where they are apart."""
    mean = 0.5 * a + 0.5 * b
    small, large = torch.minimum(a.abs(), b.abs()), torch.maximum(a.abs(), b.abs())
    apart = (a.sign() * b.sign() >= 0) & (large > FAR * small) & (step % 2 == 1)
    return torch.where(apart | ~mean.isfinite(), _number(_half(_order(a), _order(b))), mean)


def _adjacent(a: Tensor, b: Tensor) -> Tensor:
    """Whether no number is between two."""
    return _half(_order(a), _order(b)) == _order(a)


def _half(i: Tensor, j: Tensor) -> Tensor:
    return (i >> 1) + (j >> 1) + (i & j & 1)


def _order(x: Tensor) -> Tensor:
    """The place of a number among all of double precision, that of zero being 0."""
    bits = x.contiguous().view(torch.int64)
    return torch.where(bits < 0, torch.iinfo(torch.int64).min - bits, bits)


def _number(order: Tensor) -> Tensor:
    """The number at a place."""
    return torch.where(order < 0, torch.iinfo(torch.int64).min - order, order).view(torch.float64)
