"""Functions that several families share, each exact where the obvious formula over- or underflows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from pyro_probmix.ops.sums import sum_products

__all__ = [
    "cholesky",
    "expected_log_gamma",
    "inverse_factor",
    "log_determinant",
    "log_weighted_sum",
    "malmsten_integral",
    "times",
]


def log_weighted_sum(terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """log Σₖ wₖ exp(tₖ) for weights ≥ 0, exactly tₖ where wₖ is one, with the weights' exact gradient at 0.

    A term of weight zero is removed, however large; where it is too large for a finite gradient, that
    gradient is held finite.
    """
    with torch.no_grad():
        active = [torch.where(w > 0, t, -math.inf) for w, t in zip(weights, terms, strict=True)]
        peak = reduce(torch.maximum, active)
        bound = 0.25 * math.log(torch.finfo(peak.dtype).max)
    return peak + sum_products([(t - peak).clamp(max=bound).exp() for t in terms], weights).log()


def cholesky(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor, NaN where there is none: ``torch.linalg.cholesky`` has the host wait to hear of it."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return factor.masked_fill((info != 0)[..., None, None], math.nan)


def times(*factors: Tensor) -> Tensor:
    """The product of matrices and, as the last factor, a vector."""
    *matrices, vector = factors
    return reduce(lambda column, matrix: matrix @ column, reversed(matrices), vector.unsqueeze(-1)).squeeze(-1)


def inverse_factor(precision: Tensor) -> Tensor:
    """The lower Cholesky factor of the inverse, without inverting: flip, factor, flip back."""
    factor = cholesky(precision.flip(-2, -1)).flip(-2, -1).mT
    identity = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def log_determinant(scale_tril: Tensor) -> Tensor:
    """Of a triangular matrix."""
    return scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def expected_log_gamma(
    mean: Tensor, log_generating_function: Callable[[Tensor], Tensor], shift: Tensor | float
) -> Tensor:
    r"""E[log Γ(Y + shift)] of a count Y from its mean and its probability generating function.

    Malmstén's integral, exact to rounding at any mean and shifts that are not small. The last dimension of t, of which
    the logarithm of E[e^{-tY}] is a function, is the integral's.
    """
    wide = shift.unsqueeze(-1) if isinstance(shift, Tensor) else shift

    def change(t: Tensor) -> Tensor:
        log_ratio = log_generating_function(t) - (wide - 1) * t
        near = (-t).exp() * torch.expm1(log_ratio.clamp(max=1))
        return torch.where(log_ratio < 1, near, (log_ratio - t).exp() - (-t).exp())

    return malmsten_integral(mean + shift - 1, change)


def malmsten_integral(excess: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    r"""E[log Γ(Z)] of a positive Z by Malmstén's integral, over all of its mass or over some.

    .. math:: \log\Gamma(z) = \int_0^\infty \Big((z-1)e^{-t} - \frac{e^{-t}-e^{-zt}}{1-e^{-t}}\Big) \frac{dt}{t}

    by the trapezoidal rule in log t, which converges exponentially, from the excess E[Z − 1] and the change
    E[e^{−Zt}] − e^{−t} as a function of t, whose last dimension is the integral's.
    """
    dtype = torch.promote_types(excess.dtype, torch.float32)
    step = 0.2
    t = torch.arange(-80, 12, step, dtype=torch.float64, device=excess.device).exp().to(dtype)
    terms = (-t).exp() * excess.unsqueeze(-1) - change(t) / torch.expm1(-t)
    return (terms.sum(-1) * step).to(excess.dtype)
