"""The methods' models from the layers of one network."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from pyro_probmix.mixing import LabelVicinity, NormalVicinity, Vicinity
from pyro_probmix.models.density_model import DensityModel
from pyro_probmix.models.methods import ERM, ManifoldMixup, ManifoldProbMix, Mixup, ProbMix
from pyro_probmix.nn import CategoricalLikelihood, NormalEmbedding

__all__ = ["assemble"]

_METHODS = "erm", "mixup", "manifold_mixup", "probmix", "manifold_probmix"


def assemble(
    method: str,
    network: nn.Sequential,
    embedding_dim: int,
    likelihood: nn.Module,
    *,
    coefficient: Any,
    beta: float,
    separate_variance: bool = False,
) -> DensityModel:
    """The model of a method, made of one network.

    The network's first layer is the encoder of the manifold methods, the rest their decoder. A deterministic embedding
    is taken after the activation, for before it the layer is affine and mixing there would be mixing the input; a
    Normal embedding, which lives on the whole line, before it.

    Args:
        method: ``"erm"``, ``"mixup"``, ``"manifold_mixup"``, ``"probmix"`` or ``"manifold_probmix"``.
        network: an :class:`~pyro_probmix.nn.MLP`, with a hidden layer for a manifold method; or other layers, an
            encoder and its activation first.
        embedding_dim: width of the first layer.
        likelihood: from the network's output to a distribution over y, real or of classes.
        coefficient: distribution of λ; not used by ``"erm"``.
        beta: β ≥ 0 of the labels' vicinity in the two probabilistic methods: its variance about a real label, or what
            is added to the probability of each class of a :class:`~pyro_probmix.nn.CategoricalLikelihood`, whose
            labels are pooled log-linearly for β > 0 and linearly for β = 0. The other methods have the limit at β = 0.
        separate_variance: the variance of a Normal embedding has a layer of its own (M-ProbMix* of Table 1), instead
            of one behind its mean; the first layer is a ``Linear`` then. For ``"manifold_probmix"`` alone.

    Raises:
        ValueError: if the method is unknown or has no variance to separate, a manifold method's network has no hidden
            layer, ``embedding_dim`` is not the width of a ``Linear`` first layer, or ``beta`` is out of range.

    Source: El-Laham et al. (2025), section 6.2.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> network, law = pm.nn.MLP(13, [128, 32], likelihood.num_outputs), dist.Beta(0.2, 0.2)
        >>> model = assemble("manifold_probmix", network, 128, likelihood, coefficient=law, beta=0.01)
        >>> model.encoder.event_shape
        torch.Size([128])
    """
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {method!r}")
    if separate_variance and method != "manifold_probmix":
        raise ValueError(f"separate_variance: expected False for {method}, whose embedding has no variance, got True")
    if method.startswith("manifold"):
        if len(network) < 3:
            raise ValueError(f"network: expected one with a hidden layer for {method}, got {len(network)} layers")
        width = getattr(network[0], "out_features", embedding_dim)
        if width != embedding_dim:
            raise ValueError(f"embedding_dim: expected {width}, the width of the first layer, got {embedding_dim}")
    vicinity = _vicinity(beta, likelihood)
    if method == "erm":
        return ERM(network, likelihood)
    if method == "mixup":
        return Mixup(network, likelihood, coefficient=coefficient)
    if method == "manifold_mixup":
        return ManifoldMixup(network[:2], network[2:], likelihood, coefficient=coefficient)
    if method == "probmix":
        return ProbMix(network, likelihood, coefficient=coefficient, vicinity=vicinity)
    variance_network = None
    if separate_variance:
        variance_network = nn.Linear(cast("nn.Linear", network[0]).in_features, embedding_dim)
    embedding = NormalEmbedding(network[:1], embedding_dim, variance_network)
    return ManifoldProbMix(embedding, network[1:], likelihood, coefficient=coefficient, vicinity=vicinity)


def _vicinity(beta: float, likelihood: nn.Module) -> Vicinity:
    if isinstance(likelihood, CategoricalLikelihood):
        return LabelVicinity(beta, likelihood.num_classes, fusion="log-linear" if beta > 0 else "linear")
    return NormalVicinity(beta)
