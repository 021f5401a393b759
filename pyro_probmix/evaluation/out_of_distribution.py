"""How well the uncertainty of predictions tells inputs of another kind from those like the training data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix._checks import check_choice, check_finite
from pyro_probmix._imports import imported
from pyro_probmix.distributions import entropy
from pyro_probmix.distributions.classes import class_log_probabilities
from pyro_probmix.evaluation.labels import has_classes, seen_labels, unmasked

__all__ = ["ood_scores"]


def ood_scores(p_in: Any, p_out: Any, score: str | None = None) -> dict[str, float]:
    """How well the uncertainty of a row tells whether its input is of another kind than the training data.

    ``auroc`` is the probability that a row of ``p_out`` is more uncertain than one of ``p_in``, half of it for ties: 1
    is perfect, 0.5 is chance. ``fpr95`` is the share of rows of ``p_out`` that are not more uncertain than the least
    bound that accepts 95 % of those of ``p_in``: 0 is perfect, 0.95 is chance.

    Args:
        p_in: predictive distribution of inputs like the training data, of batch shape ``(N,)``.
        p_out: that of other inputs, of batch shape ``(M,)``.
        score: what the uncertainty is: ``"entropy"``, of the density of a row, in nats; for classes
            ``"max_probability"``, minus the logarithm of that of the most probable class, summed over labels; for
            numbers ``"variance"``, summed over outputs. Default: ``"max_probability"`` for classes, else
            ``"variance"``.

    Returns:
        ``{"auroc": share, "fpr95": share}``. Rows that are masked are left out; masks of single outputs do not count.

    Raises:
        TypeError: if one is not a distribution, one is of classes and the other not, or they have no such score.
        NotImplementedError: if the variance or the entropy is not known.
        ValueError: if there is no such score, no row is seen, or an uncertainty is NaN or infinite.

    Source:
        Hendrycks and Gimpel (2017), A baseline for detecting misclassified and out-of-distribution examples.

    Example:
        >>> near, far = dist.Normal(torch.zeros(50), 1.0), dist.Normal(torch.zeros(40), torch.linspace(0.9, 3, 40))
        >>> pm.ood_scores(near, far)
        {'auroc': 0.95, 'fpr95': 0.05}
    """
    if score is not None:
        check_choice("score", score, SCORES)
    for name, p in (("p_in", p_in), ("p_out", p_out)):
        if not isinstance(p, Distribution):
            raise TypeError(f"{name}: expected a distribution, got {type(p).__name__}")
    classes = has_classes(p_in)
    if has_classes(p_out) != classes:
        kind = "classes" if classes else "numbers"
        raise TypeError(f"p_out: expected a distribution over {kind} as p_in is, got {type(p_out).__name__}")
    chosen = score or ("max_probability" if classes else "variance")
    if chosen == ("variance" if classes else "max_probability"):
        raise TypeError(f'p_in: expected a distribution that has a "{chosen}" to score, got {type(p_in).__name__}')
    inside, outside = _uncertainty("p_in", p_in, chosen), _uncertainty("p_out", p_out, chosen)
    is_out = np.repeat([0, 1], [len(inside), len(outside)])
    auroc = imported("sklearn.metrics").roc_auc_score(is_out, torch.cat([inside, outside]).numpy())
    bound = inside.sort().values[-(-len(inside) * 95 // 100) - 1]
    return {"auroc": float(auroc), "fpr95": float((outside <= bound).double().mean())}


def _uncertainty(name: str, p: Any, score: str) -> Tensor:
    """Of the rows that are seen, in double precision on the CPU."""
    seen = seen_labels(p)
    seen = seen.unsqueeze(-1).flatten(len(p.batch_shape)).any(-1)
    if not bool(seen.any()):
        raise ValueError(f"{name}: expected at least one row that is seen, got none")
    with torch.no_grad():
        found = SCORES[score](unmasked(p)).cpu().double()[seen]
    check_finite(name, found)
    return found


def _entropy(p: Any) -> Tensor:
    if not has_classes(p):
        return entropy(p)
    logs = class_log_probabilities(p)
    return _sum_over_labels(p, -torch.xlogy(logs.exp(), logs.exp()).sum(-1))


def _rarity(p: Any) -> Tensor:
    return _sum_over_labels(p, -class_log_probabilities(p).amax(-1))


def _variance(p: Any) -> Tensor:
    return _sum_over_labels(p, p.variance)


def _sum_over_labels(p: Any, values: Tensor) -> Tensor:
    return values.unsqueeze(-1).flatten(len(p.batch_shape)).sum(-1)


SCORES: dict[str, Callable[[Any], Tensor]] = {
    "entropy": _entropy,
    "max_probability": _rarity,
    "variance": _variance,
}
