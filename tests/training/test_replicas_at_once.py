"""How many replicas are trained, and how many of their rows validated, at once."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import pyro_probmix as pm
from pyro_probmix.training import chunks, stacked_steps
from pyro_probmix.training import replicas as module
from tests.models import cases
from tests.training.replica_cases import assert_as_fit, computations, data, fit_replicas, maker


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
            patch.setattr(stacked_steps, "VALIDATED_AT_ONCE", (num_bytes, num_bytes))
            replicas = fit_replicas(make_model, own, validation=validation)
        assert_as_fit(replicas, make_model, own, validation)


def test_memory_bounds_how_many_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [data(r) for r in range(5)]
    assert computations(maker(), own) == 1
    assert computations(maker(), own, chunk_size=3) == 2
    monkeypatch.setattr(chunks, "MEMORY", 1)
    assert computations(maker(), own) == 5


def test_memory_bounds_how_many_all_workers_train_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [data(r) for r in range(10)]
    low, high = 1, 2**20  # of memory for one, and for two
    while high - low > 1:
        monkeypatch.setattr(chunks, "MEMORY", (low + high) // 2)
        low, high = (low, chunks.MEMORY) if computations(maker(), own[:2]) == 1 else (chunks.MEMORY, high)
    seen: list[list[int]] = []

    def in_this_process(function: Any, items: Any, num_workers: int) -> Any:
        seen.append([len(chunk.replicas) for chunk in items])
        return ((number, function(chunk)) for number, chunk in enumerate(items))

    monkeypatch.setattr(module, "in_workers", in_this_process)
    for size, at_once in ((9, 4), (3, 4), (10, 8)):
        monkeypatch.setattr(chunks, "MEMORY", at_once * high // 2)
        fit_replicas(maker(), own[:size], num_workers=2)
    assert seen == [[2, 2, 2, 2, 1], [2, 1], [3, 3, 3, 1]]


def test_noise_of_ones_own_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of the validation is one for all replicas with as many rows; others hold theirs beside it."""
    monkeypatch.setattr(chunks, "MEMORY", 300_000)  # the noise of 500 rows takes more
    own = [data(r) for r in range(2)]
    found = []
    for sizes in ([500, 500], [500, 4], [4, 500]):  # all are padded to the longest
        validation = [data(r, size) for r, size in enumerate(sizes)]
        found.append(computations(maker("ManifoldProbMix"), own, validation=validation))
    assert found == [1, 2, 2]


def test_wide_rows_are_validated_a_few_at_once() -> None:
    """A row keeps at least the ten thousand numbers of the wide layer, and 100 such rows fill what is done at once."""

    def make_model(r: int) -> Any:
        layers = [nn.Linear(cases.FEATURES, 10_000), nn.ReLU(), nn.Linear(10_000, 2)]
        wide = nn.Sequential(*layers).double().requires_grad_(False)
        wide[2].bias.requires_grad_(True)
        return pm.ProbMix(wide, pm.nn.NormalLikelihood())

    validation = [data(1, 300)]
    assert computations(maker(), [data()], training=False, validation=validation) == 1
    assert 3 <= computations(make_model, [data()], training=False, validation=validation) <= 9
