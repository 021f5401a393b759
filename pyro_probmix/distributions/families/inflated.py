"""Zero-inflated counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    exponential_family,
    masked_sum,
    plain,
    register_family,
    restore_members,
    sum_right,
    unsqueeze_right,
)
from pyro_probmix.ops.special import inverse_softplus, log1mexp

__all__ = ["ZeroInflatedFamily"]


@register_family(dist.ZeroInflatedDistribution)
class ZeroInflatedFamily(ExponentialFamily):
    r"""ZeroInflatedPoisson, ZeroInflatedNegativeBinomial and any zero-inflated family of counts.

    The natural form of the base, and one more statistic, whether the count is zero:
    :math:`\eta = (\eta_0, \log(1 + \tfrac{\pi}{1-\pi}/p_0(0)))`, :math:`T(y) = (T_0(y), 1[y = 0])`,
    :math:`A = A_0 - \log(1-\pi)`, :math:`h = h_0`, with the base's mass :math:`p_0(0)` and the gate π.
    """

    cancels = True

    def inner(self, p: Any) -> tuple[ExponentialFamily, Any]:
        base = plain(p.base_dist)
        return exponential_family(base), base

    def check(self, p: Any) -> None:
        _, base = self.inner(p)
        if not base.support.is_discrete:
            raise TypeError(f"ZeroInflatedDistribution of {type(base).__name__} has no natural form: expected counts")

    def constant_base(self, p: Any) -> bool:
        family, base = self.inner(p)
        return family.constant_base(base)

    def parameters(self, p: Any) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return *family.parameters(base), _gate_logits(p)

    def dims(self, p: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        family, base = self.inner(p)
        parameter_dims, natural_dims = family.dims(base)
        return (*parameter_dims, 0), (*natural_dims, 0)

    def canonical(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return *family.canonical(base, *parameters[:-1]), parameters[-1]

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        family, base = self.inner(p)
        return self._wrap(p, family.build(base, parameters[:-1]), parameters[-1])

    def map_batch(self, p: Any, function: Callable[[Tensor, int], Tensor]) -> Any:
        family, base = self.inner(p)
        return self._wrap(p, family.map_batch(base, function), function(_gate_logits(p), 0))

    def _wrap(self, p: Any, base: Any, gate_logits: Tensor) -> Any:
        member: Any = object.__new__(corrected_class(type(p)))  # subclasses are constructed of the base's parameters
        dist.ZeroInflatedDistribution.__init__(member, base, gate_logits=gate_logits, validate_args=False)
        member._validate_args = p._validate_args
        return member

    def same(self, p: Any, q: Any) -> str | None:
        (family, base), (other, other_base) = self.inner(p), self.inner(q)
        if family is not other:
            return f"one family, got {type(base).__name__} and {type(other_base).__name__}"
        base = copy(base)
        base._validate_args = p._validate_args or q._validate_args  # Pyro's bases do not say
        return family.same(base, other_base)

    def improper(self, p: Any, parameters: Sequence[Tensor]) -> str | None:
        family, base = self.inner(p)
        return family.improper(base, parameters[:-1])

    def outside(self, p: Any, parameters: Sequence[Tensor]) -> str | None:
        family, base = self.inner(p)
        reason = family.outside(base, parameters[:-1])
        bad = parameters[-1].isnan()
        if reason is None and bad.any():
            reason = f"gate_logits of NaN at batch index {bad.nonzero().squeeze(-1).tolist()[:5]}"
        return reason

    def log_zero(self, p: Any, parameters: Sequence[Tensor]) -> Tensor:
        """The base's log-mass at zero."""
        family, base = self.inner(p)
        zero = parameters[0].new_zeros(())
        log_mass = family.base_measure(base, zero) - family.normalizer(base, *parameters)
        etas, dims = family.to_natural(base, *parameters), family.dims(base)[1]
        for eta, t, dim in zip(etas, family.statistics(base, zero), dims, strict=True):
            log_mass = log_mass + sum_right(masked_sum([eta], [t.to(eta.dtype)]), dim)
        return log_mass

    def to_natural(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        *usual, gate = parameters
        return *family.to_natural(base, *usual), softplus(gate - self.log_zero(p, usual))

    def from_natural(self, p: Any, *eta: Tensor) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        usual = family.from_natural(base, *eta[:-1])
        return *usual, inverse_softplus(eta[-1]) + self.log_zero(p, usual)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        family, base = self.inner(p)
        return family.normalizer(base, *parameters[:-1]) + softplus(parameters[-1])

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return *family.statistics(base, y), (y == 0).to(_gate_logits(p).dtype)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        gate, dims = _gate_logits(p).sigmoid(), family.dims(base)[1]
        at_zero = family.statistics(base, gate.new_zeros(()))
        means = [
            m + unsqueeze_right(gate, dim) * (t.to(m.dtype) - m)
            for m, t, dim in zip(family.moments(base), at_zero, dims, strict=True)
        ]
        return *means, gate + (1 - gate) * self.log_zero(p, family.parameters(base)).exp()

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        family, base = self.inner(p)
        return family.base_measure(base, y)

    def expected_base_measure(self, p: Any) -> Tensor | float:
        family, base = self.inner(p)
        gate = _gate_logits(p).sigmoid()
        at_zero = family.base_measure(base, gate.new_zeros(()))
        return gate * at_zero + (1 - gate) * family.expected_base_measure(base)

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        """−E_p[log q]: what is zero, and the base's without its zero."""
        family, base = self.inner(p)
        _, other = self.inner(q)
        gate, log_zeros = _gate_logits(q), [self.log_zero(d, family.parameters(b)) for d, b in ((p, base), (q, other))]
        inflated = _gate_logits(p).sigmoid()
        zero = torch.logaddexp(logsigmoid(gate), logsigmoid(-gate) + log_zeros[1])
        counted = 1 - inflated
        mass, others = counted * log_zeros[0].exp(), counted * -torch.expm1(log_zeros[0])
        terms = [log_zeros[1], -zero, -_log_open(gate)]
        return counted * family.cross_entropy(base, other) + masked_sum(terms, [mass, mass + inflated, others])

    def pool(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        gates = [component[-1:] for component in parameters]
        wide, shares = self.widened(parameters, weights)
        usual = family.pool(base, [component[:-1] for component in wide], shares)
        *pooled, gate = (self.narrowed(t, weights[0]) for t in (*usual, self._gate(p, usual, wide, shares)))
        return *pooled, *restore_members((gate,), gates, weights, (0,))

    def product(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        wide, shares = self.widened(parameters, weights)
        usual = family.product(base, [component[:-1] for component in wide], shares)
        return tuple(self.narrowed(t, weights[0]) for t in (*usual, self._gate(p, usual, wide, shares)))

    def diverges(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        family, base = self.inner(p)
        return family.diverges(base, [component[:-1] for component in parameters], weights)

    def _gate(
        self,
        p: Any,
        pooled: Sequence[Tensor],
        parameters: Sequence[Sequence[Tensor]],
        weights: Sequence[Tensor],
    ) -> Tensor:
        """Logits of the pooled gate, given the pooled base; NaN where there are fewer zeros than the base has."""
        etas = [softplus(component[-1] - self.log_zero(p, component[:-1])) for component in parameters]
        return inverse_softplus(masked_sum(etas, weights)) + self.log_zero(p, pooled)

    def pooling_normalizer(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        family, base = self.inner(p)
        wide, shares = self.widened(parameters, weights)
        usual = [component[:-1] for component in wide]
        pooled, xi = family.pool(base, usual, shares), family.pooling_normalizer(base, usual, shares)
        return self.narrowed(self._normalizer(p, pooled, xi, wide, shares), weights[0])

    def product_normalizer(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        family, base = self.inner(p)
        wide, shares = self.widened(parameters, weights)
        usual = [component[:-1] for component in wide]
        pooled, xi = family.product(base, usual, shares), family.product_normalizer(base, usual, shares)
        return self.narrowed(self._normalizer(p, pooled, xi, wide, shares), weights[0])

    def _normalizer(
        self,
        p: Any,
        pooled: Sequence[Tensor],
        xi: Tensor,
        parameters: Sequence[Sequence[Tensor]],
        weights: Sequence[Tensor],
    ) -> Tensor:
        """−log of the pooled mass at zero and elsewhere: nothing cancels, and no gate of one is in the way."""
        zeros, others = [], []
        for component in parameters:
            others.append(logsigmoid(-component[-1]))
            zero = others[-1] + self.log_zero(p, component[:-1])
            zeros.append(torch.logaddexp(logsigmoid(component[-1]), zero))
        elsewhere = masked_sum(others, weights) + log1mexp(-self.log_zero(p, pooled)) - xi
        return -torch.logaddexp(masked_sum(zeros, weights), elsewhere)


def _gate_logits(p: Any) -> Tensor:
    """Logits of the gate, but for those that are too large for Pyro, which are held where they make no difference.

    Pyro keeps the gate, its logits, or both once one was asked for, and then its own are held off zero and one.
    """
    given = p.gate_logits if "gate_logits" in vars(p) else p.gate
    info = torch.finfo(given.dtype)
    limit = -math.log(info.tiny)
    if "gate" not in vars(p):
        return given.clamp(-limit, limit)
    if "gate_logits" in vars(p):
        held = given.abs() < 0.5 - math.log(info.eps)
        none, sure = held & (p.gate == 0), held & (p.gate == 1)
        logits = given.clamp(-limit, limit)
    else:
        none, sure = given == 0, given == 1
        logits = given.masked_fill(none | sure, 0.5).logit()
    return logits.masked_fill(none, -limit).masked_fill(sure, limit)


def _log_open(gate_logits: Tensor) -> Tensor:
    """log(1 − gate), −∞ where the logits are held because the gate is one."""
    sure = gate_logits >= -0.999 * math.log(torch.finfo(gate_logits.dtype).tiny)
    return logsigmoid(-gate_logits).masked_fill(sure, -math.inf)
