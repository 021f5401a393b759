"""Work on large tensors of the processor, block by block, so that what comes in between stays in its cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

__all__ = ["BLOCK", "BatchFunction", "Outputs", "has_memory", "in_blocks", "is_large", "is_recorded", "tracing"]

Outputs = Sequence[Tensor | None]

# Measured: less is bound by the calls, more by the memory.
BLOCK = 2**17


def is_large(tensor: Tensor) -> bool:
    """Whether ``tensor`` is worth more than one block; a compiler makes its own."""
    return tensor.numel() > BLOCK and tensor.is_cpu and not is_recorded()


_traced = ContextVar("traced", default=False)


def is_recorded() -> bool:
    """Whether operations are recorded for a compiler."""
    return torch.compiler.is_compiling() or _traced.get()


@contextmanager
def tracing() -> Iterator[None]:
    """Inside, operations are recorded for a compiler."""
    token = _traced.set(True)
    try:
        yield
    finally:
        _traced.reset(token)


def in_blocks(
    function: Callable[..., Outputs], needed: Sequence[bool], like: Tensor, inputs: Sequence[Tensor], event_dim: int = 0
) -> Any:
    """The results of ``function(outputs, *inputs)``, which writes each to its output, or makes it where that is None.

    Args:
        function: works on every index of the batch by itself.
        needed: which of the results are needed.
        like: a tensor such as every result is.
        inputs: tensors of as many dimensions, of the size of ``like`` or one in each.
        event_dim: number of the last dimensions that are not divided.
    """
    # What is to be differentiated, or stands for many tensors, cannot be written to an output.
    if not is_large(like) or torch.is_grad_enabled() or not all(map(has_memory, inputs)):
        return function((None,) * len(needed), *inputs)
    batch = like.shape[: like.dim() - event_dim]
    dim = max(range(len(batch)), key=batch.__getitem__, default=0)
    rows = max(1, BLOCK * like.shape[dim] // like.numel()) if batch else like.shape[dim]
    count = -(-like.shape[dim] // rows)

    def split(tensor: Tensor | None) -> Sequence[Any]:
        return [tensor] * count if tensor is None or tensor.shape[dim] == 1 else tensor.split(rows, dim)

    results = [torch.empty_like(like) if need else None for need in needed]
    outputs = zip(*map(split, results), strict=True)
    for ours, theirs in zip(outputs, zip(*map(split, inputs), strict=True), strict=True):
        function(ours, *theirs)
    return results


class BatchFunction(torch.autograd.Function):
    """A function of tensors that works on every index of their batch by itself, and keeps all of them and its results.

    What ``vmap`` maps over is one more dimension. A subclass has ``forward``, ``backward`` and, if it can, ``jvp``.
    """

    def __init_subclass__(cls) -> None:
        # PyTorch asks for it at every call, and making it takes as long as a small pool.
        cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        saved = *inputs, *(output if isinstance(output, tuple) else (output,))
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, int]:  # type: ignore[override]
        pairs, size = zip(inputs, in_dims, strict=True), info.batch_size
        return cls.apply(*[t.expand(size, *t.shape) if d is None else t.movedim(d, 0) for t, d in pairs]), 0


def has_memory(tensor: Tensor) -> bool:
    """Whether ``tensor`` is one tensor, not many under ``vmap``."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True
