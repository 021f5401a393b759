"""How many replicas are trained, and how many of their rows validated, at once."""

from __future__ import annotations

import pytest
from torch import nn

import pyro_probmix as pm
from pyro_probmix.training import _chunk, _replica
from pyro_probmix.training import replicas as replicas_module
from tests.models import cases
from tests.training.replica_cases import assert_as_fit, data, fit_replicas, maker


@pytest.mark.parametrize("likelihood", ["normal", "categorical"])
@pytest.mark.parametrize("num_bytes", [1, 2**13, 2**16])
@pytest.mark.parametrize("method", ["ERM", "ManifoldProbMix"])
def test_validation_in_blocks(method: str, num_bytes: int, likelihood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a row or several, some of them padding, give the loss of all rows at once."""
    make_model = maker(method, likelihood)
    own = [data(r, likelihood=likelihood) for r in range(4)]
    for sizes in ([4, 9, 1, 6], [5, 5, 5, 5]):
        validation = [data(10 + r, size, likelihood) for r, size in enumerate(sizes)]
        with monkeypatch.context() as patch:
            patch.setattr(_replica, "_VALIDATED_AT_ONCE", (num_bytes, num_bytes))
            replicas = fit_replicas(make_model, own, validation=validation)
        assert_as_fit(replicas, make_model, own, validation)


def test_memory_bounds_how_many_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    train = _chunk._train
    monkeypatch.setattr(_chunk, "_train", lambda chunk, *rest: (sizes.append(len(chunk)), train(chunk, *rest)))
    own = [data(r) for r in range(5)]
    fit_replicas(maker(), own)
    fit_replicas(maker(), own, chunk_size=3)
    monkeypatch.setattr(replicas_module, "MEMORY", 1)
    fit_replicas(maker(), own)
    assert sizes == [5, 3, 2, 1, 1, 1, 1, 1]


def test_noise_of_ones_own_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of the validation is one for all replicas with as many rows; others hold theirs beside it."""
    found: list[int] = []
    at_once = replicas_module._num_at_once
    monkeypatch.setattr(replicas_module, "_num_at_once", lambda *a: found.append(at_once(*a)) or found[-1])
    own = [data(r) for r in range(2)]
    for sizes in ([500, 500], [500, 4], [4, 500]):  # all are padded to the longest
        fit_replicas(maker("ManifoldProbMix"), own, validation=[data(r, size) for r, size in enumerate(sizes)])
    assert found[1] == found[2] < found[0] / 2


def test_wide_rows_are_validated_a_few_at_once() -> None:
    narrow = _replica._row_bytes(maker()(0), *data())
    wide = (
        nn.Sequential(nn.Linear(cases.FEATURES, 10_000), nn.ReLU(), nn.Linear(10_000, 2)).double().requires_grad_(False)
    )
    model = pm.ProbMix(wide, pm.nn.NormalLikelihood())
    assert 8 * 10_000 <= _replica._row_bytes(model, *data()) < 3 * 8 * 10_000
    assert narrow < 8 * 100
