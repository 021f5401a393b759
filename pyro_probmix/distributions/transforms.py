"""Bijections that vary over a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
from pyro.distributions.transforms import LowerCholeskyAffine, Permute
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution, transforms
from torch.distributions.transforms import _InverseTransform

from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.held_tensors import held_tensors

AFFINE = transforms.AffineTransform, transforms.ReshapeTransform, LowerCholeskyAffine, Permute

__all__ = ["elementwise_transforms", "independent_entries", "is_affine", "map_transforms"]

# Transforms that broadcast these attributes with the value.
BROADCAST = {
    transforms.AffineTransform: ("loc", "scale"),
    transforms.CumulativeDistributionTransform: ("distribution",),
    transforms.PowerTransform: ("exponent",),
}


def is_affine(transform: Any) -> bool:
    """Whether the Jacobian of a transform is constant, as far as is known."""
    while isinstance(transform, transforms.IndependentTransform):
        transform = transform.base_transform
    if isinstance(transform, transforms.ComposeTransform):
        return all(map(is_affine, transform.parts))
    return isinstance(transform, AFFINE) or isinstance(transform.inv, AFFINE)


def independent_entries(p: Any) -> tuple[Any, int] | None:
    """The distribution of independent entries and how many of its last batch dimensions are the event's, if they are.

    Example:
        >>> independent_entries(dist.Normal(torch.zeros(2), 1.0).to_event(1))
        (Normal(loc: torch.Size([2]), scale: torch.Size([2])), 1)
    """
    if isinstance(p, Independent):
        return p.base_dist, p.reinterpreted_batch_ndims
    if isinstance(p, TransformedDistribution):
        chain, inner = elementwise_transforms(p), resolved(p.base_dist)
        if chain is not None and isinstance(inner, Independent):
            return dist.TransformedDistribution(inner.base_dist, chain), inner.reinterpreted_batch_ndims
    return None


def elementwise_transforms(p: Any) -> list[Any] | None:
    """The transforms of ``p`` as those of each entry by itself, None if some are of several entries together."""
    found = []
    for transform in p.transforms:
        while isinstance(transform, transforms.IndependentTransform):
            transform = transform.base_transform
        if isinstance(transform, transforms.AffineTransform) and transform.event_dim:
            transform = _with(transform, _event_dim=0)
        if transform.domain.event_dim or transform.codomain.event_dim:
            return None
        found.append(transform)
    return found


def map_transforms(p: Any, function: Callable[[Any, int], Any]) -> list[Any]:
    """The transforms of ``p`` with its batch changed, where they vary over it.

    Args:
        p: a transformed distribution.
        function: of a tensor, and of how many of its last dimensions are not the batch's, or of a distribution, and of
            how many of the last dimensions of its batch are not; the others broadcast with the batch of ``p``.

    Raises:
        ValueError: if a transform has tensors that vary over the batch and it is not known along which dimensions.
    """
    return _chain(p.transforms, len(p.event_shape), function)


def _chain(parts: Sequence[Any], event_dim: int, function: Callable[[Any, int], Any]) -> list[Any]:
    """The transforms of a chain, ``event_dim`` being that of what comes out of it."""
    found: list[Any] = []
    for part in reversed(parts):
        inside = event_dim + part.domain.event_dim - part.codomain.event_dim
        found.insert(0, _mapped(part, event_dim, inside, function))
        event_dim = inside
    return found


def _mapped(transform: Any, event_dim: int, inside: int, function: Callable[[Any, int], Any]) -> Any:
    """A transform of values with ``inside`` event dimensions to values with ``event_dim``; itself if it stays."""
    if isinstance(transform, _InverseTransform):
        inverse: Any = transform.inv
        new = _mapped(inverse, inside, event_dim, function)
        return transform if new is inverse else new.inv
    if isinstance(transform, transforms.ComposeTransform):
        parts = _chain(transform.parts, event_dim, function)
        same = all(new is old for new, old in zip(parts, transform.parts, strict=True))
        return transform if same else _with(transform, parts=parts)
    if isinstance(transform, transforms.IndependentTransform):
        base = _mapped(transform.base_transform, event_dim, inside, function)
        return transform if base is transform.base_transform else _with(transform, base_transform=base)
    if isinstance(transform, (transforms.StackTransform, transforms.CatTransform)):
        if not -event_dim <= transform.dim < 0:
            raise ValueError(
                f"transforms: expected {type(transform).__name__} along one of {event_dim} event dimensions, "
                f"got dim {transform.dim}"
            )
        less = isinstance(transform, transforms.StackTransform)
        each = [_mapped(part, event_dim - less, inside - less, function) for part in transform.transforms]
        same = all(new is old for new, old in zip(each, transform.transforms, strict=True))
        return transform if same else _with(transform, transforms=each)
    names = BROADCAST.get(type(transform), ())
    changed = {}
    for name in names:
        value = getattr(transform, name)
        size = value.dim() if isinstance(value, Tensor) else len(getattr(value, "batch_shape", ()))
        if size > event_dim:
            changed[name] = function(value, event_dim)
    if not names:
        _check_shared(transform, event_dim)
    return _with(transform, **changed) if changed else transform


def _with(transform: Any, **changed: Any) -> Any:
    """A transform with other attributes, and nothing that it has kept of its own."""
    new = copy.copy(transform)
    vars(new).update(changed | {"_inv": None, "_cached_x_y": (None, None)})
    return new


def _check_shared(transform: Any, event_dim: int) -> None:
    """Raises ValueError where a transform has tensors that vary over the batch."""
    for tensor in held_tensors(transform):
        if tensor.shape[: max(0, tensor.dim() - event_dim)].numel() > 1:
            raise ValueError(
                f"transforms: expected tensors that are the same for the whole batch in {type(transform).__name__}, "
                f"got one of shape {tuple(tensor.shape)} for {event_dim} event dimensions"
            )
