"""Tensors without values that say they are on a CUDA device, and a record of what passes between it and the host."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pyro.distributions import validation_enabled
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.devices.events import Event, events_of

__all__ = ["DEVICE", "Record", "fake_cuda", "module_on_device", "on_device"]

DEVICE = torch.device("cuda", 0)
# Samplers of which PyTorch does not know the shape of the result without values: that of the first argument.
_WITHOUT_FAKE = {"aten::_sample_dirichlet", "aten::binomial"}
_CUDA, _META = 1, 14  # of c10::DeviceType


class Record(TorchDispatchMode):
    """Keeps what passes between host and device, in ``events``."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.events += events_of(func, args, kwargs or {})
        if func._schema.name in _WITHOUT_FAKE and args[0].device == DEVICE:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))

    def check(self, allowed: str = "") -> None:
        """Fail if anything has passed, but events of the kind that is allowed."""
        __tracebackhide__ = True
        found = [event for event in self.events if event.kind != allowed]
        if found:
            pytest.fail("\n".join(sorted(map(str, found))))


@contextmanager
def fake_cuda() -> Iterator[Record]:
    """Inside, tensors have a device, a shape and a dtype, and no values.

    Nothing is differentiated, for which PyTorch asks a real device, and no values are validated.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), validation_enabled(False), _guard(), fake, Record() as record:
        yield record


@contextmanager
def _guard() -> Iterator[None]:
    """Inside, PyTorch takes CUDA devices for devices that need no guard, as it does those of type ``meta``.

    PyTorch without CUDA refuses to index a fake tensor that says it is there.
    """
    library = Path(torch.__file__).with_name("lib") / "libc10.so"
    if not library.exists():
        pytest.skip(f"needs PyTorch's shared library, found no {library}")
    guards = (ctypes.c_void_p * 16).in_dll(ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE")
    before = guards[_CUDA]
    guards[_CUDA] = before or guards[_META]
    try:
        yield
    finally:
        guards[_CUDA] = before


def on_device(tensor: Tensor) -> Tensor:
    """A tensor as this one, on the device; made there."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE)


def module_on_device(module: Any) -> Any:
    """A module of real tensors with fake ones on the device instead, moved as users do."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a tensor does not become a fake one in place
    try:
        return module.requires_grad_(False).to(DEVICE)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
