"""Roots of increasing functions within brackets, of a whole batch at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["increasing_root", "least_integer"]

MAX_STEPS = 140  # twice as many as halve all numbers of double precision to one


def increasing_root(
    share: Callable[[Tensor], Tensor], wanted: Tensor, low: Tensor, high: Tensor, looks: bool, jumps: bool = False
) -> Tensor:
    """The least x between ``low`` and ``high`` at which an increasing function reaches ``wanted``, to rounding.

    Chandrupatla's method, which takes the inverse quadratic through three points where it may, else halves: what is
    between the ends and what is between them in the order of floating-point numbers, in turn. So an end may be
    infinite, and no root is too near to zero.

    Args:
        share: the function, of a tensor in double precision of the shape of ``wanted``; non-negative.
        wanted: a positive number each.
        low: where the function is not above ``wanted``; of the same shape, in double precision.
        high: where it is not below.
        looks: whether values may be looked at, to end when all are found.
        jumps: whether the function has jumps, at which the result is to be exact.
    """
    eps = 0.0 if jumps else torch.finfo(wanted.dtype).eps
    left, right = low, high
    x1, f1, x2, f2 = low, share(low) - wanted, high, share(high) - wanted
    at_low, at_high = f1 >= 0, f2 <= 0
    x3, f3 = x2, f2
    found = torch.where(at_low, low, high)
    done = at_low | at_high
    t = torch.full_like(wanted, 0.5)
    halves = torch.ones_like(done)
    for step in range(MAX_STEPS):
        if looks and bool(done.all()):
            break
        x = torch.where(halves, _middle(left, right, step % 2 == 1), x1 + t * (x2 - x1))
        f = share(x) - wanted
        below = f < 0
        left, right = torch.where(below, x, left), torch.where(below, right, x)
        same = below == (f1 < 0)
        x3, f3 = torch.where(same, x1, x2), torch.where(same, f1, f2)
        x2, f2 = torch.where(same, x2, x1), torch.where(same, f2, f1)
        x1, f1 = x, f
        best = right if jumps else torch.where(f1.abs() < f2.abs(), x1, x2)
        near = torch.minimum(f1.abs(), f2.abs()) <= eps * wanted
        width = right - left
        tolerance = torch.where(best.isfinite(), 2 * eps * best.abs(), 0) + torch.finfo(wanted.dtype).tiny
        found = torch.where(done, found, best)
        done = done | (near & (eps > 0)) | (width <= tolerance) | (_middle(left, right, True) == left)
        limit = 0.5 * tolerance / width
        xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
        quadratic = (phi.square() < xi) & ((1 - phi).square() < 1 - xi)
        t = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
        halves = ~(quadratic & t.isfinite())
        t = torch.where(halves, 0.5, t).clamp(limit.clamp(max=0.5), 1 - limit.clamp(max=0.5))
    if jumps:
        return found
    return _first_of_flat(share, wanted, found, torch.where(at_low, low, left), looks)


def _first_of_flat(
    share: Callable[[Tensor], Tensor], wanted: Tensor, found: Tensor, left: Tensor, looks: bool
) -> Tensor:
    """The least x at which the function is as ``found``, where it is the same for a while before."""
    if not looks:
        return found
    least = wanted * (1 - 2 * torch.finfo(wanted.dtype).eps)
    before = found - 1e-3 * torch.where(left.isfinite(), found - left, found.abs().clamp(min=1))
    flat = (before < found) & (share(before) >= least) & found.isfinite()
    if not bool(flat.any()):
        return found
    right = torch.where(flat, before, found)
    left = torch.where(flat, left, found)
    for step in range(MAX_STEPS):
        x = _middle(left, right, step % 2 == 1)
        if bool(((right - left <= 1e-15 * right.abs()) | (x == left) | (x == right)).all()):
            break
        reaches = share(x) >= least
        left, right = torch.where(reaches, left, x), torch.where(reaches, x, right)
    return torch.where(flat, right, found)


def least_integer(reaches: Callable[[Tensor], Tensor], below: Tensor, high: Tensor, looks: bool) -> Tensor:
    """The least integer above ``below`` and not above ``high`` for which ``reaches`` is true, ``high`` if for no less.

    Args:
        reaches: from integers, in double precision, whether each is large enough.
        below: integers that are not, or −∞.
        high: integers that are, or ∞.
        looks: whether values may be looked at, to end when all are found.
    """
    for _ in range(MAX_STEPS):
        # By the order of floating-point numbers where the ends are of other magnitudes.
        size = torch.minimum(below.abs(), high.abs())
        far = ~(high - below <= 8 * size + 64)
        middle = torch.where(far, _middle(below, high, True), 0.5 * (below + high)).floor()
        middle = torch.where(middle <= below, below + 1, middle)
        done = ~(middle < high)
        if looks and bool(done.all()):
            break
        enough = reaches(torch.where(done, high, middle)) | done
        high = torch.where(enough & ~done, middle, high)
        below = torch.where(enough, below, middle)
    return high


def _middle(a: Tensor, b: Tensor, of_floats: bool) -> Tensor:
    """What is halfway between two numbers: on the line or, where that is infinite too, in the order of floats."""
    mean = 0.5 * a + 0.5 * b
    by_order = _float(_half(_order(a), _order(b)))
    return by_order if of_floats else torch.where(mean.isfinite(), mean, by_order)


def _half(i: Tensor, j: Tensor) -> Tensor:
    return (i >> 1) + (j >> 1) + (i & j & 1)


def _order(x: Tensor) -> Tensor:
    """The place of a number among all numbers of double precision, that of zero being 0."""
    bits = x.contiguous().view(torch.int64)
    return torch.where(bits < 0, torch.iinfo(torch.int64).min - bits, bits)


def _float(order: Tensor) -> Tensor:
    return torch.where(order < 0, torch.iinfo(torch.int64).min - order, order).view(torch.float64)
