"""The methods: one conditional density model, and the site of it that is fused."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from pyro_probmix._random import seeded
from pyro_probmix.distributions import linear_pool, numerical_pool
from pyro_probmix.mixing import Vicinity, default_vicinity
from pyro_probmix.models._mix_checks import check_pool_of_rows
from pyro_probmix.models.assembly import register_method
from pyro_probmix.models.density_model import DensityModel, Propagate
from pyro_probmix.models.mixing import Fusion, Labels, Mixing, Per
from pyro_probmix.nn import DistributionEmbedding, Likelihood, NormalEmbedding

__all__ = ["ERM", "ManifoldMixup", "ManifoldProbMix", "Mixup", "ProbMix"]


@register_method("erm", label="ERM", fuses="nothing")
class ERM(DensityModel):
    r"""Empirical risk minimisation (eq. 4): nothing is fused, :math:`-\frac1n\sum_i \log p_\theta(y_i|x_i)`.

    Args:
        network: x → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y.
        vicinity: kernel of each label, vicinal risk minimisation on the labels alone: label smoothing is
            ``LabelVicinity.smoothing(0.1, num_classes)``; default: the labels as they are.
        labels: ``"exact"`` or ``"sample"``, for a vicinity.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> model = ERM(pm.nn.MLP(2, [8], likelihood.num_outputs), likelihood)
        >>> model.predictive(torch.zeros(5, 2)).batch_shape
        torch.Size([5])
    """

    def __init__(
        self, network: nn.Module, likelihood: nn.Module, vicinity: Vicinity | None = None, labels: Labels = "exact"
    ) -> None:
        one = dist.Delta(torch.tensor(1.0))  # every label is the node's own
        mixing = None if vicinity is None else _mixing(None, likelihood, one, vicinity, labels)
        super().__init__(None, network, likelihood, mixing)

    @classmethod
    def from_network(cls, network: nn.Sequential, likelihood: nn.Module, **_: Any) -> ERM:
        return cls(network, likelihood)


@register_method("mixup", fuses="x")
class Mixup(DensityModel):
    r"""Mixup (eqs. 8-10): the input is interpolated, :math:`\tilde x = \lambda x_i + (1-\lambda) x_j`.

    Args:
        network: x → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y.
        coefficient: distribution of λ; default Beta(0.2, 0.2).
        vicinity: kernel of the labels; default: interpolated labels (eq. 9), or for classes, counts, angles,
            directions and correlations either one of the pair's, λ being its probability (Assumption 4.2).
        labels: ``"exact"`` label expectations, or ``"sample"`` (eq. 16).
        per: one λ an ``"edge"``, or one a ``"batch"``.

    Raises:
        ValueError: if the likelihood does not have the labels of ``vicinity``, as of what lies between two classes or
            below zero, or, with ``labels="exact"``, their expectation is not known.

    Example:
        >>> likelihood = pm.nn.CategoricalLikelihood(3)
        >>> model = Mixup(pm.nn.MLP(2, [8], likelihood.num_outputs), likelihood, coefficient=dist.Beta(0.2, 0.2))
        >>> batch = pm.CompleteGraph(4).pair_batch(torch.randn(4, 2), torch.tensor([0, 1, 2, 0]))
        >>> model.risk(batch).shape
        torch.Size([])
    """

    def __init__(
        self,
        network: nn.Module,
        likelihood: nn.Module,
        coefficient: Any = None,
        vicinity: Vicinity | None = None,
        labels: Labels = "exact",
        per: Per = "edge",
    ) -> None:
        super().__init__(None, network, likelihood, _mixing("x", likelihood, coefficient, vicinity, labels, per))

    @classmethod
    def from_network(cls, network: nn.Sequential, likelihood: nn.Module, *, coefficient: Any, **_: Any) -> Mixup:
        return cls(network, likelihood, coefficient=coefficient)


@register_method("manifold_mixup", label="Manifold Mixup", fuses="h(x)")
class ManifoldMixup(DensityModel):
    r"""Manifold mixup (eqs. 27-28): a deterministic embedding is interpolated.

    :math:`\tilde z = \lambda h(x_i) + (1-\lambda) h(x_j)`.

    Args:
        encoder: x → embedding.
        decoder: embedding → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y.
        coefficient, vicinity, labels, per: as for :class:`Mixup`.

    Raises:
        TypeError: if ``encoder`` gives a distribution.
        ValueError: as for :class:`Mixup`.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> encoder = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU())
        >>> model = ManifoldMixup(encoder, pm.nn.MLP(16, [8], likelihood.num_outputs), likelihood)
        >>> model.predictive(torch.zeros(5, 2)).batch_shape
        torch.Size([5])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        coefficient: Any = None,
        vicinity: Vicinity | None = None,
        labels: Labels = "exact",
        per: Per = "edge",
    ) -> None:
        if hasattr(encoder, "event_shape"):
            raise TypeError(
                "encoder: expected a network whose output is the embedding, got a density of embeddings, "
                f"{type(encoder).__name__}; ManifoldProbMix takes it"
            )
        mixing = _mixing("embedding", likelihood, coefficient, vicinity, labels, per)
        super().__init__(encoder, decoder, likelihood, mixing)

    @classmethod
    def from_network(
        cls, network: nn.Sequential, likelihood: nn.Module, *, coefficient: Any, embedding_dim: int, **_: Any
    ) -> ManifoldMixup:
        _check_layers(cls, network, embedding_dim)
        return cls(network[:2], network[2:], likelihood, coefficient=coefficient)


