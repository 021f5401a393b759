"""How members are trained: rows held back, epochs kept, averages, threads and random states."""

from __future__ import annotations

from typing import Any

import numpy as np
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
