"""Mass, cdf and quantiles of an unnormalised law on the line or on the integers, for a whole batch at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.numerical._quadrature import (
    FIXED_POINTS,
    NODES,
    Grid,
    LogFunction,
    Panels,
    adapted_grid,
    first_panels,
    fixed_grid,
    mapped,
    positions,
)
from pyro_probmix.ops.blocks import has_memory
from pyro_probmix.ops.values import differentiated

__all__ = ["Counting", "Lebesgue", "Measure", "Rule"]

MAX_INTEGERS = 2**20
NEWTON_STEPS = 60
MAX_HELD = 2**24  # points
LEAST_UNCERTAIN = 1e-6  # share of the mass: what is told of it nearer to an end than numbers are cannot be better
FIXED_ROUNDS = 4  # in which a fixed window of integers finds its place


@dataclass(frozen=True)
class Rule:
    """How sums are made."""

    accuracy: float  # relative error aimed at
    num_nodes: int | None  # how many values of f a sum is made of; None for as many as the accuracy takes
    looks: bool  # whether values may be looked at; where not, what is bad becomes NaN


@dataclass(eq=False)
class Measure(ABC):
    """What sums f: on an interval, by a rule, from where the landmarks are."""

    low: Tensor  # lower end of the support, of the batch shape, −∞ if there is none
    high: Tensor  # upper end of the support, +∞ if there is none
    points: Tensor  # landmarks, of shape batch + (number of points,)
    rule: Rule
    jumps: Tensor  # where f may jump between the ends, batch + (number of jumps,); infinite where there is none
    moves: bool  # whether ends and jumps may depend on what is differentiated

    def judge(self, bad: Tensor, expected: str, got: Callable[[], str] = lambda: "none", remedy: str = "") -> Tensor:
        """NaN where a sum is ``bad`` and 0 elsewhere; an error, where values may be looked at and some are bad."""
        if self.rule.looks and bool(bad.any()):
            raise ValueError(f"{expected}, got {got()}{at_index(bad)}{remedy}")
        return torch.where(bad, math.nan, torch.zeros_like(self.low))

    @abstractmethod
    def error(self, log_f: LogFunction) -> Tensor:
        """The estimated relative error of the integral of f, of the batch shape."""

    @abstractmethod
    def terms(self, log_f: LogFunction, power: int = 0) -> tuple[Tensor, Tensor]:
        """Nodes y and log f(y)·weight, (N,) + batch, for integrals of f times what grows as that power at most."""

    def log_total(self, log_f: LogFunction) -> Tensor:
        """Logarithm of the integral of f, of the batch shape."""
        return self.terms(log_f)[1].logsumexp(0)

    @abstractmethod
    def moment_exists(self, log_f: LogFunction, power: int) -> Tensor:
        """Whether the integral of f |y|^power is finite, of the batch shape."""

    @abstractmethod
    def log_values(self, log_f: LogFunction) -> Tensor:
        """log f, on average over what each node stands for."""

    @abstractmethod
    def cdf(self, log_f: LogFunction, value: Tensor) -> Tensor:
        """The share of the mass that is not above each value, of shape (N,) + batch."""

    @abstractmethod
    def icdf(self, log_f: LogFunction, share: Tensor) -> Tensor:
        """The least values that are not below these shares of the mass, of shape (N,) + batch."""


@dataclass(eq=False)
class Lebesgue(Measure):
    """Integrals over an interval, by quadrature."""

    _found: dict[int, Grid] = field(default_factory=dict, init=False)
    _grids: dict[int, Grid] = field(default_factory=dict, init=False)

    def error(self, log_f: LogFunction) -> Tensor:
        return self._find(log_f, 0).error

    def grid(self, log_f: LogFunction, power: int = 0) -> Grid:
        """The grid for f times a power of y, if it is good; made once, and never differentiated."""
        if power not in self._grids:
            grid, num_nodes = self._find(log_f, power), self.rule.num_nodes
            finder = "the quadrature" if num_nodes is None else f"a rule of {num_nodes} nodes"
            expected = (
                f"components, weights: expected a pool with a finite integral that {finder} can find to accuracy "
                f"{self.rule.accuracy:g}"
            )
            nothing = self.judge(~(grid.error <= self.rule.accuracy), expected)
            if power == 0:
                uncertain = grid.uncertain.sum(0)
                nothing = nothing + self.judge(
                    uncertain > max(self.rule.accuracy, LEAST_UNCERTAIN),
                    "components, weights: expected a pool whose mass is not so near an end of the support that numbers "
                    "cannot tell where",
                    lambda: f"one that may be wrong by {float(uncertain.max()):.1g}",
                    "; a larger accuracy takes it for what it is",
                )
            self._grids[power] = grid._replace(
                log_weights=grid.log_weights + nothing, log_total=grid.log_total + nothing
            )
        return self._grids[power]

    def _find(self, log_f: LogFunction, power: int) -> Grid:
        if power not in self._found:
            low, high, num_nodes = self.low.detach(), self.high.detach(), self.rule.num_nodes
            points = self.points.movedim(-1, 0)
            if num_nodes is not None:
                points = points.sort(0).values[:: -(-len(points) // FIXED_POINTS)]
            panels = first_panels(points, low, high)
            function = log_f if power == 0 else self._growing(log_f, power)
            if num_nodes is None:
                grid = adapted_grid(function, panels, self.rule.accuracy)
            else:
                grid = fixed_grid(function, panels, num_nodes // NODES, self.rule.accuracy)
            unknown = ~(low < high) | (grid.divergent.any(0) if power == 0 else False)
            self._found[power] = grid._replace(error=torch.where(unknown, math.inf, grid.error))
        return self._found[power]

    @torch.no_grad()
    def _growing(self, log_f: LogFunction, power: int) -> LogFunction:
        """log f(y) + log(1 + |z|^power), z in units of the quartiles."""
        y, terms = (torch.cat([t[-2:-1], t[:-2], t[-1:]]) for t in self.terms(log_f))  # in order
        below = terms.softmax(0).cumsum(0)
        first, center, third = (_pick(y, (below < q).sum(0, keepdim=True))[0] for q in (0.25, 0.5, 0.75))
        log_scale = (third - first).log()

        def grown(y: Tensor, rows: Tensor | None = None) -> Tensor:
            c, s = (t if rows is None else t.reshape(-1)[rows] for t in (center, log_scale))
            return log_f(y, rows) + torch.nn.functional.softplus(power * ((y - c).abs().log() - s))

        return grown

    def terms(self, log_f: LogFunction, power: int = 0) -> tuple[Tensor, Tensor]:
        grid = self.grid(log_f, power)
        y, log_stretch = self._moved(grid.y)
        dead = grid.log_weights == -math.inf
        values = _in_blocks(log_f, y)
        terms = values + log_stretch + grid.log_weights.masked_fill(dead, 0)
        # The weight of what is beyond the ends depends on how f falls there.
        if torch.compiler.is_compiling() or differentiated(values):
            fall = (log_f(self._moved(grid.before)[0]) - values[-2:]) * grid.steepness
            terms = torch.cat([terms[:-2], terms[-2:] - (fall - fall.detach())])
        return y, terms.masked_fill(dead, -math.inf)

    def log_total(self, log_f: LogFunction) -> Tensor:
        grid = self.grid(log_f)
        # Under vmap a compiler does not tell what is differentiated.
        known = not (self.moves or torch.compiler.is_compiling())
        return grid.log_total if known and not differentiated(log_f(grid.y[:1])) else super().log_total(log_f)

    def log_values(self, log_f: LogFunction) -> Tensor:
        grid = self.grid(log_f)
        y, _ = self._moved(grid.y)
        values = _in_blocks(log_f, y)
        return torch.cat([values[:-2], values[-2:] + grid.beyond])

    def moment_exists(self, log_f: LogFunction, power: int) -> Tensor:
        return ~self.grid(log_f, power).divergent.any(0)

    def _moved(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Points that move with the ends of the support and the jumps within, as gradients see it, and log stretches.

        Between two of them the move is linear, beyond the last it is theirs.
        """
        if not self.moves:
            return y, y.new_zeros(())
        edges = torch.cat([self.low.unsqueeze(0), self.high.unsqueeze(0), self.jumps.movedim(-1, 0)])
        at, order = edges.detach().masked_fill(~edges.detach().isfinite(), math.inf).sort(0)
        moves = torch.where(at.isfinite(), edges.gather(0, order), 0)
        moves = moves - moves.detach()
        left = _search(at, y.detach())
        right = (left + 1).clamp(max=len(at) - 1)
        first, from_first, last, from_last = (_pick(t, k) for k in (left, right) for t in (at, moves))
        between = (y >= first) & last.isfinite() & (last > first)
        width = torch.where(between, last - first, 1)
        share = torch.where(between, (y - first) / width, 0)
        stretch = torch.where(between, (from_last - from_first) / width, 0).log1p()
        return y + (1 - share) * from_first + share * from_last, stretch

    def _below_panels(self, log_f: LogFunction) -> tuple[Tensor, Tensor, Tensor]:
        """The mass below each panel and all of them, that of all and the ends, and the logarithm of their unit."""
        _, terms = self.terms(log_f)
        peak = terms.detach().amax(0)
        shares = (terms - peak).exp()  # of the nodes of each panel, and of the two ends
        masses = shares[:-2].unflatten(0, (-1, NODES)).sum(1)
        below = shares[-2] + torch.cat([torch.zeros_like(masses[:1]), masses.cumsum(0)])
        return below, below[-1] + shares[-1], peak

    def _partial(self, log_f: LogFunction, panel: Panels, stop: Tensor, peak: Tensor) -> Tensor:
        """The mass of the panel up to ``stop``."""
        y, log_weights = positions(panel, stop)
        values = log_f(y.flatten(0, 1)).reshape(y.shape)
        return (values + log_weights - peak).exp().sum(1)

    def cdf(self, log_f: LogFunction, value: Tensor) -> Tensor:
        panels = self.grid(log_f).panels
        below, total, peak = self._below_panels(log_f)
        starts = panels.locate(panels.start)[0]
        index = _search(starts, value.detach())
        panel, before, after = _pick(panels, index), _pick(below[:-1], index), _pick(below[1:], index)
        mass = before + self._partial(log_f, panel, panel.coordinate(value), peak)
        if self.moves:  # the edge below moves with the support
            edge = _pick(starts, index)
            moved = self._moved(edge)[0] - edge
            mass = mass - (log_f(edge) - peak).exp().detach() * moved
            mass = torch.where(value >= panel.locate(panel.stop)[0], after, mass)  # and the one above
        share = (mass / total).clamp(0, 1)
        return torch.where(value <= self.low, 0, torch.where(value >= self.high, 1, share))

    def icdf(self, log_f: LogFunction, share: Tensor) -> Tensor:
        with torch.no_grad():
            value = self._icdf(log_f, share)
        if not torch.is_grad_enabled():
            return value
        below = self.cdf(log_f, value)
        if not (differentiated(below) or differentiated(share)):
            return value
        # Implicitly: F(y; θ) = u, so dy = (du − ∂F/∂θ dθ) / F'(y).
        density = (log_f(value) - self.terms(log_f)[1].logsumexp(0)).exp().detach()
        moved = (share - share.detach()) - (below - below.detach())
        inside = density > 0  # the ends of the support stay
        return value + torch.where(inside, moved / torch.where(inside, density, 1), 0)

    def _icdf(self, log_f: LogFunction, share: Tensor) -> Tensor:
        panels = self.grid(log_f).panels
        below, total, peak = self._below_panels(log_f)
        wanted = share * total
        below = below[:-1]
        index = _search(below, wanted)
        panel, wanted = _pick(panels, index), wanted - _pick(below, index)
        # Newton's steps in the coordinate of the panel, halving where they leave what is known of the root.
        lower, upper = torch.zeros_like(share), torch.ones_like(share)
        width = panel.stop - panel.start
        at = wanted / self._partial(log_f, panel, panel.stop, peak)
        at = torch.where((at > 0) & (at < 1), at, 0.5)
        for _ in range(NEWTON_STEPS):
            t = panel.start + at * width
            excess = self._partial(log_f, panel, t, peak) - wanted
            lower, upper = torch.where(excess < 0, at, lower), torch.where(excess < 0, upper, at)
            y, log_slope = panel.locate(t)
            step = excess / ((log_f(y) + log_slope - peak).exp() * width.abs())
            new = at - step
            new = torch.where((new > lower) & (new < upper), new, 0.5 * (lower + upper))
            done = (new - at).abs() <= 1e-14
            at = new
            if self.rule.looks and bool(done.all()):
                break
        value = panel.locate(panel.start + at * width)[0]
        value = torch.where(share <= 0, self.low, torch.where(share >= 1, self.high, value))
        return torch.where(share.isnan(), math.nan, value)


