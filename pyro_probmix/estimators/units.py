"""Densities of scaled targets, as densities of the targets in their own units."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix.distributions.affine import affine
from pyro_probmix.nn import Likelihood

__all__ = ["OwnUnits", "in_own_units"]

_LOCATION_SCALE = (
    torch.distributions.Cauchy,
    torch.distributions.Gumbel,
    torch.distributions.Laplace,
    torch.distributions.Normal,
    torch.distributions.StudentT,
)
_RATE = torch.distributions.Exponential, torch.distributions.Gamma
_SCALE = torch.distributions.HalfCauchy, torch.distributions.HalfNormal, torch.distributions.Weibull


def in_own_units(p: Any, shift: Tensor, scale: Tensor, how: str) -> Any:
    r"""The law of a target y whose scaled value :math:`t \sim p` is what a network was trained on.

    Args:
        p: a density of t.
        shift: of the scaling.
        scale: of the scaling, positive.
        how: ``"standard"``, :math:`y = \mathtt{shift} + \mathtt{scale}\, t`; ``"divided"``,
            :math:`y = \mathtt{scale}\, t`; ``"log"``, :math:`y = \exp(\mathtt{shift} + \mathtt{scale}\, t)` of a Normal
            t; or ``"none"``, y = t.

    Returns:
        A law of the same family wherever it has one, of a LogNormal for ``"log"``, or an
        :class:`~pyro_probmix.distributions.affine.AffineDistribution`.

    Example:
        >>> in_own_units(dist.Gamma(2.0, 1.0), torch.tensor(0.0), torch.tensor(10.0), "divided").mean
        tensor(20.)
    """
    if how == "none":
        return p
    if isinstance(p, torch.distributions.Independent):
        return in_own_units(p.base_dist, shift, scale, how).to_event(p.reinterpreted_batch_ndims)
    if how == "log":
        return dist.LogNormal(shift + scale * p.loc, scale * p.scale)
    given = {name: getattr(p, name) for name in ("df", "concentration") if name in p.arg_constraints}
    if isinstance(p, _LOCATION_SCALE):
        return type(p)(**given, loc=p.loc * scale + shift, scale=p.scale * scale)
    if how == "divided" and isinstance(p, _RATE):
        return type(p)(**given, rate=p.rate / scale)
    if how == "divided" and isinstance(p, _SCALE):
        return type(p)(**given, scale=p.scale * scale)
    return affine(p, shift, scale)


class OwnUnits(Likelihood):
    """A likelihood of scaled targets as one of targets in their own units, in double precision.

    Args:
        likelihood: of scaled targets.
        shift: as for :func:`in_own_units`, of the event shape.
        scale: likewise.
        how: likewise.
    """

    y_shift: Tensor
    y_scale: Tensor

    def __init__(self, likelihood: Likelihood, shift: Tensor, scale: Tensor, how: str) -> None:
        support: Any = likelihood.support
        if how == "log":
            size = len(likelihood.event_shape)
            support = constraints.independent(constraints.positive, size) if size else constraints.positive
        super().__init__(likelihood.num_outputs, likelihood.event_shape, support)
        self.likelihood, self.how = likelihood, how
        self.register_buffer("y_shift", shift)
        self.register_buffer("y_scale", scale)

    def distribution(self, raw: Tensor) -> Any:
        p = self.likelihood.distribution(raw.to(self.y_scale.dtype))  # not the precision of the network
        return in_own_units(p, self.y_shift, self.y_scale, self.how)
