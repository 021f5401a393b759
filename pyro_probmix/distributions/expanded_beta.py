"""The Beta stretched to an interval beyond [0, 1]: mixing weights that preserve the structure of the data."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.log_space_beta import LogSpaceBeta

__all__ = ["ExpandedBeta"]


class ExpandedBeta(TorchDistribution):
    r"""The law of :math:`\lambda = \ell + (h - \ell)\, b` with :math:`b \sim \mathrm{Beta}(a_1, a_0)`.

    With low = −ε₀ and high = 1 + ε₁ its draws leave [0, 1], so mixing extrapolates, too, and the spread that
    interpolation takes from the data is given back: see :meth:`variance_preserving`. Draws are right at any
    concentration, being those of :class:`LogSpaceBeta`, and differentiable in all four parameters.

    Args:
        concentration1: a₁ > 0, any shape.
        concentration0: a₀ > 0, broadcasting with a₁.
        low: left end of the support, broadcasting with the concentrations.
        high: right end of the support, greater than ``low``.
        validate_args: whether arguments and values are checked, as for every distribution.

    Raises:
        ValueError: if a concentration is not positive, or low is not less than high, and arguments are
            validated.

    Example:
        >>> p = ExpandedBeta(2.0, 2.0, -0.5, 1.5)
        >>> p.mean, p.variance
        (tensor(0.5000), tensor(0.2000))
    """

    arg_constraints = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
        "low": constraints.real,
        "high": constraints.real,
    }
    has_rsample = True

    def __init__(
        self,
        concentration1: float | Tensor,
        concentration0: float | Tensor,
        low: float | Tensor,
        high: float | Tensor,
        validate_args: bool | None = None,
    ) -> None:
        parameters = broadcast_all(concentration1, concentration0, low, high)
        dtype = reduce(torch.promote_types, [t.dtype for t in parameters])
        self.concentration1, self.concentration0, self.low, self.high = (t.to(dtype) for t in parameters)
        self._beta = LogSpaceBeta(self.concentration1, self.concentration0, validate_args=False)
        super().__init__(self._beta.batch_shape, validate_args=validate_args)
        if self._validate_args and not bool((good := self.low < self.high).all()):
            bad = ~good
            low, high = (end[bad].flatten()[0].item() for end in (self.low, self.high))
            raise ValueError(f"low: expected less than high, got low {low:g} and high {high:g}{at_index(bad)}")

    @classmethod
    def variance_preserving(
        cls,
        concentration1: float | Tensor,
        concentration0: float | Tensor | None = None,
        validate_args: bool | None = None,
    ) -> ExpandedBeta:
        r"""Beta(a₁, a₀) stretched about its mean until :math:`\mathbb{E}[\lambda(1-\lambda)] = 0`.

        The variance of λx + (1 − λ)x', for independent x and x' of one law, is 1 − 2 E[λ(1 − λ)] times that
        of x. With mean m and variance m(1 − m)/(a₁ + a₀ + 1) of the Beta, it is preserved by the factor
        :math:`\sqrt{a_1 + a_0 + 1}`: for a symmetric Beta(α, α), √(2α + 1) about ½.

        Args:
            concentration1: a₁ > 0, any shape.
            concentration0: a₀ > 0, broadcasting with a₁; default: a₁.
            validate_args: whether arguments and values are checked.

        Raises:
            ValueError: if a concentration is not positive and arguments are validated.

        Example:
            >>> p = ExpandedBeta.variance_preserving(1.5)
            >>> p.low, p.high
            (tensor(-0.5000), tensor(1.5000))
        """
        a1, a0 = broadcast_all(concentration1, concentration1 if concentration0 is None else concentration0)
        if not a1.is_floating_point():
            a1, a0 = (a.to(torch.get_default_dtype()) for a in (a1, a0))
        mean, stretch = a1 / (a1 + a0), (a1 + a0 + 1).sqrt()
        return cls(a1, a0, mean * (1 - stretch), mean + (1 - mean) * stretch, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.interval(self.low, self.high)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ExpandedBeta:
        """The same law with this larger batch shape."""
        new = self._get_checked_instance(ExpandedBeta, _instance)
        batch_shape = torch.Size(batch_shape)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        new._beta = self._beta.expand(batch_shape)
        super(ExpandedBeta, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return self.low + (self.high - self.low) * self._beta.mean

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low).square() * self._beta.variance

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        draws = self._beta.rsample(sample_shape)
        # Each end is reached exactly, whatever high − low rounds to.
        return torch.lerp(self.low.expand(draws.shape), self.high.expand(draws.shape), draws)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        width = self.high - self.low
        inside = (value >= self.low) & (value <= self.high)
        share = torch.where(inside, ((value - self.low) / width).clamp(0, 1), 0.5)
        return torch.where(inside, self._beta.log_prob(share) - width.log(), -torch.inf)

    def entropy(self) -> Tensor:
        return self._beta.entropy() + (self.high - self.low).log()
