"""A decoder over all draws of the embedding, in tiles of rows that stay in the processor's cache."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pyro_probmix.models.laws import as_normal
from pyro_probmix.ops.blocks import has_memory, is_recorded

__all__ = ["apply", "decode_noise"]

_DRAWS_IN_CACHE = 2**18
"""Coordinates of draws in a tile on a CPU: measured, less is bound by the calls, more by the memory."""
_DRAWS_AT_ONCE = 2**24
"""On other devices, which are bound by the calls."""


def apply(network: nn.Module, value: Tensor, event_dim: int) -> Tensor:
    """``network`` over any number of leading dimensions, for networks that take one."""
    leading = value.shape[: value.dim() - event_dim]
    if len(leading) == 1:
        return network(value)
    output = network(value.flatten(0, len(leading) - 1))
    return output.unflatten(0, leading)


def decode_noise(decoder: nn.Module, q: Any, noise: Tensor) -> Tensor:
    """What a decoder makes of S draws of each of N embeddings, loc + scale · noise.

    A decoder in evaluation mode, of which nothing is differentiated or compiled, sees some rows at a time.

    Args:
        decoder: embedding → raw outputs.
        q: a Normal embedding density of batch shape ``(N,)``.
        noise: standard normal numbers of shape ``(S, N) + event_shape``.

    Returns:
        Of shape ``(N, S, ...)``.

    Raises:
        TypeError: if the embedding density is not Normal.
    """
    normal, shape = as_normal(q), q.batch_shape + q.event_shape
    given = [normal.loc.expand(shape).unsqueeze(1), normal.scale.expand(shape).unsqueeze(1), noise.transpose(0, 1)]

    def tile(loc: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        return apply(decoder, loc + scale * noise, len(q.event_shape))

    rows = max(1, (_DRAWS_IN_CACHE if noise.is_cpu else _DRAWS_AT_ONCE) // noise[:, :1].numel())
    whole = torch.is_grad_enabled() or decoder.training or is_recorded() or not all(map(has_memory, given))
    if whole or len(noise[0]) <= rows:
        return tile(*given)
    tiles = map(tile, *(tensor.split(rows) for tensor in given))
    first = next(tiles)
    result = first.new_empty((len(noise[0]), *first.shape[1:]))
    for place, own in zip(result.split(rows), chain([first], tiles), strict=True):
        place.copy_(own)
    return result
