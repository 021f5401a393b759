"""Divergences in closed form from the log-normalizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions._arguments import unmask
from pyro_probmix.distributions.exponential_family import exponential_family, validates
from pyro_probmix.distributions.pooling import LogLinearPool

__all__ = ["bhattacharyya_distance", "cross_entropy", "renyi_divergence"]


def renyi_divergence(p: Distribution, q: Distribution, alpha: float | Tensor) -> Tensor:
    r"""Rényi divergence :math:`D_\alpha(p\|q) = \frac{1}{\alpha-1}\log\int p^\alpha q^{1-\alpha}`.

    It is the pooling normaliser of the pair, :math:`\xi = (1-\alpha) D_\alpha(p\|q)`.

    Args:
        p: a member of an exponential family, of batch shape ``(...)``.
        q: a member of the same family.
        alpha: order, in (0, 1); a number or a tensor that broadcasts with the batch.

    Returns:
        Nats, of the batch shape.

    Raises:
        TypeError: if p and q are not of one exponential family.
        ValueError: if ``alpha`` is outside (0, 1); the values of a tensor are checked where p or q validates.

    Example:
        >>> renyi_divergence(dist.Normal(0.0, 1.0), dist.Normal(2.0, 1.0), 0.5)
        tensor(1.)
    """
    if not isinstance(alpha, Tensor):
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: expected a number in (0, 1), got {alpha}")
    elif (validates(p) or validates(q)) and not bool((inside := (alpha > 0) & (alpha < 1)).all()):
        raise ValueError(f"alpha: expected values in (0, 1), got {alpha[~inside].flatten()[0].item():g}")
    return LogLinearPool([p, q], [alpha, 1 - alpha]).log_normalizer / (1 - alpha)


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
    return LogLinearPool([p, q], [0.5, 0.5]).log_normalizer


def cross_entropy(p: Any, q: Any) -> Tensor:
    r"""Cross-entropy :math:`-\mathbb{E}_p[\log q]` in nats.

    .. math:: A(\eta_q) - \langle \eta_q, \mathbb{E}_p[T] \rangle - \mathbb{E}_p[\log h]

    Args:
        p: a member of an exponential family, of batch shape ``(...)``.
        q: a member of the same family.

    Returns:
        Nats, of the batch shape. Masks do not count: they belong to the sites, not to the laws.

    Raises:
        TypeError: if p and q are not of one exponential family.
        ValueError: if event shapes or fixed parameters differ.
        NotImplementedError: for TransformedDistribution, as the expected log-Jacobian has no closed form.

    Example:
        >>> cross_entropy(dist.Bernoulli(0.5), dist.Bernoulli(0.5))
        tensor(0.6931)
    """
    (p, q), _ = unmask([p, q])
    family = exponential_family(q)
    if exponential_family(p) is not family:
        raise TypeError(f"p, q: expected one family, got {type(p).__name__} and {type(q).__name__}")
    if p.event_shape != q.event_shape:
        raise ValueError(f"p, q: expected equal event shapes, got {tuple(p.event_shape)} and {tuple(q.event_shape)}")
    reason = family.same(p, q)
    if reason:
        raise ValueError(f"p, q: expected {reason}")
    return family.cross_entropy(p, q).expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))
