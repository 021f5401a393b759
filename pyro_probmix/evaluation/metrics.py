"""The registry of metrics: scores of a predictive density on held-out labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix._checks import check_choice, check_free, check_tensor
from pyro_probmix.distributions import class_probabilities
from pyro_probmix.distributions.supports import check_support, elementwise, is_binary, is_circular, is_one_hot
from pyro_probmix.mixing.batches import fill_missing
from pyro_probmix.ops.autocast import without_autocast

__all__ = ["METRICS", "Metric", "evaluate", "register_metric"]

Score = Callable[[Any, Tensor], Tensor | float | None]
Function = TypeVar("Function", bound=Score)

_UNITS = {"nats": "nats", "y": "units of the target", "y²": "squared units of the target", "": ""}


@dataclass(frozen=True)
class Metric:
    """A metric that has a name; :func:`register_metric` says what its fields are."""

    name: str
    function: Score
    units: str
    better: str
    label: str
    root: bool
    default: bool

    def rescaled(self, value: float, scale: float) -> float:
        """Its value for labels that are ``scale`` times as large, the density being that of these."""
        if self.units == "nats":
            return value + math.log(scale)
        return value * {"": 1.0, "y": scale, "y²": scale**2}[self.units]

    @property
    def lower_is_better(self) -> bool:
        """Whether lower values are better."""
        return self.better == "lower"

    @property
    def heading(self) -> str:
        """Its name in a table."""
        return f"{self.label} (nats)" if self.units == "nats" else self.label

    @property
    def axis(self) -> str:
        """Its name along an axis."""
        return f"{self.label} ({_UNITS[self.units]}), {self.better} is better".replace(" ()", "")


METRICS: dict[str, Metric] = {}
"""The metrics by name, in the order in which they have been registered."""


def register_metric(
    name: str,
    *,
    units: Literal["nats", "y", "y²", ""] = "",
    better: Literal["lower", "higher"] = "lower",
    label: str | None = None,
    root: bool = False,
    default: bool = True,
) -> Callable[[Function], Function]:
    """Function decorator: :func:`evaluate`, and tables and figures of experiments, know the metric by this name.

    The function takes a predictive distribution and labels, as :func:`evaluate` does, without masks. It returns what
    is averaged over the labels, a number for each row or for each of its labels, or one number for all rows, which is
    left out where rows are masked. It returns None, or raises ``NotImplementedError`` as a mean that is not known does,
    where it has no meaning.

    Args:
        name: name of the metric.
        units: of its values: ``"y"``, ``"y²"``, ``"nats"`` of the density of y, or ``""`` where the units of y do not
            matter. They tell how a value for standardised labels becomes one in the units of the data.
        better: ``"lower"`` or ``"higher"`` values.
        label: how tables and axes show it; default: its name, in capitals.
        root: whether it is the square root of the average.
        default: whether :func:`evaluate` gives it unasked.

    Raises:
        ValueError: if ``units`` or ``better`` is unknown, or another function has the name.

    Example:
        >>> @register_metric("absolute_error", units="y")
        ... def absolute_error(p, y):
        ...     return (y - p.mean).abs()
        >>> evaluate(dist.Normal(torch.zeros(2), 1.0), torch.tensor([1.0, -1.0]))
        {'nll': 1.418..., 'rmse': 1.0, 'absolute_error': 1.0}
        >>> del METRICS["absolute_error"]
    """
    check_choice("units", units, _UNITS)
    check_choice("better", better, ("lower", "higher"))

    def register(function: Function) -> Function:
        check_free("name", name, {key: metric.function for key, metric in METRICS.items()}, function)
        METRICS[name] = Metric(name, function, units, better, label or name.upper(), root, default)
        return function

    return register


@register_metric("nll", units="nats")
def _surprise(p: Any, y: Tensor) -> Tensor:
    return -p.log_prob(y)


@register_metric("accuracy", better="higher", label="accuracy")
def _correct(p: Any, y: Tensor) -> Tensor | None:
    """Which class labels are the most probable one; None if y is no class label."""
    if not _has_classes(p):
        return None
    if is_binary(p.support):
        return ((p.mean > 0.5) == (y > 0.5)) & ~p.mean.isnan()
    if is_one_hot(p.support):
        return (p.mean.argmax(-1) == y.argmax(-1)) & ~p.mean.isnan().any(-1)
    return class_probabilities(p).argmax(-1) == y


@register_metric("mse", units="y²", default=False)
@register_metric("rmse", units="y", root=True)
def _squared_error(p: Any, y: Tensor) -> Tensor | None:
    return None if _has_classes(p) or is_circular(p) else (y.cpu().double() - p.mean.cpu().double()).square()


def evaluate(p: Any, y: Tensor, metrics: Iterable[str | Metric] | None = None) -> dict[str, float]:
    r"""Negative log-likelihood, root-mean-square error or accuracy, and other metrics of a predictive density.

    :math:`\mathrm{nll} = -\frac1N\sum_i \log p(y_i|x_i)`; for numbers and counts
    :math:`\mathrm{rmse} = \sqrt{\frac1{ND}\sum_{i,d} (y_{id} - \mathbb{E}[y_{id}|x_i])^2}`, for classes the share of
    labels that are the most probable one (of several labels a row, each on its own). A label that ``p`` masks is left
    out. Angles, and families whose mean is not known, have the negative log-likelihood alone.

    Args:
        p: predictive distribution of batch shape ``(N,)``.
        y: labels, of shape ``(N,) + p.event_shape``, one-hot where ``p`` is.
        metrics: names of :data:`METRICS`; default: ``"nll"``, ``"rmse"`` and ``"accuracy"``, and what has been
            registered besides.

    Returns:
        ``{"nll": nats, "rmse": units of y}``, ``{"nll": nats, "accuracy": share}`` or ``{"nll": nats}``, and what has
        been registered besides and has a meaning for ``p``.

    Raises:
        TypeError: if ``p`` is not a distribution, or ``y`` no tensor.
        ValueError: if the shapes do not match, there are no labels, some are outside the support of ``p``, single
            outputs of a row are masked, or a metric is unknown.

    Example:
        >>> evaluate(dist.Normal(torch.zeros(2), 1.0), torch.tensor([1.0, -1.0]))
        {'nll': 1.418..., 'rmse': 1.0}
    """
    if not isinstance(p, torch.distributions.Distribution):
        raise TypeError(f"p: expected a distribution, got {type(p).__name__}")
    check_tensor("y", y, p.batch_shape + p.event_shape)
    chosen = [_metric(metric) for metric in metrics] if metrics is not None else METRICS.values()
    p, seen = _unmasked(p)
    if y.numel() == 0 or not bool(seen.any()):
        raise ValueError("y: expected at least one label, got none")
    with torch.no_grad(), without_autocast(y):
        if not bool(seen.all()):
            y = fill_missing(y, seen.to(y.device))
        check_support("y", y, p.support)
        if is_binary(p.support) and not y.is_floating_point():
            y = y.to(p.mean.dtype)  # PyTorch's Bernoulli takes no integers
        values = {m.name: _score(m, p, y, seen) for m in chosen if m.default or metrics is not None}
    return {name: value for name, value in values.items() if value is not None}


def _metric(metric: str | Metric) -> Metric:
    if isinstance(metric, Metric):
        return metric
    check_choice("metrics", metric, METRICS)
    return METRICS[metric]


def _score(metric: Metric, p: Any, y: Tensor, seen: Tensor) -> float | None:
    """The metric over the rows that are seen, or None where it has no meaning."""
    try:
        found = metric.function(p, y)
    except NotImplementedError:  # of a mean that is not known
        return None
    if found is None:
        return None
    values = torch.as_tensor(found, device="cpu").double()
    if values.shape[: seen.dim()] == seen.shape:
        values = values[seen]
    elif not bool(seen.all()):
        return None
    return float(values.mean()) ** (0.5 if metric.root else 1)


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


def _has_classes(p: Any) -> bool:
    """Whether y is a class label, or several: of the distributions over 0..C-1, those of class labels have no mean."""
    if isinstance(elementwise(p.support), constraints.integer_interval):
        return bool(p.mean.isnan().all())
    return is_binary(p.support) or is_one_hot(p.support)
