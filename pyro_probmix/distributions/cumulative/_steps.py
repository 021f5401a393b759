"""Shares of what has mass at single values: counts, draws, a constant."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_probmix.distributions.cumulative.law import Law, shares_of
from pyro_probmix.ops.devices import double
from pyro_probmix.ops.incomplete import betainc, gammainc, gammaincc

__all__: list[str] = []


class _Integers(Law):
    """A law on integers; values in between are those below."""

    atomic = integers = True


def _chances(p: Any) -> tuple[Tensor, Tensor]:
    """The probabilities of 1 and of 0, from the form that was given."""
    if "probs" in vars(p):
        return p.probs, 1 - p.probs
    return p.logits.sigmoid(), (-p.logits).sigmoid()


@shares_of(torch.distributions.Bernoulli)
class BernoulliLaw(_Integers):
    """F(0) = 1 − probs."""

    def below(self, y: Tensor) -> Tensor:
        return torch.where(y < 1, _chances(self.p)[1], 1)

    def above(self, y: Tensor) -> Tensor:
        return torch.where(y < 1, _chances(self.p)[0], 0)


@shares_of(torch.distributions.Geometric)
class GeometricLaw(_Integers):
    """1 − F(k) = (1 − probs)^(k + 1)."""

    def below(self, y: Tensor) -> Tensor:
        return -torch.expm1(self._log_above(y))

    def above(self, y: Tensor) -> Tensor:
        return self._log_above(y).exp()

    def _log_above(self, y: Tensor) -> Tensor:
        p = self.p
        log_rest = torch.log1p(-p.probs) if "probs" in vars(p) else torch.nn.functional.logsigmoid(-p.logits)
        return (y.floor() + 1) * log_rest


@shares_of(torch.distributions.Poisson)
class PoissonLaw(_Integers):
    """F(k) = Q(k + 1, rate)."""

    def below(self, y: Tensor) -> Tensor:
        return gammaincc(y.floor() + 1, self.p.rate)

    def above(self, y: Tensor) -> Tensor:
        return gammainc(y.floor() + 1, self.p.rate)


@shares_of(torch.distributions.Binomial)
class BinomialLaw(_Integers):
    """F(k) = I_{1 − probs}(n − k, k + 1)."""

    def below(self, y: Tensor) -> Tensor:
        (one, zero), k = _chances(self.p), y.floor()
        return betainc(self.p.total_count - k, k + 1, zero, one)

    def bounds(self) -> tuple[Tensor, Tensor]:  # of an extended one the support is said to be all integers
        return torch.zeros_like(self.p.total_count), self.p.total_count

    def above(self, y: Tensor) -> Tensor:
        (one, zero), k = _chances(self.p), y.floor()
        return betainc(k + 1, self.p.total_count - k, one, zero)


def _from_one(k: Tensor) -> Tensor:
    """k + 1, as far as the incomplete beta function is known: beyond, nothing is left of a mass that is finite."""
    return (k.floor() + 1).clamp(max=2.0**60)


@shares_of(torch.distributions.NegativeBinomial)
class NegativeBinomialLaw(_Integers):
    """F(k) = I_{1 − probs}(total_count, k + 1)."""

    def below(self, y: Tensor) -> Tensor:
        one, zero = _chances(self.p)
        return betainc(self.p.total_count, _from_one(y), zero, one)

    def above(self, y: Tensor) -> Tensor:
        one, zero = _chances(self.p)
        return betainc(_from_one(y), self.p.total_count, one, zero)


@shares_of(dist.GammaPoisson)
class GammaPoissonLaw(_Integers):
    """F(k) = I_{rate / (1 + rate)}(concentration, k + 1)."""

    def below(self, y: Tensor) -> Tensor:
        rate = self.p.rate
        return betainc(self.p.concentration, _from_one(y), rate / (1 + rate), 1 / (1 + rate))

    def above(self, y: Tensor) -> Tensor:
        rate = self.p.rate
        return betainc(_from_one(y), self.p.concentration, 1 / (1 + rate), rate / (1 + rate))


@shares_of(dist.OrderedLogistic)
class OrderedLogisticLaw(_Integers):
    """F(k) = sigmoid(cutpoints[k] − predictor): classes that have an order."""

    def below(self, y: Tensor) -> Tensor:
        return self._logit(y).sigmoid()

    def above(self, y: Tensor) -> Tensor:
        return (-self._logit(y)).sigmoid()

    def _logit(self, y: Tensor) -> Tensor:
        p = self.p
        shape = torch.broadcast_shapes(y.shape, p.batch_shape)
        cuts = p.cutpoints.expand(shape + p.cutpoints.shape[-1:])
        k = y.floor().clamp(0, cuts.shape[-1] - 1).long().expand(shape)
        return cuts.gather(-1, k.unsqueeze(-1)).squeeze(-1) - p.predictor  # type: ignore[no-any-return]


@shares_of(dist.Delta)
class DeltaLaw(Law):
    """F = 1 from the one value on."""

    atomic = True

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.values = double(p.v).unsqueeze(-1)

    def bounds(self) -> tuple[Tensor, Tensor]:
        return double(self.p.v), double(self.p.v)

    def below(self, y: Tensor) -> Tensor:
        return double(y >= self.p.v)

    def at(self, q: Tensor) -> Tensor:
        return double(self.p.v) + 0 * q  # type: ignore[no-any-return]


@shares_of(dist.Empirical)
class EmpiricalLaw(Law):
    """F = Σ wₖ over the values that are not above."""

    atomic = True

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.values, order = double(p._samples).sort(-1)
        self.shares = double(p._log_weights).softmax(-1).gather(-1, order)
        self.size = self.values.shape[-1]

    def bounds(self) -> tuple[Tensor, Tensor]:
        return self.values[..., 0], self.values[..., -1]

    def below(self, y: Tensor) -> Tensor:
        return (self.shares * (self.values <= y.unsqueeze(-1))).sum(-1)

    def at(self, q: Tensor) -> Tensor:
        total = self.shares.cumsum(-1)
        index = (total < q.unsqueeze(-1)).sum(-1).clamp(max=self.size - 1)
        return self.values.expand((*index.shape, self.size)).gather(-1, index.unsqueeze(-1)).squeeze(-1)
