"""Scores of a predictive density on held-out labels."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix.distributions import LinearPool

__all__ = ["evaluate"]


def evaluate(p: Any, y: Tensor) -> dict[str, float]:
    r"""Negative log-likelihood, and root-mean-square error or accuracy, of a predictive density.

    :math:`\mathrm{nll} = -\frac1N\sum_i \log p(y_i|x_i)`; for numbers and counts
    :math:`\mathrm{rmse} = \sqrt{\frac1{ND}\sum_{i,d} (y_{id} - \mathbb{E}[y_{id}|x_i])^2}`, for classes the share of
    labels that are the most probable one (of several labels a row, each on its own).

    Args:
        p: predictive distribution of batch shape ``(N,)``.
        y: labels, of shape ``(N,) + p.event_shape``, one-hot where ``p`` is.

    Returns:
        ``{"nll": nats, "rmse": units of y}`` or ``{"nll": nats, "accuracy": share}``.

    Raises:
        TypeError: if ``p`` is not a distribution, or ``y`` no tensor.
        ValueError: if the shapes do not match, or there are no labels.

    Example:
        >>> evaluate(dist.Normal(torch.zeros(2), 1.0), torch.tensor([1.0, -1.0]))
        {'nll': 1.418..., 'rmse': 1.0}
    """
    if not isinstance(p, torch.distributions.Distribution):
        raise TypeError(f"p: expected a distribution, got {type(p).__name__}")
    if not isinstance(y, Tensor):
        raise TypeError(f"y: expected a tensor, got {type(y).__name__}")
    expected = p.batch_shape + p.event_shape
    if y.shape != expected:
        raise ValueError(f"y: expected shape {tuple(expected)}, got {tuple(y.shape)}")
    if y.numel() == 0:
        raise ValueError("y: expected at least one label, got none")
    with torch.no_grad():
        scores = {"nll": float(-p.log_prob(y).cpu().double().mean())}
        correct = _correct(p, y)
        if correct is None:
            scores["rmse"] = float((y.cpu().double() - p.mean.cpu().double()).square().mean().sqrt())
        else:
            scores["accuracy"] = float(correct.cpu().double().mean())
    return scores


def _correct(p: Any, y: Tensor) -> Tensor | None:
    """Which class labels are the most probable one; None if y is no class label."""
    support = p.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is constraints.boolean:
        return (p.mean > 0.5) == (y > 0.5)
    if support is constraints.one_hot:
        return p.mean.argmax(-1) == y.argmax(-1)
    if not isinstance(support, constraints.integer_interval) or not bool(p.mean.isnan().all()):
        return None
    # Of the distributions over 0..C-1, those of class labels have no mean.
    return _class_probabilities(p).argmax(-1) == y


def _class_probabilities(p: Any) -> Tensor:
    """The probability of each class, of shape ``batch_shape + event_shape + (C,)``, each label on its own."""
    while isinstance(p, torch.distributions.Independent | MaskedDistribution):
        p = p.base_dist
    if isinstance(p, LinearPool):
        dim = -2 - len(p.event_shape)
        components: Any = p.components
        batched = isinstance(components, torch.distributions.Distribution)
        own = [_class_probabilities(c) for c in ([components] if batched else components)]
        probabilities = own[0] if batched else torch.stack(torch.broadcast_tensors(*own), dim)
        weights = p.weights.reshape(p.weights.shape + (1,) * (len(p.event_shape) + 1))
        return (weights * probabilities).sum(dim)
    classes = p.enumerate_support(expand=False)
    shape = classes.shape[:1] + p.batch_shape + p.event_shape
    return p.log_prob(classes.expand(shape)).movedim(0, -1).exp()
