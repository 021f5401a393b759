"""Scores of a predictive density on held-out labels."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix._checks import name_rows
from pyro_probmix.distributions import LinearPool
from pyro_probmix.distributions.supports import is_circular, of_one
from pyro_probmix.mixing.batches import fill_missing
from pyro_probmix.ops.autocast import without_autocast

__all__ = ["evaluate"]


def evaluate(p: Any, y: Tensor) -> dict[str, float]:
    r"""Negative log-likelihood, and root-mean-square error or accuracy, of a predictive density.

    :math:`\mathrm{nll} = -\frac1N\sum_i \log p(y_i|x_i)`; for numbers and counts
    :math:`\mathrm{rmse} = \sqrt{\frac1{ND}\sum_{i,d} (y_{id} - \mathbb{E}[y_{id}|x_i])^2}`, for classes the share of
    labels that are the most probable one (of several labels a row, each on its own). A label that ``p`` masks is left
    out. Angles, and families whose mean is not known, have the negative log-likelihood alone.

    Args:
        p: predictive distribution of batch shape ``(N,)``.
        y: labels, of shape ``(N,) + p.event_shape``, one-hot where ``p`` is.

    Returns:
        ``{"nll": nats, "rmse": units of y}``, ``{"nll": nats, "accuracy": share}`` or ``{"nll": nats}``.

    Raises:
        TypeError: if ``p`` is not a distribution, or ``y`` no tensor.
        ValueError: if the shapes do not match, there are no labels, some are outside the support of ``p``, or single
            outputs of a row are masked.

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
    p, seen = _unmasked(p)
    if y.numel() == 0 or not bool(seen.any()):
        raise ValueError("y: expected at least one label, got none")
    with torch.no_grad(), without_autocast(y):
        if not bool(seen.all()):
            y = fill_missing(y, seen.to(y.device))
        _check_support(p, y)
        if of_one(p.support) is constraints.boolean and not y.is_floating_point():
            y = y.to(p.mean.dtype)  # PyTorch's Bernoulli takes no integers
        scores = {"nll": -_mean(p.log_prob(y), seen)}
        correct = _correct(p, y)
        if correct is not None:
            scores["accuracy"] = _mean(correct, seen)
        elif not is_circular(p) and (mean := _expectation(p)) is not None:
            scores["rmse"] = _mean((y.cpu().double() - mean.cpu().double()).square(), seen) ** 0.5
    return scores


def _unmasked(p: Any) -> tuple[Any, Tensor]:
    """The density without its mask, and where the mask lets labels through, of the batch shape."""
    seen = torch.ones(p.batch_shape, dtype=torch.bool, device="cpu")
    while isinstance(p, MaskedDistribution):
        seen = seen & torch.as_tensor(p._mask, device="cpu")
        p = p.base_dist
    inner = p
    while isinstance(inner, torch.distributions.Independent):
        inner = inner.base_dist
        if isinstance(inner, MaskedDistribution) and inner._mask is not True:
            raise ValueError("p: expected a mask of whole rows, got one of single outputs")
    return p, seen


def _check_support(p: Any, y: Tensor) -> None:
    """Refuse labels without a density, whether or not arguments are validated."""
    try:
        legal = p.support.check(y)
    except (NotImplementedError, RuntimeError):  # the latter where the bounds of a mixture are its components'
        return
    if legal.shape == p.batch_shape and not bool(legal.all()):
        got = name_rows(~legal.reshape(-1))
        raise ValueError(f"y: expected labels in the support of p, {p.support}, got others in {got}")


def _mean(values: Tensor, seen: Tensor) -> float:
    return float(values.cpu().double()[seen].mean())


def _expectation(p: Any) -> Tensor | None:
    try:
        mean: Tensor = p.mean
    except NotImplementedError:
        return None
    return mean


def _correct(p: Any, y: Tensor) -> Tensor | None:
    """Which class labels are the most probable one; None if y is no class label."""
    support = of_one(p.support)
    if support is constraints.boolean:
        return ((p.mean > 0.5) == (y > 0.5)) & ~p.mean.isnan()
    if support is constraints.one_hot:
        return (p.mean.argmax(-1) == y.argmax(-1)) & ~p.mean.isnan().any(-1)
    if not isinstance(support, constraints.integer_interval) or not bool(p.mean.isnan().all()):
        return None
    # Of the distributions over 0..C-1, those of class labels have no mean.
    return _class_probabilities(p).argmax(-1) == y


def _class_probabilities(p: Any) -> Tensor:
    """The probability of each class, of shape ``batch_shape + event_shape + (C,)``, each label on its own."""
    while isinstance(p, (torch.distributions.Independent, MaskedDistribution)):
        p = p.base_dist
    dim = -2 - len(p.event_shape)
    if isinstance(p, LinearPool):
        components: Any = p.components
        batched = isinstance(components, torch.distributions.Distribution)
        own = [_class_probabilities(c) for c in ([components] if batched else components)]
        return _mixed(p, p.weights, own[0] if batched else torch.stack(torch.broadcast_tensors(*own), dim))
    if isinstance(p, torch.distributions.MixtureSameFamily):
        return _mixed(p, p.mixture_distribution.probs, _class_probabilities(p.component_distribution))
    classes = p.enumerate_support(expand=False)
    shape = classes.shape[:1] + p.batch_shape + p.event_shape
    return p.log_prob(classes.expand(shape)).movedim(0, -1).exp()


def _mixed(p: Any, weights: Tensor, probabilities: Tensor) -> Tensor:
    """Probabilities of the classes, the components being along the dimension before the event's."""
    weights = weights.reshape(weights.shape + (1,) * (len(p.event_shape) + 1))
    return (weights * probabilities).sum(-2 - len(p.event_shape))
