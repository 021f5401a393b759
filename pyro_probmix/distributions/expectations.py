r"""E[log q(y)] under a law that need not be of q's family.

Of the law a member q of an exponential family asks for :math:`\mathbb{E}[T(y)]` and :math:`\mathbb{E}[\log h(y)]`
alone, which many laws know. Where these are squares, of y or of log y, a mean and a (co)variance say all of them, and
the member of q's family that has them stands for the law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.special import polygamma

from pyro_probmix.distributions.exponential_family import exponential_family, is_exponential_family, resolved
from pyro_probmix.distributions.families import circular, counts, gamma, multivariate, normal, scale, simplex
from pyro_probmix.distributions.numerical import NumericalPool
from pyro_probmix.distributions.supports import is_circular, is_inside
from pyro_probmix.ops.sums import masked_sum, sum_right

__all__ = ["expected_log_prob", "of_one_family", "point"]

Function = tuple[str, Any]
"""A function of one number: its name, and what it depends on."""

Y, LOG, LOG_REST = ("power", 1), ("log", None), ("log-rest", None)


def expected_log_prob(law: Any, q: Any) -> Tensor:
    """E[log q(y)] for y of that law, neither of them masked, or an error as :func:`cross_entropy` has it.

    Under a point or a law of finitely many values q is any distribution, under a member of an exponential family also
    a numerical pool of such.
    """
    law, q = resolved(law), resolved(q)
    where = point(law)
    if where is not None:
        return q.log_prob(where)
    if law.event_shape != q.event_shape:
        raise ValueError(f"p, q: expected equal event shapes, got {tuple(law.event_shape)} and {tuple(q.event_shape)}")
    if isinstance(q, NumericalPool) and not isinstance(q.components, Distribution):
        scores = [expected_log_prob(law, member) for member in q.components]
        return q.log_normalizer + masked_sum(scores, q.weights.unbind(-1))
    try:
        ours, theirs = of_one_family(law, q)
    except (TypeError, ValueError) as error:
        unlike = error.with_traceback(None)  # which would hold what is here, until it is collected
    else:
        return -ours.cross_entropy(theirs)
    if isinstance(law, Independent) and isinstance(q, Independent):
        ndims = min(law.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
        return sum_right(expected_log_prob(_batched(law, ndims), _batched(q, ndims)), ndims)
    if not is_inside(law.support, q.support):
        raise _add(unlike, "whose support the first leaves")
    if law.has_enumerate_support and isinstance(unlike, TypeError):
        return _over_values(law, q)
    if is_exponential_family(law) and is_exponential_family(q) and not is_circular(law):
        with suppress(_Unknown):
            return _by_moments(law, q)
    raise _add(unlike, "of whose statistics the first does not know the expectations")


class _Unknown(Exception):
    """What is asked is not known of the law."""


def point(law: Any) -> Tensor | None:
    """Where all the mass is, if it is at one point."""
    law = _entry(law)
    return law.v if isinstance(law, dist.Delta) else None


def _entry(p: Any) -> Any:
    """The distribution of one entry, where entries are independent."""
    while isinstance(p, Independent):
        p = resolved(p.base_dist)
    return p


def of_one_family(p: Any, q: Any) -> tuple[Any, Any]:
    """The natural forms of both, or what is raised where they are not of one family."""
    theirs, ours = exponential_family(q), exponential_family(p)
    if type(ours) is not type(theirs):
        raise TypeError(f"p, q: expected one family, got {type(p).__name__} and {type(q).__name__}")
    if p.event_shape != q.event_shape:
        raise ValueError(f"p, q: expected equal event shapes, got {tuple(p.event_shape)} and {tuple(q.event_shape)}")
    reason = ours.mismatch(theirs)
    if reason:
        raise ValueError(f"p, q: expected {reason}")
    return ours, theirs


def _add(unlike: Exception, why: str) -> Exception:
    return TypeError(f"{unlike}, {why}") if str(unlike).startswith("p, q: expected one family") else unlike


def _batched(p: Any, ndims: int) -> Any:
    """``p`` with that many event dimensions given back to the batch."""
    kept = p.reinterpreted_batch_ndims - ndims
    return Independent(p.base_dist, kept) if kept else p.base_dist


def _over_values(law: Any, q: Any) -> Tensor:
    values = law.enumerate_support(expand=False)
    dims = max(len(law.batch_shape), len(q.batch_shape))
    values = values.reshape(values.shape[:1] + (1,) * dims + law.event_shape)
    return masked_sum([q.log_prob(values)], [law.log_prob(values).exp()]).sum(0)


def _by_moments(law: Any, q: Any) -> Tensor:
    ndims = 0
    while isinstance(q, Independent):  # a law of a vector, whose entries are asked one by one
        ndims, q = ndims + q.reinterpreted_batch_ndims, resolved(q.base_dist)
    form = exponential_family(q)
    kind = type(form)
    if kind is normal.NormalFamily:
        return sum_right(-normal.NormalFamily(_normal(*_mean_and_variance(law))).cross_entropy(form), ndims)
    if ndims:
        raise _Unknown
    if kind is normal.LogNormalFamily:
        return -normal.LogNormalFamily(_normal(*_log_moments(law))).cross_entropy(form)
    if kind in (normal.MultivariateNormalFamily, multivariate.LowRankMultivariateNormalFamily):
        law, q = (exponential_family(p) for p in _as_multivariate_normals(law, q))
        return -law.cross_entropy(q)
    if kind not in _ASKED:
        raise _Unknown
    law_form = exponential_family(law)
    like = form.parameters[0], *law_form.parameters[:1]
    if form.cancels:
        form, law = form.in_double(), law_form.in_double().p
    statistics, base = _ASKED[kind](form.p)
    parameters = form.parameters
    total = -form.log_normalizer(*parameters)
    for eta, function in zip(form.to_natural(*parameters), statistics, strict=True):
        total = total + masked_sum([eta], [_expectation(law, function)])
    for factor, asked in base:
        total = total + factor * (1 if asked is None else _expectation(law, asked))
    return form.narrowed(total, *like)


# What q asks for: the functions in T, and those in log h, each with its factor; a factor without one is a constant.

_Asked = tuple[Sequence[Function], Sequence[tuple[Any, Function | None]]]
_ASKED: dict[type, Callable[[Any], _Asked]] = {
    scale.AsymmetricLaplaceFamily: lambda q: ([("below", q.loc), ("above", q.loc)], []),
    simplex.BetaFamily: lambda q: ([LOG, LOG_REST], []),
    gamma.Chi2Family: lambda q: ([LOG], [(-0.5, Y)]),
    simplex.ContinuousBernoulliFamily: lambda q: ([Y], []),
    gamma.ExponentialDistributionFamily: lambda q: ([Y], []),
    gamma.GammaFamily: lambda q: ([LOG, Y], []),
    counts.GeometricFamily: lambda q: ([Y], []),
    scale.GumbelFamily: lambda q: (
        [("exp", -q.scale.reciprocal())],
        [(-q.scale.reciprocal(), Y), (-q.scale.log(), None)],
    ),
    scale.HalfNormalFamily: lambda q: ([("power", 2)], []),
    gamma.InverseGammaFamily: lambda q: ([LOG, ("power", -1)], []),
    scale.LaplaceFamily: lambda q: ([("distance", q.loc)], []),
    circular.VonMisesFamily: lambda q: ([("cos", None), ("sin", None)], []),
    scale.WeibullFamily: lambda q: (
        [("power", q.concentration)],
        [(q.concentration - 1, LOG), (q.concentration.log(), None)],
    ),
}

# Laws of positive numbers that are powers of a standard Gamma: log y = shift + power · log g, g ~ Gamma(a).

_POWERS_OF_GAMMA: dict[type, Callable[[Any], tuple[Any, Any, Any]]] = {  # (a, shift, power)
    gamma.Chi2Family: lambda p: (0.5 * p.df, math.log(2), 1),
    gamma.ExponentialDistributionFamily: lambda p: (torch.ones_like(p.rate), -p.rate.log(), 1),
    gamma.GammaFamily: lambda p: (p.concentration, -p.rate.log(), 1),
    scale.HalfNormalFamily: lambda p: (torch.full_like(p.scale, 0.5), p.scale.log() + 0.5 * math.log(2), 0.5),
    gamma.InverseGammaFamily: lambda p: (p.concentration, p.rate.log(), -1),
    scale.WeibullFamily: lambda p: (torch.ones_like(p.scale), p.scale.log(), p.concentration.reciprocal()),
}


def _expectation(law: Any, function: Function) -> Tensor:
    """E[f(y)] under a law of one number, if it is known."""
    name, parameter = function
    kind = type(exponential_family(law))
    if name == "log":
        return _log_moments(law)[0]
    if name == "log-rest" and kind is simplex.BetaFamily:
        return law.concentration0.digamma() - (law.concentration0 + law.concentration1).digamma()
    if name in ("below", "above"):  # how far on that side
        distance, shift = _expectation(law, ("distance", parameter)), _expectation(law, Y) - parameter
        return 0.5 * (distance + shift if name == "above" else distance - shift)
    if kind is normal.NormalFamily and name in _OF_NORMAL:
        return _OF_NORMAL[name](law.loc, law.scale, parameter)
    if kind is scale.LaplaceFamily and name == "distance":
        apart = (law.loc - parameter).abs()
        return apart + law.scale * (-apart / law.scale).exp()
    if kind is scale.GumbelFamily and name == "exp":
        there = parameter * law.scale < 1
        log_mean = parameter * law.loc + torch.where(there, 1 - parameter * law.scale, 1).lgamma()
        return torch.where(there, log_mean.exp(), math.inf)
    if name == "power":
        return _power(law, kind, parameter)
    raise _Unknown


_OF_NORMAL: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "cos": lambda loc, scale, _: (-0.5 * scale.square()).exp() * loc.cos(),
    "sin": lambda loc, scale, _: (-0.5 * scale.square()).exp() * loc.sin(),
    "exp": lambda loc, scale, t: (t * loc + 0.5 * (t * scale).square()).exp(),
    "distance": lambda loc, scale, m: (
        scale * math.sqrt(2 / math.pi) * (-0.5 * ((loc - m) / scale).square()).exp()
        + (loc - m) * torch.erf((loc - m) / (scale * math.sqrt(2)))
    ),
}


def _power(law: Any, kind: type, power: Any) -> Tensor:
    """E[y^power]."""
    if not isinstance(power, Tensor) and power in (1, 2):
        with suppress(_Unknown):
            mean, variance = _mean_and_variance(law)
            return mean if power == 1 else mean.square() + variance
    if kind is normal.LogNormalFamily:
        return (power * law.loc + 0.5 * (power * law.scale).square()).exp()
    if kind is simplex.BetaFamily:
        a, b = law.concentration1, law.concentration0
        there = a + power > 0
        raised = torch.where(there, a + power, 1)
        log_power = raised.lgamma() - a.lgamma() + (a + b).lgamma() - (raised + b).lgamma()
        return torch.where(there, log_power.exp(), math.inf)
    if kind in _POWERS_OF_GAMMA:
        a, shift, exponent = _POWERS_OF_GAMMA[kind](law)
        raised = a + exponent * power
        there = raised > 0
        log_power = torch.where(there, raised, 1).lgamma() - a.lgamma() + power * shift
        return torch.where(there, log_power.exp(), math.inf)
    raise _Unknown


def _log_moments(law: Any) -> tuple[Tensor, Tensor]:
    """Mean and variance of log y."""
    kind = type(exponential_family(law))
    if kind is normal.LogNormalFamily:
        return law.loc, law.scale.square()
    if kind is simplex.BetaFamily:
        a, total = law.concentration1, law.concentration0 + law.concentration1
        return a.digamma() - total.digamma(), polygamma(1, a) - polygamma(1, total)
    if kind in _POWERS_OF_GAMMA:
        a, shift, exponent = _POWERS_OF_GAMMA[kind](law)
        return shift + exponent * a.digamma(), exponent**2 * polygamma(1, a)
    raise _Unknown


def _mean_and_variance(law: Any) -> tuple[Tensor, Tensor]:
    """Entry by entry."""
    if isinstance(_entry(law), torch.distributions.Categorical):
        raise _Unknown  # NaN
    try:
        return law.mean, law.variance
    except NotImplementedError:
        raise _Unknown from None


def _normal(mean: Tensor, variance: Tensor) -> Any:
    return dist.Normal(mean, variance.sqrt(), validate_args=False)


def _as_multivariate_normals(law: Any, q: Any) -> tuple[Any, Any]:
    """Both as members of one family, the law as the one that has its mean and covariance."""
    if not (isinstance(law, Independent) and law.reinterpreted_batch_ndims == 1):
        return _dense(law), _dense(q)
    mean, variance = _mean_and_variance(law)
    if isinstance(q, torch.distributions.LowRankMultivariateNormal):
        nothing = torch.zeros_like(mean).unsqueeze(-1)
        return dist.LowRankMultivariateNormal(mean, nothing, variance, validate_args=False), q
    return dist.MultivariateNormal(mean, scale_tril=variance.sqrt().diag_embed(), validate_args=False), q


def _dense(p: Any) -> Any:
    if isinstance(p, torch.distributions.MultivariateNormal):
        return p
    if isinstance(p, torch.distributions.LowRankMultivariateNormal):
        return dist.MultivariateNormal(p.loc, p.covariance_matrix, validate_args=False)
    raise _Unknown
