"""What a model is trained on, checked before the first step, and put where the model is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyro_probmix._checks import check_finite, check_tensor
from pyro_probmix._random import seeded
from pyro_probmix.distributions.supports import check_support, is_binary
from pyro_probmix.mixing import CompleteGraph, PairLoader, SamplingGraph
from pyro_probmix.mixing.loaders import check_weight
from pyro_probmix.models import DensityModel

__all__ = [
    "Data",
    "HeldOut",
    "Validation",
    "check_labels",
    "check_model",
    "check_pair",
    "check_rows",
    "check_validation",
    "prepare",
    "without_validation",
]

Data = tuple[Tensor, Tensor]
HeldOut = tuple[Tensor, Tensor, Tensor | None]
"""Inputs, labels and the share of each row in the loss, None where all have the same."""
Validation = Data | tuple[Tensor, Tensor, Tensor]
"""Inputs, labels and, where rows do not count the same, their weights."""


def prepare(
    model: DensityModel,
    data: Data,
    graph: Any,
    validation: Validation | None,
    batch_size: int | None,
    seed: int,
    **rows: Tensor | None,
) -> tuple[PairLoader, HeldOut | None]:
    """The batches of a training and its validation data, where the model is; lazy layers are made from ``seed``.

    Data that are elsewhere go to the model's device at once if they take no more than half of its free memory. The
    graph may be what makes one from the inputs, and None is the complete one; ``rows`` are ``weight`` and ``mask``.
    """
    x, y = check_pair("data", data)
    device = next((p.device for p in model.parameters() if p.requires_grad), x.device)
    if device.type == "cuda":
        size = sum(t.numel() * t.element_size() for t in (x, y) if t.device != device)
        if size <= torch.cuda.mem_get_info(device)[0] // 2:
            x, y = x.to(device), y.to(device)
    if graph is None:
        graph = CompleteGraph(len(x))
    elif callable(graph) and not isinstance(graph, SamplingGraph):
        graph = graph(x)
    moved: dict[str, Any] = {name: own.to(x.device) if isinstance(own, Tensor) else own for name, own in rows.items()}
    loader = PairLoader(x, y, graph, batch_size, **moved)
    check_labels("y", y if loader.y is None else loader.y, model)
    with pyro.get_param_store().scope():
        if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
            check_rows("x", x, model, seed)
        held_out = None if validation is None else _held_out(validation, model, device)
    return loader, held_out


def _held_out(validation: Validation, model: DensityModel, device: torch.device) -> HeldOut:
    """Validation data on the device, checked, the weights adding up to one."""
    pair, share = validation, None
    if isinstance(validation, (tuple, list)) and len(validation) == 3:
        pair, share = validation[:2], validation[2]
    x, y = (own.to(device) for own in check_validation(pair, model))
    if share is not None:
        share = check_weight("validation weight", share, len(x)).to(device)
        share = share / share.sum()
    check_rows("validation x", x, model)
    return x, y, share


def check_model(name: str, model: Any) -> None:
    """Refuse what is no ready model."""
    if not isinstance(model, DensityModel):
        raise TypeError(f"{name}: expected a model such as ProbMix, got {type(model).__name__}")


def check_pair(name: str, data: Any) -> Data:
    """Refuse data that are not two tensors with a row at least."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"{name}: expected a pair (x, y), got {type(data).__name__}")
    for part, tensor in zip("xy", data, strict=True):
        part = part if name == "data" else f"{name} {part}"
        check_tensor(part, tensor)
        if tensor.dim() == 0 or len(tensor) == 0:
            raise ValueError(f"{part}: expected shape (N, ...) with N >= 1, got {tuple(tensor.shape)}")
    return data[0], data[1]


def check_validation(data: Any, model: DensityModel) -> Data:
    """Refuse validation data that do not belong together, are not finite, or not the model's."""
    x, y = check_pair("validation", data)
    check_finite("validation x", x)
    check_finite("validation y", y)
    if len(y) != len(x):
        raise ValueError(f"validation: expected as many rows in x as in y, got {len(x)} and {len(y)}")
    check_labels("validation y", y, model)
    return x, y


def check_labels(name: str, y: Tensor, model: DensityModel) -> None:
    """Refuse labels of another shape or outside the likelihood's domain, looked at once, before training."""
    check_tensor(name, y, (len(y), *model.likelihood.event_shape))
    if is_binary(model.likelihood.support) and not y.is_floating_point():
        # of which PyTorch's Bernoulli has no log_prob
        raise ValueError(f"{name}: expected labels 0.0 and 1.0, of a floating dtype, got {y.dtype}")
    check_support(name, y, model.likelihood.support)


def check_rows(name: str, x: Tensor, model: DensityModel, seed: int = 0) -> None:
    """Refuse inputs that the model's networks do not take, by one row of them; what is drawn is from ``seed``."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), seeded(seed, x.device), without_validation():
            model.eval().predictive(x[:1].to(next(model.parameters()).device), num_samples=1)
    except RuntimeError as error:
        raise ValueError(
            f"{name}: expected rows that the networks take, got shape {tuple(x.shape)}: {error}"
        ) from error
    finally:
        for module, training in modes:
            module.training = training


def without_validation() -> AbstractContextManager[None]:
    """Values are not looked at inside; outside, PyTorch's flag and Pyro's are as they were.

    The two may differ, and the first ``torch.compile`` of a process clears PyTorch's alone, for good.
    """
    context: AbstractContextManager[None] = pyro.settings.context(
        validate_distributions_pyro=False, validate_distributions_torch=False
    )
    return context
