"""Tensors with values on the CPU that say they are on a CUDA device, and a record of what passes to and from it.

For a process in which ``guard.cpp`` has been loaded before PyTorch: it stands in for the driver, and is not taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.devices.events import INDEXING, Event, events_of

__all__ = ["DEVICE", "MockCuda", "generators", "mock_cuda", "module_on_device", "on_device", "on_host", "stand_in"]

DEVICE = torch.device("cuda", 0)
_events: list[Event] | None = None
_generators: list[torch.Generator] = []  # those that say they are on the device


class MockCuda(Tensor):
    """A tensor that says it is on the device.

    Attributes:
        held: its values, on the CPU.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Any:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first.")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"MockCuda({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = MockCuda(self.held.detach().clone()).requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _restored, (self.held.detach(), self.requires_grad)


def _restored(held: Tensor, requires_grad: bool) -> Tensor:
    return MockCuda(held).requires_grad_(requires_grad)


def on_host(value: Any) -> Any:
    """The values of a mock tensor; anything else as it is."""
    return value.held if isinstance(value, MockCuda) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One of PyTorch's operators: by the values, its tensors on the device that it would have put them on."""
    name = func._schema.name
    if _events is not None:
        _events.extend(events_of(func, args, kwargs))
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in tensors if isinstance(t, MockCuda)]
    target = kwargs.get("device")
    on_target = bool(there) if target is None else torch.device(target).type == "cuda"
    if name == "aten::copy_":
        func(*map(on_host, args), **kwargs)
        return args[0]
    if there and name != "aten::_to_copy":
        _check_devices(name, args, tensors)
    generator = kwargs.get("generator")
    if on_target and generator is not None and all(generator._cdata != known._cdata for known in _generators):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name})")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(on_host, args), **tree_map(on_host, kwargs))
    if name == "aten::_to_copy" and any(result is t.held for t in there):
        result = result.clone()
    if not on_target:
        return result
    known = {id(t.held): t for t in there}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return known[id(value)] if id(value) in known else MockCuda(value)

    return tree_map(wrapped, result)


def _check_devices(name: str, args: Any, tensors: list[Tensor]) -> None:
    """Refuse what is elsewhere, but single numbers, and what a tensor is indexed with."""
    indices = args[1] if name in INDEXING else ()
    for t in tensors:
        if not isinstance(t, MockCuda) and t.dim() and not any(t is index for index in indices):
            raise RuntimeError(f"Expected all tensors to be on the same device, found cuda:0 and cpu ({name})")


class _Mode(TorchDispatchMode):
    """Makes what is made on the device; without it, operators without a tensor from there do not come here."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def mock_cuda() -> Iterator[list[Event]]:
    """Inside, there is a device; what passes between it and the host is listed."""
    global _events
    before, lifted = _events, torch._C._only_lift_cpu_tensors()  # type: ignore[attr-defined]
    _events = []
    torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]  # a new tensor is copied there, and seen to be
    try:
        with _Mode():
            yield _events
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)  # type: ignore[attr-defined]
        _events = before


def on_device(tensor: Tensor) -> Tensor:
    """A copy of the tensor on the device."""
    return MockCuda(tensor.detach().clone())


def module_on_device(module: Any) -> Any:
    """The module, moved to the device as users do."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with mock_cuda():
        return module.to(DEVICE)


@contextmanager
def generators() -> Iterator[None]:
    """Inside, a generator of the device can be made; ``torch.Generator`` is a function."""
    make = torch.Generator

    def make_generator(device: Any = "cpu") -> torch.Generator:
        made = make()
        if torch.device(device).type == "cuda":
            _generators.append(made)
        return made

    with patch.object(torch, "Generator", make_generator):
        yield


def stand_in() -> None:
    """Have PyTorch's functions of CUDA devices answer for this one, whose random numbers are the CPU's."""
    cuda: Any = torch.cuda
    generator = torch.default_generator
    cuda.current_device = lambda: 0
    cuda.default_generators = (generator,)
    cuda.device = lambda device: nullcontext()
    cuda.device_count = lambda: 1
    cuda.get_rng_state = lambda device=None: generator.get_state()
    cuda.is_initialized = lambda: True
    cuda.manual_seed = generator.manual_seed
    cuda.mem_get_info = lambda device=None: (2**34, 2**35)
    cuda.set_rng_state = lambda state, device=None: generator.set_state(state)
