"""What is fused, and how: the whole difference between the methods, and the one rule of a mixed statement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from pyro.distributions import MaskedDistribution, TorchDistribution, ZeroInflatedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix.distributions import (
    ExpandedBeta,
    LogSpaceBeta,
    exponential_family,
    index_select,
    is_exponential_family,
    linear_pool,
    log_linear_pool,
    numerical_pool,
)
from pyro_probmix.distributions.components import broadcast_shapes
from pyro_probmix.distributions.exponential_family import resolved, validates
from pyro_probmix.distributions.not_closed import why_not_closed
from pyro_probmix.distributions.numerical import NUM_NODES
from pyro_probmix.distributions.pooling import pool_alike
from pyro_probmix.mixing import GaussJacobi, PairBatch, Vicinity, as_coefficient, coefficient_to, default_vicinity
from pyro_probmix.mixing.batches import legal_labels
from pyro_probmix.models.lazy import LazyDistribution
from pyro_probmix.ops.autocast import without_autocast
from pyro_probmix.ops.rows import take
from pyro_probmix.ops.values import at_hand, can_be_read

__all__ = ["ExpectedLikelihood", "Fusion", "Labels", "Mixing", "Per", "check_labels", "check_poolable"]

Fusion = Literal["log-linear", "linear", "numerical"]
Labels = Literal["exact", "sample"]
Per = Literal["edge", "batch"]


@dataclass(frozen=True)
class Mixing:
    """What is mixed and how: the fused site, the law of λ, the vicinity of the labels, the fusion function.

    This is the whole difference between the methods. :meth:`statement` is the one rule of what that makes of a site;
    the handler :func:`mix`, the plain risk and the posterior guide all apply it.

    Args:
        at: name of the fused site; None for none, which leaves the vicinity of each node's own label.
        coefficient: distribution of λ on [0, 1]; an ExpandedBeta may leave it. None where nothing is fused.
        vicinity: kernel of the observed labels (eq. 14); default: that of :func:`default_vicinity` for each label, and
            labels as they are where nothing is fused.
        labels: ``"exact"`` label expectations, or ``"sample"`` (eq. 16).
        fusion: how densities are fused: ``"log-linear"`` (eq. 18) in closed form, ``"numerical"``, which is the same
            by quadrature for scalars of any family and independent ones, or ``"linear"`` (eq. 17).
        per: one λ an ``"edge"``, or one a ``"batch"``.

    Raises:
        ValueError: if ``labels``, ``fusion`` or ``per`` is unknown, ``coefficient`` is no distribution of a scalar in
            [0, 1], or it leaves [0, 1] where densities are fused linearly.
    """

    at: str | None = None
    coefficient: Any = None
    vicinity: Vicinity | None = None
    labels: Labels = "exact"
    fusion: Fusion = "log-linear"
    per: Per = "edge"
    _laws: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    _vicinities: dict[Any, Vicinity] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_labels(self.labels)
        if self.fusion not in get_args(Fusion):
            expected = ", ".join(f'"{name}"' for name in get_args(Fusion))
            raise ValueError(f"fusion: expected one of {expected}, got {self.fusion!r}")
        if self.per not in ("edge", "batch"):
            raise ValueError(f'per: expected "edge" or "batch", got {self.per!r}')
        if not (self.vicinity is None or isinstance(self.vicinity, Vicinity)):
            raise TypeError(f"vicinity: expected a Vicinity, got {type(self.vicinity).__name__}")
        if self.coefficient is None and (self.at is not None or self.vicinity is not None):
            raise TypeError("coefficient: expected a distribution where something is mixed, got None")
        if self.coefficient is not None:
            object.__setattr__(self, "coefficient", as_coefficient(self.coefficient))
        if self.fusion == "linear" and self.extrapolates:
            raise ValueError(
                "coefficient: expected a support within [0, 1] with linear fusion, got "
                f"{type(self.coefficient).__name__}"
            )

    @property
    def extrapolates(self) -> bool:
        """Whether λ may leave [0, 1]."""
        return isinstance(self.coefficient, ExpandedBeta)

    @property
    def num_coefficients(self) -> int:
        """How many values of λ the risk of an edge evaluates: one, drawn, or the nodes of a quadrature."""
        return len(self.coefficient.nodes) if isinstance(self.coefficient, GaussJacobi) else 1

    @property
    def has_parts(self) -> bool:
        """Whether λ is drawn by a :class:`LogSpaceBeta`, one an edge, and by the same for all edges."""
        law = self.coefficient
        return type(law) is LogSpaceBeta and law.batch_shape == () and self.per == "edge"

    def law(self, like: Tensor) -> Any:
        """The distribution of λ with its parameters where ``like`` is, in the dtype of ``like`` if floating."""
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        key = like.device, dtype
        if key not in self._laws:
            self._laws[key] = coefficient_to(self.coefficient, like.device, dtype)
        return self._laws[key]

    def coefficients(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """λ of each sample and edge: drawn, or the nodes of a quadrature, each as often as the others.

        Args:
            x: inputs, of shape ``(B, ...)``, whose device and dtype λ has.
            shape: ``(B,)`` or ``(K, B)``.

        Returns:
            λ, which expands to ``shape``.
        """
        law = self.law(x)
        if isinstance(law, GaussJacobi):
            nodes = law.enumerate_support()
            return nodes.repeat_interleave(shape[0] // len(nodes)).unsqueeze(-1).expand(shape)
        drawn = shape[:-1] + (1,) if self.per == "batch" else shape
        return law.expand(drawn).sample() if law.batch_shape else law.sample(drawn)

    def log_shares(self, x: Tensor, num_samples: int) -> Tensor:
        """The log-weight of each of ``num_samples`` samples whose λ are the nodes of a quadrature, where ``x`` is."""
        weights = self.law(x).weights
        copies = num_samples // len(weights)
        return (weights / copies).repeat_interleave(copies).log()

    def fuse(self, p: Any, partner: Tensor, coefficient: Tensor, dim: int = -1, name: str = "p") -> Any:
        r"""Fuse each member of the batch with its partner.

        :math:`\tilde p \propto p_i^\lambda p_j^{1-\lambda}` (eq. 18), or
        :math:`\lambda p_i + (1-\lambda) p_j` (eq. 17). By quadrature, the first has a fixed number of nodes where
        values cannot be looked at, or not without waiting for a device; where they miss its accuracy it is NaN.

        Args:
            p: a distribution whose batch dimension ``dim`` counts the nodes.
            partner: positions of the partners, of shape ``(B,)``.
            coefficient: λ, broadcasting with the batch shape of ``p``.
            dim: the nodes' batch dimension, negative.
            name: what errors call ``p``.

        Raises:
            TypeError: if the family of ``p`` is not closed under this fusion.
            ValueError: if what the family holds fixed differs between the two, or cannot be compared.
        """
        if isinstance(p, MaskedDistribution):
            return type(p)(self.fuse(p.base_dist, partner, coefficient, dim, name), p._mask)
        if _masks_outputs(p):
            if self.fusion == "linear":
                raise ValueError('fusion: expected "log-linear" where some outputs of a node are masked, got "linear"')
            ndims = p.reinterpreted_batch_ndims
            weight = coefficient.reshape(coefficient.shape + (1,) * ndims)
            return self.fuse(p.base_dist, partner, weight, dim - ndims, name).to_event(ndims)
        if isinstance(p, LazyDistribution):
            shape = broadcast_shapes(p.batch_shape, coefficient.shape)
            return LazyDistribution(
                lambda: self.fuse(p.force(), partner, coefficient, dim, name), shape, p.event_shape, p.propagate
            )
        pair, weights = [p, index_select(p, dim, partner)], [coefficient, 1 - coefficient]
        with without_autocast(coefficient):
            if self.fusion == "linear":
                return linear_pool(pair, weights)
            if self.fusion == "numerical":
                num_nodes = None if validates(p) or at_hand(coefficient) else NUM_NODES
                return numerical_pool(pair, weights, simplex=not self.extrapolates, num_nodes=num_nodes)
            check_poolable(name, p, pair[1], dim)
            if self.extrapolates or validates(p):
                return log_linear_pool(pair, weights, simplex=not self.extrapolates)
            return pool_alike(pair, weights)

    def statement(
        self,
        name: str,
        p: Any,
        value: Tensor | None,
        batch: PairBatch,
        coefficient: Any,
        dim: int = -1,
        labels: Labels | None = None,
        label: Tensor | None = None,
    ) -> tuple[Any, Tensor | None]:
        """What mixing makes of a statement of the model: its masks those of edges, its site fused, its label vicinal.

        Every observed site is a label. Which of them are missing is said by the mask of the batch, and by masks of the
        model's own.

        Args:
            name: of the site.
            p: the site's distribution, whose batch dimension ``dim`` counts the nodes.
            value: what is observed there; None at a latent site.
            batch: nodes, partners, weights and masks.
            coefficient: λ, broadcasting with the batch shape of ``p``.
            dim: the nodes' batch dimension, negative.
            labels: ``"exact"`` or ``"sample"``; default: the attribute.
            label: the label ỹ that is scored instead of a vicinal one, if it has been drawn before.

        Returns:
            The distribution that scores the site, and the value that it scores.

        Raises:
            ValueError: if a mask has not the shape of the label, or a label is outside the support of ``p`` and ``p``
                validates its arguments.
        """
        if value is not None and batch.mask is not None:
            p = _mask_label(name, p, value, batch.mask, dim)
            value = legal_labels(value, _along(batch.mask, value, dim - len(p.event_shape)), dim - len(p.event_shape))
        p = self._pair_masks(p, batch.partner, coefficient, dim)
        if name == self.at:
            p = self.fuse(p, batch.partner, coefficient, dim, name)
        if value is None or label is not None:
            return p, label if value is not None else None
        return self._observe(name, p, value, batch.partner, coefficient, dim, labels or self.labels)

    def edge_mask(self, mask: Tensor, partner: Tensor, dim: int = -1, coefficient: Tensor | None = None) -> Tensor:
        """Where both nodes of an edge are; where nothing is fused, a node alone makes its edge.

        Args:
            mask: of nodes, or of their outputs.
            partner: positions of the partners, of shape ``(B,)``.
            dim: the nodes' dimension in ``mask``, negative.
            coefficient: λ, broadcasting with ``mask``: a node whose share is exactly zero need not be there.
        """
        if self.at is None:
            return mask
        theirs = take(mask, dim, partner)
        if coefficient is None:
            return mask & theirs
        return (mask | (coefficient == 0)) & (theirs | (coefficient == 1))

    def edge_weight(self, batch: PairBatch) -> Tensor | None:
        """How much the terms of each edge count, of shape ``(B,)``: with the product of its nodes' weights."""
        weight = batch.weight
        if weight is None:
            return None
        if batch.x.is_floating_point():
            weight = weight.to(batch.x.dtype)
        return weight if self.at is None else weight * take(weight, -1, batch.partner)

    def interpolate(self, value: Tensor, partner: Tensor, coefficient: Tensor, dim: int = -1) -> Tensor:
        r""":math:`\lambda v_i + (1-\lambda) v_j` (eqs. 8, 28), ``dim`` being negative and counted in ``value``."""
        event_dim = -1 - dim
        weight = coefficient.reshape(coefficient.shape + (1,) * event_dim).to(value.dtype)
        return torch.lerp(take(value, dim, partner), value, weight)

    def draw_label(self, y: Tensor, partner: Tensor, coefficient: Tensor, support: Any) -> Tensor:
        """A draw ỹ from the vicinal density (eq. 14), where the vicinity has been given.

        Args:
            y: the labels, of shape ``(B,) + event_shape``.
            partner: positions of the partners, of shape ``(B,)``.
            coefficient: λ, of shape ``(..., B)``.
            support: where one label lives.
        """
        return self._draw_label(self.vicinity, y, take(y, -y.dim(), partner), coefficient, support)

    def _draw_label(self, vicinity: Any, y: Tensor, partner_y: Tensor, coefficient: Tensor, support: Any) -> Tensor:
        if self.extrapolates and vicinity.fusion == "linear":
            raise ValueError(
                'labels: expected "exact" where λ leaves [0, 1] and the labels are fused linearly: no density is drawn '
                "from with negative weights"
            )
        label = vicinity.fused(y, partner_y, coefficient, support).sample()
        return label if label.is_floating_point() else label.to(y.dtype)

    def _pair_masks(self, p: Any, partner: Tensor, coefficient: Any, dim: int) -> Any:
        """``p`` with its mask, if it has one, that of edges."""
        if isinstance(p, MaskedDistribution) and isinstance(p._mask, Tensor):
            return p.base_dist.mask(self.edge_mask(p._mask, partner, dim, coefficient))
        if _masks_outputs(p):
            ndims = p.reinterpreted_batch_ndims
            weight = None if coefficient is None else coefficient.reshape(coefficient.shape + (1,) * ndims)
            return self._pair_masks(p.base_dist, partner, weight, dim - ndims).to_event(ndims)
        return p

    def _observe(
        self, name: str, p: Any, y: Tensor, partner: Tensor, coefficient: Any, dim: int, labels: Labels
    ) -> tuple[Any, Tensor]:
        """The distribution that scores an observed label, fused where its site is, and what it scores (eqs. 14, 16)."""
        if p._validate_args:
            try:
                p._validate_sample(y)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if self.at is None and self.vicinity is None:
            return p, y
        partner_y = take(y, dim - len(p.event_shape), partner)
        if labels == "sample":
            law = _unmasked(p)
            vicinity = self._vicinity_of(name, law, labels)
            return p, self._draw_label(vicinity, y, partner_y, coefficient, law.support)
        return self._expected(name, p, y, partner_y, coefficient), y

    def _expected(self, name: str, p: Any, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> Any:
        """``p`` that scores by expectations, with the masks that it has: a vicinity knows of none."""
        if isinstance(p, MaskedDistribution):
            return self._expected(name, p.base_dist, y, partner_y, coefficient).mask(p._mask)
        if _masks_outputs(p):
            ndims = p.reinterpreted_batch_ndims
            weight = coefficient.reshape(coefficient.shape + (1,) * ndims)
            return self._expected(name, p.base_dist, y, partner_y, weight).to_event(ndims)
        return ExpectedLikelihood(p, self._vicinity_of(name, p, "exact"), y, partner_y, coefficient)

    def _vicinity_of(self, name: str, p: Any, labels: Labels) -> Vicinity:
        """The kernel of the labels that ``p`` is of, checked once for a site of that kind."""
        key = name, type(p), p.event_shape, labels
        if key not in self._vicinities:
            vicinity = default_vicinity(p) if self.vicinity is None else self.vicinity
            vicinity.check(p, labels)
            self._vicinities[key] = vicinity
        return self._vicinities[key]


class ExpectedLikelihood(TorchDistribution):
    r"""A likelihood that scores by :math:`\mathbb{E}_{\tilde y}[\log \tilde p(\tilde y)]`, labels integrated out.

    Args:
        base_dist: the likelihood, of batch shape ``(..., B)``.
        vicinity: gives the vicinal density of the label (eq. 14).
        y: labels, of shape ``(B,) + event_shape``.
        partner_y: the partners' labels.
        coefficient: λ, of shape ``(..., B)``.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, base_dist: Any, vicinity: Vicinity, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> None:
        self.base_dist = base_dist
        self._label = (vicinity, y, partner_y, coefficient)
        shape = broadcast_shapes(base_dist.batch_shape, coefficient.shape)
        super().__init__(shape, base_dist.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ExpectedLikelihood:
        """The same likelihood over a larger batch."""
        vicinity, y, partner_y, coefficient = self._label
        return ExpectedLikelihood(
            self.base_dist.expand(batch_shape), vicinity, y, partner_y, coefficient.expand(batch_shape)
        )

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return self.base_dist.support

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The expectation; ``value`` has been integrated out."""
        vicinity, y, partner_y, coefficient = self._label
        return vicinity.expected_log_prob(self.base_dist, y, partner_y, coefficient)


def _masks_outputs(p: Any) -> bool:
    """Whether ``p`` is of independent outputs, some of them masked."""
    return isinstance(p, torch.distributions.Independent) and isinstance(p.base_dist, MaskedDistribution)


def _unmasked(p: Any) -> Any:
    """The law of one label, whichever of them count."""
    if isinstance(p, MaskedDistribution):
        return _unmasked(p.base_dist)
    return _unmasked(p.base_dist).to_event(p.reinterpreted_batch_ndims) if _masks_outputs(p) else p


def _along(mask: Tensor, value: Tensor, dim: int) -> Tensor:
    """A mask of nodes, which ``dim`` counts in ``value``, or of outputs, so that it broadcasts with ``value``."""
    return mask.reshape(mask.shape + (1,) * (-1 - dim)) if mask.dim() == 1 else mask


def _mask_label(name: str, p: Any, y: Tensor, mask: Tensor, dim: int) -> Any:
    """``p`` with rows masked, or, where its outputs are independent, single outputs."""
    if mask.dim() == 1:
        return p.mask(mask.reshape(mask.shape + (1,) * (-1 - dim)))
    if mask.shape != y.shape:
        raise ValueError(
            f"mask: expected shape {tuple(mask.shape[:1])} or that of the labels at {name!r}, {tuple(y.shape)}, got "
            f"{tuple(mask.shape)}"
        )
    event_dim = len(p.event_shape)
    if event_dim == 0:
        return p.mask(mask)
    if not isinstance(p, torch.distributions.Independent) or p.reinterpreted_batch_ndims != event_dim:
        raise ValueError(
            f"mask: expected shape {tuple(mask.shape[:1])}, since the outputs of the likelihood are not independent, "
            f"got {tuple(mask.shape)}"
        )
    return p.base_dist.mask(mask).to_event(event_dim)


def check_poolable(name: str, p: Any, partners: Any, dim: int = -1) -> None:
    """Refuses densities that have no log-linear pool of their family with those of their partners.

    Args:
        name: what errors call ``p``.
        p: a distribution whose batch dimension ``dim`` counts the nodes.
        partners: that of their partners.
        dim: negative.

    Raises:
        TypeError: if the family is not closed under pooling.
        ValueError: if what it holds fixed differs, or varies over the nodes where values cannot be compared.
    """
    base, base_dim = resolved(p), dim
    while isinstance(base, (torch.distributions.Independent, ExpandedDistribution, MaskedDistribution)):
        base_dim -= getattr(base, "reinterpreted_batch_ndims", 0)
        base = resolved(base.base_dist)
    kind, remedies = type(base).__name__, 'fuse an embedding (ManifoldProbMix), or use fusion="linear" or "numerical"'
    if not is_exponential_family(p):
        why = why_not_closed(type(base)) or "it has no natural form here"
        raise TypeError(
            f"{name}: expected a family that is closed under log-linear pooling, got {kind}: {why}; {remedies}"
        )
    inner = base.base_dist if isinstance(base, ZeroInflatedDistribution) else base
    names = exponential_family(inner).fixed
    unread = [fixed for fixed in names if _varies_unseen(getattr(inner, fixed), base_dim, validates(p))]
    if not unread:
        reason = exponential_family(p).mismatch(exponential_family(partners))
        unread = [] if reason is None else [reason.removeprefix("equal ").partition(",")[0]]
    if unread:
        raise ValueError(
            f"{name}: expected a {unread[0]} of {kind} that is held fixed, since densities are pooled, got one that "
            f"varies, as one that is predicted does; hold it fixed, {remedies}"
        )


def _varies_unseen(value: Any, dim: int, wait: bool) -> bool:
    """Whether a tensor has a value for each node, which ``dim`` counts, that cannot be compared."""
    if not isinstance(value, Tensor) or value.dim() < -dim or value.shape[dim] == 1 or value.stride(dim) == 0:
        return False
    return not (at_hand(value) or (wait and can_be_read(value)))


def check_labels(labels: Any) -> None:
    """Refuses what is no treatment of the labels."""
    if labels not in ("exact", "sample"):
        raise ValueError(f'labels: expected "exact" or "sample", got {labels!r}')
