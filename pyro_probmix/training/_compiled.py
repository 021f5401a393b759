"""Functions of tensors that are compiled once they have been called often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from pyro_probmix.distributions._blocks import tracing

__all__ = ["WARM_UP", "Compiled"]

WARM_UP = 100
"""Calls with tensors of the same shapes before they are compiled, for to compile takes as long as hundreds of steps."""


class Compiled:
    """A function of tensors, compiled by ``torch.compile`` for the shapes with which it is called often.

    It is traced to the tensor operations that it comes to, those of its derivatives and of ``torch.func`` included:
    the compiler sees them all at once.

    Args:
        function: of a tensor and dictionaries of tensors, on which alone its statements depend; what it returns is not
            differentiated further.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._calls: Counter[Hashable] = Counter()
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, tensor: Tensor, *others: dict[str, Tensor]) -> Any:
        inputs = [("", tensor), *(item for tensors in others for item in tensors.items())]
        key = tuple((name, t.shape, t.stride(), t.dtype) for name, t in inputs)
        if key not in self._compiled:
            self._calls[key] += 1
            if self._calls[key] <= WARM_UP:
                return self._function(tensor, *others)
            devices = {t.device.index for _, t in inputs if t.device.type == "cuda"}
            self._compiled[key] = _compile(self._function, devices, tensor, *others)
        with torch.no_grad():
            return self._compiled[key](tensor, *others)


def _compile(function: Callable[..., Any], devices: set[int], *inputs: Any) -> Callable[..., Any]:
    from torch.fx.experimental.proxy_tensor import make_fx  # takes more than a second to import

    with torch.random.fork_rng(devices=devices), tracing():  # what is traced is run once
        try:
            graph = make_fx(lambda *inputs: function(*inputs))(*inputs)  # no bound method
        except RuntimeError as error:
            raise ValueError(f"compile: expected False for a model whose steps cannot be traced: {error}") from error
    return torch.compile(graph, fullgraph=True, dynamic=False)
