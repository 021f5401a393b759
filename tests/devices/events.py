"""What an operation does between host and device: copies, and waits of the host for what the device computes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["Event", "events_of"]

PACKAGE = Path(__file__).resolve().parents[2] / "pyro_probmix"

# Of these the result, or its size, is known to the host alone once the device has come that far.
WAITING = {
    f"aten::{name}"
    for name in (
        "_assert_scalar",
        "_linalg_check_errors",
        "_linalg_eigh",
        "_linalg_eigvals",
        "_linalg_svd",
        "_local_scalar_dense",
        "_unique2",
        "bincount",
        "equal",
        "linalg_eig",
        "linalg_lstsq",
        "masked_select",
        "nonzero",
        "unique_consecutive",
        "unique_dim",
    )
}
INDEXING = {f"aten::{name}" for name in ("_index_put_impl_", "index", "index_put", "index_put_")}


@dataclass(frozen=True)
class Event:
    """One copy between host and device, or one wait.

    Attributes:
        kind: ``"to device"`` or ``"to host"``, for which the host waits; ``"to device, not waited for"``; ``"wait"``.
        operator: the name of PyTorch's.
        line: of the package, which asked for it, as ``file:function``; "" if none of its did.
    """

    kind: str
    operator: str
    line: str

    def __str__(self) -> str:
        return f"{self.kind} in {self.line or 'no file of the package'} ({self.operator})"


def events_of(function: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Iterator[Event]:
    """What happens between host and device in a call of one of PyTorch's operators."""
    name = function._schema.name
    if name == "aten::_to_copy":
        target = torch.device(options.get("device") or arguments[0].device)
        yield from _copied(name, arguments[0].device, target, options.get("non_blocking", False))
    elif name == "aten::copy_":
        waits_not = arguments[2] if len(arguments) > 2 else options.get("non_blocking", False)
        yield from _copied(name, arguments[1].device, arguments[0].device, waits_not)
    elif not any(_on_device(t) for t in tree_leaves((arguments, options))):
        return
    elif name in WAITING or (name == "aten::repeat_interleave" and options.get("output_size") is None):
        yield Event("wait", name, _line())
    elif name in INDEXING:
        indices = [index for index in arguments[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) and _on_device(index) for index in indices):
            # A selection that is filled with a number is a masked_fill.
            value = arguments[2] if len(arguments) > 2 else None
            if not (isinstance(value, Tensor) and value.dim() == 0 and not _on_device(value)):
                yield Event("wait", name, _line())
        if _on_device(arguments[0]) and not all(map(_on_device, indices)):
            yield Event("to device", name, _line())


def _copied(name: str, source: torch.device, target: torch.device, waits_not: bool) -> Iterator[Event]:
    if source.type == target.type:
        return
    direction = "to device" if target.type == "cuda" else "to host"
    late = ", not waited for" if waits_not and direction == "to device" else ""
    yield Event(direction + late, name, _line())


def _on_device(item: Any) -> bool:
    return isinstance(item, Tensor) and item.device.type == "cuda"


def _line() -> str:
    """The innermost function of the package that is running."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE).as_posix()}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ""
