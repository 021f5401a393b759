"""The networks, likelihoods and embeddings of this library, by name: their settings, and how they are made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_probmix.nn import (
    MLP,
    CategoricalLikelihood,
    DistributionEmbedding,
    DistributionLikelihood,
    LowRankNormalEmbedding,
    LSTMBackbone,
    NormalEmbedding,
    NormalLikelihood,
    RescaledNetwork,
    TransformerBackbone,
)

__all__ = ["FAMILIES", "LIBRARY", "Listed", "NotListed", "check_numbers"]

FAMILIES = (
    "AsymmetricLaplace",
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ContinuousBernoulli",
    "Dirichlet",
    "Exponential",
    "Gamma",
    "GammaPoisson",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LogNormal",
    "Logistic",
    "LogisticNormal",
    "Multinomial",
    "MultivariateNormal",
    "MultivariateStudentT",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "Pareto",
    "Poisson",
    "SoftLaplace",
    "StudentT",
    "Uniform",
    "VonMises",
    "VonMises3D",
    "Weibull",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
)
"""Families of a likelihood or an embedding, by their names in Pyro."""

_LARGEST = 1 << 26
"""Numbers that a likelihood may have in memory before its weights are read."""


class NotListed(ValueError):
    """A part of a model that is in no list of architectures, and why."""


@dataclass(frozen=True)
class Listed:
    """A class of this library.

    Args:
        kind: the class.
        names: of its settings.
        settings: of a module of it, modules among them.
        build: a module, by what makes its parts, of its settings, with its name in the model.
    """

    kind: type[nn.Module]
    names: tuple[str, ...]
    settings: Callable[[Any], dict[str, Any]]
    build: Callable[[Any, dict[str, Any], str], nn.Module]


def check_numbers(size: int) -> None:
    """Refuses what would take much memory before it is known that there are weights for it."""
    if not 0 <= size <= _LARGEST:
        raise ValueError(f"expected at most {_LARGEST} numbers of one y, got {size}")


def _make(kind: type[nn.Module], *parts: str) -> Callable[[Any, dict[str, Any], str], nn.Module]:
    """Makes the class by its constructor, without memory, of modules by these names and other arguments."""

    def build(builder: Any, arguments: dict[str, Any], name: str) -> nn.Module:
        modules = {part: builder.part(arguments[part], f"{name}.{part}") for part in parts}
        with torch.device("meta"):
            return kind(**{**arguments, **modules})

    return build


def _mlp(network: MLP) -> dict[str, Any]:
    layers = list(network)
    linear: list[Any] = layers[0::2]
    activations = layers[1::2]
    if not all(type(layer) is nn.Linear and layer.bias is not None for layer in linear):
        raise NotListed("MLP whose layers are not those it was made with")
    last = activations.pop() if len(activations) == len(linear) else None
    if len({repr(layer) for layer in activations}) > 1:
        raise NotListed("MLP whose activations are not those it was made with")
    return {
        "in_features": linear[0].in_features,
        "hidden_features": [layer.out_features for layer in linear[:-1]],
        "out_features": linear[-1].out_features,
        "activation": activations[0] if activations else nn.ReLU(),
        "output_activation": last,
    }


def _build_mlp(builder: Any, arguments: dict[str, Any], name: str) -> nn.Module:
    def activation(key: str) -> Callable[[], nn.Module]:
        return lambda: builder.part(arguments[key], f"{name}.{key}")

    builder.check_layers(len(arguments["hidden_features"]))
    last = None if arguments["output_activation"] is None else activation("output_activation")
    sizes = (arguments["in_features"], arguments["hidden_features"], arguments["out_features"])
    with torch.device("meta"):
        return MLP(*sizes, activation=activation("activation"), output_activation=last)


def _lstm(network: LSTMBackbone) -> dict[str, Any]:
    sizes = {key: getattr(network.lstm, key) for key in ("hidden_size", "num_layers")}
    return {"in_features": network.lstm.input_size, **sizes, "sequence": network.sequence}


def _transformer(network: TransformerBackbone) -> dict[str, Any]:
    layer: Any = network.layers[0]
    return {
        "in_features": network.projection.in_features,
        "hidden_size": network.projection.out_features,
        "num_heads": layer.self_attn.num_heads,
        "num_layers": len(network.layers),
        "feedforward_size": layer.linear1.out_features,
        "dropout": layer.dropout.p,
        "causal": layer.causal,
        "sequence": network.sequence,
    }


def _of_layers(kind: type[nn.Module]) -> Callable[[Any, dict[str, Any], str], nn.Module]:
    def build(builder: Any, arguments: dict[str, Any], name: str) -> nn.Module:
        builder.check_layers(arguments["num_layers"])
        return _make(kind)(builder, arguments, name)

    return build


def _rescaled(builder: Any, arguments: dict[str, Any], name: str) -> nn.Module:
    means = [builder.read(f"{name}.{mean}" if name else mean) for mean in ("x_mean", "y_mean")]
    return RescaledNetwork(builder.part(arguments["network"], f"{name}.network"), arguments["theta"], *means)


def _normal_likelihood(likelihood: NormalLikelihood) -> dict[str, Any]:
    numbers = {"scale": likelihood.scale, "min_scale": likelihood.min_scale}
    return {
        "event_shape": list(likelihood.event_shape),
        "homoscedastic": likelihood.log_scale is not None,
        **numbers,
    }


def _build_normal_likelihood(builder: Any, arguments: dict[str, Any], name: str) -> nn.Module:
    check_numbers(math.prod(arguments["event_shape"]))
    return NormalLikelihood(**arguments)


def _build_categorical_likelihood(builder: Any, arguments: dict[str, Any], name: str) -> nn.Module:
    check_numbers(8 * arguments["num_classes"])
    return CategoricalLikelihood(**arguments)


def _distribution(likelihood: DistributionLikelihood) -> dict[str, Any]:
    family = likelihood.distribution_class
    if family.__name__ not in FAMILIES or family is not getattr(dist, family.__name__):
        raise NotListed(f"the family {family.__name__} is in no list")
    numbers = {name: value for name, value in likelihood.fixed.items() if not isinstance(value, Tensor)}
    for name, value in numbers.items():
        if not isinstance(value, bool | int | float):
            raise NotListed(f"{name} of {family.__name__} is no number and no tensor")
    return {
        "distribution": family.__name__,
        "event_shape": list(likelihood.event_shape),
        "parameters": list(likelihood.parameter_names),
        "num_classes": likelihood.num_classes,
        "floor": likelihood.floor,
        "numbers": numbers,
        "tensors": [name for name in likelihood.fixed if name not in numbers],
    }


def _build_distribution(builder: Any, arguments: dict[str, Any], name: str) -> DistributionLikelihood:
    return DistributionLikelihood(**_distribution_arguments(builder, arguments, name))


def _distribution_arguments(builder: Any, arguments: dict[str, Any], name: str) -> dict[str, Any]:
    arguments = dict(arguments)
    family = arguments.pop("distribution")
    if family not in FAMILIES:
        raise ValueError(f"expected a family among {', '.join(FAMILIES)}, got {family!r:.80}")
    size, classes = arguments["event_shape"], arguments["num_classes"] or 1
    # A family of vectors may have a matrix.
    check_numbers(math.prod(size) * (size[-1] if size else 1) * 8 * classes)
    before = f"{name}." if name else ""
    tensors = {fixed: builder.read(f"{before}fixed_{fixed}") for fixed in arguments.pop("tensors")}
    return {"distribution_class": getattr(dist, family), **arguments.pop("numbers"), **tensors, **arguments}


def _distribution_embedding(embedding: DistributionEmbedding) -> dict[str, Any]:
    return {"encoder": embedding.encoder, "family": embedding.family}


def _build_distribution_embedding(builder: Any, arguments: dict[str, Any], name: str) -> nn.Module:
    encoder, family = builder.part(arguments["encoder"], f"{name}.encoder"), dict(arguments["family"])
    if family.pop("type") != "DistributionLikelihood" or family["num_classes"] is not None:
        raise ValueError("expected the family of a DistributionLikelihood")
    made = _distribution_arguments(builder, family, f"{name}.family" if name else "family")
    del made["num_classes"]
    return DistributionEmbedding(encoder, **made)


def _attributes(*names: str) -> Callable[[Any], dict[str, Any]]:
    def settings(module: Any) -> dict[str, Any]:
        found = {name: getattr(module, name) for name in names}
        return {name: list(value) if isinstance(value, torch.Size) else value for name, value in found.items()}

    return settings


def _normal_embedding(embedding: NormalEmbedding) -> dict[str, Any]:
    return {"embedding_dim": list(embedding.event_shape), **_attributes(*_NORMAL[1:])(embedding)}


def _low_rank_embedding(embedding: LowRankNormalEmbedding) -> dict[str, Any]:
    return {"embedding_dim": list(embedding.event_shape), **_attributes(*_LOW_RANK[1:])(embedding)}


_FAMILY = ("distribution", "event_shape", "parameters", "num_classes", "floor", "numbers", "tensors")
_LOW_RANK = ("embedding_dim", "encoder", "rank", "initial_scale", "min_scale")
_LSTM = ("in_features", "hidden_size", "num_layers", "sequence")
_MLP = ("in_features", "hidden_features", "out_features", "activation", "output_activation")
_NORMAL = ("embedding_dim", "encoder", "variance_network", "initial_scale", "scale", "min_scale")
_OF_NUMBERS = ("event_shape", "homoscedastic", "scale", "min_scale")
_TRANSFORMER = (*_LSTM, "num_heads", "feedforward_size", "dropout", "causal")
_NETWORKS = ("encoder", "variance_network")

_ALL = (
    Listed(CategoricalLikelihood, ("num_classes",), _attributes("num_classes"), _build_categorical_likelihood),
    Listed(DistributionEmbedding, ("encoder", "family"), _distribution_embedding, _build_distribution_embedding),
    Listed(DistributionLikelihood, _FAMILY, _distribution, _build_distribution),
    Listed(LSTMBackbone, _LSTM, _lstm, _of_layers(LSTMBackbone)),
    Listed(LowRankNormalEmbedding, _LOW_RANK, _low_rank_embedding, _make(LowRankNormalEmbedding, "encoder")),
    Listed(MLP, _MLP, _mlp, _build_mlp),
    Listed(NormalEmbedding, _NORMAL, _normal_embedding, _make(NormalEmbedding, *_NETWORKS)),
    Listed(NormalLikelihood, _OF_NUMBERS, _normal_likelihood, _build_normal_likelihood),
    Listed(RescaledNetwork, ("network", "theta"), _attributes("network", "theta"), _rescaled),
    Listed(TransformerBackbone, _TRANSFORMER, _transformer, _of_layers(TransformerBackbone)),
)

LIBRARY: dict[str, Listed] = {listed.kind.__name__: listed for listed in _ALL}
"""The classes by name."""
