"""Networks over sequences, Section 6.3."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_probmix._checks import check_integer

__all__ = ["LSTMBackbone", "TransformerBackbone"]


class LSTMBackbone(nn.Module):
    """Long short-term memory over a sequence; its features are the hidden state of the last layer.

    The parameters are those of ``torch.nn.LSTM``, which also computes it; under ``torch.func.vmap``, which does not
    know it, the same recurrence runs step by step. So :func:`~pyro_probmix.fit_replicas` trains it.

    Args:
        in_features: Size F of one step of the sequence.
        hidden_size: Size H of the features.
        num_layers: LSTMs stacked, each over the states of the one before.
        sequence: Features of every step instead of the last one's.

    Shape:
        (B, T, in_features) to (B, hidden_size), or (B, T, hidden_size) with ``sequence``.

    Raises:
        ValueError: if a size is below one.

    Example:
        >>> LSTMBackbone(4, 64, num_layers=2)(torch.zeros(10, 42, 4)).shape
        torch.Size([10, 64])
        >>> features = torch.nn.Sequential(LSTMBackbone(4, 64, 2, sequence=True), torch.nn.Flatten(-2))
        >>> encoder = torch.nn.Sequential(features, torch.nn.Linear(42 * 64, 64))  # as in Section 6.3
    """

    def __init__(self, in_features: int, hidden_size: int, num_layers: int = 1, *, sequence: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            check_integer("in_features", in_features),
            check_integer("hidden_size", hidden_size),
            check_integer("num_layers", num_layers),
            batch_first=True,
        )
        self.sequence = sequence

    def forward(self, x: Tensor) -> Tensor:
        """The features of ``x``."""
        if any(map(torch._C._functorch.is_batchedtensor, (x, *self.lstm.parameters()))):
            states = x
            for layer in self.lstm.all_weights:
                states = _recurrence(states, *layer)
        else:
            states, _ = self.lstm(x)
        return states if self.sequence else states[..., -1, :]


def _recurrence(x: Tensor, input_weight: Tensor, weight: Tensor, input_bias: Tensor, bias: Tensor) -> Tensor:
    """The hidden states of one layer, shape (..., T, H)."""
    inputs = F.linear(x, input_weight, input_bias + bias)
    hidden = cell = inputs.new_zeros(*inputs.shape[:-2], weight.shape[-1])
    states = []
    for step in inputs.unbind(-2):
        gates = step + F.linear(hidden, weight)
        enter, forget, value, leave = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * value.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        states.append(hidden)
    return torch.stack(states, -2)


class TransformerBackbone(nn.Module):
    r"""Transformer encoder over a sequence; its features are those of the last step.

    Each step is mapped to ``hidden_size`` numbers, to which its position t is added as
    :math:`\sin(t / 10^{8i/H})` in coordinate 2i and the cosine in coordinate 2i + 1; then come layers as of
    ``torch.nn.TransformerEncoderLayer``, which ``torch.func.vmap`` can follow.

    Args:
        in_features: Size F of one step of the sequence.
        hidden_size: Size H of the features, a multiple of ``num_heads``.
        num_heads: Attention heads.
        num_layers: Layers, the submodules ``layers.0``, ``layers.1``, ...
        feedforward_size: Width inside a layer; default: ``hidden_size``.
        dropout: Probability of an element to be dropped in training.
        causal: Whether a step attends to those before it only.
        sequence: Features of every step instead of the last one's.

    Shape:
        (B, T, in_features) to (B, hidden_size), or (B, T, hidden_size) with ``sequence``.

    Raises:
        ValueError: if a size is below one, or ``hidden_size`` is no multiple of ``num_heads``.

    Example:
        >>> TransformerBackbone(4, 64, num_heads=2, num_layers=2)(torch.zeros(10, 42, 4)).shape
        torch.Size([10, 64])
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        num_heads: int = 2,
        num_layers: int = 2,
        *,
        feedforward_size: int | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        sequence: bool = False,
    ) -> None:
        super().__init__()
        hidden_size = check_integer("hidden_size", hidden_size)
        if hidden_size % check_integer("num_heads", num_heads):
            raise ValueError(f"hidden_size: expected a multiple of num_heads = {num_heads}, got {hidden_size}")
        width = hidden_size if feedforward_size is None else check_integer("feedforward_size", feedforward_size)
        self.projection = nn.Linear(check_integer("in_features", in_features), hidden_size)
        self.positions = _Positions()
        num_layers = check_integer("num_layers", num_layers)
        self.layers = nn.ModuleList(
            _Layer(hidden_size, num_heads, width, dropout, causal=causal) for _ in range(num_layers)
        )
        self.sequence = sequence

    def forward(self, x: Tensor) -> Tensor:
        """The features of ``x``."""
        z = self.positions(self.projection(x))
        for layer in self.layers:
            z = layer(z)
        return z if self.sequence else z[..., -1, :]


class _Positions(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        length, size = z.shape[-2:]
        dtype = torch.promote_types(z.dtype, torch.float32)  # in half precision, steps 256 and 257 are one
        even = torch.arange(0, size, 2, device=z.device, dtype=dtype)
        steps = torch.arange(length, device=z.device, dtype=dtype).unsqueeze(-1)
        angles = steps * torch.exp(-math.log(1e4) / size * even)
        return z + torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[:, :size].to(z.dtype)


class _Layer(nn.TransformerEncoderLayer):
    """Attention spelled out, of which ``torch.func.vmap`` knows every operation."""

    def __init__(self, *args: Any, causal: bool) -> None:
        super().__init__(*args)
        self.causal = causal

    def forward(self, z: Tensor) -> Tensor:  # type: ignore[override]
        # Time first: with batch_first, evaluation would take a fused path that vmap cannot follow.
        return super().forward(z.transpose(0, -2)).transpose(0, -2)

    def _sa_block(self, x: Tensor, attn_mask: Any, key_padding_mask: Any, is_causal: bool = False) -> Tensor:
        if self.causal:
            attn_mask = torch.ones(len(x), len(x), dtype=torch.bool, device=x.device).triu(1)
        return self.dropout1(self.self_attn(x, x, x, attn_mask=attn_mask, need_weights=True)[0])
