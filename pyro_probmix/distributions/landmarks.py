"""Where a one-dimensional distribution has its support and its mass, of any kind and in any wrapper."""

from __future__ import annotations

import copy
import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Transform,
    TransformedDistribution,
    VonMises,
)

from pyro_probmix.distributions import supports
from pyro_probmix.distributions.corrected import corrected, corrected_class
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.mixtures import Mixture, mixture_of
from pyro_probmix.ops.devices import double
from pyro_probmix.ops.values import can_be_read

__all__ = ["at_rows", "bounds", "has_own_support", "in_double", "landmarks"]

OFFSETS = [1.2, -1.2, 4.0, -4.0, 12.0, -12.0, 30.0, -30.0]  # in units of the scale

PARAMETERLESS = torch.distributions.ExpTransform, torch.distributions.SigmoidTransform

# Whose moments PyTorch writes through a mask, as torch.func.vmap does not follow.
MASKING = torch.distributions.FisherSnedecor, torch.distributions.StudentT

# Modules of distributions that hold nothing but their parameters.
KNOWN = "torch.", "pyro.", corrected.__module__

MANY = 16  # components, between whose centers panels are dense

# What has no support of its own, as PyTorch takes that of the last transform, whatever it is applied to; or has it in
# single precision, as Pyro's AffineBeta of numbers.
GENERAL = TransformedDistribution, dist.TransformedDistribution, dist.AffineBeta, corrected_class(dist.AffineBeta)


def in_double(part: Any) -> Any:
    """A distribution with all its parameters in float64, that checks no values; transforms are left as they are."""
    if isinstance(part, Tensor):
        return double(part) if part.is_floating_point() else part
    if isinstance(part, (list, tuple)):
        return type(part)([in_double(item) for item in part])
    if isinstance(part, Distribution):
        copied = copy.copy(part)
        vars(copied).update({name: in_double(value) for name, value in vars(part).items()})
        vars(copied)["_validate_args"] = False
        return copied
    return part


def at_rows(part: Any, batch: torch.Size, rows: Tensor) -> Any:
    """A distribution, or a parameter of one, of this batch shape for some members of the flattened batch.

    It is not implemented where it is not known which dimensions of its parameters are those of the batch.
    """
    if isinstance(part, Tensor) and part.dim() > 0:
        if part.shape[: len(batch)] != batch:
            raise NotImplementedError
        return part.reshape((batch.numel(),) + part.shape[len(batch) :])[rows]
    if isinstance(part, list):
        return [at_rows(item, batch, rows) for item in part]
    if isinstance(part, Transform) and not isinstance(part, PARAMETERLESS):
        raise NotImplementedError
    if hasattr(part, "map_batch"):
        whole = part.batch_shape
        return part.map_batch(lambda t, d: at_rows(t.expand(whole + t.shape[t.dim() - d :]), batch, rows))
    if isinstance(part, Distribution):
        if not type(part).__module__.startswith(KNOWN):
            raise NotImplementedError
        copied = copy.copy(part)
        vars(copied).update({name: at_rows(value, batch, rows) for name, value in vars(part).items()})
        vars(copied)["_batch_shape"] = rows.shape + part.batch_shape[len(batch) :]
        return copied
    return part


def bounds(p: Any) -> tuple[Tensor, Tensor]:
    """The ends of the support, infinite where there is none; both of ``p``'s batch shape, in float64."""
    p = resolved(p)
    mixture = mixture_of(p)
    if mixture is not None:
        each = [bounds(member) for member in mixture.members]
        if not mixture.batched:
            each = [tuple(torch.stack(torch.broadcast_tensors(*ends), -1) for ends in zip(*each, strict=True))]  # type: ignore[list-item]
        low, high = each[0][0].amin(-1), each[0][1].amax(-1)
    elif isinstance(p, VonMises):  # its density has a period, of which it has mass one
        high = torch.full(p.batch_shape, math.pi, dtype=torch.float64, device=p.loc.device)
        low = -high
    elif hasattr(p, "numerical_bounds"):
        low, high = p.numerical_bounds
    elif type(p) in GENERAL and all(t.bijective for t in p.transforms):
        ends = torch.stack([end.expand(p.batch_shape) for end in bounds(p.base_dist)])
        inside = landmarks(p.base_dist)[..., 0]
        for transform in p.transforms:
            with torch.no_grad():
                limits, following = transform(ends), transform(inside)
            # Only what is finite before and after moves with the parameters; no gradient may meet an infinity.
            moves = ends.isfinite() & limits.isfinite()
            ends, inside = torch.where(moves, transform(torch.where(moves, ends, inside)), limits), following
        low, high = ends.amin(0), ends.amax(0)
    else:
        interval = supports.bounds(p.support)
        if interval is None:
            raise TypeError(f"components: expected an interval as support, got {type(p).__name__} on {p.support}")
        to: Any = {"dtype": torch.float64, "device": reference_tensor([p]).device}
        # A copy of a number would be waited for.
        low, high = (end.to(**to) if isinstance(end, Tensor) else torch.full((), end, **to) for end in interval)
    return low.expand(p.batch_shape), high.expand(p.batch_shape)


