"""The effect handler: a Pyro model whose batch is mixed at one of its sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution, TorchDistribution
from pyro.poutine.messenger import Messenger, block_messengers
from pyro.poutine.plate_messenger import PlateMessenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_probmix.distributions import (
    ExpandedBeta,
    index_select,
    linear_pool,
    log_linear_pool,
)
from pyro_probmix.distributions._arguments import broadcast_shapes
from pyro_probmix.distributions._rows import take
from pyro_probmix.distributions.exponential_family import validates
from pyro_probmix.distributions.pooling import pool_alike
from pyro_probmix.mixing import DiracVicinity, GaussJacobi, PairBatch, Vicinity, as_coefficient, coefficient_to
from pyro_probmix.mixing.vicinity import Fusion, check_fusion
from pyro_probmix.models.lazy import LazyDistribution, Unscored

__all__ = ["COEFFICIENT_SITE", "ExpectedLikelihood", "Labels", "MixMessenger", "MixedModel", "Mixing", "mix"]

COEFFICIENT_SITE = "mixing_coefficient"

Labels = Literal["exact", "sample"]
Per = Literal["edge", "batch"]


@dataclass(frozen=True)
class Mixing:
    """What is mixed and how: the fused site, the law of λ, the vicinity of the labels, the fusion function.

    This is the whole difference between the methods; the handler :func:`mix` and the plain risk both apply it.

    Args:
        at: name of the fused site; None for none, which leaves the vicinity of each node's own label.
        coefficient: distribution of λ on [0, 1]; an ExpandedBeta may leave it.
        vicinity: kernel of the observed labels (eq. 14).
        labels: ``"exact"`` label expectations, or ``"sample"`` (eq. 16).
        fusion: how densities are fused, ``"log-linear"`` (eq. 18) or ``"linear"`` (eq. 17).
        per: one λ an ``"edge"``, or one a ``"batch"``.

    Raises:
        ValueError: if ``labels``, ``fusion`` or ``per`` is unknown, ``coefficient`` is no distribution of a scalar in
            [0, 1], or it leaves [0, 1] where densities are fused linearly.
    """

    at: str | None
    coefficient: Any
    vicinity: Vicinity
    labels: Labels = "exact"
    fusion: Fusion = "log-linear"
    per: Per = "edge"
    _laws: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_labels(self.labels)
        check_fusion(self.fusion)
        if self.per not in ("edge", "batch"):
            raise ValueError(f'per: expected "edge" or "batch", got {self.per!r}')
        if not isinstance(self.vicinity, Vicinity):
            raise TypeError(f"vicinity: expected a Vicinity, got {type(self.vicinity).__name__}")
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

    def log_shares(self, num_samples: int) -> Tensor:
        """The log-weight of each of ``num_samples`` samples whose λ are the nodes of a quadrature."""
        weights = self.coefficient.weights
        copies = num_samples // len(weights)
        return (weights / copies).repeat_interleave(copies).log()

    def fuse(self, p: Any, partner: Tensor, coefficient: Tensor, dim: int = -1) -> Any:
        r"""Fuse each member of the batch with its partner.

        :math:`\tilde p \propto p_i^\lambda p_j^{1-\lambda}` (eq. 18), or
        :math:`\lambda p_i + (1-\lambda) p_j` (eq. 17).

        Args:
            p: a distribution whose batch dimension ``dim`` counts the nodes.
            partner: positions of the partners, of shape ``(B,)``.
            coefficient: λ, broadcasting with the batch shape of ``p``.
            dim: the nodes' batch dimension, negative.
        """
        if isinstance(p, MaskedDistribution):
            return type(p)(self.fuse(p.base_dist, partner, coefficient, dim), p._mask)
        if _masks_outputs(p):
            if self.fusion == "linear":
                raise ValueError('fusion: expected "log-linear" where some outputs of a node are masked, got "linear"')
            ndims = p.reinterpreted_batch_ndims
            weight = coefficient.reshape(coefficient.shape + (1,) * ndims)
            return self.fuse(p.base_dist, partner, weight, dim - ndims).to_event(ndims)
        if isinstance(p, LazyDistribution):
            shape = broadcast_shapes(p.batch_shape, coefficient.shape)
            return LazyDistribution(
                lambda: self.fuse(p.force(), partner, coefficient, dim), shape, p.event_shape, p.propagate
            )
        pair, weights = [p, index_select(p, dim, partner)], [coefficient, 1 - coefficient]
        if self.fusion == "linear":
            return linear_pool(pair, weights)
        if self.extrapolates or validates(p):
            return log_linear_pool(pair, weights, simplex=not self.extrapolates)
        return pool_alike(pair, weights)

    def pair_mask(self, p: Any, partner: Tensor, dim: int = -1) -> Any:
        """``p`` with its mask, if it has one, that of edges: an edge counts where both its nodes do."""
        if isinstance(p, MaskedDistribution) and isinstance(p._mask, Tensor):
            return p.base_dist.mask(self.both(p._mask, partner, dim))
        if _masks_outputs(p):
            ndims = p.reinterpreted_batch_ndims
            return self.pair_mask(p.base_dist, partner, dim - ndims).to_event(ndims)
        return p

    def both(self, mask: Tensor, partner: Tensor, dim: int = -1) -> Tensor:
        """Where both nodes of an edge are; where nothing is fused, a node alone makes its edge."""
        return mask if self.at is None else mask & take(mask, dim, partner)

    def interpolate(self, value: Tensor, partner: Tensor, coefficient: Tensor, dim: int = -1) -> Tensor:
        r""":math:`\lambda v_i + (1-\lambda) v_j` (eqs. 8, 28), ``dim`` being negative and counted in ``value``."""
        event_dim = -1 - dim
        weight = coefficient.reshape(coefficient.shape + (1,) * event_dim).to(value.dtype)
        return torch.lerp(take(value, dim, partner), value, weight)

    def observe(
        self,
        p: Any,
        y: Tensor,
        partner: Tensor,
        coefficient: Tensor,
        dim: int = -1,
        labels: Labels | None = None,
    ) -> tuple[Any, Tensor]:
        """The distribution that scores an observed label and the label it is given (eqs. 14, 16).

        Args:
            p: the label's distribution, fused where its site is.
            y: the observed labels.
            partner: positions of the partners, of shape ``(B,)``.
            coefficient: λ, broadcasting with the batch shape of ``p``.
            dim: the nodes' batch dimension, negative.
            labels: ``"exact"`` or ``"sample"``; default: the attribute.

        Raises:
            ValueError: if a label is outside the support of ``p`` and ``p`` validates its arguments.
        """
        if p._validate_args:
            p._validate_sample(y)
        partner_y = take(y, dim - len(p.event_shape), partner)
        if (labels or self.labels) == "exact":
            return ExpectedLikelihood(p, self.vicinity, y, partner_y, coefficient), y
        return p, self._draw_label(y, partner_y, coefficient, p.support)

    def draw_label(self, y: Tensor, partner: Tensor, coefficient: Tensor, support: Any) -> Tensor:
        """A draw ỹ from the vicinal density (eq. 14).

        Args:
            y: the labels, of shape ``(B,) + event_shape``.
            partner: positions of the partners, of shape ``(B,)``.
            coefficient: λ, of shape ``(..., B)``.
            support: where one label lives.
        """
        return self._draw_label(y, take(y, -y.dim(), partner), coefficient, support)

    def _draw_label(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, support: Any) -> Tensor:
        if self.extrapolates and self.vicinity.fusion == "linear":
            raise ValueError(
                'labels: expected "exact" where λ leaves [0, 1] and the labels are fused linearly: no density is drawn '
                "from with negative weights"
            )
        label = self.vicinity.fused(y, partner_y, coefficient, support).sample()
        return label if label.is_floating_point() else label.to(y.dtype)


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


class MixMessenger(Messenger):
    """Applies a :class:`Mixing` to the statements of a model or a guide that runs inside it.

    Args:
        mixing: what is mixed and how.
        batch: nodes and their partners.
        plate: name of the data plate.
        latent_only: whether observed sites are left alone, as in a guide that replays the model's latent sites.
        label: what is scored at the observed site if its vicinal label has been drawn before, as by a guide.
    """

    def __init__(
        self,
        mixing: Mixing,
        batch: PairBatch,
        plate: str = "data",
        latent_only: bool = False,
        label: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.mixing, self.plate, self.latent_only, self.label = mixing, plate, latent_only, label
        self.partner, self.law = batch.partner, mixing.law(batch.x)

    def __enter__(self) -> MixMessenger:
        self.coefficient: Tensor | None = None
        self.seen: list[str] = []
        self.observed = False
        return super().__enter__()  # type: ignore[return-value]

    def draw(self, other_plates: tuple[str, ...] = ()) -> Tensor:
        """λ, one an edge or one for all: drawn once, inside the data plate or not, and outside ``other_plates``.

        λ carries no log-probability, model and guide agreeing on its law; but where it is enumerated, that is what
        its values are weighted with.
        """
        if self.coefficient is None:
            outside = other_plates + ((self.plate,) if self.mixing.per == "batch" else ())
            enumerated = isinstance(self.law, GaussJacobi)
            law = self.law if enumerated else Unscored(self.law)
            infer: Any = {"enumerate": "parallel"} if enumerated else {}
            with block_messengers(lambda m: isinstance(m, PlateMessenger) and m.name in outside):
                self.coefficient = pyro.sample(COEFFICIENT_SITE, law, infer=infer)
        return self.coefficient

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name == COEFFICIENT_SITE or site_is_subsample(msg) or site_is_factor(msg):
            return
        self.seen.append(name)
        plates = [frame.name for frame in msg["cond_indep_stack"]]
        if self.plate not in plates:
            if name == self.mixing.at:
                got = ", ".join(map(repr, plates)) or "none"
                raise ValueError(f"plate: expected site {name!r} inside plate {self.plate!r}, got plates: {got}")
            return
        dim = self._plate_dim(msg["cond_indep_stack"][plates.index(self.plate)])
        deterministic = bool(msg["infer"].get("_deterministic"))
        observed = msg["is_observed"] and not deterministic
        self.observed |= observed
        coefficient = self.draw(tuple(plate for plate in plates if plate != self.plate))
        if (name != self.mixing.at and not observed) or (observed and self.latent_only):
            return
        if deterministic:
            self._interpolate(msg, dim, coefficient)
            return
        if observed:
            _check_label(name, msg["value"], msg["fn"])
        if isinstance(msg["mask"], Tensor):
            mask = msg["mask"].expand(torch.broadcast_shapes(msg["mask"].shape, msg["fn"].batch_shape))
            msg["mask"] = self.mixing.both(mask, self.partner, dim)
        msg["fn"] = self.mixing.pair_mask(msg["fn"], self.partner, dim)
        if name == self.mixing.at:
            msg["fn"] = self.mixing.fuse(msg["fn"], self.partner, coefficient, dim)
        if observed and self.label is not None:
            msg["value"] = self.label
        elif observed:
            msg["fn"], msg["value"] = self.mixing.observe(msg["fn"], msg["value"], self.partner, coefficient, dim)

    def _plate_dim(self, frame: Any) -> int:
        """The batch dimension of the data plate, whose size has been checked."""
        if not frame.vectorized:
            raise ValueError(f"plate: expected a vectorized plate, got {self.plate!r}, iterated over")
        if frame.size != len(self.partner):
            raise ValueError(
                f"plate: expected size {len(self.partner)}, the number of nodes in the batch, "
                f"got plate {self.plate!r} of size {frame.size}"
            )
        return int(frame.dim)

    def _interpolate(self, msg: Any, plate_dim: int, coefficient: Tensor) -> None:
        value, event_dim = msg["value"], len(msg["fn"].event_shape)
        dim = plate_dim - event_dim
        if value.dim() < -dim or value.shape[dim] != len(self.partner):
            raise ValueError(
                f"{msg['name']}: expected {len(self.partner)} nodes along dimension {dim}, left of "
                f"{event_dim} event dimensions, got shape {tuple(value.shape)}; "
                "pyro.deterministic takes the number of event dimensions as event_dim"
            )
        msg["value"] = self.mixing.interpolate(value, self.partner, coefficient, dim)
        msg["fn"] = Unscored(dist.Delta(msg["value"], event_dim=event_dim, validate_args=False))


def _masks_outputs(p: Any) -> bool:
    """Whether ``p`` is of independent outputs, some of them masked."""
    return isinstance(p, torch.distributions.Independent) and isinstance(p.base_dist, MaskedDistribution)


def _check_label(name: str, y: Any, p: Any) -> None:
    """Refuses a label whose shape would broadcast silently, such as (N, 1) against (N,)."""
    expected = p.batch_shape + p.event_shape
    if not isinstance(y, Tensor) or y.shape != expected[len(expected) - y.dim() :] or y.dim() <= len(p.event_shape):
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{name}: expected labels of shape {tuple(expected)}, got {got}")


class MixedModel(nn.Module):
    """A model or guide under :class:`MixMessenger`; made by :func:`mix`, called with a :class:`PairBatch`."""

    def __init__(self, fn: Callable[..., Any], mixing: Mixing, plate: str, dim: int, latent_only: bool = False) -> None:
        super().__init__()
        self.fn, self.mixing, self.plate, self.dim, self.latent_only = fn, mixing, plate, dim, latent_only

    @property
    def guide(self) -> MixedModel:
        """The guide that draws λ and the latent sites exactly as the mixed model does."""
        return MixedModel(self.fn, self.mixing, self.plate, self.dim, latent_only=True)

    def forward(self, batch: PairBatch, *args: Any, **kwargs: Any) -> Any:
        """Runs the model as ``fn(batch.x, batch.y, *args, **kwargs)`` with its batch mixed."""
        messenger = MixMessenger(self.mixing, batch, self.plate, self.latent_only)
        if self.latent_only:
            with pyro.poutine.block(hide_fn=lambda msg: msg["type"] == "sample" and msg["is_observed"]):
                return self._run(messenger, batch, *args, **kwargs)
        return self._run(messenger, batch, *args, **kwargs)

    def _run(self, messenger: MixMessenger, batch: PairBatch, *args: Any, **kwargs: Any) -> Any:
        with messenger:
            result = self.fn(batch.x, batch.y, *args, **kwargs)
            if self.mixing.at not in messenger.seen and messenger.observed:
                sites = ", ".join(repr(name) for name in messenger.seen) or "none"
                raise ValueError(f"at: expected a site of the model, got {self.mixing.at!r}; its sites: {sites}")
            if messenger.coefficient is None:  # a guide without sites in the plate still draws λ
                # Its plate takes no subsample: which one it is, is for the model to say.
                with pyro.poutine.block(hide=[self.plate]), pyro.plate(self.plate, len(batch), dim=self.dim):
                    messenger.draw()
        return result


def mix(
    fn: Callable[..., Any],
    at: str,
    *,
    coefficient: Any,
    vicinity: Vicinity | None = None,
    plate: str = "data",
    labels: Labels = "exact",
    fusion: Fusion = "log-linear",
    per: Per = "edge",
    dim: int = -1,
) -> MixedModel:
    r"""The mixup counterpart of any Pyro model (or guide) with a data plate.

    Called with a :class:`~pyro_probmix.mixing.PairBatch`, it runs ``fn(batch.x, batch.y)`` and, inside the data
    plate, draws λ at the site ``mixing_coefficient``; replaces the distribution at the site ``at`` by the
    pool with its partner's (eqs. 17, 18, 22), or interpolates the value if the site is deterministic
    (eqs. 8, 28); and scores each observed label under its vicinal density (eq. 14). The loss of ``Trace_ELBO``,
    divided by the number of nodes, is the Monte-Carlo risk of eq. 16 (eq. 23 if the fused site is latent). Where
    the model masks a node, its edges are masked.

    Args:
        fn: model or guide ``fn(x, y)``; a module stays one. ``y`` may be None: the model then samples it.
        at: the fused site: observed, latent or ``pyro.deterministic`` (with its ``event_dim``).
        coefficient: distribution of λ on [0, 1], Delta included; an ExpandedBeta, which leaves it; or GaussJacobi,
            which ``TraceEnum_ELBO`` integrates.
        vicinity: kernel of the observed labels; default: interpolated labels, :class:`DiracVicinity`.
        plate: name of the data plate, one of the model's.
        labels: ``"exact"`` integrates the label out where that has a closed form, ``"sample"`` draws it (eq. 16).
        fusion: ``"log-linear"`` (eq. 18) or ``"linear"`` (eq. 17) pool of distributions.
        per: one λ an ``"edge"``, or one a ``"batch"``.
        dim: dimension of the data plate, needed only for a guide without sites in it.

    Returns:
        A callable module, with the guide that draws the latent sites as the model does as ``.guide``.

    Raises:
        TypeError: if ``fn`` is not callable or the fused distribution is in no exponential family.
        ValueError: if a site or the plate is not there, or shapes do not match.

    Example:
        >>> def model(x, y):
        ...     loc = pyro.param("slope", torch.tensor(1.0)) * x
        ...     with pyro.plate("data", len(x)):
        ...         return pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        >>> mixed = mix(model, at="y", coefficient=dist.Beta(0.2, 0.2))
        >>> batch = pm.CompleteGraph(3).pair_batch(torch.arange(3.0), torch.arange(3.0))
        >>> float(Trace_ELBO().loss(mixed, mixed.guide, batch)) / len(batch)
        0.9189...
    """
    if not callable(fn):
        raise TypeError(f"fn: expected a callable, got {type(fn).__name__}")
    mixing = Mixing(at, coefficient, DiracVicinity() if vicinity is None else vicinity, labels, fusion, per)
    return MixedModel(fn, mixing, plate, dim)


def check_labels(labels: Any) -> None:
    """Refuses what is no treatment of the labels."""
    if labels not in ("exact", "sample"):
        raise ValueError(f'labels: expected "exact" or "sample", got {labels!r}')