@register_method("probmix", label="ProbMix", fuses="p(y|x)")
class ProbMix(DensityModel):
    r"""ProbMix (eqs. 12-18): the likelihoods are pooled.

    :math:`\tilde p(y) \propto p_\theta(y|x_i)^\lambda p_\theta(y|x_j)^{1-\lambda}`.

    Args:
        network: x → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y, of an exponential family with log-linear fusion.
        coefficient, vicinity, labels, per: as for :class:`Mixup`.
        fusion: ``"log-linear"`` (eq. 18) or ``"linear"`` (eq. 17) pool of the likelihoods. ``"numerical"`` is the first
            by quadrature, for numbers or independent ones of any family, such as StudentT or a NegativeBinomial whose
            total count is predicted, too. It costs hundreds of log-densities an edge, up to 751 on a GPU, in compiled
            steps and in replicas; where these miss an accuracy of 1e-6 the risk is NaN and the step is not taken.

    Raises:
        ValueError: as for :class:`Mixup`.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> model = ProbMix(pm.nn.MLP(2, [8], likelihood.num_outputs), likelihood, vicinity=pm.NormalVicinity(0.01))
        >>> batch = pm.CompleteGraph(4).pair_batch(torch.randn(4, 2), torch.randn(4))
        >>> svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 5e-3}), Trace_ELBO())
        >>> loss = svi.step(batch)
    """

    def __init__(
        self,
        network: nn.Module,
        likelihood: nn.Module,
        coefficient: Any = None,
        vicinity: Vicinity | None = None,
        labels: Labels = "exact",
        fusion: Fusion = "log-linear",
        per: Per = "edge",
    ) -> None:
        mixing = _mixing("y", likelihood, coefficient, vicinity, labels, per, fusion, likelihood)
        super().__init__(None, network, likelihood, mixing)

    @classmethod
    def from_network(
        cls,
        network: nn.Sequential,
        likelihood: nn.Module,
        *,
        coefficient: Any,
        vicinity: Vicinity | None,
        fusion: Fusion = "log-linear",
        **_: Any,
    ) -> ProbMix:
        return cls(network, likelihood, coefficient=coefficient, vicinity=vicinity, fusion=fusion)


