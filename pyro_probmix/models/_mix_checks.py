"""What cannot be mixed, said by name: the checks of a model, its guide and what runs them, on the way through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from pyro.distributions import Delta
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger, block_messengers
from torch import Tensor

from pyro_probmix.distributions.exponential_family import unwrapped
from pyro_probmix.models.names import COEFFICIENT_SITE
from pyro_probmix.models.priors import WeightsAlone
from pyro_probmix.ops.values import equal_values


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
