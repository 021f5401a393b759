"""The objectives of the risk, from the log-probabilities of samples and edges."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from pyro_probmix._checks import check_choice
from pyro_probmix.models.mixing import Edges, Labels

__all__ = ["OBJECTIVES", "Objective", "labels_of", "reduce", "weighted_mean"]

Objective = Literal["expected-log", "log-expected", "log-expected-graph"]
OBJECTIVES = get_args(Objective)


def labels_of(objective: Objective, labels: Labels | None) -> Labels | None:
    """How labels are treated: as asked for, None being the model's own way, or as the objective needs it."""
    check_choice("objective", objective, OBJECTIVES)
    if labels is not None:
        check_choice("labels", labels, get_args(Labels))
    if objective == "expected-log":
        return labels
    if labels == "exact":
        raise ValueError(
            f'labels: expected "sample" with objective="{objective}", got "exact": the label is inside the logarithm'
        )
    return "sample"


def reduce(log_prob: Tensor, objective: Objective, edges: Edges) -> Tensor:
    """An objective from the log-probabilities, of shape ``(B,)`` or ``(S, B)``, of samples of the edges.

    What is not observed has log-probability zero; where densities are added it is left out.
    """
    log_shares, share = edges.log_shares, edges.share
    if objective == "expected-log":
        if log_shares is not None:
            log_prob = (log_shares.exp().to(log_prob).unsqueeze(-1) * log_prob).sum(0)
        return weighted_mean(log_prob, share)
    log_prob = log_prob.reshape(-1, log_prob.shape[-1])
    shares = -math.log(len(log_prob)) if log_shares is None else log_shares.to(log_prob).unsqueeze(-1)
    terms = (log_prob + shares).logsumexp(0)
    if objective == "log-expected":
        return weighted_mean(terms, share)
    if share is None:
        share = terms.new_full(terms.shape, 1 / len(terms))
    counted = share > 0 if edges.observed is None else edges.observed & (share > 0)
    nothing = ~counted.any()  # and a sum of nothing has no logarithm
    part = torch.where(counted, share, 0)
    part = torch.where(nothing, 1, part * (share.sum() / torch.where(nothing, 1, part.sum())))
    return torch.where(nothing, 0, (terms + part.log()).logsumexp(0))


def weighted_mean(values: Tensor, share: Tensor | None) -> Tensor:
    """Mean over samples and nodes of ``values``, of shape ``(..., B)``; a node of share 0 counts for nothing."""
    if share is None:
        return values.mean()
    total = (torch.where(share == 0, 0, values) * share).sum(-1)
    return total.mean()
