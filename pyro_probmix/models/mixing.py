"""What is fused, and how: the whole difference between the methods, and the one rule of a mixed statement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from pyro_probmix._checks import check_choice
from pyro_probmix.distributions import (
    ExpandedBeta,
    LogSpaceBeta,
    index_select,
    linear_pool,
    log_linear_pool,
    numerical_pool,
)
from pyro_probmix.distributions.components import broadcast_shapes
from pyro_probmix.distributions.exponential_family import validates
from pyro_probmix.distributions.numerical import NUM_NODES
from pyro_probmix.distributions.pooling import pool_alike, pool_with_rows
from pyro_probmix.mixing import GaussJacobi, PairBatch, Vicinity, as_coefficient, coefficient_to, default_vicinity
from pyro_probmix.models._mix_checks import check_poolable
from pyro_probmix.models.laws import ExpectedLikelihood, LazyDistribution
from pyro_probmix.models.masks import inside_masks, mask_labels, unmasked
from pyro_probmix.ops.autocast import without_autocast
from pyro_probmix.ops.rows import take
from pyro_probmix.ops.sums import unsqueeze_right
from pyro_probmix.ops.values import at_hand

__all__ = ["Edges", "Fusion", "Labels", "Mixing", "Per"]

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
        for name, choices in (("labels", Labels), ("fusion", Fusion), ("per", Per)):
            check_choice(name, getattr(self, name), get_args(choices))
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

        It gives the distribution that scores the site, and the value that it scores. Every observed site is a label,
        ``value`` being what is observed there; which of them are missing is said by the mask of the batch, and by masks
        of the model's own. The batch dimension ``dim`` of ``p``, negative, counts the nodes, and λ broadcasts with its
        batch shape. A ``label`` ỹ that has been drawn before is scored instead of a vicinal one.
        """
        partner = batch.partner
        if value is not None and batch.mask is not None:
            p, value = mask_labels(name, p, value, batch.mask, dim)
        p = inside_masks(
            lambda base, *_: base, p, coefficient, dim, lambda mask, own, d: self.edge_mask(mask, partner, d, own)
        )
        if name == self.at:
            p = self.fuse(p, partner, coefficient, dim, name)
        if value is None or label is not None:
            return p, label if value is not None else None
        if p._validate_args:
            try:
                p._validate_sample(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if self.at is None and self.vicinity is None:
            return p, value
        value_dim = dim - len(p.event_shape)
        if (labels or self.labels) == "sample":
            law = unmasked(p)
            vicinity = self._vicinity_of(name, law, "sample")
            return p, self.draw_label(value, partner, coefficient, law.support, value_dim, vicinity)
        pair = value, take(value, value_dim, partner)

        def expected(base: Any, own: Any, _: int) -> ExpectedLikelihood:
            return ExpectedLikelihood(base, self._vicinity_of(name, base, "exact"), *pair, own)

        return inside_masks(expected, p, coefficient, dim), value

    def fuse(self, p: Any, partner: Tensor, coefficient: Tensor, dim: int = -1, name: str = "p") -> Any:
        r"""Fuse each member of the batch with its partner.

        :math:`\tilde p \propto p_i^\lambda p_j^{1-\lambda}` (eq. 18), or
        :math:`\lambda p_i + (1-\lambda) p_j` (eq. 17). By quadrature, the first has a fixed number of nodes where
        values cannot be looked at, or not without waiting for a device; where they miss its accuracy it is NaN.

        The batch dimension ``dim`` of ``p``, negative, counts the nodes, and λ broadcasts with its batch shape. Errors
        call ``p`` by ``name``, if its family is not closed under this fusion, or what the family holds fixed differs
        between the two or cannot be compared.
        """

        def pool(base: Any, own: Tensor, base_dim: int) -> Any:
            if isinstance(base, LazyDistribution):
                shape = broadcast_shapes(base.batch_shape, own.shape)
                return base.then(lambda made: self.fuse(made, partner, own, base_dim, name), shape)
            if self.fusion == "linear" and base_dim != dim:
                raise ValueError('fusion: expected "log-linear" where some outputs of a node are masked, got "linear"')
            weights = [own, 1 - own]
            closed = self.fusion == "log-linear" and not self.extrapolates
            with without_autocast(own):
                pooled = pool_with_rows(base, base_dim, partner, weights) if closed else None
                if pooled is not None:
                    return pooled
                pair = [base, index_select(base, base_dim, partner)]
                if self.fusion == "linear":
                    return linear_pool(pair, weights)
                if self.fusion == "numerical":
                    num_nodes = None if validates(base) or at_hand(own) else NUM_NODES
                    return numerical_pool(pair, weights, simplex=not self.extrapolates, num_nodes=num_nodes)
                check_poolable(name, base, pair[1], base_dim)
                if closed and not validates(base):
                    return pool_alike(pair, weights)
                return log_linear_pool(pair, weights, simplex=not self.extrapolates)

        return inside_masks(pool, p, coefficient, dim)

    def interpolate(self, value: Tensor, partner: Tensor, coefficient: Tensor, dim: int = -1) -> Tensor:
        r""":math:`\lambda v_i + (1-\lambda) v_j` (eqs. 8, 28), ``dim`` being negative and counted in ``value``."""
        weight = unsqueeze_right(coefficient, -1 - dim).to(value.dtype)
        return torch.lerp(take(value, dim, partner), value, weight)

    def draw_label(
        self, y: Tensor, partner: Tensor, coefficient: Tensor, support: Any, dim: int = 0, vicinity: Any = None
    ) -> Tensor:
        """A draw ỹ from the vicinal density (eq. 14) with λ of shape ``(..., B)``; one label lives in ``support``.

        The nodes' dimension ``dim`` in ``y`` is negative, or zero for the first.
        """
        vicinity = vicinity or self.vicinity
        if self.extrapolates and vicinity.fusion == "linear":
            raise ValueError(
                'labels: expected "exact" where λ leaves [0, 1] and the labels are fused linearly: no density is drawn '
                "from with negative weights"
            )
        label = vicinity.fused(y, take(y, dim or -y.dim(), partner), coefficient, support).sample()
        return label if label.is_floating_point() else label.to(y.dtype)

    def _vicinity_of(self, name: str, p: Any, labels: Labels) -> Vicinity:
        """The kernel of the labels that ``p`` is of, checked once for a site of that kind."""
        key = name, type(p), p.event_shape, labels
        if key not in self._vicinities:
            vicinity = default_vicinity(p) if self.vicinity is None else self.vicinity
            vicinity.check(p, labels)
            self._vicinities[key] = vicinity
        return self._vicinities[key]

    def edges(
        self, batch: PairBatch, num_samples: int, coefficient: Tensor | None = None, weight: Tensor | None = None
    ) -> Edges:
        """The edges of a batch as the risk counts them, with ``num_samples`` of each over all nodes of a quadrature.

        Without a coefficient λ is drawn, or the nodes of a quadrature; a weight is relative to the sum of all.
        """
        shape = draw_shape(num_samples, len(batch))
        log_shares = observed = share = None
        if self.coefficient is not None and coefficient is None:
            coefficient = self.coefficients(batch.x, shape)
            if self.num_coefficients > 1:
                weights = self.law(batch.x).weights
                copies = num_samples // len(weights)
                log_shares = (weights / copies).repeat_interleave(copies).log()
        if weight is not None:
            share = weight / weight.sum()
        elif batch.weight is not None:
            share = self.edge_weight(batch) / len(batch)
        if batch.mask is not None:
            observed = self.edge_mask(batch.mask, batch.partner, -batch.mask.dim())
            observed = observed.flatten(1).any(1) if observed.dim() > 1 else observed
        return Edges(shape, _expanded(coefficient, shape), log_shares, share, observed)

    def edge_weight(self, batch: PairBatch) -> Any:
        """How much the terms of each edge count, of shape ``(B,)``, or None: the product of its nodes' weights."""
        weight = batch.weight
        if weight is None:
            return None
        if batch.x.is_floating_point():
            weight = weight.to(batch.x.dtype)
        return weight if self.at is None else weight * weight.index_select(-1, batch.partner)

    def edge_mask(self, mask: Tensor, partner: Tensor, dim: int = -1, coefficient: Tensor | None = None) -> Tensor:
        """Where both nodes of an edge are; where nothing is fused, a node alone makes its edge.

        ``dim``, negative, is the nodes' in ``mask``. A node whose share by λ is exactly zero need not be there.
        """
        if self.at is None:
            return mask
        theirs = mask.index_select(dim, partner)
        if coefficient is None:
            return mask & theirs
        return (mask | (coefficient == 0)) & (theirs | (coefficient == 1))

    @property
    def num_coefficients(self) -> int:
        """How many values of λ the risk of an edge evaluates: one, drawn, or the nodes of a quadrature."""
        return len(self.coefficient.nodes) if isinstance(self.coefficient, GaussJacobi) else 1

    @property
    def is_edgewise_beta(self) -> bool:
        """Whether λ is drawn by a :class:`LogSpaceBeta`, one an edge, and by the same for all edges."""
        law = self.coefficient
        return type(law) is LogSpaceBeta and law.batch_shape == () and self.per == "edge"

    def coefficients(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """λ of each sample and edge where ``x`` is: drawn, or the nodes of a quadrature, each as often as others."""
        law = self.law(x)
        if isinstance(law, GaussJacobi):
            nodes = law.enumerate_support()
            return nodes.repeat_interleave(shape[0] // len(nodes)).unsqueeze(-1).expand(shape)
        drawn = shape[:-1] + (1,) if self.per == "batch" else shape
        return _expanded(law.expand(drawn).sample() if law.batch_shape else law.sample(drawn), shape)

    def law(self, x: Tensor) -> Any:
        """The distribution of λ with its parameters where the inputs ``x`` are, in their dtype if that is floating."""
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        key = x.device, dtype
        if key not in self._laws:
            self._laws[key] = coefficient_to(self.coefficient, x.device, dtype)
        return self._laws[key]


class Edges(NamedTuple):
    """The edges of a batch of B nodes, and S samples of each."""

    shape: tuple[int, ...]  # (B,) for one sample, or (S, B)
    coefficient: Any  # λ, of that shape; None where nothing is mixed
    log_shares: Tensor | None  # log-weight of each sample, of shape (S,), where these are not equal
    share: Tensor | None  # how much each edge counts in the mean over the batch, of shape (B,); None: all alike
    observed: Tensor | None  # which edges have an output that is observed, of shape (B,); None for all


def draw_shape(num_samples: int, size: int) -> tuple[int, ...]:
    """Of numbers drawn for each of ``size`` nodes: one sample has no dimension of its own."""
    return (size,) if num_samples == 1 else (num_samples, size)


def _expanded(tensor: Any, shape: tuple[int, ...]) -> Any:
    return tensor if tensor is None or tensor.shape == shape else tensor.expand(shape)
