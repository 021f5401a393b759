"""Pools of Normals and their log_prob, which large batches bind by memory: few passes, and few new tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix.ops.blocks import BatchFunction, Outputs, in_blocks, is_large
from pyro_probmix.ops.values import differentiated

__all__ = ["Normal", "pool_of_normals"]


class Normal(dist.Normal):
    """Pyro's Normal, whose log_prob takes large batches in blocks."""

    @classmethod
    def of(cls, loc: Tensor, scale: Tensor, validate_args: bool) -> Normal:
        """The Normal of parameters of one shape that are in their domain, in a third of its constructor's time."""
        new = cls.__new__(cls)
        new.loc, new.scale = loc, scale
        torch.distributions.Distribution.__init__(new, loc.shape, validate_args=False)
        new._validate_args = validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if not is_large(self.loc) or any(
            (t.shape, t.dtype, t.device) != (self.loc.shape, self.loc.dtype, self.loc.device)
            for t in (self.scale, value)
        ):
            return super().log_prob(value)
        if self._validate_args:
            self._validate_sample(value)
        return _LogProb.apply(self.loc, self.scale, value)


class _LogProb(BatchFunction):
    """log_prob of a Normal from its loc, its scale and a value, all of one shape."""

    @staticmethod
    def forward(*inputs: Tensor) -> Tensor:  # type: ignore[override]
        return in_blocks(_log_prob, [True], inputs[0], inputs)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)  # of the result, as large as they are, nothing is needed
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inputs = ctx.saved_tensors
        by_loc, by_scale = in_blocks(_log_prob_gradients, [True, True], inputs[0], (grad, *inputs))
        return by_loc, by_scale, -by_loc if ctx.needs_input_grad[2] else None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:  # type: ignore[override]
        loc, scale, value = ctx.saved_tensors
        by_loc, by_scale = _log_prob_gradients((None, None), torch.ones_like(loc), loc, scale, value)
        slopes = by_loc, by_scale, -by_loc
        return sum((s * t for s, t in zip(slopes, tangents, strict=True) if t is not None), torch.zeros_like(loc))


def _log_prob(outputs: Outputs, loc: Tensor, scale: Tensor, value: Tensor) -> Outputs:
    # In PyTorch's order: the pool with weight one of a member has its log_prob to the last bit.
    squares, result = scale * scale, torch.sub(value, loc, out=outputs[0])
    result.mul_(result).div_(squares.mul_(-2)).sub_(torch.log(scale, out=squares)).sub_(
        math.log(math.sqrt(2 * math.pi))
    )
    return (result,)


