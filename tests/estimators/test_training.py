"""How members are trained: rows held back, epochs kept, averages, threads and random states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

import pyro_probmix as pm
from pyro_probmix.estimators import members
from tests.estimators.cases import SMALL


def test_members_hold_back_other_rows(monkeypatch: Any) -> None:
    seen: list[Any] = []
    fit_replicas = members.fit_replicas

    def record(make_model: Any, data: Any, **arguments: Any) -> Any:
        seen.extend(zip(data, arguments["validation"], strict=True))
        return fit_replicas(make_model, data, **arguments)

    monkeypatch.setattr(members, "fit_replicas", record)
    X = np.arange(20.0)[:, None]
    pm.ProbMixRegressor("erm", num_members=6, **SMALL).fit(X, X[:, 0])
    held_out = [set(y.tolist()) for _, (_, y) in seen]
    assert [len(rows) for rows in held_out] == [4] * 6
    assert len(set.union(*held_out[:5])) == 20  # of five, no row twice
    assert held_out[5] == held_out[0]
    assert all(len(set(y.tolist()) | rows) == 20 for ((_, y), _), rows in zip(seen, held_out, strict=True))


def test_the_last_epoch_is_kept_where_no_rows_are_held_back(diabetes: Any) -> None:
    model = pm.ProbMixRegressor(validation_fraction=0, **SMALL).fit(*diabetes)
    assert model.histories_[0].best_epoch == 2
    assert model.histories_[0].validation_loss == []


def test_neighbours_are_mixed(diabetes: Any) -> None:
    X, y = diabetes
    local = pm.ProbMixRegressor("probmix", num_neighbors=3, **SMALL)
    assert not np.allclose(local.fit(X, y).predict(X), clone(local).set_params(num_neighbors=None).fit(X, y).predict(X))


def test_a_fixed_random_state_repeats_a_fit_and_disturbs_none(diabetes: Any) -> None:
    X, y = diabetes
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (pm.ProbMixRegressor(**SMALL).fit(X, y).predict(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert not np.allclose(first, pm.ProbMixRegressor(**SMALL | {"random_state": 1}).fit(X, y).predict(X))


def test_a_generator_is_a_random_state(diabetes: Any) -> None:
    X, y = diabetes
    state = SMALL | {"random_state": np.random.default_rng(3)}
    model = pm.ProbMixRegressor(**state)
    first = clone(model).fit(X, y).predict(X)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict(X), first)
    advanced = model.fit(X, y).predict(X)
    np.testing.assert_array_equal(advanced, first)
    assert not np.allclose(model.fit(X, y).predict(X), first), "as a RandomState goes on"


def test_members_trained_anew_see_all_rows_for_as_many_epochs(diabetes: Any) -> None:
    X, y = diabetes
    options = SMALL | {"epochs": 30, "learning_rate": 0.02, "scheduler": "constant", "patience": 5}
    model = pm.ProbMixRegressor("erm", refit=True, num_members=2, **options).fit(X, y)
    chosen = [history.best_epoch + 1 for history in model.histories_]
    assert len(set(chosen)) == 2
    assert all(history.validation_loss for history in model.histories_)
    for member, epochs in enumerate(chosen):
        whole = options | {"epochs": epochs, "validation_fraction": 0, "patience": None}
        alone = pm.ProbMixRegressor("erm", num_members=2, **whole).fit(X, y)
        expected, found = alone.models_[member].state_dict(), model.models_[member].state_dict()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-9)
    kept = pm.ProbMixRegressor("erm", num_members=2, **options).fit(X, y)
    assert [history.best_epoch + 1 for history in kept.histories_] == chosen
    assert not np.allclose(kept.predict(X), model.predict(X))


@pytest.mark.parametrize("kind", [pm.ProbMixRegressor, pm.ProbMixClassifier])
def test_other_rows_choose_the_epoch_where_they_are_given(kind: Any, iris: Any) -> None:
    X, y = iris
    train, other = np.arange(50) % 5 > 0, np.arange(50) % 5 == 0
    model = kind("erm", **SMALL | {"epochs": 1, "num_members": 2})
    model.fit(X[train], y[train], eval_set=(X[other], y[other]))
    own = getattr(model.models_[0].likelihood, "y_scale", torch.ones(()))
    expected = -model.models_[0].predictive(torch.as_tensor(model.preparation_.transform(X[other]))).log_prob(
        torch.as_tensor(y[other]).to(torch.long if kind is pm.ProbMixClassifier else torch.float64)
    ) - float(own.log())
    assert model.histories_[0].validation_loss[0] == pytest.approx(float(expected.mean().detach()), rel=1e-9)
    all_rows = kind("erm", **SMALL | {"epochs": 1, "num_members": 2, "validation_fraction": 0}).fit(X[train], y[train])
    np.testing.assert_allclose(model.predict(X), all_rows.predict(X))


@pytest.mark.parametrize(
    ("eval_set", "message"),
    [
        ((np.zeros((3, 9)), np.zeros(3)), "X has 9 features"),
        ((np.zeros((3, 10)), np.zeros(2)), "inconsistent numbers of samples"),
        ((np.zeros((3, 10)), np.zeros((3, 2))), r"eval_set: expected targets of shape \(\) a row, got \(2,\)"),
        (np.zeros((3, 10)), r"eval_set: expected a pair \(X, y\)"),
    ],
)
def test_what_is_no_eval_set_is_named(eval_set: Any, message: str, diabetes: Any) -> None:
    with pytest.raises(ValueError, match=message):
        pm.ProbMixRegressor("erm", **SMALL).fit(*diabetes, eval_set=eval_set)


def test_classes_that_training_did_not_have_choose_no_epoch(iris: Any) -> None:
    X, y = iris
    with pytest.raises(ValueError, match=r"eval_set y: expected the classes of training, .* in 2 of 4"):
        pm.ProbMixClassifier("erm", **SMALL).fit(X, y, eval_set=(X[:4], [0, 1, 7, 8]))


def test_averaged_parameters_are_kept(diabetes: Any) -> None:
    X, y = diabetes
    averaged = pm.ProbMixRegressor("erm", ema_decay=0.9, **SMALL).fit(X, y)
    plain = pm.ProbMixRegressor("erm", **SMALL).fit(X, y)
    assert averaged.histories_[0].train_loss == plain.histories_[0].train_loss, "the steps are the same"
    assert averaged.histories_[0].validation_loss != plain.histories_[0].validation_loss
    with pytest.raises(ValueError, match=r"^ema_decay: expected"):
        pm.ProbMixRegressor("erm", ema_decay=1.0, **SMALL).fit(X, y)


def test_a_small_network_takes_one_thread_and_gives_the_others_back(monkeypatch: Any, diabetes: Any) -> None:
    seen = []
    predictive = pm.models.DensityModel.predictive

    def record(*arguments: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return predictive(*arguments, **options)

    monkeypatch.setattr(pm.models.DensityModel, "predictive", record)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = pm.ProbMixRegressor(**SMALL).fit(*diabetes)
        model.predict(diabetes[0])
        model.predict_distribution(diabetes[0])
        model.log_likelihood(*diabetes)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        seen.clear()
        large = pm.ProbMixRegressor("erm", **SMALL | {"hidden_features": (600, 600), "epochs": 1}).fit(*diabetes)
        large.predict(diabetes[0])
        assert set(seen) == {2}
    finally:
        torch.set_num_threads(before)
