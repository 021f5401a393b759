"""The incomplete gamma and beta functions: torch.special has the first alone, without a derivative in its parameter."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_probmix.ops.values import can_be_read, differentiated

__all__ = ["betainc", "gammainc", "gammaincc"]

LARGE = 20.0  # from where on a tail is the integral of a smooth function over a short interval
NODES = 28
DROP = 37.0  # by how much the logarithm falls over that interval
NEWTON_STEPS = 3
MAX_STEPS = 10_000
FIXED_STEPS = 160  # where values cannot be looked at
CHUNK, LONGEST_CHUNK = 2**15, 32  # how many terms are made together: so many numbers, and steps at most
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def gammainc(a: Tensor, x: Tensor) -> Tensor:
    r"""The regularised lower incomplete gamma function :math:`P(a, x)`, differentiable in both arguments.

    Below a = 20 by its series and its continued fraction (DLMF 8.7.1, 8.9.2) or, without a derivative in a, by
    PyTorch; above, where PyTorch 2.13 is off by up to 4e-10, by quadrature of the density of log t, which is smooth.

    Args:
        a: positive, in double precision, as x is.
        x: non-negative.
    """
    return _gamma(a, x, upper=False)


def gammaincc(a: Tensor, x: Tensor) -> Tensor:
    """The regularised upper incomplete gamma function, 1 − P(a, x), as :func:`gammainc`."""
    return _gamma(a, x, upper=True)


def _gamma(a: Tensor, x: Tensor, upper: bool) -> Tensor:
    a, x = torch.broadcast_tensors(a, x)
    above, end = x == math.inf, (x <= 0) | (x == math.inf)
    x = torch.where(end, 1.0, x)
    functions = functools.partial(_small_gamma, upper), functools.partial(_large_gamma, upper)
    share = _by_size(a < LARGE, *functions, (a, x), ((1.0, 1.0), (LARGE, LARGE)))
    return torch.where(end, torch.where(above == upper, 0.0, 1.0), share)


def betainc(a: Tensor, b: Tensor, x: Tensor, rest: Tensor) -> Tensor:
    r"""The regularised incomplete beta function :math:`I_x(a, b)`, differentiable in all of its arguments.

    By its continued fraction (DLMF 8.17.22) where a or b is below 20, else by quadrature of the density of
    log t/(1 − t), which is smooth.

    Args:
        a: positive, in double precision, as the others are.
        b: positive.
        x: from 0 to 1.
        rest: 1 − x, of which x alone may know too few digits.
    """
    a, b, x, rest = torch.broadcast_tensors(a, b, x, rest)
    swap = x * (b + 1) > rest * (a + 1)
    a, b = torch.where(swap, b, a), torch.where(swap, a, b)
    x, rest = torch.where(swap, rest, x), torch.where(swap, x, rest)
    empty = x <= 0
    x, rest = x.masked_fill(empty, 0.5), rest.masked_fill(empty, 0.5)
    small = torch.minimum(a, b) < LARGE
    fills = (1.0, 1.0, 0.25, 0.75), (LARGE, LARGE, 0.5, 0.5)
    share = _by_size(small, _small_beta, _large_beta, (a, b, x, rest), fills).masked_fill(empty, 0)
    return torch.where(swap, 1 - share, share)


def _by_size(
    small: Tensor,
    first: Callable[..., Tensor],
    second: Callable[..., Tensor],
    arguments: Sequence[Tensor],
    fills: tuple[Sequence[float], Sequence[float]],
) -> Tensor:
    """The first function where arguments are small, the second elsewhere; each of its fills where it does not count."""
    if can_be_read(small):
        if bool(small.all()):
            return first(*arguments)
        if not bool(small.any()):
            return second(*arguments)
    ours = [t.masked_fill(~small, fill) for t, fill in zip(arguments, fills[0], strict=True)]
    theirs = [t.masked_fill(small, fill) for t, fill in zip(arguments, fills[1], strict=True)]
    return torch.where(small, first(*ours), second(*theirs))


def _small_gamma(upper: bool, a: Tensor, x: Tensor) -> Tensor:
    if not differentiated(a):
        return torch.special.gammaincc(a, x) if upper else torch.special.gammainc(a, x)
    high = x > a + 1
    low_x, high_x = torch.where(high, 0.5, x), torch.where(high, x, a.detach() + 2)

    def series(k: int, term: Tensor) -> Tensor:
        return term * low_x / (a + k)

    below = _summed(series, torch.ones_like(x)) * (a * low_x.log() - low_x - (a + 1).lgamma()).exp()
    fraction = _fraction(high_x + 1 - a, lambda k: (k * (a - k), high_x + 1 - a + 2 * k))
    above = (a * high_x.log() - high_x - a.lgamma()).exp() / fraction
    tail = torch.where(high, above, below)
    return torch.where(high == upper, tail, 1 - tail)


def _large_gamma(upper: bool, a: Tensor, x: Tensor) -> Tensor:
    s = (x / a).log()
    high = s > 0
    direction = torch.where(high, 1.0, -1.0).to(s.dtype)

    def fall(s: Tensor) -> Tensor:
        return a * (torch.expm1(s) - s)

    def slope(s: Tensor) -> Tensor:
        return a * torch.expm1(s)

    # Upwards it falls faster than the parabola.
    longest = torch.where(high, (2 * DROP / x).sqrt(), _longest(a))
    tail = (a / (2 * math.pi)).sqrt() * (-_stirling(a)).exp() * _tail(s, direction, fall, slope, longest)
    return torch.where(high == upper, tail, 1 - tail)


def _small_beta(a: Tensor, b: Tensor, x: Tensor, rest: Tensor) -> Tensor:
    def terms(k: Tensor) -> tuple[Tensor, Tensor]:
        m = (k / 2).floor()
        odd = -(a + m) * (a + b + m) / ((a + 2 * m) * (a + 2 * m + 1))
        even = m * (b - m) / ((a + 2 * m - 1) * (a + 2 * m))
        numerator = torch.where(k % 2 == 1, odd, even) * x
        return numerator, torch.ones_like(numerator)

    near = x > 0.5
    log_x = torch.where(near, torch.log1p(-rest), x.log())
    log_rest = torch.where(near, rest.log(), torch.log1p(-x))
    return (a * log_x + b * log_rest - _log_beta(a, b) - a.log()).exp() / _fraction(torch.ones_like(x), terms)


def _large_beta(a: Tensor, b: Tensor, x: Tensor, rest: Tensor) -> Tensor:
    total = a + b
    share = a / total
    s = (x / rest * (b / a)).log()  # below zero

    def fall(s: Tensor) -> Tensor:
        return total * torch.log1p(share * torch.expm1(s)) - a * s

    def slope(s: Tensor) -> Tensor:
        moved = share * torch.expm1(s)
        return a * (s.exp() / (1 + moved) - 1)

    front = (share * b / (2 * math.pi)).sqrt() * (_stirling(total) - _stirling(a) - _stirling(b)).exp()
    return front * _tail(s, -torch.ones_like(s), fall, slope, _longest(share * b))


def _longest(curvature: Tensor) -> Tensor:
    """The w at which curvature · w²/(2 + w), less than what falls by 1 a step at last, has come to DROP."""
    ratio = DROP / curvature
    return 0.5 * (ratio + (ratio.square() + 8 * ratio).sqrt())


def _tail(
    s: Tensor, direction: Tensor, fall: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor], longest: Tensor
) -> Tensor:
    """The integral of exp(−fall), a convex function, from s on in that direction, to where it has fallen by DROP.

    By Gauss's rule; ``slope`` is the derivative of ``fall``.
    """
    with torch.no_grad():
        start, steepness = fall(s), slope(s) * direction
        width = torch.where(steepness * longest > DROP, DROP / steepness, longest)
        for _ in range(NEWTON_STEPS):  # from above, as the function is convex
            end = s + direction * width
            width = width - (fall(end) - start - DROP).clamp(min=0) / (slope(end) * direction)
        step = direction * width
    total = torch.zeros_like(s)
    for node, weight in _gauss_rule():
        total = total + weight * (-fall(s + step * node)).exp()
    return total * width


@functools.cache
def _gauss_rule() -> list[tuple[float, float]]:
    """Nodes and weights of Gauss's rule on [0, 1], by the eigenvalues of its Jacobi matrix."""
    k = torch.arange(1, NODES, dtype=torch.float64, device="cpu")
    beside = k / (4 * k.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(beside.diag(1) + beside.diag(-1))
    return list(zip((0.5 * (1 + nodes)).tolist(), vectors[0].square().tolist(), strict=True))


def _stirling(a: Tensor) -> Tensor:
    """log Γ(a) − (a − ½) log a + a − ½ log 2π, for a ≥ 10."""
    inverse = 1 / a
    square = inverse.square()
    total = torch.zeros_like(a)
    for coefficient in reversed(STIRLING):
        total = total * square + coefficient
    return total * inverse


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    """log B(a, b), in which nothing cancels where one is large."""
    less, more = torch.minimum(a, b), torch.maximum(a, b)
    large = more >= 0.5 * LARGE
    small_more, large_more = more.masked_fill(large, 1), more.masked_fill(~large, LARGE)
    total = less + large_more
    growth = (large_more - 0.5) * torch.log1p(less / large_more) + less * (total.log() - 1)
    growth = growth + _stirling(total) - _stirling(large_more)
    difference = torch.where(large, growth, (less + small_more).lgamma() - small_more.lgamma())
    return less.lgamma() - difference


def _summed(following: Callable[[int, Tensor], Tensor], term: Tensor) -> Tensor:
    """The sum of a term and of those that follow, to where it does not change."""
    looks, total = can_be_read(term), term
    for k in range(1, MAX_STEPS if looks else FIXED_STEPS):
        term = following(k, term)
        total = total + term
        if looks and not bool((term > 0.1 * torch.finfo(term.dtype).eps * total).any()):
            break
    return total


def _fraction(first: Tensor, terms: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """b₀ + a₁/(b₁ + a₂/(b₂ + …)), to where it does not change, by Lentz's method.

    ``terms`` gives aₖ and bₖ for many k, which are along the first dimension.
    """
    looks = can_be_read(first)
    size = min(max(CHUNK // max(first.numel(), 1), 1), LONGEST_CHUNK) if looks else LONGEST_CHUNK
    value, ahead, back = first, first, torch.zeros_like(first)
    for start in range(1, MAX_STEPS if looks else FIXED_STEPS, size):
        k = torch.arange(start, start + size, dtype=first.dtype, device=first.device)
        for numerator, denominator in zip(*terms(k.reshape((-1,) + (1,) * first.dim())), strict=True):
            back = torch.addcmul(denominator, numerator, back).reciprocal()
            ahead = torch.addcdiv(denominator, numerator, ahead)
            factor = ahead * back
            value = value * factor
        if looks and not bool(((factor - 1).abs() > 4 * torch.finfo(value.dtype).eps).any()):
            break
    return value
