"""A distribution that is computed when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import MaskedDistribution, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix.distributions import LinearPool
from pyro_probmix.ops import draws

__all__ = ["LazyDistribution", "Unscored", "from_noise"]


class LazyDistribution(TorchDistribution):
    """A distribution of known shape whose parameters are computed when it is first sampled or scored.

    At a masked site whose value is replayed from a guide they are never computed.

    Args:
        build: makes the distribution.
        batch_shape: its batch shape.
        event_shape: its event shape.
        propagate: ``"sample"``, or ``"mean"`` to draw the mean always (Theorem 4.7).

    Example:
        >>> lazy = LazyDistribution(lambda: dist.Normal(torch.zeros(3), 1.0), (3,), ())
        >>> lazy.batch_shape, lazy.log_prob(torch.zeros(3)).shape
        (torch.Size([3]), torch.Size([3]))
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
        """The lazy form of the expanded distribution."""
        shape = torch.Size(batch_shape)
        return LazyDistribution(lambda: self.force().expand(shape), shape, self.event_shape, self.propagate)

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


def rsample(p: Any, sample_shape: torch.Size = torch.Size()) -> Tensor:
    """``p.rsample``, the same numbers, as ``torch.func.vmap`` can follow them."""
    q = _without_event(p)
    if isinstance(q, torch.distributions.TransformedDistribution):
        z = rsample(q.base_dist, sample_shape)
        for transform in q.transforms:
            z = transform(z)
        return z
    if isinstance(q, LinearPool):
        if q.weights.requires_grad:
            raise NotImplementedError("rsample: expected weights without gradient, which none could reach them by")
        return q.draw_by(rsample, sample_shape)
    return draws.rsample(q, sample_shape)


def from_noise(p: Any, noise: Tensor) -> Tensor:
    """The draw of a Normal embedding density that standard normal ``noise`` makes, loc + scale · noise.

    Args:
        p: a Normal, lazy, masked, independent or none of these.
        noise: of shape ``(...) + p.event_shape``.

    Raises:
        TypeError: if ``p`` is not Normal.
    """
    normal = _without_event(p)
    if not isinstance(normal, torch.distributions.Normal):
        raise TypeError(f"noise: expected a Normal embedding density, got {type(normal).__name__}")
    return normal.loc + normal.scale * noise


def _without_event(p: Any) -> Any:
    if isinstance(p, LazyDistribution):
        return _without_event(p.force())
    if isinstance(p, (torch.distributions.Independent, MaskedDistribution)):
        return _without_event(p.base_dist)
    return p
