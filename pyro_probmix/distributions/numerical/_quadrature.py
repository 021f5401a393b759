"""Integrals over the line of a batch of positive functions, by panels that seek their mass.

Every function here works on a whole batch at once: panels are along the first dimension, the nodes of a panel
along the second, and the batch follows. The functions f are given by their logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["NODES", "Grid", "Panels", "adapted_grid", "first_panels", "fixed_grid", "mapped", "positions"]

# log f at points of shape (N,) + batch or, with M indices into the flattened batch, at points of shape (N, M).
LogFunction = Callable[..., Tensor]

# The Kronrod rule of 15 points on [-1, 1] and, every other point, the Gauss rule of 7 (QUADPACK, qk15).
_POINTS = [0.99145537112081264, 0.94910791234275852, 0.86486442335976907, 0.74153118559939444]
_POINTS += [0.58608723546769113, 0.40584515137739717, 0.20778495500789847]
_KRONROD = [0.02293532201052922, 0.06309209262997855, 0.10479001032225018, 0.14065325971552592]
_KRONROD += [0.16900472663926790, 0.19035057806478541, 0.20443294007529889]
_GAUSS = [0, 0.12948496616886969, 0, 0.27970539148927667, 0, 0.38183005050511894, 0]
POINTS = [-t for t in _POINTS] + [0.0] + _POINTS[::-1]
KRONROD = [*_KRONROD, 0.20948214108472783, *_KRONROD[::-1]]
GAUSS = [*_GAUSS, 0.41795918367346939, *_GAUSS[::-1]]

NODES = len(POINTS)

# The value at −1 of the polynomial through those at the nodes, from them.
EXTRAPOLATED = [math.prod((-1 - u) / (t - u) for u in POINTS if u != t) for t in POINTS]
NEAREST = 1e-9  # how near to its ends a panel is looked at, in units of half of it

MAX_ROUNDS = 40
MAX_PANELS = 1000  # of a function, beside those that it starts from
SPLIT_INTO = 4
# Of a fixed rule: how often how many panels are split, and into how many parts.
FIXED_ROUNDS, FIXED_SPLITS, FIXED_PARTS = 6, 2, 4
FIXED_POINTS = 40  # of a fixed rule, at most, that it starts from
BLOCK = 2**12  # panels that are looked at together
NEGLIGIBLE = -100.0  # nodes whose share of the integral has a lower logarithm do not count
SMALLEST = -600.0  # logarithms that are held there keep clear of subnormal numbers, which are slow
STEEP = 5.0  # how far logarithms at neighbouring nodes may be apart without a look at what is between
FARTHEST = 170.0  # logarithm of the distances where tails are cut: that of numbers whose squares are numbers, too
FLATTEST_TAIL = 1e-3  # slopes of a tail, in log-log scale, that are nearer to that of 1/y are taken for it


class Panels(NamedTuple):
    """Intervals [y(start), y(stop)] of the line with y(t) = anchor + t, or anchor ± eᵗ where the sign is not 0.

    All fields have shape (number of panels,) + batch.
    """

    anchor: Tensor
    sign: Tensor
    start: Tensor
    stop: Tensor

    def gather(self, index: Tensor) -> Panels:
        """The panels of these indices, of shape (number of indices,) + batch."""
        return mapped(self, lambda field: field.gather(0, index))

    def locate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """y(t) and log |y'(t)|."""
        linear = self.sign == 0
        log_slope = torch.where(linear, 0, t)
        return self.anchor + torch.where(linear, t, self.sign * log_slope.exp()), log_slope

    def coordinate(self, y: Tensor) -> Tensor:
        """The t of each y, held within the panel."""
        away = y - self.anchor
        linear = self.sign == 0
        distance = torch.where(linear, 1, away * self.sign)
        t = torch.where(linear, away, distance.clamp(min=torch.finfo(y.dtype).tiny).log())
        return t.clamp(torch.minimum(self.start, self.stop), torch.maximum(self.start, self.stop))


