"""``save`` and ``load``: what of a model goes into the folder, and the model that is made of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyro_probmix._checks import check_choice, check_device, check_integer
from pyro_probmix._files import versions
from pyro_probmix._random import seeded
from pyro_probmix.estimators import ProbMixClassifier, ProbMixRegressor
from pyro_probmix.models.density_model import DensityModel
from pyro_probmix.models.priors import refuse_priors
from pyro_probmix.persistence.architectures import Builder, describe
from pyro_probmix.persistence.folder import SETTINGS, WEIGHTS, Weights, read_folder, write_folder
from pyro_probmix.persistence.library import NotListed
from pyro_probmix.persistence.methods import build_model, describe_model

__all__ = ["load", "save"]

_ESTIMATORS: dict[str, Any] = {kind.__name__: kind for kind in (ProbMixClassifier, ProbMixRegressor)}
_MOST_SAMPLES = 10**6
_KINDS = ("estimator", "model", "network", "weights")


def save(
    model: Any, path: str | os.PathLike, *, overwrite: bool = False, about: Mapping[str, Any] | None = None
) -> None:
    """Saves a model as a folder that runs no code when it is loaded.

    ``settings.json`` says what the model is: its class, architecture, likelihood, law of λ and vicinity by name, or the
    settings of an estimator, its preparation of columns among them. ``weights.safetensors`` holds its parameters and
    buffers, those that are constrained or parametrized by their unconstrained values. The folder is written whole or
    not at all.

    Args:
        model: a fitted :class:`ProbMixRegressor` or :class:`ProbMixClassifier`; an :class:`ERM`, :class:`Mixup`,
            :class:`ManifoldMixup`, :class:`ProbMix` or :class:`ManifoldProbMix`, or a network alone. Those of listed
            layers, of ``pm.nn`` and of PyTorch, are made again by :func:`load`; of any other module the weights are
            saved, for ``load(path, into=model)``.
        path: the folder; missing ones above it are made.
        overwrite: whether a model that is there is replaced. If the process stops, there is the old one or the new.
        about: what else is to be kept with it, such as the name of the target, in types that JSON has;
            :func:`~pyro_probmix.persistence.read_settings` gives it back as ``"about"``.

    Raises:
        TypeError: if ``model`` is neither an estimator nor a module, or an estimator has a likelihood of one's own.
        ValueError: if an estimator is not fitted, weights have priors, have no values yet, or are not finite, or no
            weights are there.
        FileExistsError: if a model is there and not to be replaced, or anything else.

    Example:
        >>> import tempfile
        >>> model = pm.ERM(pm.nn.MLP(3, [8], 2), pm.nn.NormalLikelihood())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pm.save(model, f"{folder}/model")
        ...     loaded = pm.load(f"{folder}/model")
        >>> x = torch.randn(5, 3)
        >>> torch.equal(loaded.predictive(x).mean, model.predictive(x).mean)
        True
    """
    settings, tensors = _contents(model)
    write_folder(path, {"versions": _versions(), "about": dict(about or {}), **settings}, tensors, overwrite)


def _versions() -> dict[str, str]:
    return {**versions(), "safetensors": version("safetensors")}


def load(path: str | os.PathLike, *, into: nn.Module | None = None, device: Any = "cpu") -> Any:
    """Loads what :func:`save` has saved; no code in the folder is ever run.

    Args:
        path: the folder.
        into: a model to fill with the weights, whose names and shapes they must have; it stays where it is. Needed for
            modules that are no listed architecture.
        device: where a model is put that is made anew.

    Returns:
        The estimator or the module, or ``into``.

    Raises:
        FileNotFoundError: if there is no such folder, or it is no model's.
        TypeError: if ``into`` is no module.
        ValueError: if the folder is damaged, cut off, of a newer format, or says what does not go together; if ``into``
            is needed, or does not have the names, shapes and dtypes of the weights.

    Example:
        >>> import tempfile
        >>> encoder = torch.nn.RNN(3, 8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pm.save(encoder, f"{folder}/encoder")
        ...     filled = pm.load(f"{folder}/encoder", into=torch.nn.RNN(3, 8))
        >>> torch.equal(filled.bias_ih_l0, encoder.bias_ih_l0)
        True
    """
    check_device(device)
    settings, weights = read_folder(path)
    shown, kind = Path(path) / SETTINGS, settings.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"{shown}: expected a kind of {', '.join(_KINDS)}, got {kind!r:.80}")
    if into is not None:
        if not isinstance(into, nn.Module):
            raise TypeError(f"into: expected an nn.Module, got {type(into).__name__}")
        if any(tensor.is_meta for tensor in into.state_dict().values()):
            raise ValueError("into: expected a module whose weights have memory, got some on the device meta")
        if kind == "estimator":
            raise ValueError(f"into: expected none for {path}, which holds an estimator")
        _fill(into, weights, path, "into", assign=False)
        return into
    if kind == "weights":
        raise ValueError(
            f"{path}: expected into=, a model to fill with the weights of a {settings.get('class')!s:.80}, got none: "
            f"{settings.get('reason')!s:.200}"
        )
    try:
        if kind == "estimator":
            return _load_estimator(settings, weights, device)
        model = _build(settings, Builder(weights.shapes, weights.read))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{shown}: {error}") from error
    _fill(model, weights, path, "the architecture", assign=True)
    model.train(settings.get("training") is True)
    frozen = settings.get("frozen")
    if not isinstance(frozen, list):
        raise ValueError(f"{shown}: expected the names of frozen weights, got {frozen!r:.80}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return model.to(device)


# What of a model is saved.


def _contents(model: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if type(model).__name__ in _ESTIMATORS and type(model) is _ESTIMATORS[type(model).__name__]:
        fitted = model.fitted_settings()
        tensors = model.fitted_tensors()
        _check_samples(model)
        settings = {"kind": "estimator", "estimator": type(model).__name__, "columns": _columns(fitted)}
        return {**settings, "fitted": fitted}, _values(tensors, set(tensors))
    if not isinstance(model, nn.Module):
        listed = ", ".join(_ESTIMATORS)
        raise TypeError(f"model: expected an nn.Module, {listed}, got {type(model).__name__}")
    refuse_priors(model, "save")
    state = model.state_dict()
    tensors = _values(state, {name for name, _ in model.named_parameters(remove_duplicate=False)})
    if not tensors:
        raise ValueError(f"model: expected one with weights, got a {type(model).__name__} without")
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    try:
        return {**_described(model, tensors), "class": name}, tensors
    except NotListed as error:
        return {"kind": "weights", "class": name, "reason": str(error)}, tensors


def _described(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of a model that can be made of them: it is made, without its weights, to see that it can."""
    if len({module.training for module in model.modules()}) > 1:
        raise NotListed("some of its modules are in training and others are not")
    own = dict(model.named_parameters(remove_duplicate=False))
    if len({id(parameter) for parameter in own.values()}) < len(own):
        raise NotListed("some of its weights are shared")
    frozen = [name for name, parameter in own.items() if not parameter.requires_grad]
    if isinstance(model, DensityModel):
        settings = {"kind": "model", "model": describe_model(model)}
    else:
        settings = {"kind": "network", "network": describe(model)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        made: Any = _build(settings, Builder(shapes, tensors.__getitem__))
    except ValueError as error:
        raise NotListed(str(error)) from error
    if {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()} != shapes:
        raise NotListed("its weights are not those of its architecture")
    if isinstance(model, DensityModel) and made.mixing.at != model.mixing.at:
        raise NotListed(f"{type(model).__name__} is mixed at {model.mixing.at!r}")
    return {**settings, "training": model.training, "frozen": frozen}


def _values(state: Mapping[str, Any], parameters: set[str]) -> dict[str, Tensor]:
    """Copies of the tensors on the CPU, each with a memory of its own; buffers may be infinite, as masks are."""
    values = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"model: expected tensors alone in its state, got {type(value).__name__} at {name}")
        if is_lazy(value) or value.is_meta:
            raise ValueError(f"model: expected weights that have values, got none yet of {name}")
        if value.layout is not torch.strided or value.is_quantized:
            raise ValueError(f"model: expected dense weights, got others of {name}")
        values[name] = value.detach().to("cpu", copy=True).contiguous()
        sound = values[name].isfinite() if name in parameters else ~values[name].isnan()
        if not bool(sound.all()):
            raise ValueError(f"model: expected finite weights, got NaN or inf in {name}")
    return values


# The model that is made of it.


def _build(settings: Mapping[str, Any], builder: Builder) -> nn.Module:
    with seeded(0, torch.device("cpu")):  # layers without memory draw, too
        if settings["kind"] == "model":
            return build_model(settings["model"], builder)
        network: nn.Module = builder.part(settings["network"], "")
        return network


def _fill(model: nn.Module, weights: Weights, path: Any, expected_by: str, assign: bool) -> None:
    """Gives a model the weights of a folder, once all of them are known to fit."""
    shown, own = Path(path) / WEIGHTS, model.state_dict()
    for name in dict.fromkeys([*own, *weights.shapes]):
        ours = tuple(own[name].shape) if name in own else "none"
        theirs = weights.shapes.get(name, "none")
        if ours != theirs:
            raise ValueError(f"{shown}: expected {name:.200} of shape {ours}, as in {expected_by}, got {theirs!s:.80}")
    state = {name: weights.read(name) for name in own}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in state.items():
        floating = own[name].is_floating_point()
        same = tensor.dtype == own[name].dtype if not (assign and floating) else tensor.is_floating_point()
        if not same:
            raise ValueError(f"{shown}: expected {name} of {own[name].dtype}, as in {expected_by}, got {tensor.dtype}")
        if name in parameters and not bool(tensor.isfinite().all()):
            raise ValueError(f"{shown}: expected finite weights, got an infinity in {name}")
    model.load_state_dict(state, assign=assign)


def _load_estimator(settings: Mapping[str, Any], weights: Weights, device: Any) -> Any:
    check_choice("estimator", settings["estimator"], _ESTIMATORS)
    fitted = settings["fitted"]
    if settings["columns"] != _columns(fitted):
        raise ValueError("columns: expected those that it was trained on, by their sha256, got others")
    tensors = {name: weights.read(name) for name in weights.shapes}
    estimator = _ESTIMATORS[settings["estimator"]].from_fitted(fitted, tensors)
    _check_samples(estimator)
    for model in estimator.models_:
        model.to(device)
    return estimator.set_params(device=str(device))


def _check_samples(estimator: Any) -> None:
    """Refuses what no prediction has memory for."""
    if check_integer("num_samples", estimator.num_samples) > _MOST_SAMPLES:
        raise ValueError(f"num_samples: expected at most {_MOST_SAMPLES}, got {estimator.num_samples}")


def _columns(fitted: Mapping[str, Any]) -> str:
    """What identifies the columns of training, by their names or, where they have none, by their number."""
    names = fitted.get("feature_names_in_") or fitted["n_features_in_"]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()
