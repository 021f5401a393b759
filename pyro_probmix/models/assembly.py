"""The registry of methods: each makes its model from the layers of one network."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args

from torch import nn

from pyro_probmix._checks import check_choice, check_free, check_number
from pyro_probmix.distributions.supports import is_real, num_classes
from pyro_probmix.mixing import DiracVicinity, LabelVicinity, NormalVicinity, Vicinity
from pyro_probmix.models.density_model import DensityModel
from pyro_probmix.models.mixing import Fusion

__all__ = ["METHODS", "RegisteredMethod", "assemble", "register_method"]

Model = TypeVar("Model", bound=type[DensityModel])


@dataclass(frozen=True)
class RegisteredMethod:
    """A method that has a name.

    Args:
        model: the class of its models.
        label: how tables show it.
        fuses: the site that is fused, as tables show it.
    """

    model: Any
    label: str
    fuses: str


METHODS: dict[str, RegisteredMethod] = {}
"""The methods by name, in the order in which they have been registered."""


def register_method(name: str, *, label: str | None = None, fuses: str = "") -> Callable[[Model], Model]:
    """Class decorator: :func:`assemble`, the estimators, the experiments and the command know the method by this name.

    The class says by ``from_network(network, likelihood, **options)`` how its model is made from the layers of one
    network. The options are ``coefficient``, the law of λ; ``vicinity``, of β, None for the default; ``embedding_dim``,
    ``separate_variance`` and ``fusion``, as for :func:`assemble`. A method names those that it uses, and takes the
    others as ``**_``.

    Args:
        name: an identifier. A name that begins with ``local_`` means the method on the nearest-neighbour graph.
        label: how tables show it; default: its name, with spaces.
        fuses: the site that is fused, as tables show it.

    Raises:
        TypeError: if the class is no :class:`~pyro_probmix.models.DensityModel` with a ``from_network``.
        ValueError: if the name is no such identifier, or another class has it.

    Example:
        >>> @register_method("third_layer", fuses="h₃(x)")
        ... class ThirdLayer(pm.ManifoldMixup):
        ...     @classmethod
        ...     def from_network(cls, network, likelihood, *, coefficient, **_):
        ...         return cls(network[:6], network[6:], likelihood, coefficient)
        >>> model = pm.ProbMixRegressor("third_layer", hidden_features=(64, 32, 8))
        >>> del METHODS["third_layer"]
    """
    if not (isinstance(name, str) and name.isidentifier()) or name.startswith("local_"):
        raise ValueError(f'name: expected an identifier that does not begin with "local_", got {name!r}')

    def register(model: Model) -> Model:
        if not (isinstance(model, type) and issubclass(model, DensityModel) and hasattr(model, "from_network")):
            raise TypeError(f"{name}: expected a class of models with from_network, got {model!r}")
        check_free("name", name, {key: method.model for key, method in METHODS.items()}, model)
        METHODS[name] = RegisteredMethod(model, label or name.replace("_", " ").capitalize(), fuses)
        return model

    return register


def assemble(
    method: str | type[DensityModel],
    network: nn.Sequential,
    embedding_dim: int,
    likelihood: nn.Module,
    *,
    coefficient: Any,
    beta: float,
    separate_variance: bool = False,
    fusion: Fusion = "log-linear",
) -> DensityModel:
    """The model of a method, made of one network.

    The network's first layer is the encoder of the manifold methods, the rest their decoder. A deterministic embedding
    is taken after the activation, for before it the layer is affine and mixing there would be mixing the input; a
    Normal embedding, which lives on the whole line, before it.

    Args:
        method: ``"erm"``, ``"mixup"``, ``"manifold_mixup"``, ``"probmix"``, ``"manifold_probmix"``, or another one of
            :data:`METHODS`; or the class.
        network: an :class:`~pyro_probmix.nn.MLP`, with a hidden layer for a manifold method; or other layers, an
            encoder and its activation first.
        embedding_dim: width of the first layer.
        likelihood: from the network's output to a distribution over y.
        coefficient: distribution of λ; not used by ``"erm"``.
        beta: β ≥ 0 of the labels' vicinity in the two probabilistic methods: its variance about a real label, which is
            drawn where its expected log-likelihood is not known; or what is added to the probability of each class,
            labels being pooled log-linearly for β > 0 and linearly for β = 0. Other labels, such as counts, and the
            other methods have the limit at β = 0.
        separate_variance: the variance of a Normal embedding has a layer of its own (M-ProbMix* of Table 1), instead
            of one behind its mean; the first layer is a ``Linear`` then. For ``"manifold_probmix"`` alone.
        fusion: of densities, ``"log-linear"``, ``"linear"`` or ``"numerical"``, as for
            :class:`~pyro_probmix.ProbMix` and :class:`~pyro_probmix.ManifoldProbMix`.

    Raises:
        ValueError: if the method is unknown, has no variance to separate or no densities to fuse, a manifold method's
            network has no hidden layer, ``embedding_dim`` is not the width of a ``Linear`` first layer, ``beta`` is out
            of range, or the likelihood is not closed under the fusion.

    Source: El-Laham et al. (2025), section 6.2.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> network, law = pm.nn.MLP(13, [128, 32], likelihood.num_outputs), dist.Beta(0.2, 0.2)
        >>> model = assemble("manifold_probmix", network, 128, likelihood, coefficient=law, beta=0.01)
        >>> model.encoder.event_shape
        torch.Size([128])
    """
    model: Any = method
    check_choice("fusion", fusion, get_args(Fusion))
    if not isinstance(method, type):
        check_choice("method", method, METHODS)
        model = METHODS[method].model
    known = inspect.signature(model.from_network).parameters
    if separate_variance and "separate_variance" not in known:
        raise ValueError(
            f"separate_variance: expected False for {model.__name__}, whose embedding has no variance, got True"
        )
    if fusion != "log-linear" and "fusion" not in known:
        raise ValueError(f'fusion: expected "log-linear" for {model.__name__}, which fuses no density, got "{fusion}"')

    def build(vicinity: Vicinity | None) -> DensityModel:
        return model.from_network(
            network,
            likelihood,
            coefficient=coefficient,
            vicinity=vicinity,
            embedding_dim=embedding_dim,
            separate_variance=separate_variance,
            fusion=fusion,
        )

    vicinity = _vicinity(beta, likelihood)
    try:
        return build(vicinity)
    except ValueError as error:
        if vicinity is None or not str(error).startswith("labels: "):
            raise
    # An expectation that is not known: labels are drawn.
    assembled = build(DiracVicinity(vicinity.fusion))
    assembled.mixing = replace(assembled.mixing, vicinity=vicinity, labels="sample")
    return assembled


def _vicinity(beta: float, likelihood: Any) -> Vicinity | None:
    """That of the labels of a likelihood, of variance or weight β; None where it is the limit at β = 0."""
    check_number("beta", beta, "[0, inf)")
    if not hasattr(likelihood, "support"):
        return NormalVicinity(beta)
    classes = num_classes(likelihood)
    if classes is not None and classes > 1:
        return LabelVicinity(beta, classes, fusion="log-linear" if beta > 0 else "linear")
    return NormalVicinity(beta) if is_real(likelihood.support) else None
