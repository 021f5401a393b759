"""Ready models by name: method, law of λ, vicinity, likelihood and networks, and the model made of them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch

from pyro_probmix.distributions import ExpandedBeta, LogSpaceBeta
from pyro_probmix.mixing import DiracVicinity, GaussJacobi, LabelVicinity, NormalVicinity, Vicinity
from pyro_probmix.models import ERM, ManifoldMixup, ManifoldProbMix, Mixup, ProbMix
from pyro_probmix.models.density_model import DensityModel
from pyro_probmix.persistence.architectures import Builder, describe
from pyro_probmix.persistence.library import NotListed

__all__ = ["METHODS", "build_model", "describe_model"]

_OF_NETWORK, _OF_TWO = {"network": "decoder"}, {"encoder": "encoder", "decoder": "decoder"}
_MIXED = ("coefficient", "vicinity", "labels", "per")

METHODS: dict[str, tuple[type[DensityModel], dict[str, str], tuple[str, ...]]] = {
    "ERM": (ERM, _OF_NETWORK, ("vicinity", "labels")),
    "ManifoldMixup": (ManifoldMixup, _OF_TWO, _MIXED),
    "ManifoldProbMix": (
        ManifoldProbMix,
        {"embedding": "encoder", "decoder": "decoder"},
        (*_MIXED, "fusion", "propagate"),
    ),
    "Mixup": (Mixup, _OF_NETWORK, _MIXED),
    "ProbMix": (ProbMix, _OF_NETWORK, (*_MIXED, "fusion")),
}
"""The methods by name: class, the arguments that are networks with their place in the model, and the other ones."""

_LAWS: dict[str, tuple[type, tuple[str, ...]]] = {
    "Beta": (LogSpaceBeta, ("concentration1", "concentration0")),
    "Delta": (dist.Delta, ("v",)),
    "ExpandedBeta": (ExpandedBeta, ("concentration1", "concentration0", "low", "high")),
    "Uniform": (dist.Uniform, ("low", "high")),
}
_VICINITIES: dict[str, tuple[type[Vicinity], tuple[str, ...]]] = {
    "DiracVicinity": (DiracVicinity, ("fusion",)),
    "LabelVicinity": (LabelVicinity, ("beta", "num_classes", "fusion")),
    "NormalVicinity": (NormalVicinity, ("beta", "fusion")),
}
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def describe_model(model: DensityModel) -> dict[str, Any]:
    """What a ready model is made of, as JSON has it.

    Args:
        model: of :data:`METHODS`, of listed architectures.

    Raises:
        NotListed: if it is of another class, or a part of it is in no list.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> found = describe_model(pm.ProbMix(pm.nn.MLP(3, [8], 2), likelihood, vicinity=pm.NormalVicinity(0.01)))
        >>> found["method"], found["vicinity"]
        ('ProbMix', {'type': 'NormalVicinity', 'beta': 0.01, 'fusion': 'log-linear'})
    """
    kind = type(model).__name__
    if kind not in METHODS or type(model) is not METHODS[kind][0]:
        raise NotListed(f"{kind} is no listed method")
    _, places, options = METHODS[kind]
    mixing: Any = model.mixing
    found: dict[str, Any] = {"method": kind}
    for argument, place in {**places, "likelihood": "likelihood"}.items():
        found[argument] = describe(getattr(model, place), place)
    plain = {"labels": mixing.labels, "per": mixing.per, "fusion": mixing.fusion, "propagate": model.propagate}
    special = {"coefficient": _describe_law, "vicinity": _describe_vicinity}
    for option in options:
        found[option] = special[option](getattr(mixing, option)) if option in special else plain[option]
    return found


def build_model(spec: dict[str, Any], builder: Builder) -> DensityModel:
    """The model of such a description, its networks without weights.

    Raises:
        ValueError: if a name is unknown, or no such model can be made.
    """
    arguments = dict(spec)
    kind = arguments.pop("method", None)
    if not isinstance(kind, str) or kind not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {kind!r:.80}")
    made, places, options = METHODS[kind]
    expected = {*places, "likelihood", *options}
    if set(arguments) != expected:
        raise ValueError(f"{kind}: expected {', '.join(sorted(expected))}, got {', '.join(sorted(arguments))}")
    for argument, place in {**places, "likelihood": "likelihood"}.items():
        arguments[argument] = builder.part(arguments[argument], place)
    for option, build in (("coefficient", _build_law), ("vicinity", _build_vicinity)):
        if option in arguments:
            arguments[option] = build(arguments[option])
    try:
        return made(**arguments)
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{kind}: expected what it is made of: {error!r:.200}") from error


def _describe_law(law: Any) -> dict[str, Any]:
    if type(law) is GaussJacobi and not law.batch_shape:
        numbers = {"concentration1": law.concentration1, "concentration0": law.concentration0}
        return {"type": "GaussJacobi", **numbers, "num_nodes": len(law.nodes)}
    for name, (kind, parameters) in _LAWS.items():
        values = {parameter: getattr(law, parameter) for parameter in parameters} if type(law) is kind else {}
        dtypes = {str(value.dtype).removeprefix("torch.") for value in values.values()}
        if values and not law.batch_shape and dtypes <= _DTYPES.keys():
            return {"type": name, **{key: float(value) for key, value in values.items()}, "dtype": dtypes.pop()}
    raise NotListed(f"the coefficient {type(law).__name__} is in no list, or has a batch of parameters")


def _build_law(spec: Any) -> Any:
    def check(kind: Any, arguments: dict[str, Any]) -> Any:
        if kind == "GaussJacobi":
            if not 2 <= arguments["num_nodes"] <= 1024:
                raise ValueError(f"expected from 2 to 1024 nodes, got {arguments['num_nodes']}")
            return GaussJacobi(**arguments)
        law, parameters = _LAWS[kind]
        dtype = _DTYPES[arguments.pop("dtype")]
        if set(arguments) != set(parameters):
            raise TypeError(f"expected {', '.join(parameters)}, got {', '.join(arguments)}")
        return law(**{key: torch.tensor(value, dtype=dtype, device="cpu") for key, value in arguments.items()})

    return _made("coefficient", spec, check)


def _describe_vicinity(vicinity: Any) -> dict[str, Any] | None:
    if vicinity is None:
        return None
    kind = type(vicinity).__name__
    if kind not in _VICINITIES or type(vicinity) is not _VICINITIES[kind][0]:
        raise NotListed(f"the vicinity {kind} is in no list")
    return {"type": kind, **{name: getattr(vicinity, name) for name in _VICINITIES[kind][1]}}


def _build_vicinity(spec: Any) -> Any:
    return None if spec is None else _made("vicinity", spec, lambda kind, rest: _VICINITIES[kind][0](**rest))


def _made(name: str, spec: Any, build: Callable[[Any, dict[str, Any]], Any]) -> Any:
    try:
        arguments = dict(spec)
        return build(arguments.pop("type"), arguments)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: expected a listed one and what it is made of, got {spec!r:.80}: {error}") from error