def mapped(part: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A tuple like this one, of tensors or of such tuples, with every tensor changed by ``function``."""
    return function(part) if isinstance(part, Tensor) else type(part)(*[mapped(field, function) for field in part])


def _cat(parts: Sequence[Any], dim: int) -> Any:
    """Tuples like these, of tensors or of such tuples, in a row."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts), dim)
    return type(first)(*[_cat(field, dim) for field in zip(*parts, strict=True)])


def _of_nodes(numbers: list[float], like: Tensor) -> Tensor:
    """A number for each node of a panel, to broadcast with the panels' fields, which have the shape of ``like``."""
    if like.is_cpu or torch.compiler.is_compiling():
        column = torch.tensor(numbers, dtype=like.dtype, device=like.device)
    else:  # filled in where it is needed, for the host would wait for a copy
        column = torch.stack([torch.full((), number, dtype=like.dtype, device=like.device) for number in numbers])
    return column.reshape((1, -1) + (1,) * (like.dim() - 1))


def positions(panels: Panels, stop: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Nodes, in order, and the logarithms of their weights, (panels, 15) + batch, up to the ends or to these t."""
    half = 0.5 * ((panels.stop if stop is None else stop) - panels.start)
    points, weights = (_of_nodes(numbers, half) for numbers in (POINTS, KRONROD))
    t = (panels.start + half).unsqueeze(1) + half.unsqueeze(1) * points
    y, log_slope = mapped(panels, lambda field: field.unsqueeze(1)).locate(t)
    width = half.abs()
    empty = width == 0
    log_width = torch.where(empty, 1, width).log().masked_fill(empty, -math.inf)
    return y, log_slope + log_width.unsqueeze(1) + weights.log()


def first_panels(points: Tensor, low: Tensor, high: Tensor) -> Panels:
    """Panels that cover the support, dense about ``points``, of shape (number of points,) + batch.

    Between the points they are linear. Beyond them they are in the logarithm of the distance to the end of
    the support or, where there is none, to the last point, as far as numbers reach.
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
        length, towards = (far - near).abs(), (far - near).sign()
        steps = [(length * (k / 6)).clamp(max=offset) for k, offset in enumerate((0, 2, 6, 20, 60, 200, math.inf))]
        t = torch.stack([near + towards * step for step in steps])
        start, stop = (t[1:].flip(0), t[:-1].flip(0)) if sign > 0 else (t[:-1], t[1:])
        direction = torch.where(bounded, sign, -sign)
        tails.append(Panels(anchor.expand_as(start), direction.expand_as(start), start, stop))
        outer = torch.where(bounded, point, point - sign * spread).unsqueeze(0)
        edges = [outer, *edges] if sign > 0 else [*edges, outer]
    edge = torch.cat(edges)
    zero = torch.zeros_like(edge[:-1])
    middle = Panels(edge[:-1], zero, zero, edge[1:] - edge[:-1])
    return _cat([tails[0], middle, tails[1]], 0)  # type: ignore[no-any-return]


class Grid(NamedTuple):
    """Nodes and weights of an integral over the line, for a batch of functions like the one it was made for.

    The nodes ``y`` are those of each panel in turn, then one for what is beyond either end; tensors of the ends have
    shape (2,) + batch.
    """

    panels: Panels  # in order
    y: Tensor
    log_weights: Tensor  # −∞ where a node does not count
    divergent: Tensor  # whether the integral is infinite at the end
    beyond: Tensor  # how far log f, beyond the end, is on average from that of the last node
    before: Tensor  # a point on the near side of the last node, where f tells how it falls towards the end
    steepness: Tensor  # by how much the logarithm of what is beyond grows with log f there, relative to the last node
    uncertain: Tensor  # by what share of the integral what is beyond the end may be wrong
    log_total: Tensor  # logarithm of the integral, of the batch shape
    error: Tensor  # its estimated relative error, infinite where it is not known


class _Cells(NamedTuple):
    """Panels of any members of the batch in one row, with what f is there: the fields' last dimension counts them."""

    panels: Panels
    row: Tensor  # which member of the flattened batch each belongs to
    values: Tensor  # log f at the nodes, of shape (15, M)
    log_mass: Tensor  # logarithm of the integral over each
    log_error: Tensor  # logarithm of its estimated error; −∞ where splitting does not make it smaller
    log_hidden: Tensor  # logarithm of the largest integral of a peak for which there is room between two nodes

    def select(self, index: Tensor) -> _Cells:
        """Those where a mask is true, or of these indices."""
        return mapped(self, lambda field: field[..., index])  # type: ignore[no-any-return]


@torch.no_grad()
def adapted_grid(log_f: LogFunction, panels: Panels, accuracy: float, steps: bool = False) -> Grid:
    """Panels split until the integral of f is known to that relative accuracy, for every member of the batch.

    Only what has not converged is looked at again. Where rounding limits f itself, so that splitting does not
    make the estimated error smaller, it ends; not so where f may have ``steps``, small and steep, which are not told
    from rounding. They are looked for between the last node and the end of a panel, too, where other f may have peaks.
    """
    batch = panels.start.shape[1:]
    size = torch.Size(batch).numel()  # Pyro's analysis of dependencies leaves a tuple of it
    row = torch.arange(size, device=panels.start.device)
    cells = _cells(log_f, mapped(panels, lambda field: field.reshape(len(field), -1)), row, steps)
    finished = []
    log_total, sizes = cells.log_mass.new_zeros(size), cells.log_mass.new_zeros(size)
    converged = row.new_zeros(size, dtype=torch.bool)
    for _ in range(MAX_ROUNDS):
        rows = cells.row.unique()
        log_total[rows] = _log_sum(cells.log_mass, cells.row, size)[rows]
        relative_to = torch.where(log_total.isfinite(), log_total, 0)[cells.row]
        error = (cells.log_error - relative_to).exp()
        hidden = cells.log_hidden > log_total[cells.row] + math.log(accuracy)
        count = cells.row.bincount(minlength=size)
        sizes[rows] = _sum(error, cells.row, size)[rows]
        converged[rows] = ((sizes <= accuracy) & (_sum(hidden.double(), cells.row, size) == 0))[rows]
        active = (~converged & (count < MAX_PANELS + len(panels.start)))[cells.row]
        finished.append(cells.select(~active))
        split = active & (hidden | (error > accuracy / count[cells.row]))
        if not bool(split.any()):
            finished.append(cells.select(active))
            break
        parents, scale = cells.select(split), relative_to[split]
        children = _cells(log_f, _split(parents.panels, SPLIT_INTO), parents.row, steps)
        new_mass, new_error = (
            (t.unflatten(0, (SPLIT_INTO, -1)) - scale).exp().sum(0) for t in (children.log_mass, children.log_error)
        )
        old_mass = (parents.log_mass - scale).exp()
        if not steps:
            stalls = (new_error >= 0.9 * error[split]) & ((new_mass - old_mass).abs() <= 1e-4 * old_mass)
            children.log_error.masked_fill_((stalls & ~hidden[split]).repeat(SPLIT_INTO), -math.inf)
        cells = _cat([cells.select(active & ~split), children], -1)
    else:
        finished.append(cells)
    return _grid(log_f, panels, _cat(finished, -1), log_total, torch.where(converged, sizes, math.inf))


def _sum(values: Tensor, row: Tensor, size: int) -> Tensor:
    return values.new_zeros(size).index_add(0, row, values)


def _log_sum(values: Tensor, row: Tensor, size: int) -> Tensor:
    top = values.new_full((size,), -math.inf).scatter_reduce(0, row, values, "amax")
    top = torch.where(top.isfinite(), top, 0)
    return top + _sum((values - top[row]).exp(), row, size).log()


def _cells(log_f: LogFunction, panels: Panels, row: Tensor, steps: bool) -> _Cells:
    """What f is in groups of neighbouring panels, of shape (panels of a group, groups), a group in each row."""
    width = max(BLOCK // len(panels.start), 1)
    blocks = [_block(log_f, panels, row, slice(k, k + width), steps) for k in range(0, len(row), width)]
    return mapped(_cat(blocks, -1), lambda field: field.flatten(-2))  # type: ignore[no-any-return]


def _block(log_f: LogFunction, panels: Panels, row: Tensor, groups: slice, steps: bool) -> _Cells:
    panels, row = mapped(panels, lambda field: field[:, groups]), row[groups]
    values, log_mass, log_error, log_hidden = _look(lambda y: log_f(y, row), panels, steps)
    return _Cells(panels, row.expand_as(log_mass), values.movedim(1, 0), log_mass, log_error, log_hidden)


def _look(
    evaluate: Callable[[Tensor], Tensor], panels: Panels, steps: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What f is in neighbouring panels, as the last fields of :class:`_Cells` have it, nodes along dimension 1."""
    y, log_weights = positions(panels)
    values = evaluate(y.flatten(0, 1)).reshape(y.shape)
    terms = values + log_weights
    top = terms.amax(1)
    nothing = top == -math.inf
    top = torch.where(top.isfinite(), top, 0)
    kronrod, gauss = (_of_nodes(numbers, top) for numbers in (KRONROD, GAUSS))
    terms = (terms - top.unsqueeze(1)).clamp(min=SMALLEST).exp()
    mass = terms.sum(1)
    difference = (terms * (1 - gauss / kronrod)).sum(1).abs()
    variation = (terms - kronrod * mass.unsqueeze(1) / 2).abs().sum(1)
    # The estimate of QUADPACK: the difference of the two rules is that of the worse one.
    ratio = 200 * difference / torch.where(variation > 0, variation, 1)
    error = torch.where(variation > 0, variation * ratio.pow(1.5).clamp(max=1), difference)
    start, stop = panels.locate(panels.start)[0], panels.locate(panels.stop)[0]
    # Whether there are numbers too few between the ends.
    fixed = (stop - start).abs() <= 50 * torch.finfo(y.dtype).eps * torch.maximum(start.abs(), stop.abs())
    if steps:
        error = error + _hidden_steps(evaluate, panels, terms / kronrod, top)
        log_hidden = torch.full_like(top, -math.inf)
    else:
        log_hidden = torch.maximum(_log_hidden(y, values), _log_hidden_at_ends(evaluate, start, stop, y, values))
    log_error, log_hidden = (t.masked_fill(fixed, -math.inf) for t in (top + error.log(), log_hidden))
    log_mass = (top + mass.log()).masked_fill(nothing, -math.inf)
    return values, log_mass, log_error, log_hidden


def _log_hidden(y: Tensor, values: Tensor) -> Tensor:
    """For each panel of a group, the logarithm of the largest peak for which two nodes leave room, as its integral.

    The room is what the secants on both sides leave, as they do exactly above a concave log f.
    """
    y, values = y.flatten(0, 1), values.flatten(0, 1).clamp(min=-1e100)
    step = y.diff(dim=0)
    step_or_one = torch.where(step > 0, step, 1)
    slope = torch.where(step > 0, values.diff(dim=0) / step_or_one, 0)
    flat = torch.zeros_like(slope[:1])
    before, after = torch.cat([flat, slope[:-1]]), torch.cat([slope[1:], flat])
    left, right = values[:-1], values[1:]
    bound = torch.minimum(left + before.clamp(min=0) * step, right - after.clamp(max=0) * step)
    room = (step > 0) & (bound - torch.maximum(left, right) > 1)
    log_peak = (bound + step_or_one.log()).masked_fill(~room, -math.inf)
    log_peak = torch.maximum(log_peak, _log_steep(step, left, right))
    none = torch.full_like(flat, -math.inf)
    either = torch.maximum(torch.cat([log_peak, none]), torch.cat([none, log_peak]))
    return either.unflatten(0, (-1, NODES)).amax(1)


def _hidden_steps(evaluate: Callable[[Tensor], Tensor], panels: Panels, values: Tensor, top: Tensor) -> Tensor:
    """What steps may change between each end and the node next to it, from how f misses the polynomial of the nodes."""
    half = 0.5 * (panels.stop - panels.start)
    t = torch.stack([panels.start + NEAREST * half, panels.stop - NEAREST * half], 1)
    y, log_slope = mapped(panels, lambda field: field.unsqueeze(1)).locate(t)
    at_ends = evaluate(y.flatten(0, 1)).reshape(y.shape) + log_slope + half.abs().log().unsqueeze(1)
    found = (at_ends - top.unsqueeze(1)).clamp(min=SMALLEST).exp()
    expected = [(values * _of_nodes(weights, top)).sum(1) for weights in (EXTRAPOLATED, EXTRAPOLATED[::-1])]
    return (1 + POINTS[0]) * (found - torch.stack(expected, 1)).abs().sum(1)


def _log_hidden_at_ends(
    evaluate: Callable[[Tensor], Tensor], start: Tensor, stop: Tensor, y: Tensor, values: Tensor
) -> Tensor:
    """For each panel of a group, the logarithm of what may be between its ends and the nodes next to them."""
    ends = torch.stack([start, stop])
    at_ends = evaluate(ends.flatten(0, 1)).reshape(ends.shape)
    first, last = ((y[:, k] - end).abs() for k, end in ((0, start), (-1, stop)))
    return torch.maximum(_log_steep(first, at_ends[0], values[:, 0]), _log_steep(last, at_ends[1], values[:, -1]))


def _log_steep(step: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The logarithm of the integral of an exponential between two points, where it falls too steeply to be seen."""
    left, right = left.clamp(min=-1e100), right.clamp(min=-1e100)
    largest, change = torch.maximum(left, right), (left - right).abs()
    steep = (step > 0) & (change > STEEP) & largest.isfinite()
    return (largest + torch.where(steep, step / change, 1).log()).masked_fill(~steep, -math.inf)


def _split(panels: Panels, number: int) -> Panels:
    """Panels along the last dimensions as groups of that many equal parts, along the first."""
    share = torch.arange(number, dtype=panels.start.dtype, device=panels.start.device)
    share = share.reshape((-1,) + (1,) * panels.start.dim())
    step = (panels.stop - panels.start) / number
    start = panels.start + share * step
    return Panels(
        panels.anchor.expand_as(start), panels.sign.expand_as(start), start, panels.start + (share + 1) * step
    )


def _grid(log_f: LogFunction, first: Panels, cells: _Cells, log_total: Tensor, error: Tensor) -> Grid:
    batch = first.start.shape[1:]
    cells = cells.select(~(cells.log_mass - log_total[cells.row] <= NEGLIGIBLE))
    middle = cells.panels.locate(0.5 * (cells.panels.start + cells.panels.stop))[0]
    order = middle.argsort()
    order = order[cells.row[order].argsort(stable=True)]
    # From one row for all to a column for each member of the batch, ended by empty panels.
    count = cells.row.bincount(minlength=len(log_total))
    rank = torch.arange(int(count.max()), device=count.device).unsqueeze(-1)
    index = order[(count.cumsum(0) - count + rank.minimum(count - 1)).clamp(min=0)]
    empty = rank >= count
    panels = mapped(cells.panels, lambda field: field[index])
    panels = Panels(panels.anchor, panels.sign, torch.where(empty, panels.stop, panels.start), panels.stop)
    panels = mapped(panels, lambda field: field.reshape((-1, *batch)))
    values = cells.values[:, index].movedim(0, 1).reshape((-1, *batch))
    return _with_tails(log_f, first, panels, values, log_total.reshape(batch), error.reshape(batch))


def _with_tails(
    log_f: LogFunction, first: Panels, panels: Panels, values: Tensor, log_total: Tensor, error: Tensor
) -> Grid:
    """The grid of these panels, at whose nodes log f is ``values``, and of what is beyond the first ones.

    There f is taken for the power of the distance that it is at the end of the outermost panel.
    """
    ends = Panels(*[torch.stack([field[0], field[-1]]) for field in first])
    last, inner = torch.stack([ends.start[0], ends.stop[1]]), torch.stack([ends.stop[0], ends.start[1]])
    near, apart = (inner - last).clamp(-1, 1), (inner - last).clamp(-4, 4)
    y, log_slope = ends.locate(torch.stack([last, last + near, last + apart]))
    outer = log_f(y.flatten(0, 1)).unflatten(0, (3, 2))
    inwards, nothing, step = outer + log_slope, outer[0] == -math.inf, near.abs()
    slope = (inwards[1] - torch.where(nothing, 0, inwards[0])) / step
    before = (inwards[2] - torch.where(nothing, 0, inwards[1])) / (apart.abs() - step)
    decay = torch.where(nothing, 1, slope)
    steep = decay.clamp(min=FLATTEST_TAIL)
    rounding = torch.finfo(y.dtype).eps * ends.anchor.abs() * (-last).exp()  # of the distance
    # By what share of itself the term changes with where f is looked at.
    bend = torch.where(apart.abs() > step, (slope - before).abs(), 0).maximum(rounding) / steep
    inner_nodes, log_weights = (t.flatten(0, 1) for t in positions(panels))
    nodes, log_weights = torch.cat([inner_nodes, y[0]]), torch.cat([log_weights, log_slope[0] - steep.log()])
    terms = torch.cat([values, outer[0]]) + log_weights
    total = terms.logsumexp(0)
    dead = terms - log_total <= NEGLIGIBLE
    # A node that does not count is moved to one that does, where no gradient is infinite.
    best = nodes.gather(0, terms.nan_to_num(nan=-math.inf).argmax(0, keepdim=True))
    gone = dead[-2:]
    return Grid(
        panels,
        torch.where(dead, best, nodes),
        log_weights.masked_fill(dead, -math.inf),
        ~(decay > FLATTEST_TAIL) & ~gone,
        (-(decay + (last - inner).sign()) / steep).masked_fill(gone, 0),
        torch.where(gone, best, y[1]),
        (1 / (steep * step)).masked_fill(gone, 0),
        ((terms[-2:] - total).exp() * bend.masked_fill(nothing, 0)).masked_fill(gone, 0),
        total,
        torch.where(log_total.isfinite(), error, math.inf),
    )


@torch.no_grad()
def fixed_grid(log_f: LogFunction, panels: Panels, num_panels: int, accuracy: float) -> Grid:
    """The panels with the most of the integral, after a fixed number of splits of those with the largest errors.

    Shapes do not depend on values and no value is looked at, so that ``torch.func.vmap`` and ``torch.compile`` follow.
    What the panels hold that are not kept is counted as error.
    """
    first = panels
    values, log_mass, log_error, log_hidden = _look(log_f, panels)
    for _ in range(FIXED_ROUNDS):
        worst = torch.maximum(log_error, log_hidden).topk(FIXED_SPLITS, 0)
        index, fine = worst.indices, worst.values - log_mass.logsumexp(0) < math.log(accuracy / len(log_mass))
        parents = panels.gather(index)
        children = _split(parents, FIXED_PARTS)  # (parts, splits) + batch
        # One that is fine is not split: the others of its parts are empty.
        start, stop = torch.where(fine, parents.stop, children.start), torch.where(fine, parents.stop, children.stop)
        start[0] = parents.start
        children = Panels(children.anchor, children.sign, start, stop)
        parts = _look(lambda y: log_f(y.flatten(0, 1)).unflatten(0, (-1, FIXED_SPLITS)), children)
        panels = Panels(*[_replaced(old, new, index) for old, new in zip(panels, children, strict=True)])
        nodes = index.unsqueeze(1).expand(-1, NODES, *index.shape[1:])
        values = _replaced(values, parts[0].movedim(1, 2), nodes)
        log_mass, log_error, log_hidden = (
            _replaced(old, new, index) for old, new in zip((log_mass, log_error, log_hidden), parts[1:], strict=True)
        )
    kept = log_mass.topk(min(num_panels, len(log_mass)), 0).indices
    middle = panels.locate(0.5 * (panels.start + panels.stop))[0]
    kept = kept.gather(0, middle.gather(0, kept).argsort(0))
    log_total = log_mass.logsumexp(0)
    scale = torch.where(log_total.isfinite(), log_total, 0)
    lost = torch.cat([log_error, log_hidden, log_mass.scatter(0, kept, -math.inf)])
    error = (lost - scale).exp().sum(0)
    values = values.gather(0, kept.unsqueeze(1).expand(-1, NODES, *kept.shape[1:])).flatten(0, 1)
    return _with_tails(log_f, first, panels.gather(kept), values, log_total, error)


def _replaced(old: Tensor, new: Tensor, index: Tensor) -> Tensor:
    """``old`` with the first of each group of new ones at ``index``, and the others behind; groups are along dim 1."""
    return torch.cat([old.scatter(0, index, new[0]), new[1:].flatten(0, 1)])
