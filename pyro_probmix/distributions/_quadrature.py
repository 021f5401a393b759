"""Integrals over the line of a batch of positive functions, by panels that seek their mass.

Every function here works on a whole batch at once: panels are along the first dimension, the nodes of a panel
along the second, and the batch follows. The functions f are given by their logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["Grid", "Panels", "adapted_grid", "first_panels", "positions"]

LogFunction = Callable[[Tensor], Tensor]

# The Kronrod rule of 15 points on [-1, 1] and, every other point, the Gauss rule of 7 (QUADPACK, qk15).
_POINTS = [0.99145537112081264, 0.94910791234275852, 0.86486442335976907, 0.74153118559939444]
_POINTS += [0.58608723546769113, 0.40584515137739717, 0.20778495500789847]
_KRONROD = [0.02293532201052922, 0.06309209262997855, 0.10479001032225018, 0.14065325971552592]
_KRONROD += [0.16900472663926790, 0.19035057806478541, 0.20443294007529889]
_GAUSS = [0, 0.12948496616886969, 0, 0.27970539148927667, 0, 0.38183005050511894, 0]
POINTS = torch.tensor([-t for t in _POINTS] + [0.0] + _POINTS[::-1], dtype=torch.float64)
KRONROD = torch.tensor(_KRONROD + [0.20948214108472783] + _KRONROD[::-1], dtype=torch.float64)
GAUSS = torch.tensor(_GAUSS + [0.41795918367346939] + _GAUSS[::-1], dtype=torch.float64)

MAX_ROUNDS = 40
SPLIT_PANELS = 8  # of a round
SPLIT_INTO = 4
NEGLIGIBLE = -200.0  # nodes whose share of the integral has a lower logarithm do not count
FARTHEST = 170.0  # logarithm of the distances where tails are cut: that of numbers whose squares are numbers, too
FLATTEST_TAIL = 1e-3  # slopes of a tail, in log-log scale, that are nearer to that of 1/y are taken for it


@dataclass(frozen=True)
class Panels:
    """Intervals [y(start), y(stop)] of the line with y(t) = anchor + t, or anchor ± eᵗ where the sign is not 0.

    All fields have shape (number of panels,) + batch.
    """

    anchor: Tensor
    sign: Tensor
    start: Tensor
    stop: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Panels:
        """The panels with every field changed by ``function``."""
        return Panels(*[function(getattr(self, field.name)) for field in fields(self)])

    def gather(self, index: Tensor) -> Panels:
        """The panels of these indices, of shape (number of indices,) + batch."""
        return self.map(lambda field: field.gather(0, index))

    def exchange(self, index: Tensor, children: Panels) -> Panels:
        """As :func:`_exchange`, for every field."""
        names = [field.name for field in fields(self)]
        return Panels(*[_exchange(getattr(self, name), index, getattr(children, name)) for name in names])

    def locate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """y(t) and log |y'(t)|."""
        distance = torch.where(self.sign == 0, 0, t).exp()
        y = self.anchor + torch.where(self.sign == 0, t, self.sign * distance)
        return y, torch.where(self.sign == 0, 0, t)

    def coordinate(self, y: Tensor) -> Tensor:
        """The t of each y, held within the panel."""
        away = y - self.anchor
        linear = self.sign == 0
        distance = torch.where(linear, 1, away * self.sign)
        t = torch.where(linear, away, distance.clamp(min=torch.finfo(y.dtype).tiny).log())
        return torch.minimum(
            torch.maximum(t, torch.minimum(self.start, self.stop)), torch.maximum(self.start, self.stop)
        )


