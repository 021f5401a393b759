"""A law whose distribution function is a monotone function of another's."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.affine import check_density
from pyro_probmix.distributions.components import broadcast_shapes, expanded
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.cumulative.scalar import law_of, scalar_icdf
from pyro_probmix.distributions.entropies import entropy
from pyro_probmix.distributions.exponential_family import validates
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.landmarks import bounds, landmarks
from pyro_probmix.distributions.modes import mode
from pyro_probmix.distributions.numerical.integrals import log_integral
from pyro_probmix.distributions.selection import Change, map_batch, rows
from pyro_probmix.distributions.weighted_pool import Pool

__all__ = ["RecalibratedDistribution"]

ACCURACY = 1e-7
NUM_POINTS = 17  # about the mass, at least, from which a quadrature starts


class RecalibratedDistribution(Pool):
    r"""The law of distribution function :math:`R(F(y))`, for F that of a density p and a piecewise linear R.

    .. math:: \log \tilde p(y) = \log R'(F(y)) + \log p(y), \qquad \tilde Q(q) = Q(R^{-1}(q))

    Mean and variance are integrals of the distribution function, by adaptive quadrature and without gradient.

    Args:
        base_dist: p, a density of numbers, of event shape ``()`` and no mask.
        knots: values of F at which R bends, of shape ``(..., K)``, increasing from 0 to 1; what comes before broadcasts
            with the batch. Kept in float64, as levels are.
        levels: values of R there, of the same shape, increasing from 0 to 1.
        validate_args: whether values are checked; default: where ``base_dist`` checks them.

    Raises:
        TypeError: if ``base_dist`` has no density of numbers on a line.
        ValueError: if it is of vectors, or knots or levels do not increase from 0 to 1.

    Example:
        >>> knots, levels = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.8, 1.0])
        >>> p = RecalibratedDistribution(dist.Normal(0.0, 1.0), knots, levels)
        >>> p.cdf(torch.tensor(0.0)), p.icdf(torch.tensor(0.8))
        (tensor(0.8000), tensor(0.))
    """

    arg_constraints = {"knots": constraints.real_vector, "levels": constraints.real_vector}

    def __init__(self, base_dist: Any, knots: Tensor, levels: Tensor, validate_args: bool | None = None) -> None:
        check_density("base_dist", base_dist)
        if base_dist.event_shape or isinstance(base_dist, MaskedDistribution):
            raise ValueError(f"base_dist: expected numbers, event shape () and no mask, got {base_dist}")
        validate_args = validates(base_dist) if validate_args is None else validate_args
        like = reference_tensor([base_dist])
        knots, levels = (t.to(like.device, torch.float64) for t in (knots, levels))
        if validate_args:
            for name, value in {"knots": knots, "levels": levels}.items():
                bad = ~((value[..., 0] == 0) & (value[..., -1] == 1) & (value.diff(dim=-1) > 0).all(-1))
                if bool(bad.any()):
                    raise ValueError(f"{name}: expected numbers that increase from 0 to 1, got others{at_index(bad)}")
        shape = broadcast_shapes(base_dist.batch_shape, knots.shape[:-1], levels.shape[:-1])
        self.base_dist = corrected(expanded(base_dist, shape))
        self.knots, self.levels = (t.expand(shape + t.shape[-1:]) for t in torch.broadcast_tensors(knots, levels))
        super().__init__(shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> RecalibratedDistribution:
        """The same law with this larger batch shape."""
        new: RecalibratedDistribution = super().expand(batch_shape, _instance)
        new.base_dist = expanded(self.base_dist, new.batch_shape)
        new.knots, new.levels = (t.expand(new.batch_shape + t.shape[-1:]) for t in (self.knots, self.levels))
        return new

    def map_batch(self, function: Change) -> RecalibratedDistribution:
        """The same law with its batch changed."""
        base = map_batch(self.base_dist, function)
        return RecalibratedDistribution(base, function(self.knots, 1), function(self.levels, 1), self._validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        return self.base_dist.support

    def can_rsample(self) -> bool:
        return bool(self.base_dist.has_rsample)

    @property
    def numerical_bounds(self) -> tuple[Tensor, Tensor]:
        """The ends of the support, in float64."""
        return bounds(self.base_dist)

    @property
    def numerical_landmarks(self) -> Tensor:
        """Points about the mass, and where the density jumps, of shape ``batch_shape + (number of points,)``."""
        jumps = scalar_icdf(self.base_dist, self.knots[..., 1:-1].movedim(-1, 0)).movedim(0, -1)
        return torch.cat([landmarks(self.base_dist), jumps.double()], -1)

    @property
    def slopes(self) -> Tensor:
        """R′ between the knots, of shape ``batch_shape + (K - 1,)``."""
        return self.levels.diff(dim=-1) / self.knots.diff(dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        segment = _segments(self._share(value), self.knots).unsqueeze(-1)
        slope = self.slopes.expand(segment.shape[:-1] + self.slopes.shape[-1:]).gather(-1, segment).squeeze(-1)
        log_prob = self.base_dist.log_prob(value)
        return slope.log().to(log_prob.dtype) + log_prob

    def cdf(self, value: Tensor) -> Tensor:
        return _interpolated(self._share(value), self.knots, self.levels).to(reference_tensor([self.base_dist]).dtype)

    def survival(self, value: Tensor) -> Tensor:
        """1 − R(F(y)), in which nothing cancels."""
        share = law_of(self.base_dist).survival(value.double())
        above = _interpolated(share, (1 - self.knots).flip(-1), (1 - self.levels).flip(-1))
        return above.to(reference_tensor([self.base_dist]).dtype)

    def icdf(self, value: Tensor) -> Tensor:
        return scalar_icdf(self.base_dist, _interpolated(value.double(), self.levels, self.knots))

    def _share(self, value: Tensor) -> Tensor:
        """F(y), in double precision."""
        return law_of(self.base_dist).cdf(value.double())

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws by the quantile function, through which gradients go where that of the base has them."""
        shape, like = self._extended_shape(sample_shape), reference_tensor([self.base_dist])
        return self.icdf(torch.rand(shape, dtype=torch.float64, device=like.device))

    @property
    def mean(self) -> Tensor:
        below, above = self._tails(0)
        return (self._center() + above - below).to(reference_tensor([self.base_dist]).dtype)

    @property
    def variance(self) -> Tensor:
        (below, above), spread = self._tails(0), sum(self._tails(1))
        return (2 * spread - (above - below).square()).to(reference_tensor([self.base_dist]).dtype)

    @property
    def mode(self) -> Tensor:
        return mode(self)

    def entropy(self) -> Tensor:
        return entropy(self)

    @torch.no_grad()
    def _tails(self, power: int) -> tuple[Tensor, Tensor]:
        """The integrals of |t − m|^power times R(F(t)) below the median m of p, and times 1 − R(F(t)) above."""
        whole = self if self.batch_shape else self.expand([1])
        law, center = law_of(whole), self._center().expand(whole.batch_shape)
        low, high = law.bounds()
        points = landmarks(whole).sort(-1).values
        points = points[..., :: max(1, points.shape[-1] // NUM_POINTS)]

        def integral(side: int) -> Tensor:
            def log_tail(t: Tensor, index: Tensor | None = None) -> Tensor:
                taken = None if index is None else torch.unravel_index(index, whole.batch_shape)
                own, middle = (law, center) if taken is None else (law_of(rows(whole, taken)), center[taken])
                return ((own.survival(t) if side > 0 else own.cdf(t)) * (t - middle).abs() ** power).log()

            ends = (center, high) if side > 0 else (low, center)
            return log_integral(log_tail, *ends, points, ACCURACY).exp().reshape(self.batch_shape)

        return integral(-1), integral(1)

    def _center(self) -> Tensor:
        """The median of the base, in double precision."""
        half = torch.full(self.batch_shape, 0.5, dtype=torch.float64, device=self.knots.device)
        return law_of(self.base_dist).icdf(half)


def _segments(value: Tensor, knots: Tensor) -> Tensor:
    """Between which knots a value is."""
    return (value.unsqueeze(-1) >= knots[..., 1:-1]).sum(-1)


def _interpolated(value: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The piecewise linear function of a value in [0, 1] that takes the numbers ``start`` to ``end``."""
    segment = _segments(value, start).unsqueeze(-1)
    shape = segment.shape[:-1] + start.shape[-1:]
    left, right, low, high = (t.expand(shape).gather(-1, segment + k).squeeze(-1) for t in (start, end) for k in (0, 1))
    share = (value - left) / (right - left)
    return torch.lerp(low, high, share)
