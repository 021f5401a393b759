"""Architectures by name: what a network of listed layers is made of, and the network made of that again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from pyro_probmix.persistence.library import LIBRARY, NotListed

__all__ = ["LAYERS", "Builder", "describe"]

LAYERS: dict[str, tuple[str, ...]] = {
    "AvgPool1d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
    "BatchNorm1d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "BatchNorm2d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "CELU": ("alpha",),
    "Conv1d": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias"),
    "Conv2d": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias"),
    "Dropout": ("p",),
    "ELU": ("alpha",),
    "Flatten": ("start_dim", "end_dim"),
    "GELU": ("approximate",),
    "GroupNorm": ("num_groups", "num_channels", "eps", "affine"),
    "Hardtanh": ("min_val", "max_val"),
    "Identity": (),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine", "bias"),
    "LeakyReLU": ("negative_slope",),
    "Linear": ("in_features", "out_features", "bias"),
    "LogSigmoid": (),
    "MaxPool1d": ("kernel_size", "stride", "padding", "dilation"),
    "MaxPool2d": ("kernel_size", "stride", "padding", "dilation"),
    "Mish": (),
    "PReLU": ("num_parameters",),
    "RMSNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "ReLU": (),
    "ReLU6": (),
    "SELU": (),
    "SiLU": (),
    "Sigmoid": (),
    "Softplus": ("beta", "threshold"),
    "Softsign": (),
    "Tanh": (),
    "Tanhshrink": (),
    "Unflatten": ("dim", "unflattened_size"),
}
"""Layers of PyTorch by name, and the arguments that each is made with."""

_DEEPEST, _MOST_PARTS = 32, 1 << 12


def describe(module: nn.Module, name: str = "") -> dict[str, Any]:
    """What a module is made of, as JSON has it.

    Args:
        module: made of layers of :data:`LAYERS` and of networks, likelihoods and embeddings of ``pm.nn``.
        name: of the module, for errors.

    Raises:
        NotListed: if a part is of another class, or does not do what its class does.

    Example:
        >>> describe(pm.nn.MLP(3, [8], 2))["hidden_features"]
        [8]
    """
    kind, shown = type(module).__name__, name or "the model"
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if is_parametrized(module) or "forward" in vars(module) or any(getattr(module, hook) for hook in hooks):
        raise NotListed(f"{shown} is a {kind} with hooks, or parametrized")
    if type(module) is nn.Sequential:
        layers = [(key, layer) for key, layer in module._modules.items() if layer is not None]
        return {"type": kind, "layers": {key: describe(layer, _join(name, key)) for key, layer in layers}}
    if kind in LIBRARY and type(module) is LIBRARY[kind].kind:
        try:
            settings = LIBRARY[kind].settings(module)
        except NotListed as error:
            raise NotListed(f"{shown} is a {kind}: {error}") from error
        parts = {key: describe(own, _join(name, key)) for key, own in settings.items() if isinstance(own, nn.Module)}
        return {"type": kind, **settings, **parts}
    if kind not in LAYERS or type(module) is not getattr(nn, kind):
        raise NotListed(f"{shown} is a {kind}, which is no listed architecture")
    if getattr(module, "padding_mode", "zeros") != "zeros":
        raise NotListed(f"{shown} is a {kind} with another padding than zeros")
    values = {argument: getattr(module, argument) for argument in LAYERS[kind]}
    if "bias" in values:
        values["bias"] = values["bias"] is not None
    return {"type": kind, **{key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}}


class _Refused(ValueError):
    """What cannot be made, by the name of the innermost part."""


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


class Builder:
    """Makes networks of what :func:`describe` says, their weights without memory, on the device ``meta``.

    Args:
        shapes: of the weights that there are, by name.
        read: gives one of them, for a module that is made of it.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Tensor]) -> None:
        self.shapes, self._read = shapes, read
        self._depth = self._parts = 0

    def part(self, spec: Any, name: str) -> Any:
        """The module of that name in the model, None for none.

        Raises:
            ValueError: if the architecture is unknown, or no such network can be made.
        """
        name = name.removeprefix(".")  # of a network alone
        if spec is None:
            return None
        self._depth += 1
        self._parts += 1
        try:
            if self._parts > _MOST_PARTS:
                raise ValueError(f"expected at most {_MOST_PARTS} architectures, got more")
            if self._depth > _DEEPEST:
                raise ValueError(f"expected at most {_DEEPEST} architectures inside one another, got more")
            if not isinstance(spec, dict) or not isinstance(spec.get("type"), str):
                raise ValueError(f"expected an architecture with a type, got {spec!r:.80}")
            arguments = dict(spec)
            kind = arguments.pop("type")
            if kind not in ("Sequential", *LIBRARY, *LAYERS):
                known = ", ".join(["Sequential", *LIBRARY, *LAYERS])
                raise ValueError(f"expected one of {known}, got {kind!r:.80}")
            return self._made(kind, arguments, name)
        except _Refused:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise _Refused(f"{name or 'the network'}: cannot be made of its settings: {error}") from error
        finally:
            self._depth -= 1

    def check_layers(self, number: int) -> None:
        """Refuses more layers than there are weights, before they are made."""
        if number > len(self.shapes):
            raise ValueError(f"expected weights of {number} layers, got {len(self.shapes)} tensors")

    def read(self, name: str) -> Tensor:
        """The weights of that name, of which a likelihood has few."""
        return self._read(name)

    def _made(self, kind: str, arguments: dict[str, Any], name: str) -> nn.Module:
        if kind == "Sequential":
            layers = arguments["layers"].items()
            return nn.Sequential(OrderedDict((key, self.part(layer, _join(name, key))) for key, layer in layers))
        names = LIBRARY[kind].names if kind in LIBRARY else LAYERS[kind]
        if set(arguments) != set(names):
            raise TypeError(f"expected {', '.join(names) or 'no arguments'}, got {', '.join(arguments)}")
        if kind in LIBRARY:
            return LIBRARY[kind].build(self, arguments, name)
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
        with torch.device("meta"):
            return getattr(nn, kind)(**values)
