"""Validation losses: rows with weights, and noise that takes bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pyro_probmix as pm
from pyro_probmix.training import stacked_steps, validation
from pyro_probmix.training.history import VALIDATION_SAMPLES
from tests.training.replica_cases import assert_as_fit, data, fit_replicas, initial, maker


@pytest.mark.parametrize("method", ["ERM", "ProbMix"])
@pytest.mark.parametrize("sizes", [[6, 6], [4, 9]])
def test_rows_of_weight_two_are_validated_as_two(sizes: list[int], method: str) -> None:
    make_model, own = maker(method), [data(0), data(1)]
    weighted, repeated = [], []
    for r, size in enumerate(sizes):
        x, y = data(7 + r, size)
        weight = torch.tensor([2, 1, 0] * size)[:size]
        weighted.append((x, y, 0.1 * weight.double()))
        repeated.append((x.repeat_interleave(weight, 0), y.repeat_interleave(weight, 0)))
    found = fit_replicas(make_model, own, validation=weighted)
    assert_as_fit(found, make_model, own, weighted)
    expected = fit_replicas(make_model, own, validation=repeated)
    for ours, theirs in zip(found.histories, expected.histories, strict=True):
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-9)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(3), r"validation weight: expected shape \(12,\), got \(3,\)"),
        (-torch.ones(12), "validation weight: expected numbers of at least 0"),
        (torch.full((12,), torch.nan), "validation weight: expected finite values"),
    ],
)
def test_what_is_no_weight_is_refused(weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pm.fit(maker()(0), data(), validation=(*data(3), weight), epochs=1, progress=False)


@pytest.mark.parametrize("num_bytes", [1, 2**23])
@pytest.mark.parametrize("sizes", [[5, 5], [3, 8]])
def test_rows_behind_those_with_noise_have_it_again(sizes: list[int], num_bytes: int, monkeypatch: Any) -> None:
    make_model, own = maker("ManifoldProbMix"), [data(0), data(1)]
    width = initial(make_model, 0).encoder.event_shape.numel()
    monkeypatch.setattr(validation, "NOISE_AT_ONCE", 4 * VALIDATION_SAMPLES * width)  # of four rows
    monkeypatch.setattr(stacked_steps, "VALIDATED_AT_ONCE", (num_bytes, num_bytes))
    held_out = [data(7 + r, size) for r, size in enumerate(sizes)]
    found = fit_replicas(make_model, own, validation=held_out, epochs=1)
    assert_as_fit(found, make_model, own, held_out, epochs=1)
    for (x, y), model, history in zip(held_out, found.models, found.histories, strict=True):
        noise = validation.validation_noise(model, x)
        assert noise is not None
        rows = torch.arange(len(x)) % noise.shape[1]
        p = model.predictive(x, VALIDATION_SAMPLES, noise=noise[:, rows])
        assert history.validation_loss[0] == pytest.approx(-float(p.log_prob(y).mean().detach()), rel=1e-6)