class Counting(Measure):
    """Sums over the integers of an interval.

    A fixed rule takes so many integers in a row, from where the mass begins. Where that is on more, it takes every
    other one, or every so many: of what is smooth on that scale the sum is the same, up to the factor.
    """

    _integers: Tensor | None = None
    _stride: Tensor | None = None
    _error: Tensor | None = None

    def integers(self, log_f: LogFunction) -> Tensor:
        """The integers that count, of shape (N,) + batch, or (N,) + (1,) for each dimension of the batch."""
        if self._integers is None:
            if self.rule.num_nodes is None:
                self._integers = self._window(log_f)
            else:
                self._integers, self._stride = self._fixed_window(log_f, self.rule.num_nodes)
        return self._integers

    def error(self, log_f: LogFunction) -> Tensor:
        if self._error is None:
            y = self.integers(log_f)
            with torch.no_grad():
                self._error = self._estimate(y, log_f(y))
        return self._error

    def _estimate(self, y: Tensor, terms: Tensor) -> Tensor:
        """What is beyond the integers, if f goes on there as a power of the distance, and what is between them."""
        total = terms.logsumexp(0)
        size = y[-1] - y[0]
        error = torch.zeros_like(total)
        for last, inner, is_open in ((0, 1, y[0] > self.low), (-1, -2, y[-1] < self.high)):
            decay = (terms[inner] - terms[last]) / (y[inner] - y[last]).abs() * size
            tail = (terms[last] - total).exp() * size / (decay - 1).clamp(min=1e-3)
            error = error + torch.where(is_open & (terms[last] > -math.inf), tail, 0)
        if self._stride is not None:
            # Of a sum by every other one and of one by every third, not both are right by chance.
            coarse = [(terms[::k].logsumexp(0) + math.log(k) - total).expm1().abs() for k in (2, 3)]
            edges = 0.5 * ((terms[0] - total).exp() + (terms[-1] - total).exp())  # where f begins with a jump
            error = error + torch.where(self._stride > 1, torch.maximum(*coarse) + edges, 0)
        return torch.where(total.isfinite(), error, math.inf)

    def _fixed_window(self, log_f: LogFunction, num_nodes: int) -> tuple[Tensor, Tensor]:
        """Every so many integers about the mass, and how many."""
        low, high, points = self.low.detach(), self.high.detach(), self.points.detach()
        steps = torch.arange(num_nodes, dtype=torch.float64, device=low.device).reshape((-1,) + (1,) * low.dim())
        first, last = points.amin(-1).floor().clamp(low, high), points.amax(-1).ceil().clamp(low, high)
        negligible = math.log(self.rule.accuracy * 1e-3 / num_nodes)
        for _ in range(FIXED_ROUNDS):
            y = first + ((last - first) / (num_nodes - 1)).ceil().clamp(min=1) * steps
            with torch.no_grad():
                terms = log_f(y)
            counts = terms - terms.amax(0) > negligible
            stride = y[1] - y[0]
            first = (torch.where(counts, y, math.inf).amin(0) - stride).maximum(low)
            last = (torch.where(counts, y, -math.inf).amax(0) + stride).minimum(high)
        spare = num_nodes - 1 - (last - first)
        first = (first - (spare / 2).floor().clamp(min=0)).maximum(low)
        stride = ((last - first) / (num_nodes - 1)).ceil().clamp(min=1)
        return first + stride * steps, stride

    def _all_count(self, log_f: LogFunction) -> Tensor:
        """Nothing where the integers are in a row, as single ones need it; else NaN or an error."""
        self.integers(log_f)
        if self._stride is None:
            return torch.zeros_like(self.low)
        expected = f"components, weights: expected a pool whose mass is on no more than {self.rule.num_nodes} integers"
        return self.judge(self._stride > 1, expected)

    @torch.no_grad()
    def _window(self, log_f: LogFunction) -> Tensor:
        low, high = float(self.low.min()), float(self.high.max())
        middle = float(self.points.mean())
        reach = max(float((self.points - middle).abs().max()), 50.0)
        while True:
            first, last = max(low, math.floor(middle - reach)), min(high, math.ceil(middle + reach))
            if last - first >= MAX_INTEGERS:
                raise ValueError(
                    "components, weights: expected a pool whose mass is on fewer than "
                    f"{MAX_INTEGERS} integers, got more or an infinite sum"
                )
            y = torch.arange(first, last + 1, dtype=torch.float64, device=self.low.device)
            y = y.reshape((-1,) + (1,) * self.low.dim())
            share = log_f(y).softmax(0)
            open_ends = [s for s, is_open in ((share[0], first > low), (share[-1], last < high)) if is_open]
            if not any(bool((s * (last - first) > self.rule.accuracy * 1e-3).any()) for s in open_ends):
                return y
            reach *= 2

    def terms(self, log_f: LogFunction, power: int = 0) -> tuple[Tensor, Tensor]:
        y = self.integers(log_f)
        terms = log_f(y)
        if self._stride is not None:
            if self._error is None:
                self._error = self._estimate(y, terms.detach())
            expected = (
                f"components, weights: expected a pool whose sum {self.rule.num_nodes} integers give to accuracy "
                f"{self.rule.accuracy:g}"
            )
            terms = terms + (self._stride.log() + self.judge(~(self._error <= self.rule.accuracy), expected))
        return y.expand_as(terms), terms

    def log_values(self, log_f: LogFunction) -> Tensor:
        return log_f(self.integers(log_f))

    def moment_exists(self, log_f: LogFunction, power: int) -> Tensor:
        return torch.ones_like(self.low, dtype=torch.bool)

    def cdf(self, log_f: LogFunction, value: Tensor) -> Tensor:
        y, terms = self.terms(log_f)
        below = terms.softmax(0).cumsum(0) + self._all_count(log_f)
        index = (value.floor() - y[0]).clamp(-1, len(y) - 1)
        share = _pick(below, index.clamp(min=0).long())
        return torch.where(index < 0, 0, share.clamp(max=1))

    def icdf(self, log_f: LogFunction, share: Tensor) -> Tensor:
        y, terms = self.terms(log_f)
        below = terms.softmax(0).cumsum(0).detach()
        index = _count_below(below, share.detach(), right=False).clamp(max=len(y) - 1)
        first = torch.where(terms > -math.inf, y, math.inf).amin(0)  # a share of zero is that of the least value
        return torch.maximum(_pick(y, index), first) + self._all_count(log_f)


