"""A fitted estimator as settings and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_probmix._checks import check_choice, check_integer, check_number
from pyro_probmix.estimators.members import Network
from pyro_probmix.models import DensityModel
from pyro_probmix.tables import Preparation
from pyro_probmix.training import History

__all__ = ["as_settings", "as_tensors", "check_keys", "labels_from_dict", "labels_to_dict", "restored"]

_KEYS = (
    "estimator",
    "params",
    "n_features_in_",
    "feature_names_in_",
    "preparation",
    "network",
    "num_members",
    "histories",
    "own",
)

_LONGEST = 2**16
"""Bytes of one label."""


def as_settings(estimator: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a fitted estimator, with what its class adds."""
    params = estimator.get_params(deep=False)
    if not isinstance(params["random_state"], int | np.integer):
        params["random_state"] = None
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "estimator": type(estimator).__name__,
        "params": {name: _plain(name, value) for name, value in params.items()},
        "n_features_in_": int(estimator.n_features_in_),
        "feature_names_in_": None if names is None else [str(name) for name in names],
        "preparation": estimator.preparation_.to_dict(),
        "network": {name: _plain(name, value) for name, value in asdict(estimator.network_).items()},
        "num_members": len(estimator.models_),
        "histories": [asdict(history) for history in estimator.histories_],
        "own": dict(own),
    }


def as_tensors(models: Sequence[DensityModel]) -> dict[str, Tensor]:
    """The parameters and buffers of members, by ``"0.decoder.weight"`` and the like."""
    return {
        f"{number}.{name}": tensor.detach().cpu().contiguous()
        for number, model in enumerate(models)
        for name, tensor in model.state_dict().items()
    }


def restored(kind: Any, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """The estimator of these settings and tensors."""
    check_keys("settings", settings, _KEYS)
    check_choice("estimator", settings["estimator"], (kind.__name__,))
    try:
        estimator = kind(**{name: _thawed(value) for name, value in settings["params"].items()})
    except TypeError as error:
        raise ValueError(f"params: expected those of {kind.__name__}, got others: {error}") from error
    size = _integer("n_features_in_", settings["n_features_in_"])
    names, members = settings["feature_names_in_"], _integer("num_members", settings["num_members"])
    estimator.n_features_in_ = size
    if names is not None:
        if not (isinstance(names, list) and len(names) == size and all(isinstance(name, str) for name in names)):
            raise ValueError(f"feature_names_in_: expected {size} names, got {names!r}")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    try:
        estimator.preparation_ = Preparation.from_dict(settings["preparation"])
        estimator.network_ = _network(settings["network"], estimator.preparation_.num_features)
        estimator.histories_ = [History(**history) for history in settings["histories"]]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"settings: expected those of a fitted estimator, got others: {error}") from error
    _check_size(estimator.network_, settings["own"], members, tensors)
    models = []
    try:
        likelihood, used = estimator._restore(settings["own"])
        for _ in range(members):
            models.append(_empty(estimator.network_, likelihood, used))
    except TypeError as error:
        raise ValueError(f"settings: expected those of a fitted estimator, got others: {error}") from error
    estimator.models_ = _loaded(models, tensors)
    return estimator


def _empty(network: Network, likelihood: Any, used: Any) -> DensityModel:
    """A member whose tensors are to be overwritten."""
    with torch.random.fork_rng(devices=[]):
        model = network.model(likelihood, "cpu")
    model.likelihood = used(model.likelihood)
    return model.eval()


def _check_size(network: Network, own: Any, members: int, tensors: Mapping[str, Tensor]) -> None:
    """Refuse settings of more numbers than there are, before they take memory."""
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"tensors: expected tensors by name, got {type(tensors).__name__}")
    there = sum(tensor.numel() for tensor in tensors.values())
    widths = [network.num_features, *(_integer("network.hidden_features", width) for width in network.hidden_features)]
    target = own.get("target", {}) if isinstance(own, Mapping) else {}
    components = target.get("num_components", 1) if isinstance(target, Mapping) else 1
    needed = members * sum(a * b for a, b in pairwise(widths)) + _integer("num_components", components)
    layers = members * len(widths)
    if layers > len(tensors):
        raise ValueError(f"tensors: expected at least {layers}, one a layer, got {len(tensors)}")
    if needed > there:
        raise ValueError(f"tensors: expected at least {needed} numbers, as the settings say, got {there}")


