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

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.exponential_family import ExponentialFamily, Members, Tensors, register_family
from pyro_probmix.distributions.families.wrappers import WrapperFamily
from pyro_probmix.ops.special import inverse_softplus, log1mexp
from pyro_probmix.ops.sums import masked_sum, restore_members, sum_right, unsqueeze_right

__all__ = ["ZeroInflatedFamily"]


@register_family(dist.ZeroInflatedDistribution)
class ZeroInflatedFamily(WrapperFamily):
    r"""ZeroInflatedPoisson, ZeroInflatedNegativeBinomial and any zero-inflated family of counts.

    The natural form of the base, and one more statistic, whether the count is zero:
    :math:`\eta = (\eta_0, \log(1 + \tfrac{\pi}{1-\pi}/p_0(0)))`, :math:`T(y) = (T_0(y), 1[y = 0])`,
    :math:`A = A_0 - \log(1-\pi)`, :math:`h = h_0`, with the base's mass :math:`p_0(0)` and the gate π.
    """

    cancels = True
    expected_log_ratio = ExponentialFamily.expected_log_ratio

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        if not self.base.p.support.is_discrete:
            name = type(self.base.p).__name__
            raise TypeError(f"ZeroInflatedDistribution of {name} has no natural form: expected counts")
        self.parameter_dims, self.natural_dims = (*self.parameter_dims, 0), (*self.natural_dims, 0)

    @property
    def parameters(self) -> Tensors:
        return *self.base.parameters, _gate_logits(self.p)

    def canonical(self, *parameters: Tensor) -> Tensors:
        return *self.base.canonical(*parameters[:-1]), parameters[-1]

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        return self._inflated(self.base.build(parameters[:-1]), parameters[-1])

    def map_batch(self, function: Callable[[Tensor, int], Tensor]) -> Any:
        return self._inflated(self.base.map_batch(function), function(self.parameters[-1], 0))

    def _inflated(self, base: Any, gate_logits: Tensor) -> Any:
        cls = corrected_class(type(self.p))  # subclasses are constructed of the base's parameters
        member: Any = object.__new__(cls)
        dist.ZeroInflatedDistribution.__init__(member, base, gate_logits=gate_logits, validate_args=False)
        member._validate_args = self.p._validate_args
        return member

    def mismatch(self, other: Any) -> str | None:
        if type(self.base) is not type(other.base):
            return super().mismatch(other)
        base = copy(self.base.p)
        base._validate_args = self.p._validate_args or other.p._validate_args  # Pyro's bases do not say
        return type(self.base)(base).mismatch(other.base)

    def domain_error(self, parameters: Sequence[Tensor], inside: bool = False) -> str | None:
        bad = parameters[-1].isnan()
        reason = f"gate_logits of NaN{at_index(bad)}" if bad.any() else None
        return self.base.domain_error(parameters[:-1], inside) or reason

    def log_zero(self, *usual: Tensor) -> Tensor:
        """The base's log-mass at zero."""
        zero = usual[0].new_zeros(())
        log_mass = self.base.log_base_measure(zero) - self.base.log_normalizer(*usual)
        etas, statistics = self.base.to_natural(*usual), self.base.sufficient_statistics(zero)
        for eta, t, dim in zip(etas, statistics, self.base.natural_dims, strict=True):
            log_mass = log_mass + sum_right(masked_sum([eta], [t.to(eta.dtype)]), dim)
        return log_mass

    def to_natural(self, *parameters: Any, **by_name: Any) -> Tensors:
        *usual, gate = parameters
        return *self.base.to_natural(*usual), softplus(gate - self.log_zero(*usual))

    def from_natural(self, *eta: Any, **by_name: Any) -> Tensors:
        usual = self.base.from_natural(*eta[:-1])
        return *usual, inverse_softplus(eta[-1]) + self.log_zero(*usual)

    def log_normalizer(self, *parameters: Any, **by_name: Any) -> Tensor:
        return self.base.log_normalizer(*parameters[:-1]) + softplus(parameters[-1])

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return *self.base.sufficient_statistics(y), (y == 0).to(self.parameters[-1].dtype)

    def expected_sufficient_statistics(self, *parameters: Any, **by_name: Any) -> Tensors:
        *usual, gate = parameters
        gate = gate.sigmoid()
        at_zero = self.base.sufficient_statistics(gate.new_zeros(()))
        counted = self.base.expected_sufficient_statistics(*usual)
        means = [
            m + unsqueeze_right(gate, dim) * (t.to(m.dtype) - m)
            for m, t, dim in zip(counted, at_zero, self.base.natural_dims, strict=True)
        ]
        return *means, gate + (1 - gate) * self.log_zero(*usual).exp()

    def expected_log_base_measure(self, *parameters: Any, **by_name: Any) -> Tensor | float:
        gate = parameters[-1].sigmoid()
        at_zero = self.base.log_base_measure(gate.new_zeros(()))
        return gate * at_zero + (1 - gate) * self.base.expected_log_base_measure(*parameters[:-1])

    def cross_entropy(self, other: Any) -> Tensor:
        """−E_p[log q]: what is zero, and the base's without its zero."""
        (*ours, our_gate), (*theirs, gate) = self.parameters, other.parameters
        our_zero, their_zero = self.log_zero(*ours), other.log_zero(*theirs)
        inflated = our_gate.sigmoid()
        zero = torch.logaddexp(logsigmoid(gate), logsigmoid(-gate) + their_zero)
        counted = 1 - inflated
        mass, others = counted * our_zero.exp(), counted * -torch.expm1(our_zero)
        terms = [their_zero, -zero, -_log_open(gate)]
        return counted * self.base.cross_entropy(other.base) + masked_sum(terms, [mass, mass + inflated, others])

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        wide, shares = self.widened(members, weights)
        usual = self.base.pool([member[:-1] for member in wide], shares, simplex)
        # Logits of the pooled gate are NaN where there are fewer zeros than the base has.
        etas = [softplus(member[-1] - self.log_zero(*member[:-1])) for member in wide]
        gate = inverse_softplus(masked_sum(etas, shares)) + self.log_zero(*usual)
        *pooled, gate = (self.narrowed(t, weights[0]) for t in (*usual, gate))
        if simplex:
            (gate,) = restore_members((gate,), [member[-1:] for member in members], weights, (0,))
        return *pooled, gate

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        """−log of the pooled mass at zero and elsewhere: nothing cancels, and no gate of one is in the way."""
        wide, shares = self.widened(members, weights)
        usual = [member[:-1] for member in wide]
        pooled, xi = self.base.pool(usual, shares, simplex), self.base.pooling_normalizer(usual, shares, simplex)
        zeros, others = [], []
        for member in wide:
            others.append(logsigmoid(-member[-1]))
            zero = others[-1] + self.log_zero(*member[:-1])
            zeros.append(torch.logaddexp(logsigmoid(member[-1]), zero))
        elsewhere = masked_sum(others, shares) + log1mexp(-self.log_zero(*pooled)) - xi
        return self.narrowed(-torch.logaddexp(masked_sum(zeros, shares), elsewhere), weights[0])

    def diverges(self, members: Members, weights: Sequence[Tensor]) -> Tensor:
        return self.base.diverges([member[:-1] for member in members], weights)


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
