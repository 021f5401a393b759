"""What cannot be mixed, said by name: the checks of densities, of a model, its guide and what runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from pyro.distributions import Delta, MaskedDistribution, ZeroInflatedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger, block_messengers
from torch import Tensor

from pyro_probmix.distributions import exponential_family, index_select, is_exponential_family
from pyro_probmix.distributions.exponential_family import form_or_none, resolved, set_validation, unwrapped, validates
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.not_closed import why_not_closed
from pyro_probmix.models.names import COEFFICIENT_SITE
from pyro_probmix.models.priors import WeightsAlone
from pyro_probmix.ops.values import at_hand, can_be_read, equal_values


def check_pool_of_rows(argument: str, p: Any, fusion: str) -> None:
    """Refuses a density, that of two rows, which has no such pool with another row's."""
    base = unwrapped(p)
    if fusion == "numerical" and base.event_shape:
        raise ValueError(
            f'{argument}: expected a density of numbers, or of independent ones, with fusion="numerical", got '
            f'{type(base).__name__} of event shape {tuple(base.event_shape)}; use fusion="linear"'
        )
    closed = fusion == "log-linear"
    if closed:
        set_validation(p, True)  # so that values are compared on any device
    rows = torch.arange(2, device=reference_tensor([p]).device).flip(0)
    partners = p if closed and not is_exponential_family(p) else index_select(p, -1, rows)
    if closed:
        check_poolable(argument, p, partners)


def check_poolable(name: str, p: Any, partners: Any, dim: int = -1) -> None:
    """Refuses densities that have no log-linear pool of their family with those of their partners."""
    form = form_or_none(p)
    if form is not None and form.varies_by_parameters:
        return
    base, base_dim = resolved(p), dim
    while isinstance(base, (torch.distributions.Independent, ExpandedDistribution, MaskedDistribution)):
        base_dim -= getattr(base, "reinterpreted_batch_ndims", 0)
        base = resolved(base.base_dist)
    kind, remedies = type(base).__name__, 'fuse an embedding (ManifoldProbMix), or use fusion="linear" or "numerical"'
    if form is None:
        why = why_not_closed(type(base)) or "it has no natural form here"
        raise TypeError(
            f"{name}: expected a family that is closed under log-linear pooling, got {kind}: {why}; {remedies}"
        )
    inner = base.base_dist if isinstance(base, ZeroInflatedDistribution) else base
    names = exponential_family(inner).fixed
    unread = [fixed for fixed in names if _varies_unseen(getattr(inner, fixed), base_dim, validates(p))]
    if not unread:
        reason = form.mismatch(exponential_family(partners))
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


def refuse_guide_of_mixed_model() -> None:
    """Refuses a guide that is made of the mixed model, and runs it."""
    with block_messengers(lambda m: isinstance(m, (GuideMessenger, WeightsAlone))) as guides:
        if guides and isinstance(guides[-1], GuideMessenger):
            raise ValueError(
                f"guide: expected one that does not run the mixed model, got {type(guides[-1]).__name__} of it; "
                "make it of the model without mix, and hide the labels: "
                "poutine.block(lambda batch: guide(batch.x, batch.y), hide=[…])"
            )


def check_same_law(guide_law: Any, law: Any) -> None:
    """Refuses laws of λ of another type or of other parameters, as far as these can be read without waiting."""
    p, q = unwrapped(guide_law), unwrapped(law)
    names = [name for name in q.arg_constraints if hasattr(q, name)]
    equal = [equal_values(getattr(p, name, None), getattr(q, name), wait=False) for name in names]
    if type(p) is not type(q) or False in equal:
        raise ValueError(f"guide: expected one that is mixed with the model's law of λ, {law}, got {guide_law}")


def plate_dim(frame: Any, p: Any, size: int) -> int:
    """The batch dimension of the data plate, whose size has been checked."""
    if not frame.vectorized:
        raise ValueError(f"plate: expected a vectorized plate, got {frame.name!r}, iterated over")
    got = frame.size
    if got == -1:  # a plate without a size takes that of what is in it
        got = p.batch_shape[frame.dim] if len(p.batch_shape) >= -frame.dim else 1
    if got != size:
        raise ValueError(
            f"plate: expected size {size}, the number of nodes in the batch, got plate {frame.name!r} of size {got}"
        )
    return int(frame.dim)


def check_label(name: str, y: Any, p: Any) -> None:
    """Refuses a label whose shape would broadcast silently, such as (N, 1) against (N,)."""
    expected = p.batch_shape + p.event_shape
    if not isinstance(y, Tensor) or y.shape != expected[len(expected) - y.dim() :] or y.dim() <= len(p.event_shape):
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{name}: expected labels of shape {tuple(expected)}, got {got}")


def check_fused(msg: Any, deterministic: bool, reparametrized: bool, seen: Sequence[str]) -> None:
    """Refuses a fused site that has no density of its own to be fused."""
    name = msg["name"]
    if deterministic and f"{name}_observed" in seen:
        raise ValueError(f"at: expected '{name}_observed', as Pyro names what obs_mask leaves of it, got {name!r}")
    if reparametrized:
        raise ValueError(
            f"at: expected a site with a density of its own, got {name!r}, which a reparametrization has replaced; "
            "reparametrize the mixed model instead: poutine.reparam(pm.mix(model, ...), config)"
        )
    if isinstance(unwrapped(msg["fn"]), Delta) and not deterministic:
        raise ValueError(
            f"at: expected a density at {name!r}, got Delta; a guide that draws it from a Delta, as autoguides do, "
            "stays unmixed: lambda batch: guide(batch.x, batch.y); in a model use pyro.deterministic"
        )


def refuse_unfused(at: str | None, seen: Sequence[str], replayed: bool) -> NoReturn:
    """Refuses a run in which nothing was fused."""
    cure = ""
    if not replayed:
        cure = "; a guide without it that observes sites, or has no labels, stays unmixed: "
        cure += "lambda batch: guide(batch.x, batch.y)"
    sites = ", ".join(map(repr, seen)) or "none"
    raise ValueError(f"at: expected a site of the model, got {at!r}; its sites: {sites}{cure}")


def refuse_conditioned(name: str, messenger: Messenger) -> None:
    """Refuses labels that reach a site from outside, where they would be scored unmixed."""
    with block_messengers(lambda m: m is messenger or isinstance(m, ConditionMessenger)) as found:
        outer: list[Any] = found[: found.index(messenger)]
    if any(name in condition.data and COEFFICIENT_SITE not in condition.data for condition in outer):
        raise ValueError(
            f"y: expected the labels of {name!r} in the batch, PairBatch(x, y, partner), got a value for it by "
            "poutine.condition around the mixed model, where it would not be mixed; draws of a guide that does not "
            "draw λ: use pm.mix(guide, ...)"
        )


def refuse_sums() -> None:
    """Refuses enumeration beside weights: a sum over states to the power of a weight is no sum of powers."""
    with block_messengers(lambda m: isinstance(m, EnumMessenger)) as enumerating:
        if enumerating:
            raise ValueError(
                "weight: expected none where sites of the data plate are enumerated, since a row of weight two is "
                "that row twice, states and all; repeat the rows instead"
            )