def positions(panels: Panels, stop: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Nodes of the panels, in order, and the logarithms of their weights: (panels, 15) + batch.

    Args:
        panels: the panels.
        stop: where to stop instead of the panels' ends, in their coordinate t.
    """
    shape = (1, -1) + (1,) * (panels.start.dim() - 1)
    half = 0.5 * ((panels.stop if stop is None else stop) - panels.start)
    points, weights = (c.to(half.device).reshape(shape) for c in (POINTS, KRONROD))
    t = (panels.start + half).unsqueeze(1) + half.unsqueeze(1) * points
    y, log_slope = panels.map(lambda field: field.unsqueeze(1)).locate(t)
    width = half.abs()
    empty = width == 0
    log_width = torch.where(empty, 1, width).log().masked_fill(empty, -math.inf)
    return y, log_slope + log_width.unsqueeze(1) + weights.log()


def first_panels(points: Tensor, low: Tensor, high: Tensor) -> Panels:
    """Panels that cover the support, dense about ``points``.

    Between the points they are linear. Beyond them they are in the logarithm of the distance to the end of
    the support or, where there is none, to the last point, as far as numbers reach.

    Args:
        points: where mass or kinks may be, of shape (number of points,) + batch.
        low: lower end of the support, −∞ if there is none, of the batch shape.
        high: upper end of the support, +∞ if there is none.
    """
    width = high - low
    for sign, end in ((1.0, low), (-1.0, high)):  # points beyond an end of the support are put inside of it
        bounded = end.isfinite()
        end = torch.where(bounded, end, 0)
        reach = (points - end).abs().amax(0).minimum(width)
        inside = end + sign * 0.01 * torch.where(reach > 0, reach, width.clamp(max=1))
        points = torch.where(~bounded | (sign * (points - end) > 0), points, inside)
    points = points.sort(0).values
    info = torch.finfo(points.dtype)
    spread = (points[-1] - points[0]).clamp(min=info.tiny)
    edges, tails = [points], []
    for sign, end, point in ((1.0, low, points[0]), (-1.0, high, points[-1])):
        bounded = end.isfinite()
        anchor = torch.where(bounded, end, point)
        near = torch.where(bounded, sign * (point - end), spread).log()  # nearest to the points
        closest = (info.eps**0.6 * torch.where(bounded, end, 0).abs()).clamp(min=math.exp(-FARTHEST)).log()
        far = torch.where(bounded, closest.minimum(near - 1), (near + 1).clamp(min=FARTHEST))
        offsets = torch.tensor([0.0, 2, 6, 20, 60, 200, math.inf], dtype=near.dtype, device=near.device)
        shares = torch.linspace(0, 1, len(offsets), dtype=near.dtype, device=near.device)
        offsets, shares = (t.reshape((-1,) + (1,) * near.dim()) for t in (offsets, shares))
        steps = offsets.minimum(shares * (far - near).abs())
        t = near + (far - near).sign() * steps
        start, stop = (t[1:].flip(0), t[:-1].flip(0)) if sign > 0 else (t[:-1], t[1:])
        direction = torch.where(bounded, sign, -sign)
        tails.append(Panels(anchor.expand_as(start), direction.expand_as(start), start, stop))
        outer = torch.where(bounded, point, point - sign * spread).unsqueeze(0)
        edges = [outer, *edges] if sign > 0 else [*edges, outer]
    edge = torch.cat(edges)
    zero = torch.zeros_like(edge[:-1])
    middle = Panels(edge[:-1], zero, zero, edge[1:] - edge[:-1])
    return _concatenate([tails[0], middle, tails[1]])


@dataclass(frozen=True)
class Grid:
    """Nodes and weights of an integral over the line, for a batch of functions like the one it was made for.

    Attributes:
        panels: the panels, in order.
        y: nodes: those of each panel in turn, then one for what is beyond either end.
        log_weights: logarithms of the weights; −∞ where a node does not count.
        divergent: of shape (2,) + batch; whether the integral is infinite at the lower and upper end.
        beyond: of shape (2,) + batch; how far log f, beyond either end, is on average from that of the last node.
        converged: of the batch shape; whether the accuracy was reached.
    """

    panels: Panels
    y: Tensor
    log_weights: Tensor
    divergent: Tensor
    beyond: Tensor
    converged: Tensor

    def by_panel(self, terms: Tensor) -> tuple[Tensor, Tensor]:
        """Terms of the nodes as (panels, 15) + batch, and those of the two ends."""
        return terms[:-2].unflatten(0, (-1, len(POINTS))), terms[-2:]


@torch.no_grad()
def adapted_grid(log_f: LogFunction, panels: Panels, accuracy: float) -> Grid:
    """Panels split until the integral of f is known to that relative accuracy, for every member of the batch.

    Where rounding limits f itself, so that splitting does not make the estimated error smaller, it ends.

    Args:
        log_f: logarithm of f at points of shape (N,) + batch.
        panels: where to start.
        accuracy: relative error aimed at.
    """
    values = _evaluate(log_f, panels)
    settled = torch.zeros_like(panels.start, dtype=torch.bool)
    for _ in range(MAX_ROUNDS):
        log_total = _log_total(panels, values)
        mass, error = _masses(panels, values, log_total)
        hidden = _may_hide_a_peak(panels, values, log_total + math.log(accuracy))
        splittable = _splittable(panels)
        error, hidden = torch.where(splittable & ~settled, error, 0), hidden & splittable
        converged = (error.sum(0) <= accuracy) & ~hidden.any(0)
        if bool(converged.all()):
            break
        index = torch.where(hidden, 1 + error, error).topk(min(SPLIT_PANELS, len(error)), 0).indices
        children = _split(panels.gather(index))
        new = _evaluate(log_f, children)
        new_mass, new_error = (t.unflatten(0, (SPLIT_INTO, -1)).sum(0) for t in _masses(children, new, log_total))
        old_mass, old_error = mass.gather(0, index), error.gather(0, index)
        stalls = (new_error >= 0.9 * old_error) & ((new_mass - old_mass).abs() <= 1e-4 * old_mass)
        stalls = stalls & ~hidden.gather(0, index)
        settled = _exchange(settled, index, stalls.repeat((SPLIT_INTO,) + (1,) * (stalls.dim() - 1)))
        panels = panels.exchange(index, children)
        wide = index.unsqueeze(1).expand((-1, len(POINTS)) + values.shape[2:])
        values = _exchange(values, wide, new)
        order = panels.locate(0.5 * (panels.start + panels.stop))[0].argsort(dim=0, stable=True)
        panels = panels.gather(order)
        settled, values = settled.gather(0, order), values.gather(0, order.unsqueeze(1).expand_as(values))
    return _grid(log_f, panels, values, converged)


def _exchange(parents: Tensor, index: Tensor, children: Tensor) -> Tensor:
    """Parents with those of ``index`` replaced by their first children, and the other children at the end."""
    return torch.cat([parents.scatter(0, index, children[: len(index)]), children[len(index) :]])


def _evaluate(log_f: LogFunction, panels: Panels) -> Tensor:
    y, _ = positions(panels)
    return log_f(y.flatten(0, 1)).reshape(y.shape)


def _concatenate(parts: list[Panels]) -> Panels:
    return Panels(*[torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Panels)])


def _split(panels: Panels) -> Panels:
    step = (panels.stop - panels.start) / SPLIT_INTO
    parts = [
        Panels(panels.anchor, panels.sign, panels.start + k * step, panels.start + (k + 1) * step)
        for k in range(SPLIT_INTO)
    ]
    return _concatenate(parts)


def _log_total(panels: Panels, values: Tensor) -> Tensor:
    return (values + positions(panels)[1]).flatten(0, 1).logsumexp(0)


def _masses(panels: Panels, values: Tensor, log_total: Tensor) -> tuple[Tensor, Tensor]:
    """The share of the integral in each panel, and its estimated error."""
    shape = (1, -1) + (1,) * log_total.dim()
    kronrod, gauss = (c.to(values.device).reshape(shape) for c in (KRONROD, GAUSS))
    terms = (values + positions(panels)[1] - torch.where(log_total.isfinite(), log_total, 0)).exp()
    mass = terms.sum(1)
    difference = (terms * (1 - gauss / kronrod)).sum(1).abs()
    variation = (terms - kronrod * mass.unsqueeze(1) / 2).abs().sum(1)
    # The estimate of QUADPACK: the difference of the two rules is that of the worse one.
    ratio = 200 * difference / torch.where(variation > 0, variation, 1)
    return mass, torch.where(variation > 0, variation * ratio.pow(1.5).clamp(max=1), difference)


def _splittable(panels: Panels) -> Tensor:
    """Whether there are numbers enough between the ends of each panel."""
    (start, _), (stop, _) = panels.locate(panels.start), panels.locate(panels.stop)
    return (stop - start).abs() > 50 * torch.finfo(start.dtype).eps * torch.maximum(start.abs(), stop.abs())


def _may_hide_a_peak(panels: Panels, values: Tensor, log_threshold: Tensor) -> Tensor:
    """For each panel, whether between two neighbouring nodes there is room for a peak that would count.

    The room is what the secants on both sides leave, as they do exactly above a concave log f.
    """
    y, values = positions(panels)[0].flatten(0, 1), values.flatten(0, 1)
    values = values.clamp(min=-1e100)
    step = y.diff(dim=0)
    slope = torch.where(step > 0, values.diff(dim=0) / torch.where(step > 0, step, 1), 0)
    flat = torch.zeros_like(slope[:1])
    before, after = torch.cat([flat, slope[:-1]]), torch.cat([slope[1:], flat])
    left, right = values[:-1], values[1:]
    bound = torch.minimum(left + before.clamp(min=0) * step, right - after.clamp(max=0) * step)
    counts = bound + torch.where(step > 0, step, 1).log() > log_threshold
    hidden = (step > 0) & counts & (bound - torch.maximum(left, right) > 1)
    none = torch.zeros_like(hidden[:1])
    either = torch.cat([hidden, none]) | torch.cat([none, hidden])
    return either.unflatten(0, (-1, len(POINTS))).any(1)


def _grid(log_f: LogFunction, panels: Panels, values: Tensor, converged: Tensor) -> Grid:
    y, log_weights = positions(panels)
    terms = values + log_weights
    log_total = terms.flatten(0, 1).logsumexp(0)
    alive = ~(terms.amax(1) - log_total <= NEGLIGIBLE).reshape(len(terms), -1).all(1)
    tails = [_tail(log_f, panels, 0), _tail(log_f, panels, -1)]
    end, end_weight, end_term, divergent, beyond = (torch.stack(parts) for parts in zip(*tails, strict=True))
    nodes = torch.cat([y[alive].flatten(0, 1), end])
    log_weights = torch.cat([log_weights[alive].flatten(0, 1), end_weight])
    terms = torch.cat([terms[alive].flatten(0, 1), end_term])
    dead = terms - log_total <= NEGLIGIBLE
    # A node that does not count is moved to one that does, where no gradient is infinite.
    best = nodes.gather(0, terms.nan_to_num(nan=-math.inf).argmax(0, keepdim=True))
    return Grid(
        panels.map(lambda field: field[alive]),
        torch.where(dead, best, nodes),
        log_weights.masked_fill(dead, -math.inf),
        divergent & ~dead[-2:],
        beyond.masked_fill(dead[-2:], 0),
        converged & log_total.isfinite(),
    )


def _tail(log_f: LogFunction, panels: Panels, index: int) -> tuple[Tensor, ...]:
    """A node for what is beyond the last panel at that end.

    There f is taken for the power of the distance that it is at the end of the panel. Its place, log weight
    and term, whether the integral is infinite, and the mean of log f relative to the node's.
    """
    panel = panels.map(lambda field: field[index])
    last, inner = (panel.start, panel.stop) if index == 0 else (panel.stop, panel.start)
    y, log_slope = panel.locate(torch.stack([last, last + (inner - last).clamp(-1, 1)]))
    values = log_f(y)
    inwards = values + log_slope
    nothing = values[0] == -math.inf
    decay = (inwards[1] - torch.where(nothing, 0, inwards[0])) / (inner - last).abs().clamp(max=1)
    decay = torch.where(nothing, 1, decay)
    log_weight = log_slope[0] - decay.clamp(min=FLATTEST_TAIL).log()
    direction = (last - inner).sign()  # of t, outwards
    beyond = -(decay + direction) / decay.clamp(min=FLATTEST_TAIL)
    return y[0], log_weight, values[0] + log_weight, ~(decay > FLATTEST_TAIL), beyond