@register_method("manifold_probmix", label="Manifold ProbMix", fuses="q(z|x)")
class ManifoldProbMix(DensityModel):
    r"""M-ProbMix (eqs. 19-24): embedding densities are pooled.

    :math:`\tilde q(z) \propto q(z|x_i)^\lambda q(z|x_j)^{1-\lambda}`.

    Args:
        embedding: x → distribution of the embedding, such as :class:`~pyro_probmix.nn.NormalEmbedding`.
        decoder: embedding → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y.
        coefficient, vicinity, labels, per: as for :class:`Mixup`.
        propagate: ``"sample"`` draws the embedding, ``"mean"`` hands its mean on, in training and prediction.
        fusion: ``"log-linear"`` (eq. 18) or ``"linear"`` (eq. 17) pool of the embedding densities; or ``"numerical"``,
            as for :class:`ProbMix`, of independent numbers, whose draws are made by their quantiles.

    Raises:
        TypeError: if ``embedding`` has no ``event_shape``, being no module that gives a distribution.
        ValueError: as for :class:`Mixup`.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> encoder = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU())
        >>> decoder = pm.nn.MLP(16, [8], likelihood.num_outputs)
        >>> model = ManifoldProbMix(pm.nn.NormalEmbedding(encoder, 16), decoder, likelihood)
        >>> model.predictive(torch.zeros(5, 2), num_samples=20)
        LinearPool(batch_shape: (5,), components: 20)
    """

    def __init__(
        self,
        embedding: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        coefficient: Any = None,
        vicinity: Vicinity | None = None,
        labels: Labels = "exact",
        propagate: Propagate = "sample",
        fusion: Fusion = "log-linear",
        per: Per = "edge",
    ) -> None:
        if not hasattr(embedding, "event_shape"):
            raise TypeError(
                "embedding: expected a module with an event_shape whose call gives a distribution, such as "
                f"NormalEmbedding, got {type(embedding).__name__}"
            )
        density = embedding.family if isinstance(embedding, DistributionEmbedding) else None
        mixing = _mixing("embedding", likelihood, coefficient, vicinity, labels, per, fusion, density)
        super().__init__(embedding, decoder, likelihood, mixing, propagate)

    @classmethod
    def from_network(
        cls,
        network: nn.Sequential,
        likelihood: nn.Module,
        *,
        coefficient: Any,
        vicinity: Vicinity | None,
        embedding_dim: int,
        separate_variance: bool = False,
        fusion: Fusion = "log-linear",
        **_: Any,
    ) -> ManifoldProbMix:
        _check_layers(cls, network, embedding_dim)
        first: Any = network[0]
        variance_network = nn.Linear(first.in_features, embedding_dim) if separate_variance else None
        embedding = NormalEmbedding(network[:1], embedding_dim, variance_network)
        return cls(embedding, network[1:], likelihood, coefficient=coefficient, vicinity=vicinity, fusion=fusion)


def _check_layers(method: type, network: nn.Sequential, embedding_dim: int) -> None:
    """Refuses a network without a hidden layer, or of another width."""
    if len(network) < 3:
        raise ValueError(f"network: expected one with a hidden layer for {method.__name__}, got {len(network)} layers")
    width = getattr(network[0], "out_features", embedding_dim)
    if width != embedding_dim:
        raise ValueError(f"embedding_dim: expected {width}, the width of the first layer, got {embedding_dim}")


def _mixing(
    at: str | None,
    likelihood: Any,
    coefficient: Any,
    vicinity: Vicinity | None,
    labels: Labels,
    per: Per = "edge",
    fusion: Fusion = "log-linear",
    pooled: Any = None,
) -> Mixing:
    """What is mixed, checked by a look at the likelihood and at what is pooled, as far as that goes without data."""
    coefficient = dist.Beta(0.2, 0.2) if coefficient is None else coefficient
    with seeded(0, torch.device("cpu")):  # what has a prior is drawn
        probe = likelihood.probe() if isinstance(likelihood, Likelihood) else None
    if vicinity is None and hasattr(likelihood, "support"):
        vicinity = default_vicinity(likelihood if probe is None else probe)
    mixing = Mixing(at, coefficient, vicinity, labels, fusion, per)
    if isinstance(pooled, Likelihood):
        density = probe if pooled is likelihood else pooled.probe()
        if density is not None:
            check_pool_of_rows("likelihood" if pooled is likelihood else "embedding", density, fusion)
    if vicinity is not None and probe is not None:
        pool: Any = {"linear": linear_pool, "numerical": numerical_pool}.get(fusion) if at == "y" else None
        vicinity.check(probe if pool is None else pool([probe, probe], [0.5, 0.5]), labels)
    return mixing
