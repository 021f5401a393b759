"""Which densities have a pool, said by a look at those of two rows or of a batch and its partners."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import MaskedDistribution, ZeroInflatedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor

from pyro_probmix.distributions import exponential_family, index_select, is_exponential_family
from pyro_probmix.distributions.exponential_family import resolved, set_validation, unwrapped, validates
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.not_closed import why_not_closed
from pyro_probmix.ops.values import at_hand, can_be_read

__all__ = ["check_pool_of_rows", "check_poolable"]


def check_pool_of_rows(argument: str, p: Any, fusion: str) -> None:
    """Refuses a density, that of two rows, which has no such pool with another row's."""
    base = unwrapped(p)
    if fusion == "numerical" and base.event_shape:
        raise ValueError(
            f'{argument}: expected a density of numbers, or of independent ones, with fusion="numerical", got '
            f'{type(base).__name__} of event shape {tuple(base.event_shape)}; use fusion="linear"'
        )
    closed = fusion == "log-linear"
    if closed:
        set_validation(p, True)  # so that values are compared on any device
    rows = torch.arange(2, device=reference_tensor([p]).device).flip(0)
    partners = p if closed and not is_exponential_family(p) else index_select(p, -1, rows)
    if closed:
        check_poolable(argument, p, partners)


def check_poolable(name: str, p: Any, partners: Any, dim: int = -1) -> None:
    """Refuses densities that have no log-linear pool of their family with those of their partners."""
    base, base_dim = resolved(p), dim
    while isinstance(base, (torch.distributions.Independent, ExpandedDistribution, MaskedDistribution)):
        base_dim -= getattr(base, "reinterpreted_batch_ndims", 0)
        base = resolved(base.base_dist)
    kind, remedies = type(base).__name__, 'fuse an embedding (ManifoldProbMix), or use fusion="linear" or "numerical"'
    if not is_exponential_family(p):
        why = why_not_closed(type(base)) or "it has no natural form here"
        raise TypeError(
            f"{name}: expected a family that is closed under log-linear pooling, got {kind}: {why}; {remedies}"
        )
    inner = base.base_dist if isinstance(base, ZeroInflatedDistribution) else base
    names = exponential_family(inner).fixed
    unread = [fixed for fixed in names if _varies_unseen(getattr(inner, fixed), base_dim, validates(p))]
    if not unread:
        reason = exponential_family(p).mismatch(exponential_family(partners))
        unread = [] if reason is None else [reason.removeprefix("equal ").partition(",")[0]]
    if unread:
        raise ValueError(
            f"{name}: expected a {unread[0]} of {kind} that is held fixed, since densities are pooled, got one that "
            f"varies, as one that is predicted does; hold it fixed, {remedies}"
        )


def _varies_unseen(value: Any, dim: int, wait: bool) -> bool:
    """Whether a tensor has a value for each node, which ``dim`` counts, that cannot be compared."""
    if not isinstance(value, Tensor) or value.dim() < -dim or value.shape[dim] == 1 or value.stride(dim) == 0:
        return False
    return not (at_hand(value) or (wait and can_be_read(value)))
