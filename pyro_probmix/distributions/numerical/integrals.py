"""Integrals of positive functions over the line, for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_probmix.distributions.numerical._quadrature import LogFunction, adapted_grid, first_panels

__all__ = ["log_integral", "of_all_members"]


def log_integral(log_f: LogFunction, low: Tensor, high: Tensor, points: Tensor, accuracy: float) -> Tensor:
    """The logarithm of the integral of f, which may have steps, from ``low`` to ``high``; infinite if that is.

    Args:
        log_f: from points of shape (N,) + batch, or of shape (N, M) and M indices into the flattened batch, the
            logarithms of the function there.
        low: lower ends, of the batch shape, in double precision; they may be infinite.
        high: upper ends, above the lower ones.
        points: where f is large or jumps, of shape batch + (number of points,).
        accuracy: relative.

    Returns:
        A tensor of the batch shape, without gradient.

    Example:
        >>> ends = [torch.tensor([end], dtype=torch.float64) for end in (-torch.inf, torch.inf)]
        >>> points = torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64)
        >>> log_integral(lambda y, rows=None: -y.square(), *ends, points, 1e-9).exp()  # the root of π
        tensor([1.7725], dtype=torch.float64)
    """
    panels = first_panels(points.movedim(-1, 0), low, high)
    grid = adapted_grid(log_f, panels, accuracy, steps=True)
    return torch.where(grid.divergent.any(0), math.inf, grid.log_total)


def of_all_members(function: Callable[[Tensor], Tensor], value: Tensor, rows: Tensor, legal: Tensor) -> Tensor:
    """What a function of values for every member of a batch gives for some members, by evaluating it for all of them.

    Args:
        function: from values of shape (N,) + batch, a tensor of that shape.
        value: of shape (N, M).
        rows: M indices into the flattened batch.
        legal: values that the function takes, of the batch shape, where there are none to evaluate.

    Returns:
        A tensor of shape (N, M).
    """
    order = rows.argsort(stable=True)
    count = rows.bincount(minlength=legal.numel())
    rank = torch.empty_like(rows)
    rank[order] = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows[order]]
    wide = legal.reshape(-1).repeat(len(value), int(count.max()), 1)
    wide[:, rank, rows] = value
    return function(wide.reshape((-1, *legal.shape))).reshape(wide.shape)[:, rank, rows]
