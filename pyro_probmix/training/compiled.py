"""Functions of tensors that are traced, and then compiled, once they have been called often."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map

from pyro_probmix.ops.blocks import tracing

__all__ = ["COMPILED_FROM", "TRACED_FROM", "Compiled", "check_compiler"]

TRACED_FROM = 20
"""Calls with tensors of the same shapes, for to trace takes as long as a few."""

COMPILED_FROM = 4e10
"""Multiplications of such calls, which take several seconds, as to compile does."""


@dataclass
class _Shapes:
    """What is known of calls with tensors of the same shapes."""

    calls: int = 0
    traced: Callable[..., Any] | None = None
    compiled: Any = None


class Compiled:
    """A function of tensors that becomes faster the more often it is called with tensors of the same shapes.

    It is traced to the tensor operations that it comes to, those of its derivatives and of ``torch.func`` included,
    which spares their overhead and changes no bit, and these are compiled by ``torch.compile``. Its statements depend
    on the tensors alone, of which it may change those that are contiguous; what it returns is not differentiated
    further. Such a call takes about ``work`` multiplications.
    """

    def __init__(self, function: Callable[..., Any], work: Callable[..., float]) -> None:
        self._function, self._work = function, work
        self._known: defaultdict[Hashable, _Shapes] = defaultdict(_Shapes)

    def __call__(self, tensor: Tensor, *others: dict[str, Tensor]) -> Any:
        inputs = [("", tensor), *(item for tensors in others for item in tensors.items())]
        key = tuple((name, t.shape, t.stride(), t.dtype) for name, t in inputs)
        known = self._known[key]
        known.calls += 1
        if known.compiled is None:
            due = known.calls * self._work(tensor, *others) >= COMPILED_FROM
            if known.traced is None and (due or known.calls >= TRACED_FROM):
                known.traced = _trace(self._function, tensor, *others)
            if due:
                known.compiled = torch.compile(known.traced, fullgraph=True, dynamic=False)
        faster = known.traced if known.compiled is None else known.compiled
        if faster is None:
            return self._function(tensor, *others)
        with torch.no_grad():
            return faster(tensor, *others)


def check_compiler() -> None:
    """Refuse, before any work, what ``torch.compile`` refuses in the midst of it: that no C++ compiler is there."""
    command = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(shlex.split(command)[0]) is None:
        raise ValueError(f"compile: expected the C++ compiler {command} on the path (or another, by CXX), got none")


def _trace(function: Callable[..., Any], tensor: Tensor, *others: dict[str, Tensor]) -> Callable[..., Any]:
    devices = [tensor.device] if tensor.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), tracing():  # what is traced is run once
        try:
            # Of copies, for it may change them; what has gaps or repeats, it does not.
            inputs = tree_map(lambda t: t.clone() if t.is_contiguous() else t, (tensor, *others))
            return make_fx(lambda *inputs: function(*inputs))(*inputs)  # no bound method
        except RuntimeError as error:
            raise ValueError(f"compile: expected False for a model whose steps cannot be traced: {error}") from error
