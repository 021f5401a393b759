"""The law of loc + scale · y, for y of any density."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, constraints

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.components import broadcast_shapes, expanded
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.cumulative.scalar import law_of, scalar_cdf, scalar_icdf
from pyro_probmix.distributions.entropies import entropy
from pyro_probmix.distributions.exponential_family import resolved, validates
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.landmarks import bounds, landmarks
from pyro_probmix.distributions.linear_pooling import LinearPool
from pyro_probmix.distributions.mixtures import mixture_of
from pyro_probmix.distributions.modes import mode
from pyro_probmix.distributions.selection import Change, map_batch
from pyro_probmix.distributions.supports import is_circular, some_value
from pyro_probmix.distributions.weighted_pool import Pool, asked

__all__ = ["AffineDistribution", "affine", "check_density"]


def affine(p: Any, loc: Tensor | float, scale: Tensor | float) -> Any:
    r"""The law of :math:`\mathtt{loc} + \mathtt{scale} \cdot y` for :math:`y \sim p`.

    A Normal, one of vectors too, stays a Normal, and a pool or mixture is that of its changed components; masks and
    independent outputs stay. Any other density of numbers becomes an :class:`AffineDistribution`.

    Args:
        p: a density of numbers, or of vectors of them.
        loc: what is added, in units of the result; broadcasts with ``p.batch_shape + p.event_shape``.
        scale: what is multiplied by, positive; broadcasts likewise.

    Raises:
        TypeError: if ``p`` has no density of numbers on a line, or is a joint law of several that is no Normal.
        ValueError: if ``scale`` is not positive, or a shape does not broadcast.

    Example:
        >>> affine(dist.Normal(1.0, 2.0), loc=-1.0, scale=3.0)
        Normal(loc: 2.0, scale: 6.0)
        >>> affine(pm.LinearPool([dist.Normal(0.0, 1.0), dist.Normal(4.0, 1.0)]), 10.0, 2.0).mean
        tensor(14.)
    """
    check_density("p", p)
    shape, like = p.batch_shape + p.event_shape, reference_tensor([p])
    parts = {
        name: torch.as_tensor(v, dtype=like.dtype, device=like.device) for name, v in (("loc", loc), ("scale", scale))
    }
    for name, value in parts.items():
        try:
            parts[name] = value.expand(torch.broadcast_shapes(shape, value.shape))
        except RuntimeError:
            raise ValueError(
                f"{name}: expected a shape that broadcasts with {tuple(shape)}, got {tuple(value.shape)}"
            ) from None
    wrong = ~(parts["scale"] > 0)
    if validates(p) and bool(wrong.any()):
        raise ValueError(f"scale: expected positive numbers, got others{at_index(wrong)}")
    return _affine(p, **parts)


def check_density(name: str, p: Any) -> None:
    """Refuse what has no density of numbers on a line: classes, counts, angles, directions."""
    if not isinstance(p, Distribution):
        raise TypeError(f"{name}: expected a distribution, got {type(p).__name__}")
    support: Any = p.support
    if support.is_discrete or is_circular(p):
        kind = "angles" if is_circular(p) else "classes or counts"
        raise TypeError(f"{name}: expected a density of numbers, got {type(p).__name__}, of {kind}")


def _affine(p: Any, loc: Tensor, scale: Tensor) -> Any:
    """As :func:`affine`, of loc and scale that have a dimension for each of the event at least."""
    p = resolved(p)
    options: dict[str, Any] = {"validate_args": validates(p)}
    if isinstance(p, torch.distributions.Independent):
        return dist.Independent(_affine(p.base_dist, loc, scale), p.reinterpreted_batch_ndims)
    if isinstance(p, dist.MaskedDistribution):
        return dist.MaskedDistribution(_affine(p.base_dist, loc, scale), p._mask)
    dim = -1 - len(p.event_shape)
    if isinstance(p, MixtureSameFamily):
        component = _affine(p.component_distribution, loc.unsqueeze(dim), scale.unsqueeze(dim))
        return dist.MixtureSameFamily(p.mixture_distribution, component, **options)
    mixture = mixture_of(p)
    if mixture is not None:
        if mixture.batched:
            loc, scale = loc.unsqueeze(dim), scale.unsqueeze(dim)
        members = [_affine(member, loc, scale) for member in mixture.members]
        return LinearPool(members[0] if mixture.batched else members, mixture.weights, **options)
    if isinstance(p, torch.distributions.Normal):
        return dist.Normal(loc + scale * p.loc, scale * p.scale, **options)
    if isinstance(p, torch.distributions.MultivariateNormal):
        factor = scale.unsqueeze(-1) * p.scale_tril
        return dist.MultivariateNormal(loc + scale * p.loc, scale_tril=factor, **options)
    if isinstance(p, torch.distributions.LowRankMultivariateNormal):
        factor, diagonal = scale.unsqueeze(-1) * p.cov_factor, scale.square() * p.cov_diag
        return dist.LowRankMultivariateNormal(loc + scale * p.loc, factor, diagonal, **options)
    if p.event_shape:
        raise TypeError(
            f"p: expected a joint law that is Normal, or of independent outputs, got {type(p).__name__} of event shape "
            f"{tuple(p.event_shape)}"
        )
    if isinstance(p, AffineDistribution):
        return AffineDistribution(p.base_dist, loc + scale * p.loc, scale * p.scale, **options)
    return AffineDistribution(p, loc, scale, **options)


class AffineDistribution(Pool):
    r"""The law of :math:`\mathtt{loc} + \mathtt{scale} \cdot y` for numbers :math:`y \sim p`, on the real line.

    .. math:: \log \tilde p(y) = \log p\bigl((y - \mathtt{loc}) / \mathtt{scale}\bigr) - \log \mathtt{scale}

    It is −∞ where p has no density. What :func:`affine` gives where there is no simpler law.

    Args:
        base_dist: a density of numbers, of event shape ``()`` and no mask.
        loc: what is added; broadcasts with the batch.
        scale: what is multiplied by, positive; broadcasts with the batch.
        validate_args: whether values are checked; default: where ``base_dist`` checks them.

    Raises:
        TypeError: if ``base_dist`` has no density of numbers on a line.
        ValueError: if it is of vectors, or ``scale`` is not positive.

    Example:
        >>> p = AffineDistribution(dist.Exponential(1.0), loc=2.0, scale=3.0)
        >>> p.mean, p.log_prob(torch.tensor([1.0, 2.0]))
        (tensor(5.), tensor([   -inf, -1.0986]))
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(
        self,
        base_dist: Any,
        loc: Tensor | float,
        scale: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        check_density("base_dist", base_dist)
        if base_dist.event_shape or isinstance(base_dist, dist.MaskedDistribution):
            raise ValueError(f"base_dist: expected numbers, event shape () and no mask, got {base_dist}")
        like = reference_tensor([base_dist])
        loc, scale = (torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (loc, scale))
        shape = broadcast_shapes(base_dist.batch_shape, loc.shape, scale.shape)
        self.base_dist = corrected(expanded(base_dist, shape))
        self.loc, self.scale = loc.expand(shape), scale.expand(shape)
        super().__init__(shape, validate_args=validates(base_dist) if validate_args is None else validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> AffineDistribution:
        """The same law with this larger batch shape."""
        new: AffineDistribution = super().expand(batch_shape, _instance)
        new.base_dist = expanded(self.base_dist, new.batch_shape)
        new.loc, new.scale = self.loc.expand(new.batch_shape), self.scale.expand(new.batch_shape)
        return new

    def map_batch(self, function: Change) -> AffineDistribution:
        """The same law with its batch changed."""
        base = map_batch(self.base_dist, function)
        return AffineDistribution(base, function(self.loc, 0), function(self.scale, 0), self._validate_args)

    def can_rsample(self) -> bool:
        return bool(self.base_dist.has_rsample)

    @property
    def numerical_bounds(self) -> tuple[Tensor, Tensor]:
        """The ends of where there is density, in float64."""
        low, high = bounds(self.base_dist)
        return self.loc + self.scale * low, self.loc + self.scale * high

    @property
    def numerical_landmarks(self) -> Tensor:
        """Points about the mass, of shape ``batch_shape + (number of points,)``, in float64."""
        return self.loc.unsqueeze(-1) + self.scale.unsqueeze(-1) * landmarks(self.base_dist)

    def _inner(self, value: Tensor) -> Tensor:
        return (value - self.loc) / self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        x = self._inner(value)
        inside, legal = self.base_dist.support.check(x), some_value(self.base_dist)
        log_prob = self.base_dist.log_prob(x if legal is None else torch.where(inside, x, legal)) - self.scale.log()
        return torch.where(x.isnan(), x, log_prob.masked_fill(~inside, -torch.inf))

    def cdf(self, value: Tensor) -> Tensor:
        return scalar_cdf(self.base_dist, self._inner(value))

    def survival(self, value: Tensor) -> Tensor:
        """1 − F(y), in which nothing cancels."""
        return law_of(self.base_dist).survival(self._inner(value).double()).to(self.loc.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * scalar_icdf(self.base_dist, value)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.loc + self.scale * self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return self.loc + self.scale * self.base_dist.rsample(sample_shape)

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * asked(self.base_dist, "mean")

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * asked(self.base_dist, "variance")

    @property
    def mode(self) -> Tensor:
        return self.loc + self.scale * mode(self.base_dist)

    def entropy(self) -> Tensor:
        return self.scale.log() + entropy(self.base_dist)
