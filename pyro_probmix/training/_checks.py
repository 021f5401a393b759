"""Checks of what training is given."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyro_probmix._checks import check_finite, name_rows
from pyro_probmix._random import seeded
from pyro_probmix.distributions.supports import is_binary
from pyro_probmix.models import DensityModel

__all__ = [
    "check_decay",
    "check_device",
    "check_labels",
    "check_learning_rate",
    "check_model",
    "check_pair",
    "check_rows",
    "check_validation",
    "make_lazy_layers",
    "without_validation",
]


def without_validation() -> AbstractContextManager[None]:
    """Values are not looked at inside; outside, PyTorch's flag and Pyro's are as they were.

    The two may differ, and the first ``torch.compile`` of a process clears PyTorch's alone, for good.
    """
    context: AbstractContextManager[None] = pyro.settings.context(
        validate_distributions_pyro=False, validate_distributions_torch=False
    )
    return context


def check_device(device: Any) -> None:
    """Refuse a device that is not here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device: expected one that is here, such as cpu, got {device!r}: {error}") from error


def check_learning_rate(value: float) -> None:
    """Refuse a step size that is not positive and finite."""
    _check_between("learning_rate", "a positive number", value, math.inf)


def check_decay(value: float | None) -> None:
    """Refuse a decay that is not between 0 and 1."""
    if value is not None:
        _check_between("ema_decay", "a number between 0 and 1", value, 1)


def _check_between(name: str, expected: str, value: Any, upper: float) -> None:
    try:
        inside = bool(0 < value < upper)
    except (TypeError, ValueError, RuntimeError) as error:  # of no number, and of several
        raise TypeError(f"{name}: expected {expected}, got {value!r}") from error
    if not inside:
        raise ValueError(f"{name}: expected {expected}, got {value}")


def check_validation(x: Tensor, y: Tensor, model: DensityModel) -> None:
    """Refuse validation data that do not belong together, are not finite, or not the model's."""
    for name, tensor in (("validation x", x), ("validation y", y)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        check_finite(name, tensor)
    if len(x) == 0 or len(y) != len(x):
        raise ValueError(f"validation: expected as many rows in x as in y, and one at least, got {len(x)} and {len(y)}")
    check_labels("validation y", y, model)


def make_lazy_layers(x: Tensor, model: DensityModel, seed: int) -> None:
    """Have lazy layers make their parameters from ``seed``, by one row of the inputs."""
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        check_rows("x", x, model, seed)


def check_model(name: str, model: Any) -> None:
    """Refuse what is no ready model."""
    if not isinstance(model, DensityModel):
        raise TypeError(f"{name}: expected a model such as ProbMix, got {type(model).__name__}")


def check_pair(data: Any) -> None:
    """Refuse training data that are not two tensors with a row at least."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"data: expected a pair (x, y), got {type(data).__name__}")
    for name, tensor in zip("xy", data, strict=True):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        if tensor.dim() == 0 or len(tensor) == 0:
            raise ValueError(f"{name}: expected shape (N, ...) with N >= 1, got {tuple(tensor.shape)}")


def check_rows(name: str, x: Tensor, model: DensityModel, seed: int = 0) -> None:
    """Refuse inputs that the model's networks do not take, by one row of them; what is drawn is from ``seed``."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), seeded(seed, x.device), without_validation():
            model.eval().predictive(x[:1], num_samples=1)
    except RuntimeError as error:
        raise ValueError(
            f"{name}: expected rows that the networks take, got shape {tuple(x.shape)}: {error}"
        ) from error
    finally:
        for module, training in modes:
            module.training = training


def check_labels(name: str, y: Tensor, model: DensityModel) -> None:
    """Refuse labels of another shape or outside the likelihood's domain, looked at once, before training."""
    expected = (len(y), *model.likelihood.event_shape)
    if y.shape != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(y.shape)}")
    if is_binary(model.likelihood.support) and not y.is_floating_point():
        # of which PyTorch's Bernoulli has no log_prob
        raise ValueError(f"{name}: expected labels 0.0 and 1.0, of a floating dtype, got {y.dtype}")
    legal = model.likelihood.support.check(y)
    if not bool(legal.all()):
        raise ValueError(f"{name}: expected values in {model.likelihood.support}, got others in {name_rows(~legal)}")
