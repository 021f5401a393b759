"""Scores of a predictive density on held-out labels, by their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, overload

import numpy as np
import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix._checks import check_choice
from pyro_probmix.evaluation import calibration_errors, classes, scores
from pyro_probmix.evaluation.labels import as_labels
from pyro_probmix.evaluation.probability_transform import transforms
from pyro_probmix.evaluation.ranked_probability import ranked_probability_score
from pyro_probmix.evaluation.registry import METRICS, Metric, find_metric, register_metric
from pyro_probmix.ops.autocast import without_autocast
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["evaluate"]

register_metric("nll", units="nats")(scores.surprise)
register_metric("crps", units="y")(ranked_probability_score)
register_metric("rmse", units="y", root=True)(scores.squared_error)
register_metric("mse", units="y²", default=False)(scores.squared_error)
register_metric("mae", units="y", default=False)(scores.absolute_error)
register_metric("pinball", units="y", label="pinball loss", default=False)(scores.pinball_loss)
register_metric("interval_score", units="y", label="interval score", default=False)(scores.interval_score)
register_metric("coverage", better="level", label="coverage", default=False)(calibration_errors.coverage)
register_metric("width", units="y", label="width", default=False)(calibration_errors.width)
register_metric("pit", label="PIT distance", default=False, summary=calibration_errors.distance_from_uniform)(
    transforms
)
register_metric("qce", default=False, summary=calibration_errors.quantile_calibration_error)(transforms)
register_metric("sharpness", units="y", label="sharpness", default=False)(calibration_errors.standard_deviation)
register_metric("energy_score", units="y", label="energy score", default=False)(scores.energy_score)
register_metric("accuracy", better="higher", label="accuracy")(classes.correct)
register_metric("brier", label="Brier score")(classes.brier_score)
register_metric("ece", summary=classes.calibration_error)(classes.confidences)
register_metric("ece_adaptive", label="adaptive ECE", default=False, summary=classes.adaptive_calibration_error)(
    classes.confidences
)
register_metric("ece_classwise", label="class-wise ECE", default=False, summary=classes.classwise_calibration_error)(
    classes.probabilities_by_class
)

Names = str | Metric | Iterable[str | Metric] | None


@overload
def evaluate(p: Any, y: Any, metrics: Names = None, reduction: Literal["mean"] = "mean") -> dict[str, float]: ...
@overload
def evaluate(p: Any, y: Any, metrics: Names = None, *, reduction: Literal["none"]) -> dict[str, Tensor]: ...
def evaluate(p: Any, y: Any, metrics: Names = None, reduction: str = "mean") -> dict[str, Any]:
    r"""Scores of a predictive density on held-out labels.

    A label that ``p`` masks is left out: the negative log-likelihood of a row is that of the outputs that are seen, and
    the others average over them.

    ==================  =================================================================================  ========
    name                of what, averaged over rows and outputs                                            units
    ==================  =================================================================================  ========
    ``nll``             :math:`-\log p(y_i|x_i)` of a row, all its outputs together                        nats
    ``crps``            :func:`~pyro_probmix.evaluation.crps` of each output by its marginal               of y
    ``rmse``, ``mse``   squared distance from the mean; its root after averaging                           of y, y²
    ``mae``             distance from the median                                                           of y
    ``pinball``         :math:`(1\{y < q\} - l)(q - y)` of the quantile q of level l, by default 0.5        of y
    ``interval_score``  width of the central interval of level l, by default 0.9, and                      of y
                        :math:`\frac{2}{1 - l}` times how far y is outside
    ``coverage``        whether y is in that interval; of counts it may hold more than its level           share
    ``width``           its width                                                                          of y
    ``pit``             distance of :func:`~pyro_probmix.evaluation.pit` from uniform, by Kolmogorov and
                        Smirnov: :math:`\sup_u |F_n(u) - u|`
    ``qce``             \|share of y below a quantile − its level\|, on average over 0.05, 0.1, …, 0.95
    ``sharpness``       predictive standard deviation                                                      of y
    ``energy_score``    :math:`\mathbb{E}\|Y - y\| - \frac12 \mathbb{E}\|Y - Y'\|` of vectors, from 1000     of y
                        seeded draws, unbiased
    ``accuracy``        whether the class is the most probable one                                         share
    ``brier``           :math:`\sum_c (p_c - 1\{y = c\})^2`, halved where there are two classes
    ``ece``             \|mean confidence − accuracy\| in 15 bins of equal width, by their shares
    ``ece_adaptive``    the same in 15 bins of as nearly equal numbers of labels as ties allow
    ``ece_classwise``   the same of the probability of each class, the mean over the classes
    ==================  =================================================================================  ========

    Args:
        p: predictive distribution, of batch shape ``(N,)`` mostly; several outputs are event dimensions. Or those of
            slices of the rows, one after another, of which one is in memory at a time.
        y: labels, of shape ``p.batch_shape + p.event_shape``, one-hot where ``p`` is: a tensor, or anything NumPy takes
            for an array. Those that are masked may be NaN.
        metrics: names of :data:`METRICS`, a level in (0, 1) behind an @ where a metric has one; or metrics themselves,
            such as ``METRICS.values()``, of which those that do not fit ``p`` are left out. Default: of ``"nll"``,
            ``"crps"``, ``"rmse"``, ``"accuracy"``, ``"brier"``, ``"ece"`` and what has been registered besides, those
            that fit.
        reduction: ``"mean"`` for one number a metric; ``"none"`` for one a row, the average over its outputs that are
            seen, NaN if none is. What is no average of rows, as the calibration errors and the RMSE, has none.

    Returns:
        Numbers by name, in the order asked for; or tensors of ``p.batch_shape``, in double precision on the CPU.

    Raises:
        TypeError: if ``p`` is neither a distribution nor several, or ``y`` holds no numbers.
        ValueError: if the shapes do not match, no label is seen, one is not finite or outside the support of ``p``, a
            metric is unknown or has no such level, or one asked for does not fit ``p``, or has no rows.

    Example:
        >>> p, y = dist.Normal(torch.zeros(2), 1.0), torch.tensor([1.0, -1.0])
        >>> evaluate(p, y)
        {'nll': 1.418..., 'crps': 0.602..., 'rmse': 1.0}
        >>> evaluate(p, y, ["nll", "mse"], reduction="none")["mse"]
        tensor([1., 1.], dtype=torch.float64)
    """
    check_choice("reduction", reduction, ("mean", "none"))
    if metrics is None:
        metrics = [metric for metric in METRICS.values() if metric.default]
    if isinstance(metrics, (str, Metric)):
        metrics = [metrics]
    if not isinstance(metrics, Iterable):
        raise TypeError(f"metrics: expected names of metrics, got {metrics!r}")
    wanted = list(metrics)
    chosen = [find_metric(metric, "metrics") for metric in wanted]
    found = [_Found(metric, isinstance(given, str)) for metric, given in zip(chosen, wanted, strict=True)]
    by_row = reduction == "none"
    with torch.no_grad():
        if isinstance(p, (Distribution, Tensor)) or not isinstance(p, Iterable):
            _look(found, p, y, by_row)
        else:
            first, labels = 0, y if isinstance(y, (Tensor, np.ndarray)) else np.asarray(y)
            for one in p:
                if not isinstance(one, Distribution):
                    raise TypeError(f"p: expected distributions of slices of the rows, got {type(one).__name__}")
                last = first + int(one.batch_shape[0])
                _look(found, one, labels[first:last], by_row)
                first = last
            if first != len(labels):
                raise ValueError(f"y: expected the {first} labels of the slices of p, got {len(labels)}")
        return {one.metric.name: one.result(by_row) for one in found if one.parts}


class _Found:
    """A metric, and what it has been of the slices so far.

    Args:
        metric: the metric.
        is_asked: whether it has to fit, having been asked for by name.
    """

    def __init__(self, metric: Metric, is_asked: bool) -> None:
        self.metric, self.is_asked, self.whole = metric, is_asked, False
        self.parts: list[Tensor] = []

    def look(self, p: Any, y: Tensor, seen: Tensor, by_row: bool) -> None:
        """Takes its values of a slice; ``NotImplementedError`` with the reason where it has no meaning."""
        metric = self.metric
        if by_row and (metric.root or metric.summary):
            raise NotImplementedError("it is no average of values of single rows")
        if self.whole:
            raise NotImplementedError("it is one number for all rows, which come in slices")
        values = metric.values(p, y)
        if values is None:
            raise NotImplementedError(f"it has no meaning for {type(p).__name__}")
        values, rows = torch.as_tensor(values, device="cpu").double(), len(p.batch_shape)
        if values.shape[: seen.dim()] != seen.shape:
            if values.shape[:rows] != p.batch_shape:
                if by_row:
                    raise NotImplementedError("it is one number for all rows")
                if not bool(seen.all()):
                    raise NotImplementedError("it is one number for all rows, of which some labels are masked")
                if self.parts:
                    raise NotImplementedError("it is one number for all rows, which come in slices")
                self.whole = True
                self.parts.append(values)
                return
            seen = seen.any(dim=tuple(range(rows, seen.dim())))
        if by_row:
            seen = unsqueeze_right(seen, values.dim() - seen.dim()).expand(values.shape)
            self.parts.append(_sum_after(values.where(seen, 0), rows) / _sum_after(seen, rows))
        else:
            self.parts.append(values[seen])

    def result(self, by_row: bool) -> Any:
        """One number of all slices, or one a row."""
        values = self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)
        if by_row:
            return values
        summary = None if self.whole else self.metric.summary
        return float(values.mean() if summary is None else summary(values)) ** (0.5 if self.metric.root else 1)


def _look(found: list[_Found], p: Any, y: Any, by_row: bool) -> None:
    """Takes the values of a slice of all metrics that fit it."""
    y, seen = as_labels(p, y)
    while isinstance(p, MaskedDistribution):
        p = p.base_dist
    for one in list(found):
        try:
            with without_autocast(y):
                one.look(p, y, seen, by_row)
        except (NotImplementedError, TypeError) as error:
            if isinstance(error, TypeError) and not str(error).startswith("p: "):
                raise
            if one.is_asked:
                why = str(error).removeprefix("p: ") or f"it is not known of {type(p).__name__}"
                raise ValueError(f'metrics: expected ones that fit p, got "{one.metric.name}": {why}') from error
            found.remove(one)


def _sum_after(values: Tensor, dims: int) -> Tensor:
    """The sum over all dimensions after these."""
    return values.unsqueeze(-1).flatten(dims).sum(-1)
