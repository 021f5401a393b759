"""Checks of the components and the weights of a pool."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.supports import same_constraint

__all__ = [
    "Components",
    "Weights",
    "broadcast_batch",
    "broadcast_shapes",
    "check_support",
    "components_of",
    "expanded",
    "expanded_shape",
    "split_weights",
    "sum_tolerance",
    "tuple_of_distributions",
    "unmask",
]

Components = Sequence[Distribution] | Distribution
Weights = Tensor | Sequence[float | Tensor]


def components_of(components: Components) -> tuple[tuple[Any, ...], int, torch.Size]:
    """The distributions that a pool is made of, how many components they are, and the batch shape of them all."""
    if not isinstance(components, Distribution):
        members = tuple_of_distributions(components)
        return members, len(members), broadcast_batch(members)
    if not components.batch_shape:
        raise ValueError("components: expected a last batch dimension of components, got batch shape ()")
    return (components,), components.batch_shape[-1], components.batch_shape[:-1]


def tuple_of_distributions(components: Any) -> tuple[Distribution, ...]:
    """The components of a sequence, at least one."""
    if not isinstance(components, Iterable):
        raise TypeError(f"components: expected a distribution or a sequence of them, got {type(components).__name__}")
    members = tuple(components)
    if not members:
        raise ValueError("components: expected at least one distribution, got none")
    for k, member in enumerate(members):
        if not isinstance(member, Distribution):
            raise TypeError(f"components: expected distributions, got {type(member).__name__} at index {k}")
    return members


def unmask(members: Sequence[Any]) -> tuple[list[Any], Any]:
    """Plain components without their masks, and the conjunction of these: where every component counts."""
    bases, mask = [resolved(m) for m in members], True
    while any(isinstance(b, MaskedDistribution) for b in bases):
        for b in bases:
            if isinstance(b, MaskedDistribution):
                mask = b._mask & mask
        bases = [resolved(b.base_dist) if isinstance(b, MaskedDistribution) else b for b in bases]
    return bases, mask


def broadcast_shapes(*shapes: torch.Size) -> torch.Size:
    """What the shapes broadcast to; ``torch.broadcast_shapes`` is slow Python, asked only where they differ."""
    return shapes[0] if all(s == shapes[0] for s in shapes) else torch.broadcast_shapes(*shapes)


def broadcast_batch(members: Sequence[Distribution]) -> torch.Size:
    """The batch shape of components with equal event shapes and batch shapes that broadcast."""
    for k, member in enumerate(members):
        if member.event_shape != members[0].event_shape:
            raise ValueError(
                f"components: expected equal event shapes, got {tuple(members[0].event_shape)} and, "
                f"at index {k}, {tuple(member.event_shape)}"
            )
    try:
        return broadcast_shapes(*[m.batch_shape for m in members])
    except RuntimeError:
        shapes = ", ".join(str(tuple(m.batch_shape)) for m in members)
        raise ValueError(f"components: expected batch shapes that broadcast, got {shapes}") from None


def expanded_shape(p: Distribution, batch_shape: Any) -> torch.Size:
    """The batch shape that ``p`` is to be expanded to, or ValueError if its own does not broadcast to it."""
    shape = torch.Size(batch_shape)
    if len(shape) < len(p.batch_shape) or any(a not in (1, b) for a, b in zip(p.batch_shape[::-1], shape[::-1])):
        raise ValueError(f"batch_shape: expected one that {tuple(p.batch_shape)} broadcasts to, got {tuple(shape)}")
    return shape


def expanded(p: Any, batch_shape: torch.Size) -> Any:
    """``p`` with this larger batch shape; ``p`` itself stays, which Pyro's ExpandedDistribution would change."""
    return p if p.batch_shape == batch_shape else copy.copy(p).expand(batch_shape)


def check_support(members: Sequence[Any], validate: bool) -> None:
    """Raises ValueError unless all components have one support, as :func:`same_constraint` sees it."""
    first: Any = members[0].support
    for k, member in enumerate(members):
        if not same_constraint(member.support, first, validate):
            raise ValueError(f"components: expected one support, got {first} and, at index {k}, {member.support}")


