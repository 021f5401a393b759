"""The distributions that stand at the sites of a mixed model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import MaskedDistribution, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix.distributions import LinearPool
from pyro_probmix.distributions.components import broadcast_shapes
from pyro_probmix.distributions.exponential_family import unwrapped
from pyro_probmix.mixing import Vicinity
from pyro_probmix.ops import draws

__all__ = ["ExpectedLikelihood", "LazyDistribution", "Unscored", "as_normal", "from_noise", "rsample"]


class LazyDistribution(TorchDistribution):
    """A distribution of known shape whose parameters are computed when it is first sampled or scored.

    At a masked site whose value is replayed from a guide they are never computed. With ``propagate="mean"`` every draw
    is the mean (Theorem 4.7).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, build: Callable[[], Any], batch_shape: Any, event_shape: Any, propagate: str = "sample") -> None:
        self._build: Callable[[], Any] | None = build
        self._distribution: Any = None
        self.propagate = propagate
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    def force(self) -> Any:
        """The distribution itself."""
        if self._build is not None:
            self._distribution, self._build = self._build(), None
        return self._distribution

    def expand(self, batch_shape: Any, _instance: Any = None) -> LazyDistribution:
        shape = torch.Size(batch_shape)
        return self.then(lambda made: made.expand(shape), shape)

    def then(self, change: Callable[[Any], Any], batch_shape: Any) -> LazyDistribution:
        """The lazy form of ``change`` of the distribution, which has this batch shape."""
        return LazyDistribution(lambda: change(self.force()), batch_shape, self.event_shape, self.propagate)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return self.force().support

    @property
    def mean(self) -> Tensor:
        return self.force().mean

    @property
    def variance(self) -> Tensor:
        return self.force().variance

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        if self.propagate == "mean":
            mean = self.force().mean
            return mean.expand(torch.Size(sample_shape) + mean.shape)
        return rsample(self.force(), torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.force().log_prob(value)


class Unscored(MaskedDistribution):
    """A distribution whose log-probability counts as zero, in the dtype of the value.

    Pyro's own ``mask(False)`` has zeros in single precision, which ``TraceEnum_ELBO`` cannot add to others.

    Example:
        >>> Unscored(dist.Normal(0.0, 1.0)).log_prob(torch.zeros(2, dtype=torch.float64))
        tensor([0., 0.], dtype=torch.float64)
    """

    def __init__(self, base_dist: Any, mask: bool = False) -> None:
        super().__init__(base_dist, mask)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Unscored:
        return Unscored(self.base_dist.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        zeros = super().log_prob(value)
        return zeros.to(value.dtype) if value.is_floating_point() else zeros


class ExpectedLikelihood(TorchDistribution):
    r"""A likelihood that scores by :math:`\mathbb{E}_{\tilde y}[\log \tilde p(\tilde y)]`, labels integrated out.

    The labels have shape ``(B,) + event_shape``, the likelihood and λ batch shape ``(..., B)``.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, base_dist: Any, vicinity: Vicinity, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> None:
        self.base_dist, self.vicinity, self.pair, self.coefficient = base_dist, vicinity, (y, partner_y), coefficient
        shape = broadcast_shapes(base_dist.batch_shape, coefficient.shape)
        super().__init__(shape, base_dist.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ExpectedLikelihood:
        base, coefficient = self.base_dist.expand(batch_shape), self.coefficient.expand(batch_shape)
        return ExpectedLikelihood(base, self.vicinity, *self.pair, coefficient)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return self.base_dist.support

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.vicinity.expected_log_prob(self.base_dist, *self.pair, self.coefficient)


def as_normal(p: Any) -> Any:
    """The Normal that an embedding density is but for its wrappers, which noise makes draws of."""
    normal = unwrapped(p)
    if not isinstance(normal, torch.distributions.Normal):
        raise TypeError(f"noise: expected a Normal embedding density, got {type(normal).__name__}")
    return normal


def from_noise(p: Any, noise: Tensor) -> Tensor:
    """The draw of a Normal embedding density that standard normal ``noise`` makes, loc + scale · noise."""
    normal = as_normal(p)
    return normal.loc + normal.scale * noise


def rsample(p: Any, sample_shape: torch.Size = torch.Size()) -> Tensor:
    """``p.rsample``, the same numbers, as ``torch.func.vmap`` can follow them."""
    if isinstance(p, (torch.distributions.Independent, MaskedDistribution)):
        return rsample(p.base_dist, sample_shape)
    if isinstance(p, torch.distributions.TransformedDistribution):
        value = rsample(p.base_dist, sample_shape)
        for transform in p.transforms:
            value = transform(value)
        return value
    if isinstance(p, LinearPool):
        if p.weights.requires_grad:
            raise NotImplementedError("rsample: expected weights without gradient, which none could reach them by")
        return p.draw_by(rsample, sample_shape)
    return draws.rsample(p, sample_shape)
