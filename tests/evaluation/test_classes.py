"""Calibration errors of classes against torchmetrics and by hand."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

import pyro_probmix as pm

N, CLASSES, BINS = 600, 4, 15
NAMES = ["ece", "ece_adaptive", "ece_classwise", "brier"]


def probabilities() -> Tensor:
    return (2 * torch.randn(N, CLASSES, dtype=torch.float64)).softmax(-1)


def test_class_wise() -> None:
    p, y = probabilities(), torch.randint(CLASSES, (N,))
    found = pm.evaluate(dist.Categorical(p), y, "ece_classwise")["ece_classwise"]
    each = [binary_calibration_error(p[:, k].contiguous(), (y == k).long(), n_bins=BINS).item() for k in range(CLASSES)]
    assert found == pytest.approx(np.mean(each), abs=1e-6)


def test_adaptive() -> None:
    p, y = probabilities(), torch.randint(CLASSES, (N,))
    confidence, label = p.max(-1)
    order = confidence.argsort()
    gaps = (confidence - (label == y).double())[order].reshape(BINS, N // BINS)
    found = pm.evaluate(dist.Categorical(p), y, "ece_adaptive")["ece_adaptive"]
    assert found == pytest.approx(gaps.mean(-1).abs().mean().item(), rel=1e-9)


def test_the_order_of_rows_does_not_matter_where_confidences_are_equal() -> None:
    p, y = probabilities()[torch.arange(N) % 7], torch.randint(CLASSES, (N,))
    order = torch.randperm(N)
    found, other = (pm.evaluate(dist.Categorical(p[i]), y[i], NAMES) for i in (torch.arange(N), order))
    assert found == pytest.approx(other, rel=1e-12)


def test_labels_drawn_from_the_probabilities_are_calibrated() -> None:
    p = (2 * torch.randn(20_000, CLASSES, dtype=torch.float64)).softmax(-1)
    y = dist.Categorical(p).sample()
    found = pm.evaluate(dist.Categorical(p), y, NAMES)
    assert max(found["ece"], found["ece_adaptive"], found["ece_classwise"]) < 0.02
    sharper = pm.evaluate(dist.Categorical(logits=1.5 * p.log()), y, NAMES)
    assert min(sharper["ece"], sharper["ece_adaptive"], sharper["ece_classwise"]) > 0.025
    assert sharper["brier"] > found["brier"]


@pytest.mark.faults("a probability above one by rounding")
def test_a_probability_above_one_by_rounding_changes_nothing() -> None:
    """torchmetrics takes all rows for logits then."""
    p, y = probabilities().float(), torch.randint(CLASSES, (N,))
    p[0] = torch.tensor([1.0, 0, 0, 0])
    before = pm.evaluate(dist.Categorical(p), y, NAMES)

    class Rounded(dist.Categorical):
        def log_prob(self, value: Tensor) -> Tensor:
            return super().log_prob(value) + 1.2e-7

    after = pm.evaluate(Rounded(p), y, NAMES)
    assert after == pytest.approx(before, abs=1e-6)


def test_bernoulli_is_two_classes() -> None:
    p, y = torch.rand(N, dtype=torch.float64), torch.randint(2, (N,))
    names = [*NAMES, "accuracy", "nll"]
    of_two = pm.evaluate(dist.Categorical(torch.stack([1 - p, p], -1)), y, names)
    assert pm.evaluate(dist.Bernoulli(p), y, names) == pytest.approx(of_two, rel=1e-9)


def test_masked_labels_do_not_count() -> None:
    p, y, seen = torch.rand(N, 3, dtype=torch.float64), torch.randint(2, (N, 3)), torch.rand(N, 3) > 0.5
    found = pm.evaluate(dist.Bernoulli(p).mask(seen).to_event(1), y, NAMES)
    assert found == pytest.approx(pm.evaluate(dist.Bernoulli(p[seen]), y[seen], NAMES), rel=1e-9)
