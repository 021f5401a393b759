"""What is scored: labels as tensors, which of them are seen, and of what kind they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions import constraints as pyro_constraints
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from pyro_probmix._checks import check_finite, check_tensor
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.supports import (
    check_support,
    elementwise,
    is_binary,
    is_circular,
    is_one_hot,
    some_value,
)
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["as_labels", "check_classes", "check_numbers", "has_classes", "seen_labels", "unmasked"]


def as_labels(p: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Labels of ``p`` and which of them are seen.

    Args:
        p: a distribution.
        y: labels, of shape ``p.batch_shape + p.event_shape``, in a tensor or anything NumPy takes for an array.

    Returns:
        Labels, those that are masked being some value of the support, and what :func:`seen_labels` gives.

    Raises:
        TypeError: if ``p`` is no distribution, or ``y`` holds no numbers.
        ValueError: if the shapes do not match, no label is seen, or one that is seen is NaN, infinite, or outside the
            support of ``p``.

    Example:
        >>> y, seen = as_labels(dist.Normal(torch.zeros(2), 1.0).mask(torch.tensor([True, False])), [1, float("nan")])
        >>> seen, y
        (tensor([ True, False]), tensor([1.0000, 0.5000], dtype=torch.float64))
    """
    if not isinstance(p, Distribution):
        raise TypeError(f"p: expected a distribution, got {type(p).__name__}")
    if not isinstance(y, Tensor):
        y = _as_tensor(y, p)
    check_tensor("y", y, p.batch_shape + p.event_shape)
    seen = seen_labels(p)
    if y.numel() == 0:
        raise ValueError("y: expected at least one label, got none")
    if not bool(seen.any()):
        raise ValueError("y: expected at least one label, got none that p does not mask")
    y = y.detach()
    if is_binary(p.support) and not y.is_floating_point():
        y = y.to(p.mean.dtype)  # PyTorch's Bernoulli takes no integers
    if not bool(seen.all()):
        y = _filled(unmasked(p), y, seen)
    check_finite("y", y)
    check_support("y", y, p.support)
    return y, seen


def _as_tensor(y: Any, p: Any) -> Tensor:
    try:
        array = np.asarray(y)
    except (TypeError, ValueError) as error:  # lists of unequal lengths
        raise TypeError(f"y: expected a tensor or an array of numbers, got {type(y).__name__} ({error})") from error
    if array.dtype.kind not in "biuf":
        hint = "; a class is its position, in an estimator's classes_" if array.dtype.kind in "OSTU" else ""
        raise TypeError(f"y: expected a tensor or an array of numbers, got {type(y).__name__} of {array.dtype}{hint}")
    return torch.as_tensor(np.require(array, requirements=["C", "W"]), device=reference_tensor([p]).device)


def _filled(p: Any, y: Tensor, seen: Tensor) -> Tensor:
    """The labels with a legal value where none is seen."""
    seen = unsqueeze_right(seen, y.dim() - seen.dim()).to(y.device)
    legal = some_value(p)
    if legal is None:
        first = seen.flatten().to(torch.uint8).argmax()
        legal = y.flatten(0, seen.dim() - 1)[first] if seen.dim() else y
    return torch.where(seen, y, legal.to(y))


def seen_labels(p: Any) -> Tensor:
    """Which labels the masks of ``p`` let through, on the CPU.

    Returns:
        A boolean tensor of ``p.batch_shape``, or of one with the first dimensions of ``p.event_shape`` after it where
        single outputs are masked.

    Example:
        >>> rows = dist.Normal(torch.zeros(1, 2), 1.0).mask(torch.tensor([True, False])).to_event(1)
        >>> seen_labels(rows)
        tensor([[ True, False]])
    """
    if isinstance(p, MaskedDistribution):
        seen, mask = seen_labels(p.base_dist), torch.as_tensor(p._mask, device="cpu").expand(p.batch_shape)
        return seen & unsqueeze_right(mask, seen.dim() - mask.dim())
    if isinstance(p, (Independent, ExpandedDistribution)) and _is_masked(p):
        seen = seen_labels(p.base_dist)
        rest = seen.shape[len(p.base_dist.batch_shape) :]
        shape = p.batch_shape if isinstance(p, ExpandedDistribution) else p.base_dist.batch_shape
        return seen.expand(shape + rest)
    return torch.ones(p.batch_shape, dtype=torch.bool, device="cpu")


def _is_masked(p: Any) -> bool:
    while isinstance(p, (Independent, ExpandedDistribution)):
        p = p.base_dist
    return isinstance(p, MaskedDistribution)


def unmasked(p: Any) -> Any:
    """``p`` without masks of whole rows and single outputs."""
    if isinstance(p, MaskedDistribution):
        return unmasked(p.base_dist)
    if isinstance(p, Independent) and _is_masked(p):
        return Independent(unmasked(p.base_dist), p.reinterpreted_batch_ndims, validate_args=False)
    if isinstance(p, ExpandedDistribution) and _is_masked(p):
        return ExpandedDistribution(unmasked(p.base_dist), p.batch_shape)
    return p


def has_classes(p: Any) -> bool:
    """Whether y is a class label, or several: of the distributions over 0..C-1, those of class labels have no mean."""
    if isinstance(elementwise(p.support), constraints.integer_interval):
        return bool(p.mean.isnan().all())
    return is_binary(p.support) or is_one_hot(p.support)


def check_numbers(p: Any) -> None:
    """Refuse a law of class labels, angles or directions, between which there is no distance along a line."""
    circular = is_circular(p) or elementwise(p.support) is pyro_constraints.sphere
    if circular or has_classes(p):
        kind = "angles or directions" if circular else "classes"
        raise TypeError(f"p: expected a distribution of numbers, got {type(p).__name__} over {kind}")


def check_classes(p: Any) -> None:
    """Refuse a law of what is no class label."""
    if not has_classes(p):
        raise TypeError(f"p: expected a distribution over classes, got {type(p).__name__}")
