"""Uncertain rows against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

import pyro_probmix as pm

LOGITS = {"in": 3 * torch.randn(400, 5, generator=torch.Generator().manual_seed(0)).double()}
LOGITS["out"] = torch.randn(300, 5, generator=torch.Generator().manual_seed(1)).double()


def expected(inside: Any, outside: Any) -> Any:
    scores, is_in = -np.concatenate([inside, outside]), np.repeat([1, 0], [len(inside), len(outside)])
    false, true, _ = roc_curve(is_in, scores, drop_intermediate=False)
    return pytest.approx({"auroc": roc_auc_score(is_in, scores), "fpr95": false[np.argmax(true >= 0.95)]}, rel=1e-12)


@pytest.mark.parametrize("score", [None, "max_probability", "entropy"])
def test_classes(score: str | None) -> None:
    probabilities = [LOGITS[name].softmax(-1) for name in ("in", "out")]
    if score == "entropy":
        uncertain = [-(p * p.log()).sum(-1) for p in probabilities]
    else:
        uncertain = [1 - p.amax(-1) for p in probabilities]
    p_in, p_out = (dist.Categorical(p) for p in probabilities)
    found = pm.ood_scores(p_in, p_out, score)
    assert found == expected(*uncertain)
    assert found["auroc"] > 0.8
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize("score", [None, "variance", "entropy"])
def test_numbers(score: str | None) -> None:
    scales = torch.linspace(0.1, 1, 100), torch.linspace(0.5, 2, 80)
    found = pm.ood_scores(*(dist.Normal(torch.zeros_like(s), s) for s in scales), score)
    assert found == expected(*scales)


def test_outputs_and_labels_of_a_row_count_together() -> None:
    scales = torch.rand(100, 2).double() + 0.1, torch.rand(80, 2).double() + 0.3
    found = pm.ood_scores(*(dist.Normal(0 * s, s).to_event(1) for s in scales))
    assert found == expected(*(s.square().sum(-1) for s in scales))
    shares = torch.rand(100, 2).double(), torch.rand(80, 2).double()
    found = pm.ood_scores(*(dist.Bernoulli(s).to_event(1) for s in shares))
    assert found == expected(*(-torch.maximum(s, 1 - s).log().sum(-1) for s in shares))


def test_perfect_chance_and_masked() -> None:
    near, far = (dist.Normal(torch.zeros(50), scale) for scale in (1.0, 2.0))
    assert pm.ood_scores(near, far) == {"auroc": 1.0, "fpr95": 0.0}
    assert pm.ood_scores(near, near) == {"auroc": 0.5, "fpr95": 1.0}  # all are as uncertain as the bound
    scale = torch.ones(50).index_fill(0, torch.tensor([3]), 9.0)
    seen = torch.arange(50) != 3
    assert pm.ood_scores(dist.Normal(torch.zeros(50), scale).mask(seen), far)["auroc"] == 1.0


@pytest.mark.parametrize(
    ("p_out", "score", "error", "message"),
    [
        (None, None, TypeError, "p_out: expected a distribution, got NoneType"),
        (dist.Normal(torch.zeros(2), 1.0), "margin", ValueError, 'score: expected one of "entropy", .*, got "margin"'),
        (
            dist.Normal(torch.zeros(2), 1.0),
            "max_probability",
            TypeError,
            'p_in: expected a distribution that has a "max',
        ),
        (
            dist.Normal(torch.zeros(2), torch.tensor([1, torch.nan]), validate_args=False),
            None,
            ValueError,
            "p_out: exp",
        ),
        (dist.Normal(torch.zeros(2), 1.0).mask(False), None, ValueError, "p_out: expected at least one row that is se"),
    ],
)
def test_bad_input(p_out: Any, score: str | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pm.ood_scores(dist.Normal(torch.zeros(2), 1.0), p_out, score)
