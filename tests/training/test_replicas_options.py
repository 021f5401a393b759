"""``pm.fit_replicas``' options are those of ``pm.fit``: each replica ends as it would alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.training import load_checkpoint
from tests.training.networks import FailingBeyond
from tests.training.products import Products
from tests.training.replica_cases import assert_as_fit, assert_same, data, fit_replicas, initial, maker

SIZES = [12, 9, 11]
OWN = [data(r, size) for r, size in enumerate(SIZES)]
HELD_OUT = [data(10 + r, 5) for r in range(3)]


def weights() -> list[Tensor]:
    """Of each row, one of them zero."""
    return [torch.linspace(0, 2, size).double() for size in SIZES]


def masks(*event: int) -> list[Tensor]:
    return [torch.rand(size, *event, generator=torch.Generator().manual_seed(size)) < 0.7 for size in SIZES]


OPTIONS: dict[str, dict[str, Any]] = {
    "weight": {"weight": weights()},
    "weight of some": {"weight": [None, weights()[1], None]},
    "mask": {"mask": masks()},
    "weight and mask": {"weight": weights(), "mask": masks()},
    "log-expected": {"objective": "log-expected", "num_samples": 3},
    "log-expected, weighted": {"objective": "log-expected", "num_samples": 3, "weight": weights(), "mask": masks()},
    "over the graph": {"objective": "log-expected-graph", "num_samples": 3, "weight": weights(), "mask": masks()},
    "clipping": {"max_grad_norm": 0.1},
    "annealing": {"coefficient": lambda epoch: dist.Beta(0.1 + epoch, 0.1 + epoch)},
    "annealed nodes": {"coefficient": lambda epoch: pm.GaussJacobi(0.2 + epoch, num_nodes=2 + epoch % 2)},
    "patience": {"patience": 1, "epochs": 12, "learning_rate": 0.3},
    "validation now and then": {"validation_every": 3, "patience": 2, "epochs": 11, "learning_rate": 0.2},
}


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("method", ["ProbMix", "ManifoldMixup"])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_that_of_fit(name: str, method: str, batch_size: int | None) -> None:
    options = {"batch_size": batch_size, **OPTIONS[name]}
    make_model = maker(method, vicinity=pm.NormalVicinity(0.1))
    replicas = fit_replicas(make_model, OWN, validation=HELD_OUT, **options)
    assert_as_fit(replicas, make_model, OWN, HELD_OUT, **options)


def test_masks_of_outputs() -> None:
    own = [data(r, size, "normals") for r, size in enumerate(SIZES)]
    masked = masks(*own[0][1].shape[1:])
    replicas = fit_replicas(maker("ProbMix", "normals"), own, mask=masked, batch_size=5)
    assert_as_fit(replicas, maker("ProbMix", "normals"), own, mask=masked, batch_size=5)


@pytest.mark.parametrize("method", ["ERM", "ProbMix", "ManifoldProbMix"])
def test_autocast_is_that_of_fit(method: str) -> None:
    """Up to the rounding of half precision; matrices are multiplied in it, but in validation."""
    own = [(x.float(), y.float()) for x, y in (data(r, 40) for r in range(2))]
    make_model = maker(method, dtype=torch.float32)
    options: dict[str, Any] = {"validation": own, "epochs": 30, "learning_rate": 0.01}
    with Products() as products:
        cast = fit_replicas(make_model, own, precision=torch.bfloat16, **options)
    assert products.dtypes == {torch.bfloat16, torch.float32}
    for r, history in enumerate(cast.histories):
        alone = initial(make_model, r)
        options = {"validation": own[r], "epochs": 30, "learning_rate": 0.01, "progress": False}
        expected = pm.fit(alone, own[r], seed=cast.seeds[r], precision=torch.bfloat16, **options)
        assert history.train_loss == pytest.approx(expected.train_loss, abs=0.05)
        assert history.validation_loss == pytest.approx(expected.validation_loss, abs=0.05)


class Choosy(nn.Module):
    """A network that fails where the first row of a batch is in a band."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1).double()
        self.register_buffer("band", torch.tensor([low, high]))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.linear(x)
        inside = (x[:1, 0].abs() > self.band[0]) & (x[:1, 0].abs() < self.band[1])
        return self.linear(x) * torch.where(inside, math.nan, 1.0)


@pytest.mark.faults("steps on a non-finite loss")
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_skipped_steps_are_as_if_they_had_not_been(ema_decay: float | None) -> None:
    """Of each replica: which steps these are follows from the first row of the batch."""

    def make_model(r: int) -> Any:
        return pm.ERM(Choosy([0.0, 0.3, 0.5][r], [0.0, 0.8, 0.9][r]), pm.nn.NormalLikelihood(scale=1.0))

    options: dict[str, Any] = {"batch_size": 4, "epochs": 6, "non_finite": "skip", "ema_decay": ema_decay}
    replicas = fit_replicas(make_model, OWN, **options)
    assert replicas.failed == {}
    skipped = [history.skipped_steps for history in replicas.histories]
    assert skipped[0] == 0 < min(skipped[1:])
    assert_as_fit(replicas, make_model, OWN, **options)


def test_one_step_too_many_stops_a_replica() -> None:
    def make_model(r: int) -> Any:
        return pm.ERM(FailingBeyond(0.09 if r == 1 else math.inf, "gradient"), pm.nn.NormalLikelihood(scale=1.0))

    options: dict[str, Any] = {"epochs": 20, "batch_size": 5}
    at_once = fit_replicas(make_model, OWN, **options)
    later = fit_replicas(make_model, OWN, non_finite="skip", max_skipped=4, **options)
    assert list(at_once.failed) == list(later.failed) == [1]
    assert later.failed[1] > at_once.failed[1]
    assert later.histories[1].skipped_steps == 5
    assert_same(later.models[1], at_once.models[1], rtol=0)  # once it fails it stays where it is