def has_own_support(p: Any) -> bool:
    """Whether the support of ``p`` is what it says, and not what it is made of."""
    p = resolved(p)
    of_its_parts = isinstance(p, VonMises) or type(p) in GENERAL or hasattr(p, "numerical_bounds")
    mixture = mixture_of(p)
    return not of_its_parts and (mixture is None or all(map(has_own_support, mixture.members)))


@torch.no_grad()
def landmarks(p: Any) -> Tensor:
    """Points about the mass and at the kinks of the density: batch shape + (number of points,), in float64."""
    p = resolved(p)
    if hasattr(p, "numerical_landmarks"):
        points: Tensor = p.numerical_landmarks
    elif (mixture := mixture_of(p)) is not None:
        points = _of_mixture(p, mixture)
    elif isinstance(p, (ExpandedDistribution, Independent)):
        points = landmarks(p.base_dist)
    elif isinstance(p, TransformedDistribution):
        points = landmarks(p.base_dist)
        points = points.movedim(-1, 0)  # the parameters of a transform are along the batch
        for transform in p.transforms:
            points = transform(points)
        points = points.movedim(0, -1)
    else:
        center, scale = _center_and_scale(p)
        # Kinks are where the location is.
        first = p.loc.double().expand(p.batch_shape) if isinstance(getattr(p, "loc", None), Tensor) else center
        points = torch.stack([first, *(center + scale * offset for offset in OFFSETS)], -1)
    points = torch.where(points.isfinite(), points, points[..., :1])
    return points.nan_to_num(0, 0, 0).expand(p.batch_shape + points.shape[-1:])


def _of_mixture(p: Any, mixture: Mixture) -> Tensor:
    """Those of the components; of many, where each is, and the first and the last of the others."""
    every: list[Tensor] = []
    kept: list[Tensor] = []
    for member in mixture.members:
        own, ends = landmarks(member), [end.unsqueeze(-1) for end in bounds(member)]
        thin = mixture.weights.shape[-1] > MANY and mixture_of(resolved(member)) is None
        first = torch.cat([own[..., :1] if thin else own, *filter(_may_be_finite, ends)], -1)
        for points, into in ((own, every), (first, kept)):
            points = points.flatten(-2) if mixture.batched else points
            into.append(points.expand(p.batch_shape + points.shape[-1:]))
    outer = torch.cat(every, -1)
    return torch.cat([*kept, outer.amin(-1, keepdim=True), outer.amax(-1, keepdim=True)], -1)


def _may_be_finite(end: Tensor) -> bool:
    return not can_be_read(end) or bool(end.isfinite().any())


def _center_and_scale(p: Any) -> tuple[Tensor, Tensor]:
    """The median and the quartiles' distance, else mean and deviation, else location and scale, else the support."""
    low, high = bounds(p)
    center = torch.where(low.isfinite(), low, torch.where(high.isfinite(), high, 0))
    scale = torch.where(low.isfinite() & high.isfinite(), (high - low) / 4, 1)
    center = center + torch.where(low.isfinite(), scale, torch.where(high.isfinite(), -scale, 0))
    for candidate in (_by_attributes, _by_moments, _by_quantiles):  # the last that is finite wins
        try:
            c, s = candidate(p)
        except (AttributeError, NotImplementedError, TypeError):
            continue
        good = c.isfinite() & s.isfinite() & (s > 0)
        center, scale = torch.where(good, c.double(), center), torch.where(good, s.double(), scale)
    return center.expand(p.batch_shape), scale.expand(p.batch_shape)


def _by_attributes(p: Any) -> tuple[Tensor, Tensor]:
    device = reference_tensor([p]).device
    return torch.as_tensor(p.loc, device=device), torch.as_tensor(p.scale, device=device)


def _by_moments(p: Any) -> tuple[Tensor, Tensor]:
    if isinstance(p, MASKING):
        raise NotImplementedError
    return p.mean, p.variance.sqrt()


def _by_quantiles(p: Distribution) -> tuple[Tensor, Tensor]:
    reference = reference_tensor([p])
    first, median, third = (p.icdf(reference.new_full(p.batch_shape, q)) for q in (0.25, 0.5, 0.75))
    return median, (third - first) / 1.35
