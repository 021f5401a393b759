"""Rows by their numbers, each of many tensors under ``torch.func.vmap`` having numbers of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_probmix.ops.blocks import has_memory

__all__ = ["NARROW", "take"]

# Measured: elements of a row below which it is gathered one by one as fast as it is copied.
NARROW = 8


def take(tensor: Tensor, dim: int, index: Tensor) -> Tensor:
    """``torch.index_select``, which under ``vmap`` copies whole rows too, instead of gathering every element.

    Args:
        tensor: of any shape.
        dim: negative.
        index: positions along ``dim``, of shape ``(M,)``.
    """
    if torch.compiler.is_compiling() or (has_memory(tensor) and has_memory(index)):
        return tensor.index_select(dim, index)
    return _Take.apply(tensor, index, dim)


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(tensor: Tensor, index: Tensor, dim: int) -> Tensor:
        return tensor.index_select(dim, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        tensor, index, ctx.dim = inputs
        ctx.shape = tensor.shape
        ctx.save_for_backward(index)
        ctx.save_for_forward(index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_add(ctx.dim, index, gradient), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (index,) = ctx.saved_tensors
        return take(tangent, ctx.dim, index)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], tensor: Tensor, index: Tensor, dim: int) -> tuple[Tensor, int]:
        of_tensor, of_index, _ = in_dims
        if of_index is None:
            return take(tensor.movedim(of_tensor, 0), dim, index), 0
        index = index.movedim(of_index, 0)
        if of_tensor is None:
            rows = tensor.movedim(dim, 0)
        else:
            rows = tensor.movedim(of_tensor, 0).movedim(dim, 1)
            shape = rows.shape[2:]
            if shape.numel() < NARROW:
                every = index.reshape(index.shape + (1,) * len(shape)).expand(index.shape + shape)
                return rows.gather(1, every).movedim(1, dim), 0
            first = torch.arange(len(rows), device=index.device) * rows.shape[1]
            rows, index = rows.flatten(0, 1), index + first.unsqueeze(1)
        return take(rows, -rows.dim(), index.flatten()).unflatten(0, index.shape).movedim(1, dim), 0
