"""A record of the batches of matrix products, which are those of stacked networks."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Products"]


class Products(TorchDispatchMode):
    """Of how many matrices the batches are, and in which precision."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default):
            self.sizes.add(len(result))
            self.dtypes.add(result.dtype)
        return result
