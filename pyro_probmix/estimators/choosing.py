"""The likelihood that describes held-out targets best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from pyro_probmix.estimators.members import Members, in_few_threads
from pyro_probmix.estimators.targets import Target

__all__ = ["best", "held_out_nll"]

_ROWS_AT_ONCE = 1024


def best(
    targets: Sequence[Target], trained: Callable[[Target], Members], num_samples: int
) -> tuple[Target, Members, dict[str, float]]:
    """The target whose members have the least negative log-likelihood on the rows that they held back.

    One of several that the method does not take, or whose losses do not stay finite, is left out; the only one, or the
    first where none is left, is an error.

    Returns:
        The target, its members, and the negative log-likelihood of each target by its name, where there are several.
    """
    if len(targets) == 1:
        return targets[0], trained(targets[0]), {}
    found: dict[str, float] = {}
    chosen: tuple[Target, Members] | None = None
    errors = []
    for target in targets:
        try:
            members = trained(target)
        except (TypeError, ValueError) as error:
            errors.append(error)
            continue
        nll = held_out_nll(target, members, num_samples)
        if np.isfinite(nll) and (chosen is None or nll < min(found.values())):
            chosen = target, members
        found[str(target.name)] = nll
    if chosen is None:
        raise errors[0] if errors else ValueError("likelihood: expected finite scores on the rows held back, got none")
    return *chosen, found


@torch.no_grad()
def held_out_nll(target: Target, members: Members, num_samples: int) -> float:
    """The negative log-likelihood of the rows held back, in nats of the target's own units."""
    scores, weights = [], []
    for model, rows in zip(members.models, members.held_out, strict=True):
        with in_few_threads(model):
            for x, y in zip(rows.x.split(_ROWS_AT_ONCE), rows.y.split(_ROWS_AT_ONCE), strict=True):
                log_prob = model.predictive(x, num_samples).log_prob(y).double()
                scores.append((target.log_jacobian(y) - log_prob).cpu())
        weights.append(torch.ones(len(rows)) if rows.weight is None else rows.weight.cpu())
    return float(np.average(torch.cat(scores), weights=torch.cat(weights)))
