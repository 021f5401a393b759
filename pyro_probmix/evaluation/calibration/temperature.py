"""Temperature scaling."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix._checks import name_rows
from pyro_probmix.distributions import class_log_probabilities
from pyro_probmix.distributions.exponential_family import resolved, unwrapped, validates
from pyro_probmix.distributions.mixtures import mixture_of
from pyro_probmix.distributions.supports import is_binary, is_one_hot, num_classes
from pyro_probmix.evaluation.calibration.held_out import Calibration
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["TemperatureScaling"]

COLDEST, HOTTEST = 0.01, 100.0


class TemperatureScaling(Calibration):
    r"""Class probabilities of one temperature, chosen on held-out rows.

    .. math:: \tilde p(y = c) \propto p(y = c)^{1/T}

    T has the lowest mean NLL of the n held-out labels, of each of which a share of 1 / (n + 1) is spread evenly over
    the classes that are possible: so much could any label be any class, and few rows whose most probable class is right
    do not make T zero. The NLL is convex in 1/T, so the zero of its slope is found exactly; it is held between 0.01 and
    100. The most probable class, and so the accuracy, stays. Of a pool the mixed probabilities are changed.

    Attributes:
        temperature: T; above 1 where p is too sure.
        num_rows: number of rows that it was fitted on.

    Raises:
        TypeError: by ``fit``, if p is no distribution, or of numbers.
        ValueError: by ``fit``, if shapes do not match, or a label is NaN, outside the support, or missing.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017); Platt, "Probabilistic Outputs for Support
    Vector Machines" (1999), for targets that are not quite 0 and 1.

    Example:
        >>> logits = 3 * torch.eye(2)[[0, 1, 0, 1]]
        >>> scaling = pm.TemperatureScaling().fit(dist.Categorical(logits=logits), torch.tensor([0, 1, 0, 0]))
        >>> scaling.temperature
        3.5406...
        >>> scaling(dist.Categorical(logits=logits)).probs[0]
        tensor([0.7000, 0.3000])
    """

    takes = "classes"
    instead = "VarianceScaling and IsotonicRecalibration are for numbers"

    temperature: float

    def _fit(self, p: Any, y: Tensor, seen: Tensor) -> None:
        logs = _log_probabilities(p)
        label = (y.argmax(-1) if is_one_hot(p.support) else y).long()
        seen = unsqueeze_right(seen, label.dim() - seen.dim()).expand(label.shape)
        logs, label = logs.detach().double().cpu()[seen], label.cpu()[seen]
        own = logs.gather(-1, label.unsqueeze(-1)).squeeze(-1)
        impossible = ~(own > -torch.inf)
        if bool(impossible.any()):
            raise ValueError(f"y: expected labels of positive probability, got others in {name_rows(impossible)}")
        possible = logs > -torch.inf
        evenly = torch.where(possible, logs, 0).sum(-1) / possible.sum(-1)
        target = own + (evenly - own) / (len(own) + 1)

        def slope(coldness: float) -> float:
            """Of the mean NLL, by 1/T."""
            mass = (coldness * logs).softmax(-1)
            return float(((mass * torch.where(mass > 0, logs, 0)).sum(-1) - target).mean())

        self.temperature = 1 / _zero(slope, 1 / HOTTEST, 1 / COLDEST)

    def _apply(self, p: Any) -> Any:
        options: dict[str, Any] = {"validate_args": validates(p)}
        logits = _log_probabilities(p) / self.temperature
        if is_binary(p.support):
            return dist.Bernoulli(logits=logits[..., 1] - logits[..., 0], **options).to_event(len(p.event_shape))
        if is_one_hot(p.support):
            return dist.OneHotCategorical(logits=logits, **options).to_event(len(p.event_shape) - 1)
        return dist.Categorical(logits=logits, **options).to_event(len(p.event_shape))

    def _targets(self, p: Any) -> str:
        return f"{num_classes(p)} classes and {super()._targets(p)}"


def _log_probabilities(p: Any) -> Tensor:
    """Of each class; refused of a pool of several labels, which would lose their dependence."""
    if mixture_of(resolved(unwrapped(p))) is not None and len(p.event_shape) > is_one_hot(p.support):
        got = f"{type(p).__name__} of event shape {tuple(p.event_shape)}"
        raise ValueError(f"p: expected one label a row, or independent ones, got {got}; take marginals(p)")
    return class_log_probabilities(p)


def _zero(slope: Any, low: float, high: float) -> float:
    """Where an increasing function is zero, or the nearest end; 1 where it is zero all over."""
    from scipy.optimize import brentq  # here, for it is slow to import

    if slope(low) >= 0:
        return 1.0 if slope(high) <= 0 else low
    return high if slope(high) <= 0 else float(brentq(slope, low, high, xtol=1e-14, rtol=1e-14))
