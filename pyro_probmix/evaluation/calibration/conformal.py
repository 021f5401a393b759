"""Conformal prediction intervals."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_probmix._checks import check_choice, check_number
from pyro_probmix.distributions import marginals, median
from pyro_probmix.distributions.cumulative.scalar import law_of, scalar_icdf
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.evaluation.calibration.held_out import Calibration, of_output
from pyro_probmix.evaluation.ranked_probability import crps
from pyro_probmix.ops.roots import bracketed_root, least_integer

__all__ = ["ConformalInterval"]

ROUNDING = 1e-14
ROUNDS = 60  # of doubling
EDGE = 1e-9  # of the way from the median to the end of the support, left out as the end may be no value


class ConformalInterval(Calibration):
    r"""Intervals that hold a new label with a given probability, whatever is wrong with the density.

    .. math:: P\bigl(y_{n+1} \in [\mathtt{lower}, \mathtt{upper}]\bigr) \ge \mathtt{level}

    Split conformal prediction: an interval holds the values that score no worse than the ⌈(n + 1) level⌉-th best of n
    held-out labels. If these and the new row are exchangeable it holds its label at the level on average over both,
    not for each x, and by at most 1/(n + 1) more often if scores do not tie. Where ⌈(n + 1) level⌉ > n there is no such
    score: intervals are the whole support then, which for a Normal is infinite. Several outputs have an interval each.

    Args:
        level: in (0, 1).
        score: ``"cdf"``: :math:`|F(y) - \frac12|`, so that intervals are central ones of another level; for counts the
            distance of ½ from the step of F at y. ``"crps"``: the CRPS of y, which is convex in y; where even the
            median scores worse, the interval is the median alone.

    Attributes:
        threshold: the score that is met, of shape ``event_shape`` and in float64; infinite where rows are too few.
        num_rows: number of rows that it was fitted on.

    Raises:
        TypeError: if the level is no number.
        ValueError: if it is not in (0, 1), or there is no such score.

    Source: Chernozhukov, Wüthrich and Zhu, "Distributional conformal prediction" (2021); Lei et al.,
        "Distribution-Free Predictive Inference for Regression" (2018).

    Example:
        >>> p, y = dist.Normal(torch.zeros(19), 1.0), torch.linspace(-4.5, 4.5, 19)  # far too sure
        >>> lower, upper = pm.ConformalInterval(0.9).fit(p, y)(dist.Normal(torch.zeros(2), 1.0))
        >>> lower, upper
        (tensor([-4.5000, -4.5000]), tensor([4.5000, 4.5000]))
    """

    takes = "numbers or counts"
    instead = "classes and angles have no interval"

    threshold: Tensor

    def __init__(self, level: float, score: Literal["cdf", "crps"] = "cdf") -> None:
        self.level = check_number("level", level, "(0, 1)")
        check_choice("score", score, ("cdf", "crps"))
        self.score = score

    def _fit(self, p: Any, y: Tensor, seen: Tensor) -> None:
        with torch.no_grad():
            scores = _step_distance(marginals(p), y) if self.score == "cdf" else crps(marginals(p), y)
        met = [self._met(own) for own in of_output(scores.double(), seen, p.event_shape)]
        self.threshold = torch.tensor(met, dtype=torch.float64, device="cpu").reshape(p.event_shape)

    def _met(self, scores: Tensor) -> float:
        rank = math.ceil(round((len(scores) + 1) * self.level, 9))  # (9 + 1) · 0.7 is 7, not 7.000000000000001
        return math.inf if rank > len(scores) else float(scores.kthvalue(rank).values)

    def _apply(self, p: Any) -> tuple[Tensor, Tensor]:
        own = marginals(p)
        like = reference_tensor([own])
        threshold = self.threshold.to(like.device)
        with torch.no_grad():
            ends = _by_levels(own, threshold) if self.score == "cdf" else (_end(own, threshold, s) for s in (-1, 1))
            lower, upper = (end.to(like.dtype) for end in ends)
        return lower, upper

    def _masked(self, result: Any, mask: Any) -> Any:
        return result


def _step_distance(own: Any, y: Tensor) -> Tensor:
    """How far ½ is from F(y), or from the step of F at a count."""
    law, y = law_of(own), y.double()
    if not law.integers:
        return (law.cdf(y) - 0.5).abs()
    return torch.maximum(0.5 - law.cdf(y), law.cdf(y - 1) - 0.5).clamp(min=0)


def _by_levels(own: Any, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Between which values F, or its step at a count, is no farther from ½ than the threshold."""
    law, reach = law_of(own), threshold.clamp(max=0.5).expand(own.batch_shape)
    lower, upper = law.icdf(0.5 - reach), law.icdf(0.5 + reach)
    if law.integers:  # by rounding, F of the one before may have reached the level, or may not
        reach = reach + ROUNDING
        low, high = law.bounds()
        lower = torch.maximum(low, torch.where(law.cdf(lower - 1) >= 0.5 - reach, lower - 1, lower))
        upper = torch.minimum(high, torch.where(law.cdf(upper) <= 0.5 + reach, upper + 1, upper))
    return lower, upper


def _end(own: Any, threshold: Tensor, side: int) -> Tensor:
    """The farthest value below (side −1) or above (side 1) the median whose CRPS is no more than the threshold."""
    center, limit = median(own), scalar_icdf(own, torch.full_like(threshold, (side + 1) / 2))
    limit = limit.expand(center.shape)
    goal = threshold.expand(center.shape)
    discrete, goal = bool(own.support.is_discrete), goal.masked_fill(goal == math.inf, 0)
    room = (limit - center).abs().double()
    reach = room if discrete else room * (1 - EDGE)

    def score(distance: Tensor) -> Tensor:
        return crps(own, center + side * torch.minimum(distance, reach)).double()

    outside = torch.where(goal > 0, goal, 1).ceil() if discrete else torch.where(goal > 0, goal, 1)
    for _ in range(ROUNDS):
        inside = score(outside) <= goal
        if not bool((inside & (outside < reach)).any()):
            break
        outside = torch.where(inside, 2 * outside, outside)
    if discrete:
        distance = (least_integer(lambda k: score(k) > goal, 0 * outside - 1, outside, True) - 1).clamp(min=0)
    else:
        distance = bracketed_root(lambda d: score(d) - goal, 0 * outside, outside)
    end = center + side * torch.minimum(distance, room)
    return torch.where(inside | (threshold == math.inf), limit, end)