def _in_blocks(log_f: LogFunction, y: Tensor) -> Tensor:
    """log f of many points in blocks, each evaluated again for its gradient: no more than one block is held."""
    if y.numel() <= MAX_HELD:
        return log_f(y)
    blocks = y.split(max(MAX_HELD // y[0].numel(), 1))
    return torch.cat([checkpoint(log_f, b, use_reentrant=False, preserve_rng_state=False) for b in blocks])


def _pick(part: Any, index: Tensor) -> Any:
    """Of tensors of shape (K,) + batch, or of tuples of such, those at an index of shape (N,) + batch."""
    return mapped(part, lambda tensor: tensor.expand((-1,) + index.shape[1:]).gather(0, index))


def _search(edges: Tensor, value: Tensor) -> Tensor:
    """For each value, the index of the last edge that is not above it, or 0."""
    return (_count_below(edges, value, right=True) - 1).clamp(0, len(edges) - 1)


def _count_below(edges: Tensor, value: Tensor, right: bool) -> Tensor:
    """How many of the edges, in order along the first dimension, are below each value or, on the right, at it."""
    if torch.compiler.is_compiling() or (has_memory(edges) and has_memory(value)):
        edges, value = (t.movedim(0, -1).contiguous() for t in (edges.expand((-1,) + value.shape[1:]), value))
        return torch.searchsorted(edges, value, right=right).movedim(-1, 0)
    below = edges.unsqueeze(1) <= value if right else edges.unsqueeze(1) < value  # vmap has no rule for a search
    return below.sum(0)
