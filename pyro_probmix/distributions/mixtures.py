"""What a distribution is a mixture of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

__all__ = ["Mixture", "Part", "mixture_of", "parts_of"]


class Mixture(NamedTuple):
    """The components of a mixture and their weights."""

    members: list[Any]
    """The components, or one distribution whose last batch dimension counts them."""
    batched: bool
    """Whether it is that one."""
    weights: Tensor
    """Of shape batch + (number of components,), as far as that does not broadcast."""


def mixture_of(p: Any) -> Mixture | None:
    """The components of a linear pool, or of a mixture of PyTorch's or Pyro's; None of what is none.

    Example:
        >>> mixture_of(pm.LinearPool([dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0)])).weights
        tensor([0.5000, 0.5000])
        >>> mixture_of(dist.Normal(0.0, 1.0)) is None
        True
    """
    if isinstance(p, MixtureSameFamily):
        return Mixture([p.component_distribution], True, p.mixture_distribution.probs)
    if isinstance(p, (dist.MixtureOfDiagNormals, dist.MixtureOfDiagNormalsSharedCovariance)):
        scale = p.coord_scale if isinstance(p, dist.MixtureOfDiagNormals) else p.coord_scale.unsqueeze(-2)
        return Mixture([dist.Normal(p.locs, scale, validate_args=False).to_event(1)], True, p.probs)
    if not getattr(p, "is_mixture", False):
        return None
    batched = isinstance(p.components, Distribution)
    return Mixture([p.components] if batched else list(p.components), batched, p.weights)


class Part(NamedTuple):
    """Components, no mixtures themselves, that a mixture is made of in the end."""

    member: Any
    """One, or a distribution of several."""
    weights: Tensor
    """Of them in the whole mixture."""
    dims: int
    """How many of the last dimensions of the batch of the member, and of the weights, count them."""


def parts_of(
    mixture: Mixture, within: Callable[[Any], Mixture | None] = mixture_of, outer: Tensor | None = None, dims: int = 0
) -> Iterator[Part]:
    """The parts of a mixture, those that are mixtures being taken apart.

    Args:
        mixture: of any components.
        within: what a component is a mixture of, if it is one.
        outer: the weight of this mixture in a larger one.
        dims: how many dimensions count the components of that.

    Example:
        >>> pair = pm.LinearPool(dist.Normal(torch.zeros(2), 1.0))
        >>> pool = pm.LinearPool([pair, dist.Laplace(0.0, 1.0)], [0.5, 0.5])
        >>> [(type(part.member).__name__, part.weights.tolist(), part.dims) for part in parts_of(mixture_of(pool))]
        [('Normal', [0.25, 0.25], 1), ('Laplace', 0.5, 0)]
    """
    weights = mixture.weights if outer is None else outer.unsqueeze(-1) * mixture.weights
    each = [weights] if mixture.batched else weights.unbind(-1)
    dims += mixture.batched
    for member, own in zip(mixture.members, each, strict=True):
        inner = within(member)
        yield from [Part(member, own, dims)] if inner is None else parts_of(inner, within, own, dims)
