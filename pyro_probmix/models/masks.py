"""Masks of a site: of its rows, or of single outputs where these are independent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor

from pyro_probmix.mixing.batches import legal_labels
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["inside_masks", "mask_labels", "unmasked"]


def mask_labels(name: str, p: Any, y: Tensor, mask: Tensor, dim: int) -> tuple[Any, Tensor]:
    """``p`` with rows masked, or, where its outputs are independent, single outputs; and labels that are all legal."""
    event_dim = len(p.event_shape)
    if mask.dim() == 1:
        masked = p.mask(unsqueeze_right(mask, -1 - dim))
    elif mask.shape != y.shape:
        raise ValueError(
            f"mask: expected shape {tuple(mask.shape[:1])} or that of the labels at {name!r}, {tuple(y.shape)}, got "
            f"{tuple(mask.shape)}"
        )
    elif event_dim == 0:
        masked = p.mask(mask)
    elif isinstance(p, torch.distributions.Independent) and p.reinterpreted_batch_ndims == event_dim:
        masked = p.base_dist.mask(mask).to_event(event_dim)
    else:
        raise ValueError(
            f"mask: expected shape {tuple(mask.shape[:1])}, since the outputs of the likelihood are not independent, "
            f"got {tuple(mask.shape)}"
        )
    return masked, legal_labels(y, mask, dim - event_dim)


def inside_masks(
    change: Callable[[Any, Any, int], Any],
    p: Any,
    coefficient: Any,
    dim: int,
    change_mask: Callable[[Tensor, Any, int], Tensor] = lambda mask, coefficient, dim: mask,
) -> Any:
    """``p`` with what its masks are around replaced by ``change(base, coefficient, dim)``, and the masks likewise.

    ``dim``, negative, counts the nodes in the batch shape of ``p``, with which λ broadcasts.
    """
    if isinstance(p, MaskedDistribution):
        mask = change_mask(p._mask, coefficient, dim) if isinstance(p._mask, Tensor) else p._mask
        return type(p)(inside_masks(change, p.base_dist, coefficient, dim, change_mask), mask)
    if _masks_outputs(p):
        ndims = p.reinterpreted_batch_ndims
        weight = None if coefficient is None else unsqueeze_right(coefficient, ndims)
        return inside_masks(change, p.base_dist, weight, dim - ndims, change_mask).to_event(ndims)
    return change(p, coefficient, dim)


def unmasked(p: Any) -> Any:
    """The law of one label, whichever of them count."""
    if isinstance(p, MaskedDistribution):
        return unmasked(p.base_dist)
    return unmasked(p.base_dist).to_event(p.reinterpreted_batch_ndims) if _masks_outputs(p) else p


def _masks_outputs(p: Any) -> bool:
    """Whether ``p`` is of independent outputs, some of them masked."""
    return isinstance(p, torch.distributions.Independent) and isinstance(p.base_dist, MaskedDistribution)
