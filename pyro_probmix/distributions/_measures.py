"""Mass, cdf and quantiles of an unnormalised law on the line or on the integers, for a whole batch at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_probmix.distributions._quadrature import (
    Grid,
    LogFunction,
    Panels,
    adapted_grid,
    first_panels,
    positions,
)

__all__ = ["Counting", "Lebesgue", "Measure"]

MAX_INTEGERS = 2**20
NEWTON_STEPS = 60
MAX_HELD = 2**24  # points
LEAST_UNCERTAIN = 1e-6  # share of the mass: what is told of it nearer to an end than numbers are cannot be better


class Measure(ABC):
    """What sums f: on an interval, to an accuracy, from where the landmarks are.

    Args:
        low: lower end of the support, of the batch shape, −∞ if there is none.
        high: upper end of the support, +∞ if there is none.
        points: landmarks, of shape batch + (number of points,).
        accuracy: relative error aimed at.
        jumps: where f may jump between the ends, of shape batch + (number of jumps,); infinite where there is none.
    """

    def __init__(self, low: Tensor, high: Tensor, points: Tensor, accuracy: float, jumps: Tensor) -> None:
        self.low, self.high, self.points, self.accuracy, self.jumps = low, high, points, accuracy, jumps

    @abstractmethod
    def terms(self, log_f: LogFunction, power: int = 0) -> tuple[Tensor, Tensor]:
        """Nodes y and logarithms of their terms f(y)·weight, of shape (N,) + batch.

        They are right for integrals of f times what grows with that power of y at most.
        """

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


class Lebesgue(Measure):
    """Integrals over an interval, by quadrature."""

    def __init__(self, low: Tensor, high: Tensor, points: Tensor, accuracy: float, jumps: Tensor) -> None:
        super().__init__(low, high, points, accuracy, jumps)
        self._grids: dict[int, Grid] = {}

    def grid(self, log_f: LogFunction, power: int = 0) -> Grid:
        """The grid for f times a power of y; made once, and never differentiated."""
        if power not in self._grids:
            low, high = self.low.detach(), self.high.detach()
            panels = first_panels(self.points.movedim(-1, 0), low, high)
            function = log_f if power == 0 else self._growing(log_f, power)
            grid = adapted_grid(function, panels, self.accuracy)
            bad = ~grid.converged | (grid.divergent.any(0) if power == 0 else False)
            if bad.any():
                rows = bad.nonzero().tolist()[:5]
                at = f" at batch index {rows}" if bad.dim() else ""
                raise ValueError(
                    "components, weights: expected a pool with a finite integral that the quadrature can find to "
                    f"accuracy {self.accuracy:g}, got none{at}"
                )
            unsure = grid.uncertain.sum(0) > max(self.accuracy, LEAST_UNCERTAIN)
            if power == 0 and unsure.any():
                rows = unsure.nonzero().tolist()[:5]
                at = f" at batch index {rows}" if unsure.dim() else ""
                raise ValueError(
                    "components, weights: expected a pool whose mass is not so near an end of the support that "
                    "numbers cannot tell where, got one that may be wrong by "
                    f"{float(grid.uncertain.sum(0).max()):.1g}{at}; a larger accuracy takes it for what it is"
                )
            self._grids[power] = grid
        return self._grids[power]

    @torch.no_grad()
    def _growing(self, log_f: LogFunction, power: int) -> LogFunction:
        """log f(y) + log(1 + |z|^power), z in units of the quartiles."""
        first, center, third = self._rough_quantiles(log_f)
        log_scale = (third - first).log()

        def grown(y: Tensor, rows: Tensor | None = None) -> Tensor:
            c, s = (t if rows is None else t.reshape(-1)[rows] for t in (center, log_scale))
            return log_f(y, rows) + torch.nn.functional.softplus(power * ((y - c).abs().log() - s))

        return grown

    def _rough_quantiles(self, log_f: LogFunction) -> list[Tensor]:
        y, terms = (torch.cat([t[-2:-1], t[:-2], t[-1:]]) for t in self.terms(log_f))  # in order
        below = terms.softmax(0).cumsum(0)
        return [y.gather(0, (below < q).sum(0, keepdim=True))[0] for q in (0.25, 0.5, 0.75)]

    def terms(self, log_f: LogFunction, power: int = 0) -> tuple[Tensor, Tensor]:
        grid = self.grid(log_f, power)
        y, log_stretch = self._moved(grid.y)
        dead = grid.log_weights == -math.inf
        values = _in_blocks(log_f, y)
        terms = values + log_stretch + grid.log_weights.masked_fill(dead, 0)
        if values.requires_grad:  # the weight of what is beyond the ends depends on how f falls there
            fall = (log_f(self._moved(grid.before)[0]) - values[-2:]) * grid.steepness
            terms = torch.cat([terms[:-2], terms[-2:] - (fall - fall.detach())])
        return y, terms.masked_fill(dead, -math.inf)

    def log_total(self, log_f: LogFunction) -> Tensor:
        grid = self.grid(log_f)
        moves = self._moved(grid.y[:1])[0].requires_grad or log_f(grid.y[:1]).requires_grad
        return super().log_total(log_f) if moves else grid.log_total

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
        edges = torch.cat([self.low.unsqueeze(0), self.high.unsqueeze(0), self.jumps.movedim(-1, 0)])
        if not edges.requires_grad:
            return y, y.new_zeros(())
        at, order = edges.detach().masked_fill(~edges.detach().isfinite(), math.inf).sort(0)
        moves = torch.where(at.isfinite(), edges.gather(0, order), 0)
        moves = moves - moves.detach()
        left = _search(at.expand((-1,) + y.shape[1:]), y.detach())
        right = (left + 1).clamp(max=len(at) - 1)
        (first, from_first), (last, from_last) = (
            (at.expand((-1,) + y.shape[1:]).gather(0, k), moves.expand((-1,) + y.shape[1:]).gather(0, k))
            for k in (left, right)
        )
        between = (y >= first) & last.isfinite() & (last > first)
        width = torch.where(between, last - first, 1)
        share = torch.where(between, (y - first) / width, 0)
        stretch = torch.where(between, (from_last - from_first) / width, 0).log1p()
        return y + (1 - share) * from_first + share * from_last, stretch

    def _below_panels(self, log_f: LogFunction) -> tuple[Tensor, Tensor, Tensor]:
        """The mass below each panel and all of them, that of all and the ends, and the logarithm of their unit."""
        _, terms = self.terms(log_f)
        peak = terms.detach().amax(0)
        inner, ends = self.grid(log_f).by_panel((terms - peak).exp())
        masses = inner.sum(1)
        below = ends[0] + torch.cat([torch.zeros_like(masses[:1]), masses.cumsum(0)])
        return below, below[-1] + ends[1], peak

    def _partial(self, log_f: LogFunction, panel: Panels, stop: Tensor, peak: Tensor) -> Tensor:
        """The mass of the panel up to ``stop``."""
        y, log_weights = positions(panel, stop)
        values = log_f(y.flatten(0, 1)).reshape(y.shape)
        return (values + log_weights - peak).exp().sum(1)

    def cdf(self, log_f: LogFunction, value: Tensor) -> Tensor:
        panels = self.grid(log_f).panels
        below, total, peak = self._below_panels(log_f)
        starts = panels.locate(panels.start)[0].expand((-1,) + value.shape[1:])
        panel, index = _take(panels, _search(starts, value.detach()))
        before, after = (part.expand(starts.shape).gather(0, index) for part in (below[:-1], below[1:]))
        mass = before + self._partial(log_f, panel, panel.coordinate(value), peak)
        edge = starts.gather(0, index)
        moved = self._moved(edge)[0] - edge
        if moved.requires_grad:  # the edge below moves with the support
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
        if not (below.requires_grad or share.requires_grad):
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
        panel, index = _take(panels, _search(below.expand((-1,) + share.shape[1:]), wanted))
        wanted = wanted - below.expand((-1,) + share.shape[1:]).gather(0, index)
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
            if bool(done.all()):
                break
        value = panel.locate(panel.start + at * width)[0]
        value = torch.where(share <= 0, self.low, torch.where(share >= 1, self.high, value))
        return torch.where(share.isnan(), math.nan, value)


class Counting(Measure):
    """Sums over the integers of an interval."""

    _integers: Tensor | None = None

    def integers(self, log_f: LogFunction) -> Tensor:
        """The integers that count, of shape (N,) + (1,) for each dimension of the batch."""
        if self._integers is None:
            self._integers = self._window(log_f)
        return self._integers

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
            if not any(bool((s * (last - first) > self.accuracy * 1e-3).any()) for s in open_ends):
                return y
            reach *= 2

    def terms(self, log_f: LogFunction, power: int = 0) -> tuple[Tensor, Tensor]:
        y = self.integers(log_f)
        terms = log_f(y)
        return y.expand_as(terms), terms

    def log_values(self, log_f: LogFunction) -> Tensor:
        return log_f(self.integers(log_f))

    def moment_exists(self, log_f: LogFunction, power: int) -> Tensor:
        return torch.ones_like(self.low, dtype=torch.bool)

    def cdf(self, log_f: LogFunction, value: Tensor) -> Tensor:
        y, terms = self.terms(log_f)
        below = terms.softmax(0).cumsum(0)
        index = (value.floor() - y[0]).clamp(-1, len(y) - 1)
        share = below.expand((-1,) + value.shape[1:]).gather(0, index.clamp(min=0).long())
        return torch.where(index < 0, 0, share.clamp(max=1))

    def icdf(self, log_f: LogFunction, share: Tensor) -> Tensor:
        y, terms = self.terms(log_f)
        below = terms.softmax(0).cumsum(0).detach().expand((-1,) + share.shape[1:])
        index = torch.searchsorted(_last(below), _last(share.detach())).clamp(max=len(y) - 1)
        first = torch.where(terms > -math.inf, y, math.inf).amin(0)  # a share of zero is that of the least value
        return torch.maximum(y.expand(below.shape).gather(0, index.movedim(-1, 0)), first)


def _in_blocks(log_f: LogFunction, y: Tensor) -> Tensor:
    """log f of many points in blocks, each evaluated again for its gradient: no more than one block is held."""
    if y.numel() <= MAX_HELD:
        return log_f(y)
    blocks = y.split(max(MAX_HELD // y[0].numel(), 1))
    return torch.cat([checkpoint(log_f, b, use_reentrant=False, preserve_rng_state=False) for b in blocks])


def _last(tensor: Tensor) -> Tensor:
    return tensor.movedim(0, -1).contiguous()


def _search(edges: Tensor, value: Tensor) -> Tensor:
    """For each value, the index of the last edge that is not above it, or 0."""
    index = torch.searchsorted(_last(edges), _last(value), right=True).movedim(-1, 0)
    return (index - 1).clamp(0, len(edges) - 1)


def _take(panels: Panels, index: Tensor) -> tuple[Panels, Tensor]:
    return panels.map(lambda field: field.expand((-1,) + index.shape[1:])).gather(index), index
