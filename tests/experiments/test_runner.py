"""Validation rows choose, test rows are looked at once, members hold back different rows, and failures are named."""

from __future__ import annotations

import functools
import os
import signal
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from joblib import parallel_config

from pyro_probmix import fit_replicas
from pyro_probmix.datasets import Dataset, load, stock_split, uci_splits
from pyro_probmix.experiments import METHODS, ExperimentSettings, Method
from pyro_probmix.experiments.runner import Cell, Runner, metrics_for, score
from pyro_probmix.experiments.settings import Candidate
from pyro_probmix.experiments.splits import make_split

FAST, LAZY = Candidate(0.05, 64, 0.1, 1e-5), Candidate(1e-9, 128, 0.5, 0.1)
SMALL = ExperimentSettings(hidden_features=(8, 4), splits=2, epochs=4, num_samples=3, validation_every=2)


@dataclass(frozen=True)
class Recorded(Method):
    """A method that keeps what it is given and makes, and spoils some of its models."""

    rows: list = field(default_factory=list)
    models: list = field(default_factory=list)
    spoilt: tuple[int, ...] = ()
    always_the_same: bool = False

    def make_model(self, data, settings):
        if self.always_the_same:
            torch.manual_seed(0)
        model = super().make_model(data, settings)
        first = next(model.parameters())
        if len(self.models) in self.spoilt:
            torch.nn.init.constant_(first, torch.nan)
        self.models.append(first.detach().clone())
        return model

    def graph(self, x, num_neighbors):
        self.rows.append(x)
        return super().graph(x, num_neighbors)


def recorded(name="erm", **options) -> Recorded:
    method = METHODS[name]
    return Recorded(method.name, method.fuses, method.model, method.local, **options)


def wavy(rows: int = 300, splitting="random") -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3))
    return Dataset("wavy", x, np.sin(2 * x[:, 0]) + 0.3 * rng.normal(size=rows), "regression", splitting=splitting)


def train(data: Dataset, method: Method | str, settings: ExperimentSettings, **options) -> dict[str, list[float]]:
    method = METHODS[method] if isinstance(method, str) else method
    return Runner().train(Cell(data.name, method.name, data, method, settings, seed=0, **options)).metrics


def test_test_rows_choose_nothing():
    data = wavy(splitting="last")  # of which all splits are tested on the same rows
    candidates = (FAST, replace(FAST, learning_rate=0.04), replace(FAST, learning_rate=0.07))
    settings = replace(SMALL, splits=6, candidates=candidates)
    y = data.y.copy()
    y[stock_split(len(data))[1]] *= -3.0
    found = train(data, "manifold_probmix", settings)
    spoilt = train(replace(data, y=y), "manifold_probmix", settings)
    assert len(set(found["candidate"])) > 1
    assert spoilt["candidate"] == found["candidate"]
    assert min(np.subtract(spoilt["nll"], found["nll"])) > 0


def test_the_candidate_with_the_lowest_validation_loss_is_chosen():
    found = train(wavy(), "manifold_probmix", replace(SMALL, candidates=(LAZY, FAST)))
    alone = train(wavy(), "manifold_probmix", replace(SMALL, candidates=(FAST,)))
    assert found["candidate"] == [1, 1]
    assert alone == {**found, "candidate": [0, 0]}


def test_one_candidate_is_the_settings_themselves():
    found = train(wavy(), "probmix", replace(SMALL, candidates=(FAST,)))
    plain = train(wavy(), "probmix", replace(SMALL, learning_rate=0.05, batch_size=64, alpha=0.1, beta=1e-5))
    assert found == {**plain, "candidate": [0, 0]}


def test_without_held_out_rows_the_last_epoch_is_kept():
    data, settings = (
        load("toy-regression"),
        replace(SMALL, validation_fraction=0.0, standardise=False, learning_rate=1.0),
    )
    splits = [make_split(data, index, 0, 0.0, standardise=False) for index in range(2)]
    replicas = fit_replicas(
        lambda r: METHODS["erm"].make_model(data, settings),
        [split.train for split in splits],
        epochs=4,
        learning_rate=1.0,
        progress=False,
    )
    expected = [score([replicas.models[k]], splits[k], 3, metrics_for(data)) for k in range(2)]
    found = train(data, "erm", settings)
    assert list(found) == ["nll", "crps", "rmse", "mse"]
    assert found == {metric: [metrics[metric] for metrics in expected] for metric in found}


def as_sets(rows: list[torch.Tensor]) -> list[set]:
    return [{tuple(row) for row in x.tolist()} for x in rows]


