"""The eleven columns of the paper's tables: which site of one model is fused, and on which graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_probmix.datasets import Dataset
from pyro_probmix.experiments.protocol import ExperimentSettings
from pyro_probmix.mixing import (
    CompleteGraph,
    LabelVicinity,
    NearestNeighborGraph,
    NormalVicinity,
    SamplingGraph,
    Vicinity,
)
from pyro_probmix.models import ERM, ManifoldMixup, ManifoldProbMix, Mixup, ProbMix
from pyro_probmix.nn import CategoricalLikelihood, Likelihood, NormalEmbedding, NormalLikelihood

__all__ = ["METHODS", "Method", "Parts", "make_parts", "select_methods"]


@dataclass(frozen=True)
class Parts:
    """What every method is built from.

    Args:
        network: its first layer is the encoder of the manifold methods, the rest their
            decoder. A deterministic embedding is taken after the activation, for before it the layer is affine
            and mixing there would be mixing the input; a Normal embedding before it.
        embedding_dim: width of the first layer.
        likelihood: from the network's output to a distribution over y.
        coefficient: distribution of the mixing coefficient.
        vicinity: vicinity of the probabilistic methods; the others keep their own, the limit at β = 0.
    """

    network: nn.Sequential
    embedding_dim: int
    likelihood: Likelihood
    coefficient: dist.TorchDistribution
    vicinity: Vicinity


def make_parts(data: Dataset, settings: ExperimentSettings) -> Parts:
    """Freshly initialised parts for a data set, drawn from torch's default generator.

    Labels of a classification are pooled log-linearly for β > 0, as in the paper, and linearly for β = 0.
    """
    if data.task == "regression":
        likelihood: Likelihood = NormalLikelihood()
        vicinity: Vicinity = NormalVicinity(settings.beta)
    else:
        classes = data.num_classes
        likelihood = CategoricalLikelihood(classes)
        vicinity = LabelVicinity(settings.beta, classes, fusion="log-linear" if settings.beta > 0 else "linear")
    network = settings.make_network(data.num_features, likelihood.num_outputs)
    coefficient = dist.Beta(settings.alpha, settings.alpha)
    return Parts(network, settings.hidden_features[0], likelihood, coefficient, vicinity)


@dataclass(frozen=True)
class Method:
    """One column of the tables.

    Args:
        name: name of the model.
        fuses: the site that is fused.
        local: mixes nearest neighbours instead of any two rows.
        build: the model from its parts.
        separate_variance: the variance of the embedding has a layer of its own, and both are half as wide.
    """

    name: str
    fuses: str
    local: bool
    build: Callable[[Parts], Any]
    separate_variance: bool = False

    @property
    def label(self) -> str:
        """Name with its graph."""
        return f"Local {self.name}" if self.local else self.name

    def make_model(self, data: Dataset, settings: ExperimentSettings) -> Any:
        """A freshly initialised model for a data set, drawn from torch's default generator."""
        if self.separate_variance:
            first, second = settings.hidden_features
            settings = replace(settings, hidden_features=(first // 2, second))
        return self.build(make_parts(data, settings))

    def graph(self, x: Tensor, num_neighbors: int) -> SamplingGraph:
        """The sampling graph over training rows ``x`` of shape ``(n, d)``."""
        return NearestNeighborGraph(x, num_neighbors=num_neighbors) if self.local else CompleteGraph(len(x))


def _erm(parts: Parts) -> ERM:
    return ERM(parts.network, parts.likelihood)


def _mixup(parts: Parts) -> Mixup:
    return Mixup(parts.network, parts.likelihood, coefficient=parts.coefficient)


def _manifold_mixup(parts: Parts) -> ManifoldMixup:
    encoder, decoder = parts.network[:2], parts.network[2:]
    return ManifoldMixup(encoder, decoder, parts.likelihood, coefficient=parts.coefficient)


def _probmix(parts: Parts) -> ProbMix:
    return ProbMix(parts.network, parts.likelihood, coefficient=parts.coefficient, vicinity=parts.vicinity)


def _manifold_probmix(parts: Parts) -> ManifoldProbMix:
    return _with_embedding(parts, None)


def _separate_variance(parts: Parts) -> ManifoldProbMix:
    first = cast("nn.Linear", parts.network[0])
    return _with_embedding(parts, nn.Linear(first.in_features, parts.embedding_dim))


def _with_embedding(parts: Parts, variance_network: nn.Module | None) -> ManifoldProbMix:
    # A Normal lives on the whole line, so it is the density of the layer's affine output, before the activation.
    embedding = NormalEmbedding(parts.network[:1], parts.embedding_dim, variance_network)
    return ManifoldProbMix(
        embedding, parts.network[1:], parts.likelihood, coefficient=parts.coefficient, vicinity=parts.vicinity
    )


METHODS: dict[str, Method] = {
    "erm": Method("ERM", "nothing", False, _erm),
    "mixup": Method("Mixup", "x", False, _mixup),
    "local_mixup": Method("Mixup", "x", True, _mixup),
    "manifold_mixup": Method("Manifold Mixup", "h(x)", False, _manifold_mixup),
    "local_manifold_mixup": Method("Manifold Mixup", "h(x)", True, _manifold_mixup),
    "probmix": Method("ProbMix", "p(y|x)", False, _probmix),
    "local_probmix": Method("ProbMix", "p(y|x)", True, _probmix),
    "manifold_probmix": Method("Manifold ProbMix", "q(z|x)", False, _manifold_probmix),
    "local_manifold_probmix": Method("Manifold ProbMix", "q(z|x)", True, _manifold_probmix),
    "manifold_probmix_separate_variance": Method("Manifold ProbMix*", "q(z|x)", False, _separate_variance, True),
    "local_manifold_probmix_separate_variance": Method("Manifold ProbMix*", "q(z|x)", True, _separate_variance, True),
}
"""The methods by name, in the order of the paper's tables."""


def select_methods(names: str, columns: Sequence[str] = tuple(METHODS)) -> tuple[str, ...]:
    """The methods of a comma-separated list, in the order of the tables.

    Args:
        names: the list.
        columns: the methods to choose from.

    Raises:
        ValueError: if a name is unknown or the list is empty.

    >>> select_methods("probmix, erm")
    ('erm', 'probmix')
    """
    chosen = {name.strip() for name in names.split(",")} - {""}
    unknown = sorted(chosen - set(columns))
    if unknown or not chosen:
        got = ", ".join(unknown) or "none"
        raise ValueError(f"unknown methods: {got}; expected some of {', '.join(columns)}")
    return tuple(name for name in columns if name in chosen)
