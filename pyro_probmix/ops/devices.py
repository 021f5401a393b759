"""Numbers beside the host: double precision where a device lacks it, no copy that the host would wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["double", "filled_numbers"]


def double(value: Any) -> Any:
    """A tensor in double precision: where it is, or on the CPU if its device has none; else what is given."""
    if not isinstance(value, Tensor):
        return value
    return value.double() if value.device.type != "mps" else value.to("cpu", torch.float64)


def filled_numbers(like: Tensor) -> AbstractContextManager[Any]:
    """Inside, a tensor of one number is filled where it is to be: PyTorch's would be copied, and the host would wait.

    Constructors of distributions make such tensors of the numbers they are given, ``HalfNormal`` and ``Chi2`` of some
    of their own. On the CPU, and for a compiler, they are left alone.

    Args:
        like: a tensor of the device.
    """
    return nullcontext() if like.is_cpu or torch.compiler.is_compiling() else _Filled()


class _Filled(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.tensor and isinstance(args[0], Real):
            func, args = torch.full, ((), *args)
        return func(*args, **(kwargs or {}))
