"""What a support is: that of one value, discrete, circular, a value in it, inside another."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints as pyro_constraints
from torch import Tensor
from torch.distributions import Distribution, constraints, transform_to

from pyro_probmix.distributions.exponential_family import at_hand, equal_values
from pyro_probmix.distributions.held_tensors import reference_tensor

__all__ = ["CIRCULAR", "inside", "is_circular", "is_convex", "of_one", "same_constraint", "some_value"]

CIRCULAR = (dist.VonMises, dist.SineBivariateVonMises)
"""Families over angles."""


def of_one(support: Any) -> Any:
    """The constraint of one value, where the support is that of independent ones or of a mixture."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def is_circular(p: Any) -> bool:
    """Whether values of ``p`` are angles, wrapped and mixed distributions included."""
    if isinstance(p, torch.distributions.MixtureSameFamily):
        return is_circular(p.component_distribution)
    if hasattr(p, "components"):
        return is_circular(p.components if isinstance(p.components, Distribution) else p.components[0])
    return is_circular(p.base_dist) if hasattr(p, "base_dist") else isinstance(p, CIRCULAR)


def is_convex(p: Any) -> bool:
    """Whether what lies between two values is a value, and near both: not so on a circle, whose angles are numbers."""
    curved = of_one(p.support) in (constraints.corr_cholesky, pyro_constraints.sphere)
    return not (p.support.is_discrete or curved or is_circular(p))


def same_constraint(a: Any, b: Any, validate: bool = False) -> bool:
    """Whether two supports are the same, a boundary of no mass aside.

    Bounds that are tensors are compared where they can be read, which one waits for only where ``validate`` says so.
    """
    if a is b:
        return True
    half_lines = constraints.greater_than, constraints.greater_than_eq
    if type(a) is not type(b) and not (isinstance(a, half_lines) and isinstance(b, half_lines)):
        return False
    left, right = vars(a), vars(b)
    return left.keys() == right.keys() and all(_same_value(left[name], right[name], validate) for name in left)


def _same_value(a: Any, b: Any, validate: bool) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return equal_values(a, b, wait=validate) is not False
    return same_constraint(a, b, validate) if isinstance(a, constraints.Constraint) else bool(a == b)


def inside(inner: Any, outer: Any) -> bool:
    """Whether values that satisfy ``inner`` satisfy ``outer``, as far as their kinds and bounds tell.

    The ends of an interval do not count, unless they are to have mass, as counts among numbers. Bounds that are
    tensors are compared where they can be read without waiting.

    Example:
        >>> inside(constraints.positive, constraints.real), inside(constraints.real, constraints.positive)
        (True, False)
    """
    if inner.event_dim != outer.event_dim:
        return False
    inner, outer = of_one(inner), of_one(outer)
    if outer is constraints.real or same_constraint(inner, outer):
        return True
    ours, theirs = _bounds(inner), _bounds(outer)
    if ours is None or theirs is None or (outer.is_discrete and not inner.is_discrete):
        return False
    if inner.is_discrete and not outer.is_discrete:
        return _all(ours[0] > theirs[0]) and (theirs[1] is math.inf or _all(ours[1] < theirs[1]))
    return _all(ours[0] >= theirs[0]) and _all(ours[1] <= theirs[1])


def _bounds(support: Any) -> tuple[Any, Any] | None:
    """The least and the largest value; None of what is no interval, nor the whole numbers in one."""
    if support is constraints.boolean:
        return 0, 1
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if support is constraints.real:
        return -math.inf, math.inf
    if isinstance(support, type(constraints.multinomial(1))) or (low is None and high is None):
        return None
    return -math.inf if low is None else low, math.inf if high is None else high


def _all(condition: Any) -> bool:
    """Whether it holds, as far as it can be read without waiting."""
    return bool(condition.all()) if isinstance(condition, Tensor) and at_hand(condition) else condition is not False


def some_value(p: Any) -> Tensor | None:
    """A value in the support of ``p``, one a member of the batch, found without drawing; None of an unknown support."""
    shape, reference = p.batch_shape + p.event_shape, reference_tensor([p])
    support = of_one(p.support)
    if support.is_discrete:
        value = reference.new_zeros(shape)
        if support is constraints.one_hot:
            value[..., 0] = 1
        elif isinstance(support, type(constraints.multinomial(1))):
            value[..., 0] = support.upper_bound
        elif (bounds := _bounds(support)) is not None:
            low = bounds[0]
            if isinstance(low, Tensor):
                value = value + low.to(value)
            elif low != -math.inf:
                value = value + low
        return value
    try:
        transform = transform_to(p.support)
    except NotImplementedError:
        return None
    return transform(reference.new_full(transform.inverse_shape(shape), 0.5))
