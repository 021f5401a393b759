"""The methods: one conditional density model, and the site of it that is fused."""

from __future__ import annotations

from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import constraints as pyro_constraints
from torch import nn
from torch.distributions import constraints

from pyro_probmix.mixing import DiracVicinity, LabelVicinity, NormalVicinity, Vicinity
from pyro_probmix.mixing.vicinity import Fusion
from pyro_probmix.models.density_model import DensityModel
from pyro_probmix.models.mixing import Labels, Mixing, Per

__all__ = ["CIRCULAR", "ERM", "ManifoldMixup", "ManifoldProbMix", "Mixup", "ProbMix", "of_one"]

CIRCULAR = (dist.VonMises, dist.SineBivariateVonMises)
"""Families over angles."""


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
        mixing = None if vicinity is None else Mixing(None, dist.Delta(torch.tensor(1.0)), vicinity, labels)
        super().__init__(None, network, likelihood, mixing)


class Mixup(DensityModel):
    r"""Mixup (eqs. 8-10): the input is interpolated, :math:`\tilde x = \lambda x_i + (1-\lambda) x_j`.

    Args:
        network: x → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y.
        coefficient: distribution of λ; default Beta(0.2, 0.2).
        vicinity: kernel of the labels; default: interpolated labels (eq. 9), or for classes, counts, angles,
            directions and correlations either one of the pair's, λ being its probability (Assumption 4.2).
        labels: ``"exact"`` or ``"sample"``.
        per: one λ an ``"edge"``, or one a ``"batch"``.

    Raises:
        ValueError: if the labels of ``vicinity`` lie between those of a discrete likelihood, or are other classes.

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


class ManifoldMixup(DensityModel):
    r"""Manifold mixup (eqs. 27-28): a deterministic embedding is interpolated.

    :math:`\tilde z = \lambda h(x_i) + (1-\lambda) h(x_j)`.

    Args:
        encoder: x → embedding.
        decoder: embedding → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y.
        coefficient: distribution of λ; default Beta(0.2, 0.2).
        vicinity: kernel of the labels; default as for :class:`Mixup`.
        labels: ``"exact"`` or ``"sample"``.
        per: one λ an ``"edge"``, or one a ``"batch"``.

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


class ProbMix(DensityModel):
    r"""ProbMix (eqs. 12-18): the likelihoods are pooled.

    :math:`\tilde p(y) \propto p_\theta(y|x_i)^\lambda p_\theta(y|x_j)^{1-\lambda}`.

    Args:
        network: x → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y, of an exponential family.
        coefficient: distribution of λ; default Beta(0.2, 0.2).
        vicinity: kernel of the labels; default as for :class:`Mixup`.
        labels: ``"exact"`` or ``"sample"`` (eq. 16).
        fusion: ``"log-linear"`` (eq. 18) or ``"linear"`` (eq. 17) pool of the likelihoods.
        per: one λ an ``"edge"``, or one a ``"batch"``.

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
        mixing = _mixing("y", likelihood, coefficient, vicinity, labels, per, fusion)
        super().__init__(None, network, likelihood, mixing)


class ManifoldProbMix(DensityModel):
    r"""M-ProbMix (eqs. 19-24): embedding densities are pooled.

    :math:`\tilde q(z) \propto q(z|x_i)^\lambda q(z|x_j)^{1-\lambda}`.

    Args:
        embedding: x → distribution of the embedding, such as :class:`~pyro_probmix.nn.NormalEmbedding`.
        decoder: embedding → raw outputs of the likelihood.
        likelihood: raw outputs → distribution of y.
        coefficient: distribution of λ; default Beta(0.2, 0.2).
        vicinity: kernel of the labels; default as for :class:`Mixup`.
        labels: ``"exact"`` or ``"sample"`` (eq. 16).
        propagate: ``"sample"`` draws the embedding, ``"mean"`` hands its mean on, in training and prediction.
        fusion: ``"log-linear"`` (eq. 18) or ``"linear"`` (eq. 17) pool of the embedding densities.
        per: one λ an ``"edge"``, or one a ``"batch"``.

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
        propagate: Literal["sample", "mean"] = "sample",
        fusion: Fusion = "log-linear",
        per: Per = "edge",
    ) -> None:
        if not hasattr(embedding, "event_shape"):
            raise TypeError(
                "embedding: expected a module with an event_shape whose call gives a distribution, such as "
                f"NormalEmbedding, got {type(embedding).__name__}"
            )
        mixing = _mixing("embedding", likelihood, coefficient, vicinity, labels, per, fusion)
        super().__init__(embedding, decoder, likelihood, mixing, propagate)


def _mixing(
    at: str,
    likelihood: Any,
    coefficient: Any,
    vicinity: Vicinity | None,
    labels: Labels,
    per: Per,
    fusion: Fusion = "log-linear",
) -> Mixing:
    coefficient = dist.Beta(0.2, 0.2) if coefficient is None else coefficient
    vicinity = _default_vicinity(likelihood) if vicinity is None else vicinity
    _check_vicinity(vicinity, likelihood)
    return Mixing(at, coefficient, vicinity, labels, fusion, per)


def _default_vicinity(likelihood: Any) -> Vicinity:
    num_classes = _num_classes(likelihood)
    if num_classes is not None:  # the same law as a soft-label cross-entropy
        return LabelVicinity(0.0, num_classes)
    return DiracVicinity("log-linear" if _is_convex(likelihood) else "linear")


def _check_vicinity(vicinity: Vicinity, likelihood: Any) -> None:
    """Refuses a vicinity whose labels the likelihood does not have."""
    num_classes = _num_classes(likelihood)
    if isinstance(vicinity, LabelVicinity) and num_classes not in (None, vicinity.num_classes):
        raise ValueError(f"num_classes: expected the likelihood's {num_classes} classes, got {vicinity.num_classes}")
    between = isinstance(vicinity, DiracVicinity) and vicinity.fusion == "log-linear"
    if likelihood.support.is_discrete and (between or isinstance(vicinity, NormalVicinity)):
        raise ValueError(
            f"vicinity: expected labels that the likelihood has, which is discrete, got {vicinity!r}, whose labels "
            'lie between them; use LabelVicinity for classes, with β > 0 or fusion="linear", or '
            'DiracVicinity(fusion="linear")'
        )


def _num_classes(likelihood: Any) -> int | None:
    """The number of classes, where the labels are classes whose number is known."""
    support = of_one(likelihood.support)
    if support is constraints.boolean:
        return 2
    if support is constraints.one_hot:
        return int(likelihood.event_shape[-1])
    return getattr(likelihood, "num_classes", None) if support.is_discrete else None


def _is_convex(likelihood: Any) -> bool:
    """Whether what lies between two labels is a label, and near both: not so on a circle, whose angles are numbers."""
    support = of_one(likelihood.support)
    curved = support in (constraints.corr_cholesky, pyro_constraints.sphere)
    family = getattr(likelihood, "distribution_class", None)
    circular = isinstance(family, type) and issubclass(family, CIRCULAR)
    return not (support.is_discrete or curved or circular)


def of_one(support: Any) -> Any:
    """The constraint of one label, where the support is that of independent ones or of a mixture."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support
