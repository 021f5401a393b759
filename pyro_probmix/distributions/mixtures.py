"""What a distribution is a mixture of."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

__all__ = ["Mixture", "mixture_of"]


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
