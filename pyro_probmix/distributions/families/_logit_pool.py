"""Pools of categorical laws, which large batches bind by memory and by exact zeros: few passes, few new tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_probmix.ops.blocks import BatchFunction, Outputs, in_blocks, is_large
from pyro_probmix.ops.sums import masked_sum

__all__ = ["pool_of_logits"]


def pool_of_logits(logits: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Normalised logits of a pool from those of its members and weights that broadcast with them."""
    if not any(map(is_large, logits)):
        return _plain_pool(*logits, *weights)
    full = torch.broadcast_tensors(*[t.to(weights[0].dtype) for t in logits], *weights)[: len(logits)]
    aligned = [w.reshape((1,) * (full[0].dim() - w.dim()) + w.shape) for w in weights]
    return _Pool.apply(*full, *aligned)


def _plain_pool(*inputs: Tensor) -> Tensor:
    terms, weights = _halves(inputs)
    logits = masked_sum(terms, weights)
    log_z = logits.logsumexp(-1, keepdim=True)
    for w in weights:  # a member is normalised: nothing is left to do where its weight is one
        log_z = log_z - torch.where(w == 1, log_z, 0).detach()
    return logits - log_z


class _Pool(BatchFunction):
    r"""With :math:`ds = \sum_k (w_k\,d\eta_k + \eta_k\,dw_k)`, infinite logits aside, the pool's logits change by
    :math:`ds - \langle \tilde p, ds \rangle`."""

    @staticmethod
    def forward(*inputs: Tensor) -> Tensor:  # type: ignore[override]
        return in_blocks(_pool, [True], inputs[0], inputs, event_dim=1)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *inputs, pooled = ctx.saved_tensors
        needed = ctx.needs_input_grad
        results = in_blocks(partial(_gradients, needed), needed, pooled, (grad, pooled, *inputs), event_dim=1)
        return tuple(g if g is None else g.sum_to_size(t.shape) for g, t in zip(results, inputs, strict=True))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:  # type: ignore[override]
        *inputs, pooled = ctx.saved_tensors
        change = torch.zeros_like(pooled)
        for t, w, dt, dw in zip(*_halves(inputs), *_halves(tangents), strict=True):
            if dt is not None:
                change = change + w * dt
            if dw is not None:
                change = change + dw * t.masked_fill(t.isinf(), 0)
        return change - (pooled.exp() * change).sum(-1, keepdim=True)


def _pool(outputs: Outputs, *inputs: Tensor) -> Outputs:
    terms, weights = _halves(inputs)
    if not all(t.amin() > -math.inf for t in terms):
        pooled = _plain_pool(*inputs)
        return (pooled if outputs[0] is None else outputs[0].copy_(pooled),)
    logits = torch.mul(terms[0], weights[0], out=outputs[0])
    for w, t in zip(weights[1:], terms[1:], strict=True):
        logits.addcmul_(t, w)
    # Members are normalised: without their peak, too, few pools are so sharp that the sum leaves the range.
    mass = _row_sums(logits.exp())
    limits = torch.finfo(mass.dtype)
    in_range = mass.amin() > limits.tiny**0.5 and mass.amax() < limits.max**0.5
    log_z = mass.log_() if in_range else logits.logsumexp(-1, keepdim=True)
    for w in weights:
        if w.amax() >= 1:
            log_z.masked_fill_(w == 1, 0)
    return (logits.sub_(log_z),)


def _gradients(needed: Sequence[bool], outputs: Outputs, grad: Tensor, pooled: Tensor, *inputs: Tensor) -> Outputs:
    flow = grad - pooled.exp() * _row_sums(grad)
    results: list[Tensor | None] = [None] * len(inputs)
    size = len(inputs) // 2
    for k, (t, w) in enumerate(zip(*_halves(inputs), strict=True)):
        if needed[k]:
            results[k] = torch.mul(flow, w, out=outputs[k])
        if needed[size + k]:
            results[size + k] = torch.mul(flow, t.masked_fill(t.isinf(), 0), out=outputs[size + k])
    return results


def _row_sums(tensor: Tensor) -> Tensor:
    """Sums over short rows, for which a matrix product is faster than a reduction."""
    return tensor @ tensor.new_ones(tensor.shape[-1], 1)


def _halves(items: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    size = len(items) // 2
    return items[:size], items[size:]