def check_keys(name: str, given: Any, keys: Sequence[str]) -> None:
    """Refuse what is no mapping of these keys."""
    if not isinstance(given, Mapping) or set(given) != set(keys):
        got = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(f"{name}: expected {', '.join(keys)}, got {got}")


def _loaded(models: list[DensityModel], tensors: Mapping[str, Tensor]) -> list[DensityModel]:
    expected = {f"{number}.{name}": (model, name) for number, model in enumerate(models) for name in model.state_dict()}
    for name in (*expected, *tensors):
        if name not in tensors or name not in expected:
            state = "missing" if name not in tensors else "unknown"
            raise ValueError(f"tensors: expected those of the settings, got {name!r} {state}")
    for number, model in enumerate(models):
        for name, own in model.state_dict().items():
            given = tensors[f"{number}.{name}"]
            if not isinstance(given, Tensor) or given.shape != own.shape or given.dtype != own.dtype:
                got = (tuple(given.shape), given.dtype) if isinstance(given, Tensor) else type(given).__name__
                raise ValueError(f"tensors: expected {number}.{name} of {tuple(own.shape)}, {own.dtype}, got {got}")
            if given.is_floating_point() and not bool(given.isfinite().all()):
                raise ValueError(f"tensors: expected finite numbers in {number}.{name}, got others")
            own.copy_(given)
    return models


def _network(settings: Any, num_features: int) -> Network:
    network = Network(**{**settings, "hidden_features": tuple(settings["hidden_features"])})
    for name, value in (("alpha", network.alpha), ("beta", network.beta)):
        try:
            check_number(f"network.{name}", value, "[0, inf)")
        except TypeError as error:
            raise ValueError(str(error)) from error
    check_choice("network.dtype", network.dtype, ("float32", "float64"))
    if network.num_features != num_features:
        raise ValueError(f"network.num_features: expected {num_features}, got {network.num_features}")
    return network


def _integer(name: str, value: Any) -> int:
    try:
        return check_integer(name, value)
    except TypeError as error:
        raise ValueError(str(error)) from error


def labels_to_dict(labels: NDArray[Any]) -> dict[str, Any]:
    """Labels with their type, in types that JSON has.

    Example:
        >>> labels_to_dict(np.array([1, 2]))
        {'dtype': '<i8', 'values': [1, 2]}
    """
    dtype = labels.dtype.str if labels.dtype.kind in "biufU" else "object"
    values = labels.tolist()
    if dtype == "object" and not all(isinstance(value, str) for value in values):
        raise TypeError(f"classes_: expected numbers, booleans or text, got {labels.dtype}")
    return {"dtype": dtype, "values": values}


def labels_from_dict(given: Any) -> NDArray[Any]:
    """What :func:`labels_to_dict` gave.

    Raises:
        ValueError: if it is something else.
    """
    try:
        dtype, values = np.dtype(given["dtype"]), given["values"]
        text = dtype.kind in "UO" and all(isinstance(value, str) for value in values)
        if not (text or dtype.kind in "biuf") or dtype.shape or dtype.itemsize > _LONGEST:
            raise ValueError(f"got {dtype}")
        labels = np.array(values, dtype=dtype)
        if labels.ndim != 1 or not len(labels) or labels.tolist() != values:
            raise ValueError(f"got {given!r}")
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"classes: expected labels and their dtype: {error}") from error
    return labels


def _plain(name: str, value: Any) -> Any:
    """The value in types that JSON has."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(name, own) for own in value]
    if isinstance(value, Mapping):
        return {"pairs": [[_plain(name, key), _plain(name, own)] for key, own in value.items()]}
    raise TypeError(f"{name}: expected numbers, text, or sequences or mappings of these, got {type(value).__name__}")


def _thawed(value: Any) -> Any:
    """What :func:`_plain` gave, sequences as tuples."""
    if isinstance(value, list):
        return tuple(_thawed(own) for own in value)
    if isinstance(value, Mapping):
        return {_thawed(key): _thawed(own) for key, own in value["pairs"]}
    return value
