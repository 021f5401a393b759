"""Modes: the values of highest density or mass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import MaskedDistribution, ZeroInflatedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution, transform_to

from pyro_probmix._checks import at_index
from pyro_probmix._random import seeded
from pyro_probmix.distributions.classes import class_log_probabilities, joint_values
from pyro_probmix.distributions.components import expanded
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.known_modes import known_mode
from pyro_probmix.distributions.landmarks import bounds, in_double, landmarks
from pyro_probmix.distributions.mixtures import Mixture, mixture_of
from pyro_probmix.distributions.supports import is_binary, is_circular, is_one_hot, num_classes
from pyro_probmix.distributions.transforms import independent_entries, is_affine
from pyro_probmix.ops.maxima import climbed, highest_integer, highest_number
from pyro_probmix.ops.values import can_be_read

__all__ = ["mode"]

POINTS = 200  # between which a density is searched
BLOCK = 2**22  # densities that are computed together
STARTS = 8
DRAWS = 32


def mode(p: Any) -> Tensor:
    r"""Mode :math:`\arg\max_y p(y)`, the value of highest density or mass, of any distribution.

    It is in closed form where there is one, :math:`T(\mathrm{mode}(x))` for an affine T, and each entry's own where
    entries are independent. Of classes it is the most probable one, and of several labels in a mixture the most
    probable combination, where there are not more than 65536. Else it is found: of scalars, mixtures and pools above
    all, between the modes of the components and between landmarks, and the highest wins; of counts, among all integers
    from the least to the largest of these; of vectors, by climbing from the modes of the components, or from draws,
    the highest of the tops that are reached.

    Args:
        p: any distribution, of batch shape ``(...)``. Masks do not count: they belong to the sites, not to the laws.

    Returns:
        Values, of shape ``batch_shape + event_shape``; of several modes one of them, the infinity where the density has
        one at an end. In closed form, and of scalars where the density is smooth, they are differentiable.

    Raises:
        TypeError: if ``p`` is not a distribution.
        ValueError: if its density has no largest value, or parameters are NaN.
        NotImplementedError: for vectors of counts of no known law, or values on a surface that cannot be climbed.

    Example:
        >>> mode(pm.LinearPool([dist.Normal(0.0, 1.0), dist.Normal(3.0, 0.5)], [0.25, 0.75]))
        tensor(2.9986)
        >>> mode(dist.Gamma(torch.tensor([0.5, 3.0]), 2.0))
        tensor([0., 1.])
        >>> mode(pm.LinearPool([dist.Poisson(2.5), dist.Poisson(20.0)]))
        tensor(2.)
    """
    if not isinstance(p, Distribution):
        raise TypeError(f"p: expected a torch or Pyro distribution, got {type(p).__name__}")
    found = _mode(corrected(p)).expand(p.batch_shape + p.event_shape)
    found = found.to(reference_tensor([p]).dtype) if found.is_floating_point() else found
    none = found.isnan()
    if can_be_read(found) and bool(none.any()):
        none = none.flatten(len(p.batch_shape)).any(-1) if p.event_shape else none
        raise ValueError(f"p: expected a density with a largest value, got {type(p).__name__} without{at_index(none)}")
    return found


def _mode(p: Any) -> Tensor:
    p = resolved(p)
    if isinstance(p, (MaskedDistribution, ExpandedDistribution)):
        inner = p.base_dist
        return _mode(inner).expand(inner.batch_shape + inner.event_shape)
    if 0 in p.batch_shape + p.event_shape:
        return reference_tensor([p]).new_zeros(p.batch_shape + p.event_shape)
    entries = independent_entries(p)
    if entries is not None:
        return _mode(entries[0]).expand(p.batch_shape + p.event_shape)
    size, mixture = num_classes(p), mixture_of(p)
    if size is not None and len(p.event_shape) == is_one_hot(p.support):
        return _class(p, size)
    known = known_mode(p) if mixture is None else None
    if known is not None:
        return known
    if isinstance(p, TransformedDistribution) and all(map(is_affine, p.transforms)):
        return _transformed(p, _mode(p.base_dist))
    if not p.event_shape:
        return _of_scalar(p)
    return _of_vector(p, mixture)


def _class(p: Any, size: int) -> Tensor:
    log_p, like = class_log_probabilities(p), reference_tensor([p])
    none = log_p.isnan().any(-1)
    if can_be_read(none) and bool(none.any()):
        raise ValueError(f"p: expected probabilities of classes, got NaN from {type(p).__name__}")
    best = log_p.argmax(-1)
    if is_one_hot(p.support):
        return torch.nn.functional.one_hot(best, size).to(like.dtype)
    return best.to(like.dtype) if is_binary(p.support) else best


def _transformed(p: Any, value: Tensor) -> Tensor:
    for transform in p.transforms:
        value = transform(value)
    return value


def _in_blocks(function: Callable[[Tensor], Tensor], width: int) -> Callable[[Tensor], Tensor]:
    """A function of tensors of shape (M,) + batch, some of them at a time, each number costing as many as ``width``."""

    def of_all(points: Tensor) -> Tensor:
        rows = max(1, BLOCK * len(points) // (points.numel() * width))
        return torch.cat([function(block) for block in points.split(rows)])

    return of_all


def _width(p: Any) -> int:
    mixture = mixture_of(p)
    return 1 if mixture is None else max(1, mixture.weights.shape[-1])


def _of_scalar(p: Any) -> Tensor:
    p = in_double(p)
    log_prob = _in_blocks(p.log_prob, _width(p))
    given = _candidates(p)
    with torch.no_grad():
        points, (low, high) = given.movedim(-1, 0), _bounds(p)
        points = torch.where(points.isfinite(), points, points[:1]).maximum(low).minimum(high)
        if p.support.is_discrete:
            return _known(log_prob, _of_integers(log_prob, low, high, points))
        if is_circular(p):
            found = (highest_number(log_prob, points) + math.pi).remainder(2 * math.pi) - math.pi
        else:
            found = highest_number(log_prob, torch.cat([_dense(points), *_ends(low, high, points[0])]))
        found = _known(log_prob, found)
    return _attached(p, found, given)


def _known(log_prob: Callable[[Tensor], Tensor], found: Tensor) -> Tensor:
    """NaN where the density is, else what was found."""
    return torch.where(log_prob(found.unsqueeze(0))[0].isnan(), torch.nan, found)


def _bounds(p: Any) -> tuple[Tensor, Tensor]:
    """The ends of the support, infinite where it is not known."""
    try:
        return bounds(p)
    except TypeError:
        low = reference_tensor([p]).new_full(p.batch_shape, -math.inf, dtype=torch.float64)
        return low, -low


def _ends(low: Tensor, high: Tensor, instead: Tensor) -> list[Tensor]:
    """The finite ends of a support, and beside each what a density that rises to it may be told by."""
    tiny = torch.finfo(low.dtype).tiny
    beside = low.nextafter(high).maximum(low + tiny), high.nextafter(low).minimum(high - tiny)
    pairs = (low, low), (low, beside[0]), (high, beside[1]), (high, high)
    return [torch.where(end.isfinite() & x.isfinite(), x, instead).unsqueeze(0) for end, x in pairs]


def _candidates(p: Any) -> Tensor:
    """Points between which the density is highest, of shape batch + (P,): modes of the components, or landmarks."""
    p = resolved(p)
    mixture = mixture_of(p)
    if mixture is not None:
        each = []
        for member in mixture.members:
            ends = [end.unsqueeze(-1) for end in _bounds(member) if bool(end.isfinite().any())]
            own = torch.cat([_candidates(member), *ends], -1)
            own = torch.where(own.isfinite(), own, own[..., :1])
            each.append(own.flatten(-2) if mixture.batched else own)
        return torch.cat([t.expand(p.batch_shape + t.shape[-1:]) for t in each], -1)
    if isinstance(p, ZeroInflatedDistribution):
        inner = _candidates(p.base_dist).expand(p.batch_shape + (-1,))
        return torch.cat([torch.zeros_like(inner[..., :1]), inner], -1)
    if is_circular(p):
        around = torch.linspace(
            -math.pi, 1.1 * math.pi, POINTS, dtype=torch.float64, device=reference_tensor([p]).device
        )
        return around.expand(p.batch_shape + around.shape)
    known = known_mode(p)
    if known is not None:
        return known.double().expand(p.batch_shape).unsqueeze(-1)
    points = landmarks(p)  # of no gradient
    if isinstance(p, TransformedDistribution):
        inner = _candidates(p.base_dist).expand(p.batch_shape + (-1,)).movedim(-1, 0)
        moved = _transformed(p, inner).movedim(0, -1)
        points = torch.cat([torch.where(moved.isfinite(), moved, points[..., :1]), points], -1)
    return points


def _dense(points: Tensor) -> Tensor:
    """The points, others between each and the next, and some at equal distances from the first to the last."""
    points = points.sort(0).values
    parts = max(2, -(-POINTS // max(1, len(points) - 1)))
    shares = torch.arange(parts, dtype=points.dtype, device=points.device) / parts
    shares = shares.reshape((-1,) + (1,) * points.dim())
    between = (points[:-1] + shares * points.diff(dim=0)).flatten(0, 1)
    even = torch.linspace(0, 1, POINTS // 4, dtype=points.dtype, device=points.device)
    even = points[0] + even.reshape((-1,) + (1,) * (points.dim() - 1)) * (points[-1] - points[0])
    return torch.cat([between, points[-1:], even])


def _of_integers(log_prob: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, points: Tensor) -> Tensor:
    points = points.floor()
    first, last = points.amin(0), points.amax(0)
    few = high - low < POINTS
    first, last = torch.where(few, low, first), torch.where(few, high, last)
    return highest_integer(log_prob, first, last, _dense(points).floor())


def _attached(p: Any, y: Tensor, points: Tensor) -> Tensor:
    """The mode with all its digits and its gradient: at a kink that of the point, else of where the density is flat."""
    y = y.detach()
    if points.requires_grad:
        same = points.detach() == y.unsqueeze(-1)
        y = torch.where(same.any(-1), points.gather(-1, same.int().argmax(-1, keepdim=True)).squeeze(-1), y)
    if torch.is_inference_mode_enabled():
        return y
    with torch.enable_grad():
        variable = y.detach().clone().requires_grad_()
        log_p = p.log_prob(variable)
        if not log_p.requires_grad:  # a density that is flat, or points
            return y
        slope = torch.autograd.grad(log_p.sum(), variable, create_graph=True)[0]
        if not slope.requires_grad:
            return y
        bend = torch.autograd.grad(slope.sum(), variable, retain_graph=True, allow_unused=True)[0]
    if bend is None:
        return y
    step = -slope / torch.where(bend < 0, bend, 1)
    with torch.no_grad():
        near = (bend < 0) & (step.abs() <= 1e-3 * (-bend).clamp(min=1e-300).rsqrt())
        higher = p.log_prob(y + step) >= log_p - 1e-12 * log_p.abs().clamp(min=1)
    smooth = near & higher
    follows = torch.is_grad_enabled() and p.log_prob(y.detach()).requires_grad
    return torch.where(smooth, y.detach() + (step if follows else step.detach()), y)


def _of_vector(p: Any, mixture: Mixture | None) -> Tensor:
    if p.support.is_discrete:
        values = joint_values(p)
        if values is None:
            raise NotImplementedError(
                f"p: expected a law of vectors of counts or labels whose mode is known, independent ones or ones of "
                f"not more than 65536 values, got {type(p).__name__} of event shape {tuple(p.event_shape)}"
            )
        best = p.log_prob(values).argmax(0)
        index = best.reshape(best.shape + (1,) * len(p.event_shape)).expand(p.batch_shape + p.event_shape)
        return values.gather(0, index.unsqueeze(0))[0]
    wide = in_double(p)
    starts = _starts(wide, mixture)
    law = wide if mixture is None else mixture_of(wide).members[0]  # type: ignore[union-attr]
    try:
        to_support = transform_to(law.support)
    except NotImplementedError:
        raise NotImplementedError(
            f"p: expected values in a support that can be climbed, got {type(p).__name__} on {law.support}"
        ) from None
    with torch.no_grad():
        heights = wide.log_prob(starts)
        heights = torch.where(heights.isnan(), -math.inf, heights)
        best = heights.topk(min(STARTS, len(heights)), 0).indices
        index = best.reshape(best.shape + (1,) * len(p.event_shape))
        starts = starts.gather(0, index.expand(best.shape + p.event_shape))
        inner = to_support.inv(starts)
        shape = inner.shape
        flat = inner.reshape(best.shape + (-1,)).nan_to_num(0, 30, -30)
    tops = climbed(lambda u: wide.log_prob(to_support(u.reshape(shape))), flat)
    with torch.no_grad():
        reached = torch.cat([to_support(tops.reshape(shape)), starts])
        heights = wide.log_prob(reached)
        best = torch.where(heights.isnan(), -math.inf, heights).argmax(0)
        index = best.reshape(best.shape + (1,) * len(p.event_shape)).expand(p.batch_shape + p.event_shape)
        return reached.gather(0, index.unsqueeze(0))[0]


def _starts(p: Any, mixture: Mixture | None) -> Tensor:
    """Where to start climbing, of shape (number of starts,) + batch + event: the modes of components, or draws."""
    with torch.no_grad():
        if mixture is None:
            with seeded(0, reference_tensor([p]).device):
                return p.sample((DRAWS,)).double()
        dim = -1 - len(p.event_shape)
        each = []
        for member in mixture_of(p).members:  # type: ignore[union-attr]
            full = expanded(member, p.batch_shape + member.batch_shape[len(member.batch_shape) - mixture.batched :])
            own = _mode(full).double().expand(full.batch_shape + full.event_shape)
            each.append(own.movedim(dim, 0) if mixture.batched else own.unsqueeze(0))
        return torch.cat(each)
