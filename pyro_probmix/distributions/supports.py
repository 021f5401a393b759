"""What a support is: discrete, classes, circular, its bounds, inside another, a value in it."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints as pyro_constraints
from torch import Tensor
from torch.distributions import Distribution, constraints, transform_to

from pyro_probmix._checks import name_rows
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.ops.values import at_hand, equal_values

__all__ = [
    "CIRCULAR",
    "bounds",
    "check_support",
    "elementwise",
    "is_binary",
    "is_circular",
    "is_convex",
    "is_counts",
    "is_inside",
    "is_one_hot",
    "is_real",
    "num_classes",
    "same_constraint",
    "some_value",
]

CIRCULAR = (torch.distributions.VonMises, dist.SineBivariateVonMises)
"""Families over angles."""


def elementwise(support: Any) -> Any:
    """The constraint of one entry, where entries are independent, or of a component, where it is a mixture's.

    Example:
        >>> elementwise(constraints.independent(constraints.positive, 1))
        GreaterThan(lower_bound=0.0)
    """
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _alike(support: Any, constraint: Any) -> bool:
    """Whether a support is this constraint, which has no bounds, or a copy of it, as of a copied module."""
    return type(support) is type(constraint)


def is_real(support: Any) -> bool:
    """Whether an entry is any number."""
    return _alike(elementwise(support), constraints.real)


def is_binary(support: Any) -> bool:
    """Whether values are 0 and 1."""
    return _alike(elementwise(support), constraints.boolean)


def is_one_hot(support: Any) -> bool:
    """Whether values are classes, as unit vectors."""
    return _alike(elementwise(support), constraints.one_hot)


def is_counts(support: Any) -> bool:
    """Whether values are vectors of counts that share a total."""
    return isinstance(elementwise(support), type(constraints.multinomial(1)))


def num_classes(p: Any) -> int | None:
    """The number of classes, where values of ``p``, by its ``support``, are classes; 2 of what is 0 or 1.

    Example:
        >>> num_classes(dist.Categorical(torch.ones(3))), num_classes(dist.Poisson(1.0))
        (3, None)
    """
    if is_binary(p.support):
        return 2
    if is_one_hot(p.support):
        return int(p.event_shape[-1])
    support = elementwise(p.support)
    last = getattr(support, "upper_bound", None)  # a tensor where they are counts of trials
    return last + 1 if isinstance(support, constraints.integer_interval) and isinstance(last, int) else None


def bounds(support: Any) -> tuple[Any, Any] | None:
    """The least and the largest value of an entry, infinite where there is none; None of what is no interval.

    Example:
        >>> bounds(constraints.positive), bounds(constraints.boolean), bounds(constraints.simplex)
        ((0.0, inf), (0, 1), None)
    """
    support = elementwise(support)
    if _alike(support, constraints.boolean):
        return 0, 1
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    whole = is_real(support) or _alike(support, pyro_constraints.integer)
    if is_counts(support) or (low is None and high is None and not whole):
        return None
    return -math.inf if low is None else low, math.inf if high is None else high


def is_circular(p: Any) -> bool:
    """Whether values of ``p`` are angles, wrapped and mixed distributions included."""
    if isinstance(p, torch.distributions.MixtureSameFamily):
        return is_circular(p.component_distribution)
    if hasattr(p, "components"):
        return is_circular(p.components if isinstance(p.components, Distribution) else p.components[0])
    return is_circular(p.base_dist) if hasattr(p, "base_dist") else isinstance(p, CIRCULAR)


def is_convex(p: Any) -> bool:
    """Whether what lies between two values is a value, and near both: not so on a circle, whose angles are numbers."""
    curved = any(_alike(elementwise(p.support), c) for c in (constraints.corr_cholesky, pyro_constraints.sphere))
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


def is_inside(inner: Any, outer: Any) -> bool:
    """Whether values that satisfy ``inner`` satisfy ``outer``, as far as their kinds and bounds tell.

    The ends of an interval do not count, unless they are to have mass, as counts among numbers. Bounds that are
    tensors are compared where they can be read without waiting.

    Example:
        >>> is_inside(constraints.positive, constraints.real), is_inside(constraints.real, constraints.positive)
        (True, False)
    """
    if inner.event_dim != outer.event_dim:
        return False
    inner, outer = elementwise(inner), elementwise(outer)
    if is_real(outer) or same_constraint(inner, outer):
        return True
    ours, theirs = bounds(inner), bounds(outer)
    if ours is None or theirs is None or (outer.is_discrete and not inner.is_discrete):
        return False
    if inner.is_discrete and not outer.is_discrete:
        return _all(ours[0] > theirs[0]) and (theirs[1] is math.inf or _all(ours[1] < theirs[1]))
    return _all(ours[0] >= theirs[0]) and _all(ours[1] <= theirs[1])


def _all(condition: Any) -> bool:
    """Whether it holds, as far as it can be read without waiting."""
    return bool(condition.all()) if isinstance(condition, Tensor) and at_hand(condition) else condition is not False


def check_support(name: str, y: Tensor, support: Any) -> None:
    """Refuse values without a density, as far as a support tells them, whether or not arguments are validated."""
    try:
        legal = support.check(y)
    except (NotImplementedError, RuntimeError):  # the latter where the bounds of a mixture are its components'
        return
    if legal.shape == y.shape[: legal.dim()] and not bool(legal.all()):
        raise ValueError(f"{name}: expected values in {support}, got others in {name_rows(~legal.reshape(-1))}")


def some_value(p: Any) -> Tensor | None:
    """A value in the support of ``p``, one a member of the batch, found without drawing; None of an unknown support."""
    shape, reference, support = p.batch_shape + p.event_shape, reference_tensor([p]), p.support
    if support.is_discrete:
        value = reference.new_zeros(shape)
        if is_one_hot(support):
            value[..., 0] = 1
        elif is_counts(support):
            value[..., 0] = elementwise(support).upper_bound
        elif (ends := bounds(support)) is not None and (isinstance(ends[0], Tensor) or ends[0] > -math.inf):
            value = value + (ends[0].to(value) if isinstance(ends[0], Tensor) else ends[0])
        return value
    try:
        transform = transform_to(support)
    except NotImplementedError:
        try:
            transform = transform_to(elementwise(support))  # of a mixture
        except NotImplementedError:
            return None
    return transform(reference.new_full(transform.inverse_shape(shape), 0.5))