def split_weights(
    weights: Any, size: int, batch_shape: torch.Size, reference: Tensor, validate: bool, simplex: bool = True
) -> list[Tensor]:
    """One tensor a component, on the simplex or only finite, of the dtype and device of ``reference``.

    Plain numbers are always checked, the values of tensors only where ``validate`` says so. None are equal weights.
    """
    if weights is None:
        return [reference.new_full((), 1 / size)] * size
    if isinstance(weights, Tensor):
        if weights.dim() == 0 or weights.shape[-1] != size:
            raise ValueError(
                f"weights: expected a last dimension of {size} components, got shape {tuple(weights.shape)}"
            )
        values: list[Any] = list(weights.unbind(-1))
    else:
        if not isinstance(weights, Iterable):
            kind = type(weights).__name__
            raise TypeError(f"weights: expected a tensor or a sequence of numbers or tensors, got {kind}")
        values = list(weights)
        if len(values) != size:
            raise ValueError(f"weights: expected {size} of them, one a component, got {len(values)}")
    for k, value in enumerate(values):
        if not isinstance(value, (Tensor, Real)):
            raise TypeError(f"weights: expected numbers or tensors, got {type(value).__name__} at index {k}")
    tensors = [value for value in values if isinstance(value, Tensor)]
    try:
        broadcast_shapes(batch_shape, *[t.shape for t in tensors])
    except RuntimeError:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise ValueError(
            f"weights: expected shapes that broadcast with batch shape {tuple(batch_shape)}, got {shapes}"
        ) from None
    dtypes = [reference.dtype, *(t.dtype for t in tensors if t.is_floating_point())]
    tolerance = sum_tolerance(size, *dtypes) if simplex else None
    numbers = iter(_as_tensors([v for v in values if not isinstance(v, Tensor)], reference))
    split = [v.to(reference) if isinstance(v, Tensor) else next(numbers) for v in values]
    if not tensors:
        on_simplex = tolerance is not None and all(v >= 0 for v in values) and abs(sum(values) - 1) <= tolerance
        if not on_simplex:
            _check_values(torch.tensor([float(v) for v in values], dtype=torch.float64), tolerance)
    elif validate:
        _check_values(torch.stack(torch.broadcast_tensors(*split), -1).detach(), tolerance)
    return split


def _as_tensors(values: Sequence[Any], like: Tensor) -> Sequence[Tensor]:
    """Numbers as tensors of the dtype and device of ``like``, in one copy at most, which the host does not wait for."""
    if len(values) < 2:
        return [like.new_full((), float(value)) for value in values]
    return torch.tensor(values, dtype=like.dtype, device="cpu").to(like.device, non_blocking=True).unbind(-1)


def sum_tolerance(size: int, *dtypes: torch.dtype) -> float:
    """How far from one the sum of that many weights may be by rounding."""
    return max(1e-6, 8 * size * max(torch.finfo(dtype).eps for dtype in dtypes))


def _check_values(weights: Tensor, tolerance: float | None) -> None:
    """Raises ValueError unless the weights are finite and, with a tolerance, on the simplex."""
    off = (weights.sum(-1) - 1).abs()
    if tolerance is not None and bool((weights >= 0).all() & (off <= tolerance).all()):
        return
    problems = {"finite": ~weights.isfinite()} | ({} if tolerance is None else {"non-negative": weights < 0})
    for expected, bad in problems.items():
        if bad.any():
            first = tuple(bad.nonzero()[0].tolist())
            index = first if len(first) > 1 else first[0]
            raise ValueError(f"weights: expected {expected} numbers, got {weights[first].item():g} at index {index}")
    if tolerance is not None:
        bad = off > tolerance
        got = f"|sum - 1| = {off[bad].flatten()[0].item():.3g}{at_index(bad)}"
        raise ValueError(f"weights: expected a sum of 1 over the components, got {got}")