def _log_prob_gradients(
    outputs: Outputs, grad: Tensor, loc: Tensor, scale: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    _, div, *_ = _arithmetic()
    z, slope = div(value - loc, scale), grad / scale
    grad_loc = torch.mul(z, slope, out=outputs[0])
    return grad_loc, torch.sub(z * grad_loc, slope, out=outputs[1])


def pool_of_normals(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Loc and scale of a pool from all locs, all scales, of one shape, and, aligned with them, all weights."""
    if torch.compiler.is_compiling():  # which fuses the plain formula by itself, and takes no custom derivatives
        return _pool((None, None), *inputs)
    if any(map(differentiated, inputs)):
        return _Pool.apply(*inputs)  # type: ignore[no-any-return]
    with torch.no_grad():
        return _Pool.forward(*inputs)


class _Pool(BatchFunction):
    r"""With shares :math:`r_k = w_k \tilde\sigma^2/\sigma_k^2`, which sum to one,

    .. math:: d\tilde\mu = \sum_k r_k \big(d\mu_k + (\mu_k - \tilde\mu)(dw_k/w_k - 2\,d\sigma_k/\sigma_k)\big), \quad
        d\tilde\sigma = \tilde\sigma \sum_k r_k (d\sigma_k/\sigma_k - \tfrac12\,dw_k/w_k).
    """

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        loc, scale = in_blocks(_pool, [True, True], inputs[0], inputs)
        return loc, scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *inputs, loc, scale = ctx.saved_tensors
        needed = ctx.needs_input_grad
        results = in_blocks(partial(_pool_gradients, needed), needed, loc, (*grads, loc, scale, *inputs))
        return tuple(
            g if g is None or g.shape == t.shape else g.sum_to_size(t.shape)
            for g, t in zip(results, inputs, strict=True)
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        *inputs, loc, scale = ctx.saved_tensors
        tangent_loc, tangent_log_scale = torch.zeros_like(loc), torch.zeros_like(scale)
        for m, s, w, dm, ds, dw in zip(*_thirds(inputs), *_thirds(tangents), strict=True):
            precision = _relative_precision(scale, s)
            growth = torch.zeros_like(loc)
            if ds is not None:
                growth = growth - 2 * w * precision * ds / s
            if dw is not None:
                growth = growth + precision * dw
            tangent_loc = tangent_loc + (m - loc) * growth
            tangent_log_scale = tangent_log_scale - 0.5 * growth
            if dm is not None:
                tangent_loc = tangent_loc + w * precision * dm
        return tangent_loc, scale * tangent_log_scale


def _pool(outputs: Outputs, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    locs, scales, weights = _thirds(inputs)
    mul, div, add, addcmul, _ = _arithmetic()
    with torch.no_grad():
        # The smallest scale that takes part: relative to it no square over- or underflows. A weight's sign divides
        # its scale, one or zero: a selection that broadcasts would take several times as long. A block looks first.
        known = scales
        if outputs[0] is None or not all(w.amin() > 0 for w in weights):
            known = [(scale / w.sign()).abs_() for w, scale in zip(weights, scales, strict=True)]
        unit = reduce(torch.minimum, known)
    total = mul(_relative_precision(unit, scales[0]), weights[0])
    loc = torch.mul(total, locs[0], out=outputs[0])
    for w, scale, m in zip(weights[1:], scales[1:], locs[1:], strict=True):
        share = mul(_relative_precision(unit, scale), w)
        loc = addcmul(loc, share, m)
        total = add(total, share)
    return div(loc, total), torch.mul(total.rsqrt(), unit, out=outputs[1])


def _pool_gradients(needed: Sequence[bool], outputs: Outputs, *inputs: Tensor) -> list[Tensor | None]:
    grad_loc, grad_scale, loc, scale, *members = inputs
    mul, div, *_ = _arithmetic()
    grad_log_scale = grad_scale * scale
    results: list[Tensor | None] = [None] * len(members)
    size = len(members) // 3
    for k, (m, s, w) in enumerate(zip(*_thirds(members), strict=True)):
        precision = _relative_precision(scale, s)
        offset = m - loc
        if needed[2 * size + k]:
            grad = torch.addcmul(-0.5 * grad_log_scale, grad_loc, offset, out=outputs[2 * size + k])
            results[2 * size + k] = mul(grad, precision)
        share = mul(precision, w)
        if needed[size + k]:
            grad = torch.addcmul(grad_log_scale, grad_loc, offset, value=-2, out=outputs[size + k])
            results[size + k] = div(mul(grad, share), s)
        if needed[k]:
            results[k] = torch.mul(grad_loc, share, out=outputs[k])
    return results


_NEW = Tensor.mul, Tensor.div, Tensor.add, Tensor.addcmul, Tensor.clamp
_IN_PLACE = Tensor.mul_, Tensor.div_, Tensor.add_, Tensor.addcmul_, Tensor.clamp_


def _arithmetic() -> tuple[Callable[..., Tensor], ...]:
    """Multiply, divide, add, multiply and add, and clamp: in place, unless the results are to be differentiated."""
    return _NEW if torch.is_grad_enabled() else _IN_PLACE


def _thirds(items: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    size = len(items) // 3
    return items[:size], items[size : 2 * size], items[2 * size :]


def _relative_precision(unit: Tensor, scale: Tensor) -> Tensor:
    """(unit/scale)²; what is too large for that has weight zero, and is held finite."""
    mul, *_, clamp = _arithmetic()
    ratio = clamp(unit / scale, max=torch.finfo(unit.dtype).max ** 0.25)
    return mul(ratio, ratio)
