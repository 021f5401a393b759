"""Probabilities of classes."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor

from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.mixtures import mixture_of
from pyro_probmix.distributions.supports import bounds, is_binary, is_one_hot, num_classes
from pyro_probmix.ops.sums import log_weighted_sum

__all__ = ["class_log_probabilities", "class_probabilities", "joint_values"]

MAX_VALUES = 2**16
WRAPPERS = torch.distributions.Independent, MaskedDistribution, ExpandedDistribution


def class_probabilities(p: Any) -> Tensor:
    """The probability of each class: of 0 and 1, of 0..C-1, or of the C unit vectors; of several labels, each alone.

    Args:
        p: a distribution over classes: Bernoulli, Categorical, OneHotCategorical, pools, mixtures and wrappers of one.

    Returns:
        Probabilities, of shape ``batch_shape + event_shape + (C,)``, or ``batch_shape + event_shape`` of unit vectors.
        Masks do not count.

    Raises:
        TypeError: if values of ``p`` are no classes.

    Example:
        >>> class_probabilities(pm.LinearPool([dist.Bernoulli(0.2), dist.Bernoulli(0.6)]))
        tensor([0.6000, 0.4000])
        >>> class_probabilities(dist.Categorical(torch.tensor([[1.0, 3.0], [1.0, 1.0]])).to_event(1))
        tensor([[0.2500, 0.7500],
                [0.5000, 0.5000]])
    """
    return class_log_probabilities(p).exp()


def class_log_probabilities(p: Any) -> Tensor:
    """The logarithm of what :func:`class_probabilities` gives, in nats.

    Args:
        p: as there.

    Raises:
        TypeError: as there.

    Example:
        >>> class_log_probabilities(dist.Bernoulli(logits=torch.tensor(-200.0)))[1]
        tensor(-200.)
    """
    size = num_classes(p) if isinstance(p, torch.distributions.Distribution) else None
    if size is None:
        raise TypeError(f"p: expected a distribution over classes, got {type(p).__name__}")
    labels = p.event_shape[:-1] if is_one_hot(p.support) else p.event_shape
    return _log_probabilities(p, size).expand(p.batch_shape + labels + (size,))


def _log_probabilities(p: Any, size: int) -> Tensor:
    """As :func:`class_log_probabilities`, of a shape that broadcasts with its."""
    p = resolved(p)
    if isinstance(p, WRAPPERS):
        return _log_probabilities(p.base_dist, size)
    mixture = mixture_of(p)
    one_hot = is_one_hot(p.support)
    if mixture is not None:
        labels = len(p.event_shape) - one_hot
        each = [_log_probabilities(member, size) for member in mixture.members]
        dim = -2 - labels
        log_probs = each[0] if mixture.batched else torch.stack(torch.broadcast_tensors(*each), dim)
        weights = mixture.weights
        weights = weights.reshape(weights.shape[:-1] + (1,) * (labels + 1) + weights.shape[-1:])
        return log_weighted_sum(log_probs.movedim(dim, -1), weights)
    like = reference_tensor([p])
    if one_hot:
        classes = torch.eye(size, dtype=like.dtype, device=like.device)
    else:
        dtype = like.dtype if is_binary(p.support) else torch.long  # PyTorch's Bernoulli takes no integers
        classes = torch.arange(size, device=like.device).to(dtype)
    classes = classes.reshape(classes.shape[:1] + (1,) * len(p.batch_shape) + classes.shape[1:])
    return p.log_prob(classes.expand(classes.shape[:1] + p.batch_shape + p.event_shape)).movedim(0, -1)


def joint_values(p: Any) -> Tensor | None:
    """All values of ``p``, of shape (M,) + batch + event; None where they are not finitely many, or more than 65536.

    Example:
        >>> joint_values(dist.Bernoulli(torch.ones(2)).to_event(1)).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    ends, labels = bounds(p.support) if p.support.is_discrete else None, p.event_shape
    if ends is None or not all(isinstance(end, int) for end in ends):
        return None
    low, high = ends
    if (high - low + 1) ** labels.numel() > MAX_VALUES:
        return None
    like = reference_tensor([p])
    one = torch.arange(low, high + 1, device=like.device)
    values = torch.cartesian_prod(*[one] * labels.numel()).reshape(-1, *labels)
    values = values.to(like.dtype) if is_binary(p.support) else values
    values = values.reshape(values.shape[:1] + (1,) * len(p.batch_shape) + labels)
    return values.expand(values.shape[:1] + p.batch_shape + labels)