def test_members_hold_back_different_rows():
    method = recorded("manifold_probmix")
    train(wavy(), method, replace(SMALL, candidates=(FAST,), members=3), chosen=[0, 0])
    trained = as_sets(method.rows)
    assert len(trained) == 6
    for index, own in enumerate((trained[:3], trained[3:])):
        split = make_split(wavy(), index, 0, 0.0)
        whole = {tuple(row) for row in split.train[0].tolist()}
        held_back = [whole - rows for rows in own]
        assert all(len(rows) == round(0.2 * len(whole)) for rows in held_back)
        assert all(not a & b for i, a in enumerate(held_back) for b in held_back[:i])


def by_hand(data, method, settings, splits, epochs=None):
    """Full-batch ERM, whose random numbers are its first parameters alone."""
    return fit_replicas(
        lambda r: method.make_model(data, settings),
        [split.train for split in splits],
        validation=None if epochs else [split.validation for split in splits],
        epochs=epochs or settings.epochs,
        learning_rate=settings.learning_rate,
        ema_decay=settings.ema_decay,
        progress=False,
    )


@pytest.mark.parametrize("members", [None, 3])
def test_what_is_chosen_is_trained_anew_on_all_rows(members):
    """For the epochs chosen, a member for those that its own validation rows chose; what is scored is that."""
    data, method, size = wavy(60), recorded(always_the_same=True), members or 1
    plain = ExperimentSettings(hidden_features=(8, 4), splits=2, epochs=40, learning_rate=0.1, ema_decay=0.5)
    candidates = (Candidate(1e-9, None, 0.2, 0.01), Candidate(0.1, None, 0.2, 0.01))
    settings = replace(plain, candidates=candidates, members=size, refit=True)
    found = train(data, method, settings, chosen=members and [1, 1])
    folds = [make_split(data, k // size, 0, 0.2, k % size) for k in range(2 * size)]
    epochs = [history.best_epoch + 1 for history in by_hand(data, method, plain, folds).histories]
    assert min(epochs) < 40
    assert len(set(epochs)) > 1
    whole = [make_split(data, index, 0, 0.0) for index in range(2)]
    models = by_hand(data, method, plain, [whole[k // size] for k in range(2 * size)], epochs).models
    expected = [score(models[size * k : size * (k + 1)], whole[k], 100, metrics_for(data)) for k in range(2)]
    for metric in ("nll", "rmse"):
        assert found[metric] == pytest.approx([metrics[metric] for metrics in expected], rel=1e-3)
    assert found["candidate"] == [1, 1]


def test_what_is_chosen_members_and_refits_begin_with_other_networks():
    method = recorded()
    settings = replace(SMALL, candidates=(FAST,), members=2, refit=True)
    train(wavy(), method, settings)
    train(wavy(), method, settings, chosen=[0, 0])
    assert len(method.models) == 2 + 2 + 4 + 4
    assert len({tuple(first.flatten().tolist()) for first in method.models}) == len(method.models)


def with_an_outlier() -> Dataset:
    """Data that cannot be trained on but in the first split, which tests on what is too large."""
    data = wavy()
    (_, first), (_, second) = uci_splits(len(data), 2)
    y = data.y.copy()
    y[np.setdiff1d(first, second)[0]] = 1e30
    return replace(data, y=y)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ((), r"ERM on wavy: expected finite losses, got others on splits 2 \(epoch 0\)$"),
        (
            (FAST, LAZY),
            r"ERM on wavy: expected finite losses, got others on splits 2 \(epoch 0\) with any of 2 candidates",
        ),
    ],
)
def test_a_split_that_cannot_be_trained_is_named(candidates, message):
    settings = replace(SMALL, candidates=candidates, standardise=False)
    with pytest.raises(ValueError, match=message):
        train(with_an_outlier(), "erm", settings)


def test_a_split_that_cannot_be_trained_anew_is_named():
    with pytest.raises(ValueError, match=r"ERM on wavy: expected finite losses, got others on splits 2 \(epoch 0\)"):
        train(wavy(), recorded(spoilt=(3,)), replace(SMALL, candidates=(FAST,), refit=True))


@dataclass(frozen=True)
class Deadly(Method):
    """A method that ends its process."""

    def make_model(self, data, settings):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_ends_by_itself_is_an_error_that_names_what_was_in_work():
    data, make = load("toy-regression"), functools.partial(Cell, settings=SMALL, seed=0)
    erm = METHODS["erm"]
    cells = [
        make("toy", "first", data, erm),
        make("toy", "second", data, erm),
        make("toy", "third", data, Deadly("Deadly", "nothing", erm.model)),
    ]
    with pytest.raises(RuntimeError, match=r"ended by itself.* third on toy"):
        list(Runner(jobs=2).run(cells))


def test_threads_which_share_one_random_state_take_cells_in_turn():
    cells = [Cell("toy", str(k), load("toy-regression"), METHODS["probmix"], SMALL, seed=k) for k in range(2)]
    alone = [result.metrics for _, result in Runner().run(cells)]
    with parallel_config("threading"):
        assert [result.metrics for _, result in Runner(jobs=2).run(cells)] == alone
