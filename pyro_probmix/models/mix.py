"""The effect handler: a Pyro model whose batch is mixed at one of its sites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.infer.discrete import SamplePosteriorMessenger
from pyro.poutine.markov_messenger import MarkovMessenger
from pyro.poutine.messenger import Messenger, block_messengers
from pyro.poutine.plate_messenger import PlateMessenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor, nn

from pyro_probmix.mixing import GaussJacobi, PairBatch, Vicinity
from pyro_probmix.mixing.batches import check_batch
from pyro_probmix.models import _mix_checks as checks
from pyro_probmix.models.laws import Unscored
from pyro_probmix.models.mixing import Fusion, Labels, Mixing, Per
from pyro_probmix.models.names import COEFFICIENT_SITE
from pyro_probmix.models.unmixed import as_mixed
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["MixMessenger", "MixedModel", "mix"]


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
    divided by the number of nodes, is the Monte-Carlo risk of eq. 16 (eq. 23 if the fused site is latent).

    - Whatever is observed in the plate is a label, covariates too; the model goes on with the node's own value.
    - An edge counts with the product of its nodes' weights in the batch: a row of weight two is that row twice, over
      all pairs. Where the batch or the model masks a node, its edges are masked, but for those in which its share is
      exactly zero; a missing label is not looked at.
    - λ is scored by its law where no guide is replayed, as under MCMC or in a prior trace, and nowhere else.
    - A guide with a density at the fused site is mixed as the model is, ``pm.mix(guide, at=...)``. Any other stays as
      it is, ``lambda batch: guide(batch.x, batch.y)``: an autoguide, or one of weights.
    - For predictions take the model and its guide without mix, ``Predictive(model, guide=guide, num_samples=...)``; a
      mixed model without labels draws them from the fused predictive (eq. 13).
    - ``JitTrace_ELBO`` takes tensors alone: ``lambda x, y, partner: mixed(PairBatch(x, y, partner))``.

    Args:
        fn: model or guide ``fn(x, y)``; a module stays one. ``y`` may be None: the model then samples it.
        at: the fused site: observed, latent or ``pyro.deterministic`` (with its ``event_dim``).
        coefficient: distribution of λ on [0, 1], Delta included; an ExpandedBeta, which leaves it; or GaussJacobi,
            which ``TraceEnum_ELBO`` and MCMC integrate.
        vicinity: kernel of the observed labels; default: interpolated labels, or for classes, counts, angles,
            directions and correlations either one of the pair's, λ being its probability (Assumption 4.2).
        plate: name of the data plate, one of the model's.
        labels: ``"exact"`` integrates the label out where that has a closed form, ``"sample"`` draws it (eq. 16).
        fusion: ``"log-linear"`` (eq. 18) or ``"linear"`` (eq. 17) pool of distributions, or ``"numerical"``, as for
            :class:`ProbMix`.
        per: one λ an ``"edge"``, or one a ``"batch"``.
        dim: dimension of the data plate, needed only for a guide without sites in it.

    Returns:
        A callable module, with the guide that draws the latent sites as the model does as ``.guide``.

    Raises:
        TypeError: if ``fn`` is not callable or, with log-linear fusion, the fused distribution is in no exponential
            family.
        ValueError: if a site or the plate is not there, so that a run has fused nothing; if shapes do not match; or if
            a guide draws λ or the fused site from a law that cannot be fused.

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
    mixing = Mixing(at, coefficient, vicinity, labels, fusion, per)
    return MixedModel(fn, mixing, plate, dim)


class MixedModel(nn.Module):
    """A model or guide under :class:`MixMessenger`; made by :func:`mix`, called with a :class:`PairBatch`."""

    def __init__(self, fn: Callable[..., Any], mixing: Mixing, plate: str, dim: int, latent_only: bool = False) -> None:
        super().__init__()
        self.fn, self.mixing, self.plate, self.dim, self.latent_only = fn, mixing, plate, dim, latent_only

    @property
    def guide(self) -> MixedModel:
        """The guide that draws λ and the latent sites as the mixed model does, but those that are enumerated there."""
        return MixedModel(self.fn, self.mixing, self.plate, self.dim, latent_only=True)

    def forward(self, batch: PairBatch, *args: Any, **kwargs: Any) -> Any:
        """Runs the model as ``fn(batch.x, batch.y, *args, **kwargs)`` with its batch mixed."""
        check_batch(batch)
        messenger = MixMessenger(self.mixing, batch, self.plate, self.latent_only)
        with messenger:
            result = self.fn(batch.x, batch.y, *args, **kwargs)
            messenger.check()
            if messenger.coefficient is None:  # a guide without sites in the plate still draws λ
                # Its plate takes no subsample: which one it is, is for the model to say.
                with pyro.poutine.block(hide=[self.plate]), pyro.plate(self.plate, len(batch), dim=self.dim):
                    messenger.draw()
        return result


class MixMessenger(Messenger):
    """Applies a :class:`Mixing` to the statements of a model or a guide that runs inside it.

    Inside the data plate every statement counts with the weight of its edge. An observed site is a label: it is scored
    by :meth:`Mixing.statement`, and the model goes on with the node's own value.

    Args:
        mixing: what is mixed and how.
        batch: nodes and their partners.
        plate: name of the data plate.
        latent_only: whether this is a guide that draws the latent sites as the model does, and observes none.
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
        mixing = as_mixed(mixing)
        self.mixing, self.batch, self.plate, self.latent_only, self.label = mixing, batch, plate, latent_only, label
        self.law = None if mixing.coefficient is None else mixing.law(batch.x)
        self.weight = mixing.edge_weight(batch)

    def __enter__(self) -> MixMessenger:
        self.coefficient: Any = None
        self.seen: list[str] = []
        self.fused = self.observed = False
        self.replay = _replay_of_guide()
        self.drawn = {} if self.replay is None else self.replay.trace.nodes
        self.own: dict[str, Tensor] = {}
        return super().__enter__()  # type: ignore[return-value]

    def draw(self, dim: int | None = None, other_plates: tuple[str, ...] = ()) -> Any:
        """λ, one an edge or one for all: drawn once, inside the data plate or not, and outside ``other_plates``.

        None where nothing is fused. It carries a log-probability where no guide is replayed, as under MCMC. ``dim`` is
        that of a data plate that does not say how many nodes there are.
        """
        if self.coefficient is not None or self.law is None:
            return self.coefficient
        outside = other_plates + ((self.plate,) if self.mixing.per == "batch" else ())
        law: Any = self.law
        infer: Any = {}
        if isinstance(law, GaussJacobi):  # what its values are weighted with
            infer = {"enumerate": "parallel"}
            if self.weight is not None and not self.latent_only and COEFFICIENT_SITE not in self.drawn:
                checks.refuse_sums()
        else:
            scored = self.replay is None and not self.latent_only
            law = CoefficientLaw(law, scored, self.mixing.coefficient)
            if isinstance(self.replay, SamplePosteriorMessenger):
                infer = {"enumerate": "parallel"}  # for it replays no other site
            self._agree_with_guide()
        if dim is not None and self.mixing.per == "edge":
            law = law.expand(torch.Size([len(self.batch)] + [1] * (-1 - dim)))

        def hidden(messenger: Messenger) -> bool:
            return isinstance(messenger, MarkovMessenger) or (
                isinstance(messenger, PlateMessenger) and messenger.name in outside
            )

        with block_messengers(hidden):  # λ is no step of a chain
            obs = None
            if self.replay is not None and COEFFICIENT_SITE not in self.drawn and not infer:
                with pyro.poutine.block():  # known from here on, since the guide does not know it
                    obs = pyro.sample(COEFFICIENT_SITE, law)
            self.coefficient = pyro.sample(COEFFICIENT_SITE, law, obs=obs, infer=infer)
        if isinstance(self.law, Delta) and self.coefficient.requires_grad:
            raise ValueError(
                "coefficient: expected a density under MCMC, which moves λ, got Delta; condition it instead: "
                f'poutine.condition(mixed, data={{"{COEFFICIENT_SITE}": …}})'
            )
        return self.coefficient

    def _agree_with_guide(self) -> None:
        """Leaves the λ that a guide has drawn unscored, as it is here."""
        checks.refuse_guide_of_mixed_model()
        law = self.drawn.get(COEFFICIENT_SITE, {}).get("fn")
        if isinstance(law, CoefficientLaw):
            if law.origin is not self.mixing.coefficient:
                checks.check_same_law(law.base_dist, self.law)
            law._mask = False
        elif law is not None and getattr(law, "_mask", None) is not False:
            raise ValueError(
                f"guide: expected one that draws {COEFFICIENT_SITE!r} as the model does, such as its .guide or "
                f"pm.mix(guide, ...), or not at all, got one that draws it from {type(law).__name__}; an autoguide is "
                "made of the model without mix"
            )

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == COEFFICIENT_SITE or site_is_subsample(msg):
            return
        self._apply(msg)
        if self.latent_only and (msg["is_observed"] or msg["infer"].get("enumerate") == "parallel"):
            # What is scored or summed out is the model's; here it is only a value that others depend on.
            msg["infer"] = {k: v for k, v in msg["infer"].items() if k != "enumerate"}
            msg["infer"] |= {"is_auxiliary": True, "_do_not_trace": True}
            msg["is_observed"] = False

    def _apply(self, msg: Any) -> None:
        name, at = msg["name"], self.mixing.at
        is_factor, deterministic = site_is_factor(msg), bool(msg["infer"].get("_deterministic"))
        observed = msg["is_observed"] and not (deterministic or is_factor)
        plates = [frame.name for frame in msg["cond_indep_stack"]]
        if not is_factor:
            self.seen.append(name)
            self.observed |= observed
        if self.plate not in plates:
            if name == at:
                got = ", ".join(map(repr, plates)) or "none"
                raise ValueError(f"plate: expected site {name!r} inside plate {self.plate!r}, got plates: {got}")
            return
        frame = msg["cond_indep_stack"][plates.index(self.plate)]
        dim = checks.plate_dim(frame, msg["fn"], len(self.batch))
        if not is_factor:
            others = tuple(plate for plate in plates if plate != self.plate)
            coefficient = self.draw(dim if frame.size == -1 else None, others)
            if observed and name in self.drawn and not self.latent_only:
                raise ValueError(
                    f"guide: expected one without {name!r}, whose density there would count against the model's, got "
                    f'one with it; hide it: poutine.block(guide, hide=["{name}"])'
                )
            reparametrized = observed and isinstance(msg["fn"], MaskedDistribution) and msg["fn"]._mask is False
            observed = observed and not (reparametrized or self.latent_only)
            if name == at:
                checks.check_fused(msg, deterministic, reparametrized, self.seen)
                self.fused = True
            if deterministic:
                if name == at:
                    self._interpolate(msg, dim, coefficient)
            elif observed or name == at:
                self._mix(msg, dim, coefficient, observed)
            if observed or (name == at and self.batch.y is None and not deterministic):
                checks.refuse_conditioned(name, self)
        self._weigh(msg, dim)

    def _interpolate(self, msg: Any, plate_dim: int, coefficient: Any) -> None:
        value, event_dim, size = msg["value"], len(msg["fn"].event_shape), len(self.batch)
        dim = plate_dim - event_dim
        if value.dim() < -dim or value.shape[dim] != size:
            raise ValueError(
                f"{msg['name']}: expected {size} nodes along dimension {dim}, left of "
                f"{event_dim} event dimensions, got shape {tuple(value.shape)}; "
                "pyro.deterministic takes the number of event dimensions as event_dim"
            )
        msg["value"] = self.mixing.interpolate(value, self.batch.partner, coefficient, dim)
        msg["fn"] = Unscored(Delta(msg["value"], event_dim=event_dim, validate_args=False))

    def _mix(self, msg: Any, dim: int, coefficient: Any, observed: bool) -> None:
        name, partner = msg["name"], self.batch.partner
        if observed:
            checks.check_label(name, msg["value"], msg["fn"])
            self.own[name] = msg["value"]
        if isinstance(msg["mask"], Tensor):
            mask = msg["mask"].expand(torch.broadcast_shapes(msg["mask"].shape, msg["fn"].batch_shape))
            msg["mask"] = self.mixing.edge_mask(mask, partner, dim, coefficient)
        msg["fn"], value = self.mixing.statement(
            name, msg["fn"], msg["value"] if observed else None, self.batch, coefficient, dim, label=self.label
        )
        if observed:
            msg["value"] = value

    def _weigh(self, msg: Any, dim: int) -> None:
        """The weight of each edge as the scale of a term; Pyro takes no scale of zero."""
        if self.weight is None:
            return
        if msg["infer"].get("enumerate") == "parallel" and not self.latent_only:
            checks.refuse_sums()
        if not isinstance(self.drawn.get(msg["name"], {}).get("scale", self.weight), Tensor):
            raise ValueError(
                f"guide: expected pm.mix(guide, ...) for a batch with weights, which count at {msg['name']!r} in guide "
                "and model, got a guide without them"
            )
        weight = unsqueeze_right(self.weight, -1 - dim)
        present = weight != 0
        msg["scale"] = msg["scale"] * weight.masked_fill(~present, 1)
        msg["mask"] = present if msg["mask"] is None else msg["mask"] & present

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.own:  # what has been scored is recorded by now
            msg["value"] = self.own[msg["name"]]

    def check(self) -> None:
        """Refuses a run in which nothing was fused.

        A guide need not draw the fused site: a run that is replayed by no guide, has labels and observes none is taken
        for one.
        """
        is_guide = self.replay is None and not self.observed and self.batch.y is not None
        if not (self.fused or self.mixing.at is None or self.latent_only or is_guide):
            checks.refuse_unfused(self.mixing.at, self.seen, self.replay is not None)


class CoefficientLaw(Unscored):
    """The law of λ at its site: scored in a run of its own, and not where a guide is replayed.

    Model and guide agree on the law, so that its terms cancel; at concentrations below one they would be infinite.
    ``origin`` is what it was made from: laws of one origin are one law.
    """

    def __init__(self, base_dist: Any, scored: bool, origin: Any) -> None:
        super().__init__(base_dist, scored)
        self.origin = origin

    def expand(self, batch_shape: Any, _instance: Any = None) -> CoefficientLaw:
        return CoefficientLaw(self.base_dist.expand(batch_shape), self._mask, self.origin)


def _replay_of_guide() -> Any:
    """The handler that replays the draws of a guide, where there is one.

    The trace of a guide has come to its end: losses that enumerate replay unfinished ones too, of the guide itself.
    """

    def replays_guide(messenger: Any) -> bool:
        is_replay = isinstance(messenger, ReplayMessenger) and messenger.trace is not None
        return is_replay and (isinstance(messenger, SamplePosteriorMessenger) or "_RETURN" in messenger.trace)

    with block_messengers(replays_guide) as replays:
        return replays[-1] if replays else None
