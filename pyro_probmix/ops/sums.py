"""Weighted sums of tensors in which a weight of zero removes its term, and sums over event dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from pyro_probmix.ops.values import differentiated

__all__ = [
    "log_weighted_sum",
    "masked_sum",
    "restore_members",
    "rounding",
    "sum_products",
    "sum_right",
    "unsqueeze_right",
    "weighted_sums",
]


def unsqueeze_right(tensor: Tensor, dims: int) -> Tensor:
    """``tensor`` with ``dims`` dimensions of size one appended, to broadcast over event dimensions."""
    return tensor.reshape(tensor.shape + (1,) * dims) if dims else tensor


def sum_right(tensor: Tensor, dims: int) -> Tensor:
    """``tensor`` summed over its last ``dims`` dimensions."""
    return tensor.sum(tuple(range(-dims, 0))) if dims else tensor


def sum_products(terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Σₖ wₖ tₖ for finite terms."""
    total = weights[0] * terms[0]
    for w, t in zip(weights[1:], terms[1:], strict=True):
        total = torch.addcmul(total, w, t)
    return total


def masked_sum(terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Σₖ wₖ tₖ, where a weight of zero removes even an infinite term.

    Infinite terms are masked before the product, so neither the value nor a gradient meets 0 · ∞.
    """
    products = []
    for w, t in zip(weights, terms, strict=True):
        if not differentiated(w):  # then no gradient meets an infinite term, and one selection does
            products.append((w * t).masked_fill(w == 0, 0))
            continue
        infinite = t.isinf()
        product = w * t.masked_fill(infinite, 0)
        products.append(torch.where(infinite & (w != 0), t.detach() * w.detach().sign(), product))
    return reduce(torch.add, products)


def log_weighted_sum(logs: Tensor, weights: Tensor) -> Tensor:
    """log Σₖ wₖ exp(lₖ) along the last dimension, with the exact gradient in a weight of zero."""
    # About the largest lₖ that takes part; only what does not can be so large that its exponential must be held finite.
    with torch.no_grad():
        peak = torch.where(weights > 0, logs, -math.inf).amax(-1, keepdim=True)
        peak = torch.where(peak.isfinite(), peak, 0)
        largest = 0.5 * math.log(torch.finfo(logs.dtype).max)
    total = (weights * (logs - peak).clamp(max=largest).exp()).sum(-1)
    nothing, poles = total == 0, ((logs == math.inf) & (weights > 0)).any(-1)
    result = total.masked_fill(nothing, 1).log() + peak.squeeze(-1)
    return torch.where(poles, math.inf, torch.where(nothing, -math.inf, result))


def weighted_sums(
    terms: Sequence[Sequence[Tensor]],
    weights: Sequence[Tensor],
    dims: Sequence[int],
    total: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor] = sum_products,
) -> tuple[Tensor, ...]:
    """Σₖ wₖ tₖ for each of the tuple's tensors, whose numbers of event dimensions are ``dims``."""
    return tuple(
        total([term[i] for term in terms], [unsqueeze_right(w, dim) for w in weights]) for i, dim in enumerate(dims)
    )


def rounding(terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """How far off Σₖ wₖ tₖ may be by rounding; zero where that is infinite."""
    size = reduce(torch.add, [(w * t).abs() for w, t in zip(weights, terms, strict=True)])
    return (4 * torch.finfo(size.dtype).eps * size).nan_to_num(0, 0, 0)


def restore_members(
    pooled: Sequence[Tensor], members: Sequence[Sequence[Tensor]], weights: Sequence[Tensor], dims: Sequence[int]
) -> tuple[Tensor, ...]:
    """``pooled``, equal to a member to the last bit where that member's weight is one, with its own gradient."""
    restored = []
    alone = [w == 1 for w in weights]
    for i, dim in enumerate(dims):
        value = pooled[i]
        with torch.no_grad():
            exact = value.detach()  # of its tangent, which no_grad keeps
            for one, member in zip(alone, members, strict=True):
                exact = torch.where(unsqueeze_right(one, dim), member[i].detach(), exact)
        nothing = value - value.detach()  # but a gradient
        restored.append(exact + nothing.masked_fill(nothing.isnan(), 0))
    return tuple(restored)
