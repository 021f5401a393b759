"""Where functions are highest, of a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["climbed", "highest_integer", "highest_number"]

Function = Callable[[Tensor], Tensor]

TAKEN = 4  # of the highest points, those between whose neighbours is searched
GOLDEN = (math.sqrt(5) - 1) / 2
GOLDEN_STEPS = 45  # which leave 4e-10 of an interval
ALL_INTEGERS = 4096  # of which each is tried
MEMORY = 10  # steps that the curvature is known from
HALVINGS = 30


def highest_number(function: Function, points: Tensor) -> Tensor:
    """Where a function of one number is highest: near one of the points, between its neighbours, or at it.

    Args:
        function: of a tensor of shape (M,) + batch, of that shape.
        points: of shape (P,) + batch.

    Returns:
        A tensor of the batch shape, to half the digits.
    """
    points = points.sort(0).values
    values = _known(function(points))
    left, right = _neighbours(points, values)
    inner = [right - GOLDEN * (right - left), left + GOLDEN * (right - left)]
    found = [_known(function(x)) for x in inner]
    for _ in range(GOLDEN_STEPS):
        rises = found[0] < found[1]
        left, right = torch.where(rises, inner[0], left), torch.where(rises, right, inner[1])
        new = torch.where(rises, left + GOLDEN * (right - left), right - GOLDEN * (right - left))
        value = _known(function(new))
        inner = [torch.where(rises, inner[1], new), torch.where(rises, new, inner[0])]
        found = [torch.where(rises, found[1], value), torch.where(rises, value, found[0])]
    return _best(torch.cat([points, *inner]), torch.cat([values, *found]))


def highest_integer(function: Function, low: Tensor, high: Tensor, points: Tensor) -> Tensor:
    """Where a function of integers from ``low`` to ``high`` is highest: of each of them, or near one of the points.

    Args:
        function: of a tensor of shape (M,) + batch, of that shape.
        low: integers, of the batch shape.
        high: integers, of the batch shape.
        points: integers, of shape (P,) + batch.
    """
    count = int((high - low).max()) + 1
    if count <= ALL_INTEGERS:
        steps = torch.arange(count, dtype=low.dtype, device=low.device).reshape((-1,) + (1,) * low.dim())
        points = (low + steps).minimum(high)
        return _best(points, _known(function(points)))
    points = points.sort(0).values
    values = _known(function(points))
    left, right = _neighbours(points, values)
    while bool((right > left).any()):
        middle = (0.5 * (left + right)).floor()
        rises = _known(function(middle)) < _known(function((middle + 1).minimum(right)))
        left, right = torch.where(rises, (middle + 1).minimum(right), left), torch.where(rises, right, middle)
    return _best(torch.cat([points, left]), torch.cat([values, _known(function(left))]))


def _known(values: Tensor) -> Tensor:
    return torch.where(values.isnan(), -math.inf, values)


def _neighbours(points: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The points beside the highest of those that are not lower than the points beside them."""
    edge = torch.full_like(values[:1], -math.inf)
    peaks = (values > torch.cat([edge, values[:-1]])) & (values >= torch.cat([values[1:], edge]))
    best = torch.where(peaks, values, -math.inf).topk(min(TAKEN, len(values)), 0).indices
    # Some points may be equal.
    moves = points[1:] > points[:-1]
    before = torch.where(moves, points[:-1], -math.inf).cummax(0).values
    behind = torch.where(moves, points[1:], math.inf).flip(0).cummin(0).values.flip(0)
    left = torch.cat([points[:1], before.maximum(points[:1])]).gather(0, best)
    right = torch.cat([behind.minimum(points[-1:]), points[-1:]]).gather(0, best)
    return left, right


def _best(points: Tensor, values: Tensor) -> Tensor:
    return points.gather(0, values.argmax(0, keepdim=True))[0]


@torch.no_grad()
def climbed(function: Function, start: Tensor, max_steps: int = 500) -> Tensor:
    """Where a smooth function of vectors is highest on the way up from each start.

    Steps of the limited-memory quasi-Newton method of Broyden, Fletcher, Goldfarb and Shanno, halved until the function
    rises enough.

    Args:
        function: of a tensor of shape batch + (D,), of the batch shape, each value by itself.
        start: of that shape, with finite values of the function.
        max_steps: number of steps at most.

    Source:
        Nocedal and Wright, *Numerical Optimization* (2006), algorithms 7.4 and 3.1.
    """
    x = start
    value, slope = _value_and_slope(function, x)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    eps = torch.finfo(x.dtype).eps
    for _ in range(max_steps):
        direction = _two_loops(slope, steps)
        rise = (direction * slope).sum(-1)
        back = ~(rise > 0)
        direction = torch.where(back.unsqueeze(-1), slope, direction)
        rise = torch.where(back, slope.square().sum(-1), rise)
        there = rise <= 16 * eps * value.abs().clamp(min=1)
        if bool(there.all()):
            break
        length = direction.norm(dim=-1, keepdim=True)
        size = torch.ones_like(value) if steps else (1 / length.squeeze(-1).clamp(min=1))
        moved = torch.zeros_like(value, dtype=torch.bool)
        for _ in range(HALVINGS):
            higher = _known(function(x + size.unsqueeze(-1) * direction)) >= value + 1e-4 * size * rise
            moved = moved | higher
            if bool((higher | there).all()):
                break
            size = torch.where(higher, size, 0.5 * size)
        step = torch.where(moved.unsqueeze(-1), size.unsqueeze(-1) * direction, 0)
        if not bool(moved.any()):
            break
        before, x = slope, x + step
        value, slope = _value_and_slope(function, x)
        change = before - slope
        curvature = (step * change).sum(-1, keepdim=True)
        good = curvature > eps * step.norm(dim=-1, keepdim=True) * change.norm(dim=-1, keepdim=True)
        steps = [*steps, (torch.where(good, step, 0), torch.where(good, change, 0), torch.where(good, curvature, 1))]
        steps = steps[-MEMORY:]
    return x


def _value_and_slope(function: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = function(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope.nan_to_num(0, 0, 0)


def _two_loops(slope: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The step that would lead to the top, by the curvature that was seen on the way; a pair of zeros changes none."""
    direction, shares = slope, []
    for step, change, curvature in reversed(steps):
        share = (step * direction).sum(-1, keepdim=True) / curvature
        direction = direction - share * change
        shares.append(share)
    if steps:
        _, change, curvature = steps[-1]
        square = change.square().sum(-1, keepdim=True)
        direction = direction * torch.where(square > 0, curvature / torch.where(square > 0, square, 1), 1)
    for (step, change, curvature), share in zip(steps, reversed(shares), strict=True):
        back = (change * direction).sum(-1, keepdim=True) / curvature
        direction = direction + step * (share - back)
    return direction
