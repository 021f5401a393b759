"""Expected logarithms of Jacobians, where a mean or a mean logarithm says all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Transform, transforms

from pyro_probmix.distributions.exponential_family import exponential_family, resolved
from pyro_probmix.distributions.supports import CIRCULAR
from pyro_probmix.distributions.transforms import is_affine
from pyro_probmix.ops.sums import sum_right

__all__ = ["expected_log_jacobian"]

_DIRECTIONS = (*CIRCULAR, dist.VonMises3D)
# Their first statistic is log y.
_LOGARITHMIC = tuple(getattr(torch.distributions, name) for name in ("Beta", "Gamma", "InverseGamma", "Pareto"))


def expected_log_jacobian(chain: Sequence[Transform], base: Any) -> Tensor:
    """E[log |det J|] of a chain of transforms of a value of law ``base``, of the batch shape.

    The log-Jacobian of an affine map is constant, that of the exponential is linear in the value and those of powers
    and of the logarithm are linear in the value's logarithm: each is taken at the mean or at the geometric mean.
    Others, and those that need a mean that is not known, are not implemented.
    """
    points = _known_points(base)
    event_dim = len(base.event_shape)
    total: Any = 0.0
    for transform in _steps(chain):
        needed, given = _rule(transform)
        found = [(name, points[name]) for name in needed if name in points]
        if not found:
            raise NotImplementedError(
                "the cross-entropy of TransformedDistributions is that of the bases plus the expected log-Jacobian, "
                f"which has no closed form here for {transform} of {type(base).__name__}: expected affine maps, the "
                "exponential of what has a known mean, or powers and logarithms of a known mean logarithm"
            )
        x = found[0][1]
        log_jacobian = transform.log_abs_det_jacobian(x, transform(x))
        total = total + sum_right(log_jacobian, event_dim - transform.domain.event_dim)
        event_dim += transform.codomain.event_dim - transform.domain.event_dim
        points = {given.get(name, "any"): transform(point) for name, point in found}
    return total


def _known_points(base: Any) -> dict[str, Tensor]:
    """The mean and the geometric mean of a law, as far as they are known, or else some point of its support."""
    law = base
    while isinstance(law, (torch.distributions.Independent, dist.MaskedDistribution)):
        law = resolved(law.base_dist)
    points: dict[str, Tensor] = {}
    with suppress(NotImplementedError):
        points["any" if isinstance(law, _DIRECTIONS) else "mean"] = base.mean
    if isinstance(law, _LOGARITHMIC):
        form = exponential_family(law)
        points["geometric mean"] = form.expected_sufficient_statistics(*form.parameters)[0].exp()
    return points


def _steps(chain: Sequence[Transform]) -> Iterator[Transform]:
    for transform in chain:
        if isinstance(transform, transforms.ComposeTransform):
            yield from _steps(transform.parts)
        else:
            yield transform


def _rule(transform: Transform) -> tuple[tuple[str, ...], dict[str, str]]:
    """At which of the points the log-Jacobian is the expected one, and what that point becomes."""
    while isinstance(transform, transforms.IndependentTransform):
        transform = transform.base_transform
    if is_affine(transform):
        return ("mean", "geometric mean", "any"), {"mean": "mean"}
    if isinstance(transform, transforms.ExpTransform):
        return ("mean",), {"mean": "geometric mean"}
    if isinstance(transform.inv, transforms.ExpTransform):
        return ("geometric mean",), {"geometric mean": "mean"}
    if isinstance(transform, transforms.PowerTransform):
        return ("geometric mean",), {"geometric mean": "geometric mean"}
    return (), {}
