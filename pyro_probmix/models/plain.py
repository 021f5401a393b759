"""The risk without Pyro: its statements, and its objectives."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix.mixing import PairBatch
from pyro_probmix.models.lazy import from_noise
from pyro_probmix.models.mixing import Labels, Mixing, check_labels
from pyro_probmix.ops.autocast import without_autocast

__all__ = ["OBJECTIVES", "Objective", "PlainStatements", "labels_of", "reduce", "weighted_mean"]

Objective = Literal["expected-log", "log-expected", "log-expected-graph"]
OBJECTIVES = get_args(Objective)


class PlainStatements:
    """Pyro's statements as the risk needs them: mix, draw, and keep the observed log-probability."""

    def __init__(
        self,
        mixing: Mixing,
        batch: PairBatch,
        num_samples: int,
        labels: Labels | None,
        coefficient: Tensor | None,
        noise: Tensor | None,
        label: Tensor | None,
    ) -> None:
        self.mixing, self.batch, self.labels = mixing, batch, labels
        self.noise, self.label = noise, label
        self.shape = (len(batch),) if num_samples == 1 else (num_samples, len(batch))
        self.coefficient: Any = None
        if mixing.coefficient is not None:
            drawn = mixing.coefficients(batch.x, self.shape) if coefficient is None else coefficient
            self.coefficient = drawn if drawn.shape == self.shape else drawn.expand(self.shape)

    def deterministic(self, name: str, value: Tensor, event_dim: int) -> Tensor:
        if self.mixing.at != name:
            return value
        return self.mixing.interpolate(value, self.batch.partner, self.coefficient, -1 - event_dim)

    def sample(self, name: str, p: Any, obs: Tensor | None = None) -> Tensor:
        p, value = self.mixing.statement(
            name, p, obs, self.batch, self.coefficient, labels=self.labels, label=self.label
        )
        if value is None:
            p = p if p.batch_shape == self.shape else p.expand(self.shape)
            return p.rsample() if self.noise is None else from_noise(p, self.noise)
        # torch.compile cannot follow Pyro's Categorical, which asks whether the value is one it has enumerated.
        cls = torch.distributions.Categorical if type(p) is dist.Categorical else type(p)
        with without_autocast(value):
            self.log_prob = cls.log_prob(p, value)
        return value


def weighted_mean(values: Tensor, share: Tensor | None) -> Tensor:
    """Mean over samples and nodes of ``values``, of shape ``(..., B)``; a node of share 0 counts for nothing."""
    if share is None:
        return values.mean()
    total = (torch.where(share == 0, 0, values) * share).sum(-1)
    return total.mean()


def reduce(
    log_prob: Tensor,
    objective: Objective,
    log_shares: Tensor | None,
    share: Tensor | None,
    observed: Tensor | None = None,
) -> Tensor:
    """An objective from the log-probabilities, of shape ``(..., B)``, of samples and nodes with their shares.

    What is not ``observed``, of shape ``(B,)``, has log-probability zero; where densities are added it is left out.
    """
    if objective == "expected-log":
        if log_shares is not None:
            log_prob = (log_shares.exp().to(log_prob).unsqueeze(-1) * log_prob).sum(0)
        return weighted_mean(log_prob, share)
    log_prob = log_prob.reshape(-1, log_prob.shape[-1])
    shares = -math.log(len(log_prob)) if log_shares is None else log_shares.to(log_prob).unsqueeze(-1)
    edges = (log_prob + shares).logsumexp(0)
    if objective == "log-expected":
        return weighted_mean(edges, share)
    if share is None:
        share = edges.new_full(edges.shape, 1 / len(edges))
    counted = share > 0 if observed is None else observed & (share > 0)
    nothing = ~counted.any()  # and a sum of nothing has no logarithm
    part = torch.where(counted, share, 0)
    part = torch.where(nothing, 1, part * (share.sum() / torch.where(nothing, 1, part.sum())))
    return torch.where(nothing, 0, (edges + part.log()).logsumexp(0))


def labels_of(objective: Objective, labels: Labels | None) -> Labels | None:
    """How labels are treated: as asked for, None being the model's own way, or as the objective needs it."""
    if objective not in OBJECTIVES:
        expected = ", ".join(f'"{name}"' for name in OBJECTIVES)
        raise ValueError(f"objective: expected one of {expected}, got {objective!r}")
    if labels is not None:
        check_labels(labels)
    if objective == "expected-log":
        return labels
    if labels == "exact":
        raise ValueError(
            f'labels: expected "sample" with objective="{objective}", got "exact": the label is inside the logarithm'
        )
    return "sample"
