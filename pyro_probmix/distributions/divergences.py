"""Divergences in closed form from the log-normalizer, differentiable in both arguments."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.components import unmask
from pyro_probmix.distributions.expectations import expected_log_prob, of_one_family
from pyro_probmix.distributions.exponential_family import ExponentialFamily, exponential_family, validates
from pyro_probmix.distributions.families.wrappers import TransformedFamily
from pyro_probmix.distributions.pooling import LogLinearPool

__all__ = [
    "bhattacharyya_distance",
    "chernoff_coefficient",
    "chernoff_information",
    "cross_entropy",
    "kl_divergence",
    "renyi_divergence",
]

# The Gauss–Legendre rule of five points on [0, 1].
_INNER, _OUTER = math.sqrt(5 - 2 * math.sqrt(10 / 7)) / 6, math.sqrt(5 + 2 * math.sqrt(10 / 7)) / 6
LEGENDRE_POINTS = (0.5, 0.5 - _INNER, 0.5 + _INNER, 0.5 - _OUTER, 0.5 + _OUTER)
_INNER_WEIGHT, _OUTER_WEIGHT = (322 + 13 * math.sqrt(70)) / 1800, (322 - 13 * math.sqrt(70)) / 1800
LEGENDRE_WEIGHTS = (64 / 225, _INNER_WEIGHT, _INNER_WEIGHT, _OUTER_WEIGHT, _OUTER_WEIGHT)

CHERNOFF_STEPS = 40


def renyi_divergence(p: Distribution, q: Distribution, alpha: float | Tensor) -> Tensor:
    r"""Rényi divergence :math:`D_\alpha(p\|q) = \frac{1}{\alpha-1}\log\int p^\alpha q^{1-\alpha}`.

    It is the pooling normaliser of the pair, :math:`\xi = (1-\alpha) D_\alpha(p\|q)`; at α = 1 it is the
    Kullback–Leibler divergence. Near there ξ is nearly 0, and the divergence is found as the mean of
    :math:`\mathbb{E}_{p_a}[\log p/q]` over the pools :math:`p_a \propto p^a q^{1-a}` between a = 1 and α.
    It is infinite where supports do not overlap and, above 1, where q misses some of p's or the integral diverges:
    for Normals of scales s and r from :math:`\alpha = s^2/(s^2-r^2)` on.

    Args:
        p: a member of an exponential family, of batch shape ``(...)``.
        q: a member of the same family.
        alpha: order, positive; a number or a tensor that broadcasts with the batch.

    Returns:
        Nats, of the batch shape.

    Raises:
        TypeError: if p and q are not of one exponential family.
        ValueError: if ``alpha`` is not positive; the values of tensors are checked where p or q validates.

    Example:
        >>> renyi_divergence(dist.Normal(0.0, 1.0), dist.Normal(2.0, 1.0), 0.5)
        tensor(1.)
        >>> renyi_divergence(dist.Normal(0.0, 1.0), dist.Normal(2.0, 1.0), 1.0)
        tensor(2.)
        >>> renyi_divergence(dist.Normal(0.0, 3.0), dist.Normal(0.0, 1.0), 9 / 8)
        tensor(inf)
    """
    _check_order(p, q, alpha)
    ours, theirs = _pair(p, q)
    if not isinstance(alpha, Tensor):
        if alpha == 1:
            return _at_least_zero(_kl(ours, theirs))
        if abs(alpha - 1) >= _near_one(ours, alpha):
            return _at_least_zero(_log_normalizer(ours, theirs, alpha) / (1 - alpha))
    order = torch.as_tensor(alpha, dtype=torch.float64, device=ours.parameters[0].device)
    # Where p and q are far apart ξ is so, too, and changes as fast with α: then the quotient is right.
    kl = _kl(ours, theirs).detach()
    near = ((order - 1).abs() * kl.clamp(min=1) < _near_one(ours, alpha)) | (order == 1)
    apart = torch.where(near, 0.5, order)
    quotient = _log_normalizer(ours, theirs, apart) / (1 - apart)
    result = torch.where(near, _mean_log_ratio(ours, theirs, torch.where(near, order, 1)), quotient)
    return _at_least_zero(result.to(kl.dtype))


def _at_least_zero(divergence: Tensor) -> Tensor:
    """Rounding alone takes it below zero; the gradient is left as it is."""
    return torch.where(divergence <= 0, divergence - divergence.detach(), divergence)


def _near_one(p: ExponentialFamily, alpha: float | Tensor) -> float:
    """Where the error of the quotient, eps / |1 − α|, and that of the mean are small."""
    below = not isinstance(alpha, Tensor) and alpha < 1
    return torch.finfo(_dtype(p) if below else torch.float64).eps ** 0.25


def bhattacharyya_distance(p: Distribution, q: Distribution) -> Tensor:
    r"""Bhattacharyya distance :math:`-\log\int\sqrt{p\,q}`, the pooling normaliser at equal weights.

    Args:
        p: a member of an exponential family, of batch shape ``(...)``.
        q: a member of the same family.

    Returns:
        Nats, of the batch shape.

    Raises:
        TypeError: if p and q are not of one exponential family.

    Example:
        >>> bhattacharyya_distance(dist.Normal(0.0, 1.0), dist.Normal(2.0, 1.0))
        tensor(0.5000)
    """
    return _log_normalizer(*_pair(p, q), 0.5)


def chernoff_coefficient(p: Distribution, q: Distribution, alpha: float | Tensor) -> Tensor:
    r"""Chernoff coefficient :math:`\int p^\alpha q^{1-\alpha} = e^{-\xi}`; at α = ½ that of Bhattacharyya.

    Args:
        p: a member of an exponential family, of batch shape ``(...)``.
        q: a member of the same family.
        alpha: order, positive; a number or a tensor that broadcasts with the batch.

    Returns:
        The coefficient, of the batch shape: at most 1 for orders in [0, 1], at least 1 above.

    Raises:
        TypeError: if p and q are not of one exponential family.
        ValueError: as for :func:`renyi_divergence`.

    Example:
        >>> chernoff_coefficient(dist.Exponential(1.0), dist.Exponential(4.0), 0.5)
        tensor(0.8000)
    """
    _check_order(p, q, alpha)
    return (-_log_normalizer(*_pair(p, q), alpha)).exp()


def chernoff_information(p: Distribution, q: Distribution) -> Tensor:
    r"""Chernoff information :math:`\max_{0\le\alpha\le 1} -\log\int p^\alpha q^{1-\alpha}`.

    The best exponent of the error of telling p from q. The maximum is where the pool is equally far from
    both, :math:`\mathrm{KL}(p_\alpha\|p) = \mathrm{KL}(p_\alpha\|q)`; by the envelope theorem the gradient is
    that of ξ at fixed α.

    Args:
        p: a member of an exponential family, of batch shape ``(...)``.
        q: a member of the same family.

    Returns:
        Nats, of the batch shape.

    Raises:
        TypeError: if p and q are not of one exponential family.

    Source: Chernoff (1952); Nielsen, "An information-geometric characterization of Chernoff information" (2013).

    Example:
        >>> chernoff_information(dist.Normal(0.0, 1.0), dist.Normal(2.0, 1.0))
        tensor(0.5000)
    """
    ours, theirs = _pair(p, q)
    return _log_normalizer(ours, theirs, _chernoff_order(ours, theirs))


def cross_entropy(p: Any, q: Any) -> Tensor:
    r"""Cross-entropy :math:`-\mathbb{E}_p[\log q]` in nats.

    .. math:: A(\eta_q) - \langle \eta_q, \mathbb{E}_p[T] \rangle - \mathbb{E}_p[\log h]

    Beside members of one family, p may be a point (Delta) or a law of finitely many values, which know the expectation
    of anything, or a law inside the support of q that knows those of q's statistics: any that has a mean and a
    variance for a Normal q, a LogNormal for a Gamma q.

    Args:
        p: of batch shape ``(...)``.
        q: a member of an exponential family; any distribution where p is a point or has finitely many values.

    Returns:
        Nats, of the batch shape. Masks do not count: they belong to the sites, not to the laws.

    Raises:
        TypeError: if p has values outside the support of q, or does not know what q asks for.
        ValueError: if event shapes or, within a family, fixed parameters differ.
        NotImplementedError: for bijections whose expected log-Jacobian has no closed form here: it has for affine maps,
            the exponential of what has a known mean, and powers of a Beta, Gamma, InverseGamma or Pareto.

    Example:
        >>> cross_entropy(dist.Bernoulli(0.5), dist.Bernoulli(0.5))
        tensor(0.6931)
        >>> cross_entropy(dist.Gamma(2.0, 1.0), dist.Exponential(1.0))
        tensor(2.)
    """
    (p, q), _ = unmask([p, q])
    return -expected_log_prob(p, q).expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))


def kl_divergence(p: Any, q: Any) -> Tensor:
    r"""Kullback–Leibler divergence :math:`\mathbb{E}_p[\log p/q]` in nats.

    .. math:: A(\eta_q) - A(\eta_p) - \langle \eta_q - \eta_p, \nabla A(\eta_p) \rangle

    Unlike that of PyTorch it is there for every family here, and for equal bijections of them.

    Args:
        p: a member of an exponential family, of batch shape ``(...)``.
        q: a member of the same family.

    Returns:
        Nats, of the batch shape; differentiable in the parameters of both.

    Raises:
        TypeError: if p and q are not of one exponential family.
        ValueError: if event shapes or fixed parameters differ.

    Example:
        >>> kl_divergence(dist.Poisson(1.0), dist.Poisson(2.0))
        tensor(0.3069)
    """
    return _kl(*_members(p, q))


def _members(p: Any, q: Any) -> tuple[Any, Any]:
    """The natural forms of both without masks."""
    (p, q), _ = unmask([p, q])
    return of_one_family(p, q)


def _pair(p: Any, q: Any) -> tuple[Any, Any]:
    """As :func:`_members`, without the equal bijections on their outside, which no divergence depends on."""
    ours, theirs = _members(p, q)
    while isinstance(ours, TransformedFamily):
        ours, theirs = _members(ours.p.base_dist, theirs.p.base_dist)
    return ours, theirs


def _kl(p: ExponentialFamily, q: ExponentialFamily) -> Tensor:
    return p.expected_log_ratio(p, q).expand(_batch_shape(p, q))


def _batch_shape(p: ExponentialFamily, q: ExponentialFamily) -> torch.Size:
    return torch.broadcast_shapes(p.p.batch_shape, q.p.batch_shape)


def _dtype(p: ExponentialFamily) -> torch.dtype:
    return p.parameters[0].dtype


def _check_order(p: Any, q: Any, alpha: float | Tensor) -> None:
    if not isinstance(alpha, Tensor):
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha: expected a positive number, got {alpha}")
    elif (validates(p) or validates(q)) and not bool((good := (alpha > 0) & alpha.isfinite()).all()):
        raise ValueError(f"alpha: expected positive values, got {alpha[~good].flatten()[0].item():g}")


def _log_normalizer(p: ExponentialFamily, q: ExponentialFamily, alpha: float | Tensor) -> Tensor:
    """ξ = −log ∫ p^α q^(1−α); −∞ where the integral is infinite."""
    if not isinstance(alpha, Tensor) and alpha <= 1:
        return LogLinearPool([p.p, q.p], [alpha, 1 - alpha], validate_args=False).log_normalizer
    # Above one the pool may be at the end of its domain, which is told from rounding in double precision.
    members = [tuple(t.double() if t.is_floating_point() else t for t in form.parameters) for form in (p, q)]
    alpha = torch.as_tensor(alpha, dtype=torch.float64, device=members[0][0].device)
    with torch.no_grad():
        kl = _kl(p, q)
        diverges = (alpha > 1) & (p.diverges(members, [alpha, 1 - alpha]) | (kl == math.inf))
    alpha = torch.where(diverges, 0.5, alpha)
    xi = p.pooling_normalizer(members, [alpha, 1 - alpha], simplex=False)
    xi = torch.where(xi.isnan() & (kl == 0), 0, xi)  # of equal laws without mass somewhere
    result = torch.where(diverges, -math.inf, xi).to(torch.promote_types(_dtype(p), _dtype(q)))
    return result.expand(torch.broadcast_shapes(_batch_shape(p, q), alpha.shape))


def _log_ratio(p: ExponentialFamily, q: ExponentialFamily, alpha: float | Tensor) -> Tensor:
    """E[log p/q] under the pool p^α q^(1−α), for orders of which there is one."""
    between = LogLinearPool([p.p, q.p], [alpha, 1 - alpha], validate_args=False, simplex=False)
    return exponential_family(between).expected_log_ratio(p, q)


def _mean_log_ratio(p: ExponentialFamily, q: ExponentialFamily, alpha: Tensor) -> Tensor:
    terms = [
        weight * _log_ratio(p, q, 1 + point * (alpha - 1))
        for weight, point in zip(LEGENDRE_WEIGHTS, LEGENDRE_POINTS, strict=True)
    ]
    return torch.stack(terms).sum(0)


@torch.no_grad()
def _chernoff_order(p: ExponentialFamily, q: ExponentialFamily) -> Tensor:
    """Where ξ is largest: the root of its falling derivative, by secants that are halved where they stall."""
    low = p.parameters[0].new_zeros(_batch_shape(p, q))
    high = torch.ones_like(low)
    slope_low, slope_high = _kl(q, p), -_kl(p, q)
    alpha = torch.full_like(low, 0.5)
    for step in range(CHERNOFF_STEPS):
        slope = -_log_ratio(p, q, alpha)  # orders in (0, 1), supports that may not overlap
        rises = slope > 0
        low, slope_low = torch.where(rises, alpha, low), torch.where(rises, slope, slope_low)
        high, slope_high = torch.where(rises, high, alpha), torch.where(rises, slope_high, slope)
        secant = low + (high - low) * slope_low / (slope_low - slope_high)
        inside = (secant > low) & (secant < high) & (step % 2 == 0)
        alpha = torch.where(inside, secant, 0.5 * (low + high))
        alpha = alpha.clamp(max=1 - torch.finfo(alpha.dtype).eps)  # q takes part, as p does
    return alpha
