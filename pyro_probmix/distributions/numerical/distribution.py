"""Pools of one-dimensional distributions of any families, normalised numerically."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import MaskedDistribution, Stable
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix._checks import check_integer, check_number
from pyro_probmix.distributions.components import Components, Weights, expanded
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.landmarks import at_rows, bounds, has_own_support, in_double, landmarks
from pyro_probmix.distributions.modes import mode
from pyro_probmix.distributions.numerical._measures import Counting, Lebesgue, Rule
from pyro_probmix.distributions.numerical._quadrature import NODES
from pyro_probmix.distributions.numerical.integrals import of_all_members
from pyro_probmix.distributions.selection import Change
from pyro_probmix.distributions.supports import same_constraint
from pyro_probmix.distributions.weighted_pool import WeightedPool
from pyro_probmix.ops.roots import within_rounding
from pyro_probmix.ops.values import can_be_read, differentiated

__all__ = ["NUM_NODES", "NumericalDistribution"]

NUM_NODES = 751


class NumericalDistribution(WeightedPool):
    r"""A law on the line or on the integers whose density is known from components, up to its normaliser.

    A subclass says by :meth:`combine` what the unnormalised density f is. The rest follows by quadrature in
    float64, over panels that are split until the accuracy is reached, for the whole batch at once; on the
    integers, by summation. All of it is differentiable in the components' parameters and in the weights, but for
    edges inside a component, such as those of a mixture of Uniforms, whose move no gradient sees.

    Where values cannot be looked at, or a number of nodes is given, a fixed rule takes the place of the adaptive one:
    a fixed number of splits of the panels with the largest errors, or of integers in a row. It estimates its error,
    too; where that is beyond the accuracy there is an error, or NaN where values cannot be looked at.
    """

    _own: tuple[str, ...] = ()  # tensors along the batch that are neither a component nor a weight
    _own_shape = torch.Size()  # of these

    def __init__(
        self,
        components: Components,
        weights: Weights,
        simplex: bool = True,
        accuracy: float | None = None,
        validate_args: bool | None = None,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__(components, weights, simplex, validate_args, self._own_shape)
        self._check_members()
        self._look_at_members()
        self._set_measure(self._rule(accuracy, num_nodes))

    def map_batch(self, function: Change) -> Any:
        new = super().map_batch(function)
        if not new.batch_shape.numel():
            raise ValueError(f"index: expected one member at least, got batch shape {tuple(new.batch_shape)}")
        for name in self._own:
            setattr(new, name, function(getattr(self, name), 0))
        new._look_at_members()
        new._set_measure(self._measure.rule)
        return new

    def _look_at_members(self) -> None:
        self._precise = [in_double(corrected(member)) for member in self._given]
        self._landmarks = [landmarks(member) for member in self._precise]
        self._ends = [bounds(member) for member in self._precise]

    def _check_members(self) -> None:
        for k, member in enumerate(self._given):
            if member.event_shape or isinstance(member, MaskedDistribution):
                got = "a mask" if isinstance(member, MaskedDistribution) else str(tuple(member.event_shape))
                raise ValueError(
                    f"components: expected scalars, event shape () and no mask, got {got} at index {k}; "
                    "to_event and mask are for the pool"
                )
            if isinstance(member, Stable):
                raise TypeError(f"components: expected densities that can be evaluated, got Stable at index {k}")
        if len({bool(member.support.is_discrete) for member in self._given}) == 2:
            raise TypeError("components: expected densities only or laws on integers only, got both")
        if self.batch_shape.numel() == 0:
            raise ValueError(f"components: expected a batch of one at least, got batch shape {tuple(self.batch_shape)}")

    def _rule(self, accuracy: float | None, num_nodes: int | None) -> Rule:
        tensors = [*self._landmarks, self._weights]
        seen, waits = all(map(can_be_read, tensors)), any(t.device.type != "cpu" for t in tensors)
        if num_nodes is None and not seen:
            num_nodes = NUM_NODES
        if accuracy is None:
            accuracy = 1e-10 if self._reference.dtype == torch.float64 and num_nodes is None else 1e-6
        check_number("accuracy", accuracy, "(0, 1)")
        if num_nodes is not None:
            num_nodes = check_integer("num_nodes", num_nodes, NODES)
        return Rule(accuracy, num_nodes, seen and (num_nodes is None or self._validate_args or not waits))

    def _set_measure(self, rule: Rule) -> None:
        shape = self.batch_shape + self._weights.shape[-1:]
        # Under vmap a compiler does not tell what is differentiated.
        moves = torch.compiler.is_compiling() or any(differentiated(end) for ends in self._ends for end in ends)
        low, high = (self._stacked(list(ends)).expand(shape) for ends in zip(*self._ends, strict=True))
        points = [self._landmarks[0].flatten(-2)] if self._batched else self._landmarks
        points = [p.expand(self.batch_shape + p.shape[-1:]) for p in points]
        ends = torch.cat([low, high], -1)
        counts = (self._weights != 0).repeat((1,) * (self._weights.dim() - 1) + (2,))
        edges = torch.where(ends.isfinite(), ends, points[0][..., :1]).detach()
        low, high = self.combined_bounds(low, high, self._weights.detach() != 0)
        discrete = bool(self._given[0].support.is_discrete)
        inside = counts & (ends > low.unsqueeze(-1)) & (ends < high.unsqueeze(-1))
        jumps = torch.where(inside, ends, math.inf)
        measure = Counting if discrete else Lebesgue
        self._measure = measure(low, high, torch.cat([*points, edges], -1), rule, jumps, moves)
        self._measure.judge(~(low <= high) if discrete else ~(low < high), "components: expected a common support")

    # What a subclass says.

    @abstractmethod
    def combine(self, log_probs: Tensor, weights: Tensor) -> Tensor:
        """log f from the components' log-densities and the weights, components along the last dimension."""

    def combined_bounds(self, low: Tensor, high: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of the support from those of the components with a weight, which are along the last dimension."""
        return torch.where(counts, low, -math.inf).amax(-1), torch.where(counts, high, math.inf).amin(-1)

    # What it is.

    @property
    def accuracy(self) -> float:
        """Relative error that the quadrature aims at."""
        return self._measure.rule.accuracy

    @property
    def num_nodes(self) -> int | None:
        """Number of values that the normaliser is made of; None where the quadrature adapts."""
        return self._measure.rule.num_nodes

    @property
    def error(self) -> Tensor:
        """Estimated relative error of the normaliser, of the batch shape; infinite where it is not known."""
        return self._measure.error(self._log_f).expand(self.batch_shape)

    @property
    def numerical_bounds(self) -> tuple[Tensor, Tensor]:
        """The ends of the support, in float64."""
        return self._measure.low.expand(self.batch_shape), self._measure.high.expand(self.batch_shape)

    @property
    def numerical_landmarks(self) -> Tensor:
        """Points about the mass, of shape ``batch_shape + (number of points,)``, in float64."""
        return self._measure.points

    def can_rsample(self) -> bool:
        return isinstance(self._measure, Lebesgue)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        low, high = self._measure.low, self._measure.high
        if not self._measure.rule.looks:
            return False
        ends_agree = bool((low == low.min()).all() & (high == high.max()).all())
        return isinstance(self._measure, Counting) and ends_agree and bool(high.isfinite().all())

    @constraints.dependent_property
    def support(self) -> Any:
        low, high = (end.to(self._reference.dtype) for end in (self._measure.low, self._measure.high))
        first = self._given[0].support
        held = any(isinstance(value, Tensor) for value in vars(first).values())
        if not held and all(has_own_support(m) and same_constraint(m.support, first) for m in self._given):
            return first
        if not self._measure.rule.looks:
            interval = constraints.integer_interval if isinstance(self._measure, Counting) else constraints.interval
            return interval(low, high)
        bounded = bool(high.isfinite().any())
        if isinstance(self._measure, Counting):
            return constraints.integer_interval(low, high) if bounded else type(constraints.nonnegative_integer)(low)
        if bounded and bool((low == -math.inf).all()):
            return constraints.less_than(high)
        if bounded:
            return constraints.interval(low, high)
        return constraints.greater_than_eq(low) if bool(low.isfinite().any()) else constraints.real

    def _at_rows(self, rows: Tensor) -> NumericalDistribution:
        """The law of M members of the flattened batch, good for f only, as far as :func:`at_rows` is implemented."""
        new, batch = copy.copy(self), self._measure.low.shape
        size = self._weights.shape[-1:]

        def taken(tensor: Tensor, rest: torch.Size) -> Any:
            return at_rows(tensor.expand(batch + rest), batch, rows)

        rest = size if self._batched else torch.Size()
        new._precise = [at_rows(resolved(expanded(member, batch + rest)), batch, rows) for member in self._precise]
        new._ends = [(taken(low, rest), taken(high, rest)) for low, high in self._ends]
        new._landmarks = [taken(points[..., :1], rest + (1,)) for points in self._landmarks]
        new._weights = taken(self._weights, size)
        for name in self._own:
            setattr(new, name, taken(getattr(self, name), torch.Size()))
        return new

    def _log_f(self, value: Tensor, rows: Tensor | None = None) -> Tensor:
        """log f at values of shape (N,) + batch, or (N, M) for M members of the flattened batch; in float64."""
        if rows is not None:
            try:
                return self._at_rows(rows)._log_f(value)
            except NotImplementedError:
                return of_all_members(self._log_f, value, rows, self._measure.points[..., 0])
        value = value.unsqueeze(-1) if self._batched else value
        results = []
        for member, (low, high), points in zip(self._precise, self._ends, self._landmarks, strict=True):
            outside = (value < low) | (value > high)
            inner = torch.where(low.isfinite(), low, high) if member.support.is_discrete else points[..., 0]
            log_prob = member.log_prob(torch.where(outside, inner.detach(), value))
            results.append(log_prob.masked_fill(outside, -math.inf))
        return self.combine(self._stacked(results), self._weights.double())

    def _log_total(self) -> Tensor:
        """log ∫ f, of the batch shape, in float64: exactly 0 where one component alone has weight."""
        log_total = self._measure.log_total(self._log_f)
        alone = ((self._weights == 1).any(-1)) & ((self._weights != 0).sum(-1) == 1)
        return log_total - torch.where(alone, log_total, 0).detach()

    @property
    def log_normalizer(self) -> Tensor:
        r"""Pooling normaliser :math:`\xi = -\log \int f`, in nats."""
        return (-self._log_total()).to(self._reference.dtype).expand(self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        result = (self._log_f(value.double()) - self._log_total()).to(self._reference.dtype)
        return result.expand(torch.broadcast_shapes(result.shape, self.batch_shape))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        if not self.has_enumerate_support:
            raise NotImplementedError(f"{type(self).__name__}: the support is not finite or differs in the batch")
        values = self._measure.terms(self._log_f)[0][(slice(None),) + (0,) * self._measure.low.dim()]
        values = values.to(self._reference.dtype).reshape((-1,) + (1,) * len(self.batch_shape))
        return values.expand(values.shape[:1] + self.batch_shape) if expand else values

    # Integrals.

    def _expectation(self, function: Callable[[Tensor], Tensor], power: int) -> Tensor:
        """E[function(y)], for what grows with that power of y at most; in float64."""
        y, terms = self._measure.terms(self._log_f, power)
        mass = (terms - self._log_total()).exp()
        return (mass * torch.where(mass > 0, function(y), 0)).sum(0)

    def _mean(self) -> Tensor:
        y, terms = self._measure.terms(self._log_f)
        center = y.gather(0, terms.argmax(0, keepdim=True))[0].detach()
        mean = center + self._expectation(lambda y: y - center, 1)
        return torch.where(self._measure.moment_exists(self._log_f, 1), mean, math.nan)

    @property
    def mean(self) -> Tensor:
        """The mean; NaN where the tails are too heavy for one."""
        return self._mean().to(self._reference.dtype).expand(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        """The variance; where the tails are too heavy for one it is infinite, or NaN without a mean."""
        mean = self._mean()
        variance = self._expectation(lambda y: (y - mean).square(), 2)
        exists = self._measure.moment_exists(self._log_f, 2) | mean.isnan()
        return torch.where(exists, variance, math.inf).to(self._reference.dtype).expand(self.batch_shape)

    @property
    def mode(self) -> Tensor:
        """The value of the highest density or mass."""
        return mode(self)

    def entropy(self) -> Tensor:
        log_total = self._log_total()
        mass = (self._measure.terms(self._log_f)[1] - log_total).exp()
        log_p = self._measure.log_values(self._log_f) - log_total
        entropy = -(mass * torch.where(mass > 0, log_p, 0)).sum(0)
        return entropy.to(self._reference.dtype).expand(self.batch_shape)

    def _of_each(self, function: Callable[..., Tensor], value: Tensor) -> Tensor:
        """A function of the measure that takes values of shape (N,) + batch, of values of any."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        flat = value.double().expand(shape).reshape((-1,) + shape[len(shape) - self._measure.low.dim() :])
        return function(self._log_f, flat).reshape(shape).to(self._reference.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """F(value): 0 before the support and 1 behind it."""
        known = ~value.isnan()
        share = self._of_each(self._measure.cdf, torch.where(known, value, 0))
        return torch.where(known, share, math.nan)

    def icdf(self, value: Tensor) -> Tensor:
        """The least values whose cdf reaches these shares; NaN of what is no share."""
        value = torch.where((value >= 0) & (value <= 1), value, math.nan)
        if isinstance(self._measure, Counting):
            value = within_rounding(value.double(), self._reference.dtype, value.dtype)
        return self._of_each(self._measure.icdf, value)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            return self.icdf(torch.rand(shape, dtype=torch.float64, device=self._reference.device))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws by the inverse cdf, differentiable by the implicit function theorem."""
        if not self.can_rsample():
            raise NotImplementedError(f"{type(self).__name__}: draws of integers are not differentiable")
        shape = self._extended_shape(sample_shape)
        return self.icdf(torch.rand(shape, dtype=torch.float64, device=self._reference.device))
