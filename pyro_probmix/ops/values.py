"""Whether the values of a tensor can be read, and whether derivatives by them are under way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pyro_probmix.ops.blocks import has_memory, is_recorded

__all__ = ["at_hand", "can_be_read", "differentiated", "equal_values"]


def differentiated(tensor: Tensor) -> bool:
    """Whether a derivative by ``tensor`` is under way, backward or forward, or may be, outside a ``vmap``."""
    if tensor.requires_grad or forward_ad.unpack_dual(tensor).tangent is not None:
        return True
    return not (torch.compiler.is_compiling() or has_memory(tensor))


def can_be_read(tensor: Tensor) -> bool:
    """Whether the values of ``tensor`` can be read: not under vmap, nor by a compiler, nor where there are none."""
    if is_recorded() or tensor.is_meta:
        return False
    if has_memory(tensor):
        return True
    try:
        bool(tensor.detach().isnan().any())  # what torch.func.grad stands for has values, if no memory of its own
    except RuntimeError:
        return False
    return True


def at_hand(tensor: Tensor) -> bool:
    """Whether the values of ``tensor`` can be read without waiting."""
    return tensor.device.type == "cpu" and can_be_read(tensor)


def equal_values(a: Any, b: Any, wait: bool) -> bool | None:
    """Whether two tensors or numbers are equal up to broadcasting; None where their values cannot be told.

    Values on another device are waited for only with ``wait``.
    """
    if a is b:
        return True
    tensors = [value for value in (a, b) if isinstance(value, Tensor)]
    try:
        torch.broadcast_shapes(*[tensor.shape for tensor in tensors])
    except RuntimeError:
        return False
    if not all(at_hand(tensor) or (wait and can_be_read(tensor)) for tensor in tensors):
        return None
    equal = a == b
    return bool(equal.all()) if isinstance(equal, Tensor) else bool(equal)
