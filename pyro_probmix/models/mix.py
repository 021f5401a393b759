"""The effect handler: a Pyro model whose batch is mixed at one of its sites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger, block_messengers
from pyro.poutine.plate_messenger import PlateMessenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor, nn

from pyro_probmix.mixing import DiracVicinity, GaussJacobi, PairBatch, Vicinity
from pyro_probmix.mixing.batches import check_batch
from pyro_probmix.mixing.vicinity import Fusion
from pyro_probmix.models.mixing import Labels, Mixing, Per
from pyro_probmix.models.lazy import Unscored
from pyro_probmix.models.statements import drawn_by_guide

__all__ = ["COEFFICIENT_SITE", "MixMessenger", "MixedModel", "mix"]

COEFFICIENT_SITE = "mixing_coefficient"


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
            drawn = drawn_by_guide().get(COEFFICIENT_SITE)
            if drawn is not None and not enumerated and getattr(drawn["fn"], "_mask", None) is not False:
                raise ValueError(
                    f"guide: expected one that draws {COEFFICIENT_SITE!r} as the model does, such as its .guide or "
                    f"pm.mix(guide, ...), got one that draws it from {type(drawn['fn']).__name__}; an autoguide is "
                    "made of the model without mix, and mixed then"
                )
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
        if deterministic and f"{name}_observed" in self.seen:
            raise ValueError(f"at: expected '{name}_observed', as Pyro names what obs_mask leaves of it, got {name!r}")
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
        check_batch(batch)
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
