"""Replicas of ``pm.fit_replicas`` that stop while others go on."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

import pyro_probmix as pm
from tests.training.networks import FailingBeyond
from tests.training.products import Products
from tests.training.replica_cases import assert_as_fit, assert_same, data, fit_replicas, initial, maker


@pytest.mark.faults("steps on a non-finite loss")
@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("where", ["output", "gradient"])
def test_a_replica_that_fails_stops_alone(where: str, batch_size: int | None) -> None:
    """It keeps the parameters of its last finite step; the others stay bitwise what they would be."""

    def make_model(limits: list[float]) -> Callable[[int], Any]:
        return lambda r: pm.ERM(FailingBeyond(limits[r], where), pm.nn.NormalLikelihood(scale=1.0))

    own = [data(r) for r in range(3)]
    arguments: dict[str, Any] = {"epochs": 12, "batch_size": batch_size, "validation": [data(5)] * 3}
    healthy = fit_replicas(make_model([math.inf] * 3), own, **arguments)
    mixed = fit_replicas(make_model([math.inf, 0.09, math.inf]), own, **arguments)
    assert healthy.failed == {}
    (epoch,) = mixed.failed.values()
    assert list(mixed.failed) == [1]
    for r in (0, 2):
        assert mixed.histories[r] == healthy.histories[r]
        assert_same(mixed.models[r].decoder.linear, healthy.models[r].decoder.linear, rtol=0)
    assert mixed.histories[1].train_loss == healthy.histories[1].train_loss[:epoch]
    model = initial(make_model([math.inf, 0.09, math.inf]), 1)
    with pytest.raises(
        ValueError, match=f"loss: expected finite losses and gradients, got one that is not in epoch {epoch}, batch"
    ):
        pm.fit(model, own[1], seed=mixed.seeds[1], learning_rate=0.02, progress=False, epochs=12, batch_size=batch_size)
    assert_same(mixed.models[1], model)


def test_validation_that_is_never_finite() -> None:
    class Blind(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 1).double()
            self.register_buffer("factor", torch.tensor(factor))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) if self.training else self.linear(x) * self.factor

    def make_model(r: int) -> Any:
        return pm.ERM(Blind([1.0, math.nan][r]), pm.nn.NormalLikelihood(scale=1.0))

    own = [data(r) for r in range(2)]
    replicas = fit_replicas(make_model, own, validation=own)
    assert replicas.failed == {1: 0}
    model = initial(make_model, 1)
    pm.fit(model, own[1], seed=replicas.seeds[1], learning_rate=0.02, epochs=4, progress=False)
    assert_same(replicas.models[1].decoder.linear, model.decoder.linear)


def test_patience() -> None:
    """Validation on the opposite of the truth: a replica stops after its first epochs, the other goes on."""
    x, _ = data()
    y = x.sum(-1)

    def make_model(r: int) -> Any:
        network = nn.Linear(3, 1).double()
        nn.init.zeros_(network.weight)
        return pm.ERM(network, pm.nn.NormalLikelihood(scale=1.0))

    own, validation = [(x, y)] * 2, [(x, -5 * y), (x, y)]
    without = fit_replicas(make_model, own, validation=validation, epochs=30)
    replicas = fit_replicas(make_model, own, validation=validation, epochs=30, patience=3)
    lengths = [len(history.train_loss) for history in replicas.histories]
    assert lengths == [len(history.validation_loss) for history in replicas.histories] == [4, 30]
    assert replicas.histories[0].best_epoch == 0
    assert replicas.histories[1] == without.histories[1]
    for model, other in zip(replicas.models, without.models, strict=True):
        assert_same(model, other, rtol=0)
    alone = fit_replicas(make_model, own[:1], validation=validation[:1], epochs=100, patience=3)
    assert alone.histories[0] == replicas.histories[0]


def test_those_that_have_stopped_take_no_more_time() -> None:
    """Uneven data, noise and buffers: who is left goes on as if the others had never been there."""
    own = [(x, x.sum(-1)) for x, _ in (data(r, size) for r, size in enumerate((9, 12, 7, 11)))]
    validation = [(x, y if r == 2 else -5 * y) for r, (x, y) in enumerate(own)]
    options: dict[str, Any] = {"validation": validation, "batch_size": 4, "epochs": 12}

    def make_model(r: int) -> Any:
        encoder, decoder = nn.Linear(3, 2).double(), nn.Linear(2, 1).double()
        embedding = pm.nn.NormalEmbedding(encoder, 2, scale=0.1).double()
        return pm.ManifoldProbMix(embedding, decoder, pm.nn.NormalLikelihood(scale=1.0))

    whole = fit_replicas(make_model, own, **options)
    with Products() as products:
        replicas = fit_replicas(make_model, own, patience=2, **options)
    lengths = [len(history.train_loss) for history in replicas.histories]
    assert products.sizes == {4, 1}
    assert lengths[2] == 12 > max(lengths[:2] + lengths[3:])
    assert_same(replicas.models[2], whole.models[2])
    for history, other, length in zip(replicas.histories, whole.histories, lengths, strict=True):
        np.testing.assert_allclose(history.train_loss, other.train_loss[:length], rtol=1e-12)
        np.testing.assert_allclose(history.validation_loss, other.validation_loss[:length], rtol=1e-12)


def test_validation_every() -> None:
    own = [data(r) for r in range(2)]
    every = fit_replicas(maker(), own, validation=own, epochs=8)
    third = fit_replicas(maker(), own, validation=own, epochs=8, validation_every=3)
    for history, other in zip(third.histories, every.histories, strict=True):
        assert history.train_loss == other.train_loss
        assert history.validation_loss == [other.validation_loss[epoch] for epoch in (2, 5, 7)]
        best = min(range(3), key=history.validation_loss.__getitem__)
        assert history.best_epoch == (2, 5, 7)[best]


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_number_of_epochs_each(num_workers: int, validated: bool) -> None:
    """Each ends as it would alone, in whatever order they stop and also where the longest is in another chunk."""
    own = [data(r, size) for r, size in enumerate((9, 12, 7, 11))]
    held_out = [data(5)] * 4 if validated else None
    epochs = [5, 1, 9, 2]
    options: dict[str, Any] = {"epochs": epochs, "batch_size": 4}
    replicas = fit_replicas(
        maker("ManifoldProbMix"), own, validation=held_out, num_workers=num_workers, chunk_size=2, **options
    )
    assert [len(history.train_loss) for history in replicas.histories] == epochs
    assert_as_fit(replicas, maker("ManifoldProbMix"), own, held_out, **options)


def test_the_last_epoch_of_each_is_validated() -> None:
    """Of the others it is none that counts: an epoch is chosen, and patience ends, at a validation of their own."""

    def noise(seed: int, size: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(size, 2, generator=generator), torch.randn(size, generator=generator)

    def make_model(r: int) -> Any:
        likelihood = pm.nn.NormalLikelihood()
        return pm.ERM(pm.nn.MLP(2, [16], likelihood.num_outputs), likelihood)

    own, held_out = [noise(r, 12) for r in range(3)], [noise(r + 10, 6) for r in range(3)]
    epochs = [14, 6, 19]
    options: dict[str, Any] = {"validation": held_out, "validation_every": 4, "patience": 2, "learning_rate": 0.1}
    together = fit_replicas(make_model, own, epochs=epochs, **options)
    for r, end in enumerate(epochs):
        alone = fit_replicas(make_model, own, epochs=end, **options)
        assert together.histories[r].validation_loss == pytest.approx(alone.histories[r].validation_loss, rel=1e-5)
        assert len(together.histories[r].train_loss) == len(alone.histories[r].train_loss)
        assert together.histories[r].best_epoch == alone.histories[r].best_epoch


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_bar_counts_the_epochs_of_each_chunk(num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr("pyro_probmix.training.replicas.tqdm", Bar)
    fit_replicas(maker(), [data()] * 4, epochs=[5, 1, 3, 4], chunk_size=2, num_workers=num_workers)
    assert [(bar.n, bar.total) for bar in bars] == [(9, 9)]