# Checkpoints.


RESUMED: dict[str, dict[str, Any]] = {
    "plain": {},
    "no validation": {"validation": None},
    "average": {"ema_decay": 0.9},
    "average, no validation": {"ema_decay": 0.9, "validation": None},
    "patience": {"patience": 1, "learning_rate": 0.3},
    "bfloat16": {"precision": torch.bfloat16},
    "skipping": {"non_finite": "skip"},
    "annealing": {"coefficient": lambda epoch: dist.Beta(0.1 + epoch, 0.1 + epoch)},
}


@pytest.mark.faults("resume that forgets")
@pytest.mark.parametrize("name", RESUMED)
def test_n_and_n_epochs_are_2n_epochs(name: str, tmp_path: Path) -> None:
    """Bit by bit, in two chunks, whatever the random state of the user; networks have dropout."""

    def make_model(r: int) -> Any:
        encoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5))
        return pm.ManifoldProbMix(pm.nn.NormalEmbedding(encoder, 8), nn.Linear(8, 2), pm.nn.NormalLikelihood())

    own, held_out = ([(x.float(), y.float()) for x, y in rows] for rows in (OWN, HELD_OUT))
    options: dict[str, Any] = {"validation": held_out, "batch_size": 5, "chunk_size": 2, **RESUMED[name]}
    expected = fit_replicas(make_model, own, epochs=9, **options)
    fit_replicas(make_model, own, epochs=5, checkpoint_dir=tmp_path, **options)
    assert [load_checkpoint(tmp_path / f"chunk_{k}.pt").epoch <= 5 for k in range(2)] == [True] * 2
    torch.manual_seed(123)
    resumed = fit_replicas(make_model, own, epochs=9, checkpoint_dir=tmp_path, resume=True, **options)
    assert resumed.histories == expected.histories
    again = fit_replicas(make_model, own, epochs=9, checkpoint_dir=tmp_path, resume=True, **options)
    assert again.histories == expected.histories
    for replicas in (resumed, again):
        for ours, theirs in zip(replicas.models, expected.models, strict=True):
            assert_same(ours, theirs, rtol=0)


def test_those_that_have_stopped_and_gone_are_resumed_too(tmp_path: Path) -> None:
    own = [(x, x.sum(-1)) for x, _ in (data(r) for r in range(4))]
    validation = [(x, y if r == 2 else -5 * y) for r, (x, y) in enumerate(own)]

    def make_model(r: int) -> Any:
        return pm.ERM(nn.Linear(3, 1).double(), pm.nn.NormalLikelihood(scale=1.0))

    options: dict[str, Any] = {"validation": validation, "patience": 2, "learning_rate": 0.05}
    expected = fit_replicas(make_model, own, epochs=20, **options)
    fit_replicas(make_model, own, epochs=10, checkpoint_dir=tmp_path, **options)
    assert len(load_checkpoint(tmp_path / "chunk_0.pt").history["finished"]) == 3
    resumed = fit_replicas(make_model, own, epochs=20, checkpoint_dir=tmp_path, resume=True, **options)
    assert resumed.histories == expected.histories
    for ours, theirs in zip(resumed.models, expected.models, strict=True):
        assert_same(ours, theirs, rtol=0)


def test_those_that_have_gone_keep_their_law_where_others_are_resumed(tmp_path: Path) -> None:
    epochs = [2, 3, 6]
    options: dict[str, Any] = {"epochs": epochs, "checkpoint_dir": tmp_path, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        fit_replicas(maker(), OWN, coefficient=stops_at(5), **options)
    assert len(load_checkpoint(tmp_path / "chunk_0.pt").history["finished"]) == 2
    resumed = fit_replicas(maker(), OWN, coefficient=stops_at(6), resume=True, **options)
    assert [model.coefficient.concentration1.item() for model in resumed.models] == epochs


def stops_at(last: int) -> Any:
    def law(epoch: int) -> dist.Beta:
        if epoch == last:
            raise KeyboardInterrupt
        return dist.Beta(1.0 + epoch, 1.0)

    return law


@pytest.mark.faults("resume that forgets")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "replica 0.seed: expected .*chunk_0.pt was written, got"),
        ({"learning_rate": 0.1}, r"replica 0.optimizer: expected .*0\.02.*, got .*0\.1"),
        ({"chunk_size": 1}, r"replicas: expected \[0, 1, 2\], .*, got \[0\]"),
        ({"objective": "log-expected"}, "replica 0.objective: expected expected-log, .*, got log-expected"),
        ({"patience": 3}, "replica 0.patience: expected none, .*, got 3"),
        ({"epochs": 2}, "epochs: expected at least 4, which the checkpoint has, got 2"),
        ({"resume": False}, r"checkpoint_dir: .*chunk_0\.pt would be lost; pass resume=True"),
        ({"checkpoint_dir": None}, "checkpoint_dir: expected a folder to resume from, got None"),
    ],
)
def test_other_settings_are_refused_and_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint_dir": tmp_path, "validation": HELD_OUT}
    fit_replicas(maker(), OWN, **options)
    with pytest.raises(ValueError, match=message):
        fit_replicas(maker(), OWN, **options | {"resume": True} | changed)


def test_a_law_of_the_epoch_is_kept_by_each_model() -> None:
    def law(epoch: int) -> Any:
        return dist.Beta(1.0 + epoch, 1.0 + epoch)

    replicas = fit_replicas(maker(), OWN, coefficient=law, epochs=[2, 5, 3])
    assert [float(model.coefficient.concentration1) for model in replicas.models] == [2.0, 5.0, 3.0]
