"""Scores of class probabilities: accuracy, Brier score, calibration errors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_probmix.distributions import class_probabilities
from pyro_probmix.distributions.supports import is_one_hot
from pyro_probmix.evaluation.labels import check_classes

__all__ = [
    "adaptive_calibration_error",
    "brier_score",
    "calibration_error",
    "classwise_calibration_error",
    "confidences",
    "correct",
    "probabilities_by_class",
]

NUM_BINS = 15


def _scored(p: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities in double precision, none above one by rounding, and the positions of the classes that came."""
    check_classes(p)
    probabilities = class_probabilities(p).cpu().double().clamp(max=1)
    y = y.cpu()
    return probabilities, y.argmax(-1) if is_one_hot(p.support) else y.long()


def correct(p: Any, y: Tensor) -> Tensor:
    """Which labels are the most probable class."""
    probabilities, label = _scored(p, y)
    return (probabilities.argmax(-1) == label) & ~probabilities.isnan().any(-1)


def brier_score(p: Any, y: Tensor) -> Tensor:
    r""":math:`\sum_c (p_c - 1\{y = c\})^2`, halved where there are two classes, as scikit-learn has it."""
    probabilities, label = _scored(p, y)
    hits = torch.nn.functional.one_hot(label, probabilities.shape[-1])
    return (probabilities - hits).square().sum(-1) * (0.5 if probabilities.shape[-1] == 2 else 1)


def confidences(p: Any, y: Tensor) -> Tensor:
    """The probability of the most probable class, and whether it came, along a last dimension."""
    probabilities, label = _scored(p, y)
    confidence, chosen = probabilities.max(-1)
    return torch.stack([confidence, (chosen == label).double()], -1)


def probabilities_by_class(p: Any, y: Tensor) -> Tensor:
    """The probability of each class, and whether it came, along a last dimension."""
    probabilities, label = _scored(p, y)
    hits = torch.nn.functional.one_hot(label, probabilities.shape[-1]).double()
    return torch.stack([probabilities, hits], -1)


def calibration_error(values: Tensor) -> Tensor:
    """|mean probability − share that came| in 15 bins of equal width, averaged by how many are in each.

    Args:
        values: probabilities and whether what they are of came, of shape ``(..., 2)``.
    """
    probability = values[..., 0].flatten().contiguous()
    edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=probability.dtype, device=probability.device)[1:-1]
    return _mean_gap(values, torch.bucketize(probability, edges, right=True))


def adaptive_calibration_error(values: Tensor) -> Tensor:
    """As :func:`calibration_error`, in 15 bins of as nearly equal numbers of labels as equal probabilities allow."""
    probability = values[..., 0].flatten().contiguous()
    ordered, size = probability.sort().values, len(probability)
    first = torch.arange(1, NUM_BINS, device=probability.device) * size // NUM_BINS
    return _mean_gap(values, torch.bucketize(probability, ordered[first], right=True))


def classwise_calibration_error(values: Tensor) -> Tensor:
    """The mean over the classes of :func:`calibration_error` of the probabilities of each.

    Args:
        values: of shape ``(..., number of classes, 2)``.
    """
    return torch.stack([calibration_error(own) for own in values.unbind(-2)]).mean()


def _mean_gap(values: Tensor, bins: Tensor) -> Tensor:
    gaps = values[..., 0] - values[..., 1]
    return values.new_zeros(NUM_BINS).index_add(0, bins, gaps.flatten()).abs().sum() / gaps.numel()
