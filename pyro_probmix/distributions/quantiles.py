"""Distribution functions, quantiles and intervals of any distribution, entry by entry."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from pyro_probmix.distributions.cumulative.scalar import check_ordered, scalar_cdf, scalar_icdf
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.marginals import marginals
from pyro_probmix.ops.values import can_be_read

__all__ = ["as_shares", "cdf", "median", "ordered_marginals", "quantile"]


def ordered_marginals(p: Any) -> Any:
    """The :func:`~pyro_probmix.distributions.marginals` of ``p``, whose values are numbers in an order."""
    check_ordered(p)
    return marginals(p)


def cdf(p: Any, y: Any) -> Tensor:
    r"""The distribution function :math:`F(y) = P(Y \le y)` of each entry of any distribution.

    Exact where PyTorch has the special function that it takes, else by quadrature or summation in double precision
    to 1e-10. Values outside of the support are below it, 0, or above it, 1.

    Args:
        p: a distribution, of batch shape ``(...)``; of vectors, one whose
            :func:`~pyro_probmix.distributions.marginals` are known. Masks do not count.
        y: a number, or a tensor, an array or a list of numbers that broadcasts with ``batch_shape + event_shape``.

    Returns:
        Shares from 0 to 1, in the dtype of ``p``; differentiable in the parameters of ``p`` and, of a density, in y.
        NaN where y is.

    Raises:
        TypeError: if p is no distribution, is one over classes or angles, or its marginals are not known.
        ValueError: if the shapes do not broadcast.

    Example:
        >>> cdf(dist.StudentT(3.0, 0.0, 1.0), 1.0), cdf(dist.Poisson(2.0), 1.0)
        (tensor(0.8045), tensor(0.4060))
    """
    each = ordered_marginals(p)
    y = _as_tensor("y", y, each)
    try:
        torch.broadcast_shapes(y.shape, each.batch_shape)
    except RuntimeError:
        raise ValueError(
            f"y: expected a shape that broadcasts with {tuple(each.batch_shape)}, got {tuple(y.shape)}"
        ) from None
    return scalar_cdf(each, y)


def quantile(p: Any, q: Any) -> Tensor:
    r"""Quantiles of each entry of any distribution: the least value y with :math:`F(y) \ge q`.

    Exact where there is a formula, else by bracketed root search in double precision. Of counts it is an integer.

    Args:
        p: as for :func:`cdf`.
        q: a number, or a tensor, an array or a list of numbers, of any shape, from 0 to 1.

    Returns:
        Values of shape ``q.shape + batch_shape + event_shape``, in the dtype of ``p``; at 0 and 1 the ends of the
        support. Of densities they are differentiable in q and in the parameters of ``p``.

    Raises:
        TypeError: as :func:`cdf`, or if q is no numbers.
        ValueError: if an entry of q is outside of [0, 1], or NaN.

    Example:
        >>> p = pm.LinearPool([dist.Normal(0.0, 1.0), dist.Normal(4.0, 1.0)])
        >>> quantile(p, [0.05, 0.5, 0.95])
        tensor([-1.2816,  2.0000,  5.2816])
        >>> quantile(dist.Poisson(torch.tensor([1.0, 10.0])), 0.9)
        tensor([ 2., 14.])
    """
    each = ordered_marginals(p)
    q = as_shares("q", q, each)
    return scalar_icdf(each, q.reshape(q.shape + (1,) * len(each.batch_shape)))


def median(p: Any) -> Tensor:
    """The median of each entry of any distribution: its :func:`quantile` at 1/2.

    Args:
        p: as for :func:`cdf`.

    Returns:
        Values of shape ``batch_shape + event_shape``.

    Raises:
        TypeError: as :func:`cdf`.

    Example:
        >>> median(dist.Gamma(2.0, 1.0))
        tensor(1.6783)
    """
    return quantile(p, 0.5)


def as_shares(name: str, value: Any, p: Any, inside: bool = False) -> Tensor:
    """Shares from 0 to 1 as a tensor on the device of ``p``, the ends excluded if ``inside``."""
    shares = _as_tensor(name, value, p)
    good = (shares > 0) & (shares < 1) if inside else (shares >= 0) & (shares <= 1)
    if can_be_read(good) and not bool(good.all()):
        bad = shares.detach()[~good].flatten()[0].item()
        raise ValueError(f"{name}: expected shares in {'(0, 1)' if inside else '[0, 1]'}, got {bad:g}")
    return shares


def _as_tensor(name: str, value: Any, p: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else value.double()
    device = reference_tensor([p]).device
    if isinstance(value, Real) and not isinstance(value, bool):
        return torch.full((), float(value), dtype=torch.float64, device=device)
    try:
        if isinstance(value, bool | str):
            raise TypeError
        return torch.as_tensor(value, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{name}: expected a number, or numbers as a tensor, an array or a list, got {value!r}"
        ) from None
