"""Rows of the registry that most generated tests cannot draw; test_supports.py and test_trees.py test them apart."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from tests.cases import TORCH, Case, Grid, finite, line, uniform
from tests.cases_more import circle

__all__ = ["CASES"]


def correlations_of_two() -> Grid:
    x, log_step = line(-9, 9, 2001)
    ones = torch.ones_like(x)
    y = torch.stack([ones, x.tanh(), x.tanh(), ones], -1).unflatten(-1, (2, 2))
    return y, log_step - 2 * x.cosh().log()


def sphere() -> Grid:
    """A product rule on the sphere: Gauss-Legendre in height, the trapezoidal rule around."""
    height, weight = (torch.from_numpy(t) for t in np.polynomial.legendre.leggauss(60))
    angle, log_step = circle(120)
    z, a = torch.cartesian_prod(height, angle).unbind(-1)
    y = torch.stack([(1 - z * z).sqrt() * a.cos(), (1 - z * z).sqrt() * a.sin(), z], -1)
    return y, torch.cartesian_prod(weight.log(), log_step).sum(-1)


def edge_logits(shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, ...]:
    return uniform((-1, 1), event=(6,))(torch.Size(), generator)


CASES: dict[str, Case] = {
    "Delta": Case(
        types=(dist.Delta,),
        parameters=uniform((0, 0)),
        make=dist.Delta,
        grid=finite(torch.zeros(1, dtype=torch.float64)),
        generated=False,  # components that differ have no pool
    ),
    "LKJ": Case(
        types=(dist.LKJ,),
        parameters=uniform((0.8, 4)),
        make=lambda concentration: dist.LKJ(2, concentration),
        grid=correlations_of_two,
        generated=False,  # Pyro's does not expand
    ),
    "SpanningTree": Case(
        types=(dist.SpanningTree,),
        parameters=edge_logits,
        make=dist.SpanningTree,
        grid=lambda: finite(dist.SpanningTree(torch.zeros(6)).enumerate_support())(),
        generated=False,  # Pyro's has no batch
    ),
    "Uniform": Case(
        types=(TORCH.Uniform,),
        parameters=uniform((-1, 0), (1, 2)),
        make=lambda low, high: dist.Uniform(low, high, validate_args=False),
        grid=lambda: line(-1, 2, 6001),
        generated=False,  # components of one support are equal
    ),
    "VonMises3D": Case(
        types=(dist.VonMises3D,),
        parameters=uniform((-2, 2), event=(3,)),
        make=dist.VonMises3D,
        grid=sphere,
        generated=False,  # Pyro's has no sampler
    ),
}
