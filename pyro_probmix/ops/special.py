"""Functions that torch.special lacks, exact where the obvious formula over- or underflows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

__all__ = ["EULER", "LOG_2PI", "inverse_softplus", "log1mexp", "log_sinhc", "sinhc_curvature", "sinhc_slope"]

EULER = 0.5772156649015329
LOG_2PI = math.log(2 * math.pi)


def inverse_softplus(x: Tensor) -> Tensor:
    """log(eˣ − 1) for x ≥ 0, of which x is the softplus."""
    zero = x == 0
    x = x.masked_fill(zero, 1)
    return (x + log1mexp(x)).masked_fill(zero, -math.inf)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 − e⁻ˣ) for x > 0."""
    small = x < math.log(2)
    low, high = x.masked_fill(~small, 1), x.masked_fill(small, 1)
    return torch.where(small, (-torch.expm1(-low)).log(), (-(-high).exp()).log1p())


# Taylor coefficients of log(sinh(x)/x) in x².
_LOG_SINHC = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250, 2 / 127702575)
_NEAR_ZERO = 0.1


def _series(low: Tensor, factor: Callable[[int], int] = lambda k: 1) -> Tensor:
    """Σₖ factor(k) cₖ lowᵏ⁻¹, with these coefficients."""
    terms = [factor(k) * c for k, c in enumerate(_LOG_SINHC, 1)]
    return reduce(lambda total, term: total * low + term, reversed(terms), torch.zeros_like(low))


def log_sinhc(square: Tensor) -> Tensor:
    """log(sinh(x)/x) as a function of x², smooth at zero."""
    near = square < _NEAR_ZERO
    low, x = square.masked_fill(~near, 0), square.masked_fill(near, 1).sqrt()
    return torch.where(near, _series(low) * low, x + log1mexp(2 * x) - (2 * x).log())


def sinhc_slope(square: Tensor) -> Tensor:
    """(coth x − 1/x)/x as a function of x²: twice the derivative of :func:`log_sinhc`."""
    near = square < _NEAR_ZERO
    low, x = square.masked_fill(~near, 0), square.masked_fill(near, 1).sqrt()
    return torch.where(near, 2 * _series(low, lambda k: k), (x.tanh().reciprocal() - x.reciprocal()) / x)


def sinhc_curvature(square: Tensor) -> Tensor:
    """1/x² − 1/sinh² x as a function of x²: the second derivative of log(sinh(x)/x) by x."""
    near = square < _NEAR_ZERO
    low, square = square.masked_fill(~near, 0), square.masked_fill(near, 1)
    decay = -2 * square.sqrt()
    far = square.reciprocal() - 4 * decay.exp() / torch.expm1(decay).square()
    return torch.where(near, _series(low, lambda k: 2 * k * (2 * k - 1)), far)
