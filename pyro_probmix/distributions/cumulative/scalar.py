"""The distribution function and the quantiles of any scalar distribution, in its own precision."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.cumulative import _continuous, _steps
from pyro_probmix.distributions.cumulative._made_of_others import law
from pyro_probmix.distributions.cumulative.law import Law
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.landmarks import in_double
from pyro_probmix.distributions.mixtures import mixture_of
from pyro_probmix.distributions.supports import is_circular
from pyro_probmix.ops.devices import double
from pyro_probmix.ops.roots import within_rounding

__all__ = ["check_ordered", "law_of", "scalar_cdf", "scalar_icdf"]

CLASSES = torch.distributions.Categorical, torch.distributions.OneHotCategorical

_ROWS = _continuous, _steps  # which register what they know


def check_ordered(p: Any) -> None:
    """Refuse what is no distribution of numbers in an order: other things, classes, angles."""
    if not isinstance(p, Distribution):
        raise TypeError(f"p: expected a torch or Pyro distribution, got {type(p).__name__}")
    if _any_leaf(p, CLASSES) and not _any_leaf(p, dist.OrderedLogistic):
        raise TypeError(
            f"p: expected a distribution of numbers, got {type(p).__name__} over classes, which have no order and so "
            "no cdf and no quantiles; their probabilities are pm.distributions.class_probabilities(p)"
        )
    if is_circular(p):
        raise TypeError(
            f"p: expected a distribution of numbers, got {type(p).__name__} over angles, where no value is the first, "
            "and so there is no cdf and there are no quantiles"
        )


def _any_leaf(p: Any, types: Any) -> bool:
    """Whether ``p``, or what it is made of, is of one of these types."""
    if isinstance(p, types):
        return True
    mixture = mixture_of(p)
    parts = mixture.members if mixture is not None else [getattr(p, name, None) for name in ("fused", "base_dist")]
    return any(_any_leaf(part, types) for part in parts if isinstance(part, Distribution))


def law_of(p: Any) -> Law:
    """The shares of a distribution of event shape (), in double precision; a mask does not count.

    Raises:
        TypeError: as :func:`check_ordered`, or if its shares are not known.
        ValueError: if it is of vectors, or quadrature does not find its mass.
    """
    check_ordered(p)
    if p.event_shape:
        raise ValueError(
            f"p: expected a distribution of scalars, event shape (), got {tuple(p.event_shape)}; "
            "pm.distributions.marginals(p) are those of the entries"
        )
    return law(in_double(corrected(resolved(p))))


def scalar_cdf(p: Any, y: Tensor) -> Tensor:
    """F(y) of a distribution of event shape (): 0 before its support and 1 behind it.

    Args:
        p: of batch shape ``(...)``.
        y: broadcasts with the batch shape.

    Returns:
        A tensor of what the two shapes broadcast to, in the dtype of ``p``.

    Raises:
        TypeError: as :func:`law_of`.
        ValueError: as :func:`law_of`.
    """
    reference = reference_tensor([p])
    shape = torch.broadcast_shapes(y.shape, p.batch_shape)
    if shape.numel() == 0:
        return reference.new_empty(shape)
    return law_of(p).cdf(double(y)).to(reference).expand(shape)


def scalar_icdf(p: Any, q: Tensor) -> Tensor:
    """The least value whose F reaches q, of a distribution of event shape ().

    Args:
        p: of batch shape ``(...)``.
        q: from 0 to 1, broadcasts with the batch shape.

    Returns:
        A tensor of what the two shapes broadcast to, in the dtype of ``p``; at 0 and 1 the ends of the support.

    Raises:
        TypeError: as :func:`law_of`.
        ValueError: as :func:`law_of`.
    """
    reference = reference_tensor([p])
    shape = torch.broadcast_shapes(q.shape, p.batch_shape)
    if shape.numel() == 0:
        return reference.new_empty(shape)
    q = q if q.is_floating_point() else q.to(reference.dtype)
    found, shares = law_of(p), double(q)
    if found.integers:
        shares = within_rounding(shares, reference.dtype, q.dtype)
    return found.icdf(shares).to(reference).expand(shape)
