"""What is chosen where nothing is asked for: the likelihood, the batch, the epochs and the step sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyro_probmix as pm
from pyro_probmix.training import OneCycle
from tests.estimators.cases import SMALL


@pytest.mark.parametrize(
    ("method", "expected"), [("erm", "mixture"), ("manifold_probmix", "mixture"), ("probmix", "normal")]
)
def test_the_likelihood_is_one_that_the_method_takes(method: str, expected: str, diabetes: Any) -> None:
    assert pm.ProbMixRegressor(method, **SMALL).fit(*diabetes).likelihood_ == expected


def test_scales_are_no_finer_than_the_target(diabetes: Any) -> None:
    """Else a component on one of the values of a coarse target would have any likelihood."""
    X, _ = diabetes
    y = np.where(X[:, 0] > 0, 50.0, 10.0)
    model = pm.ProbMixRegressor("erm", **SMALL | {"epochs": 200, "learning_rate": 0.05}).fit(X, y)
    density = -np.log(20 * np.sqrt(2 * np.pi))  # of a Normal at its centre, half of the gap of 40 wide
    assert density - 0.3 < model.log_likelihood(X, y) <= density + 1e-9


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"), [(100, 32, 125), (1000, 32, 50), (5000, 128, 75), (20_000, 512, 75)]
)
def test_steps_follow_the_number_of_rows(rows: int, batch: int, epochs: int, monkeypatch: Any) -> None:
    """As the argument says: a power of two near n / 32 rows a step, about 50 √n steps, no more than 3,000."""
    asked: dict[str, Any] = {}

    def note(model: Any, data: Any, **options: Any) -> pm.History:
        asked.update(options, rows=len(data[0]))
        return pm.History([0.0], [0.0], 0)

    monkeypatch.setattr("pyro_probmix.estimators.members.fit", note)
    X = np.linspace(-1.0, 1.0, rows * 5 // 4).reshape(-1, 1)
    pm.ProbMixRegressor(random_state=0).fit(X, X[:, 0])
    assert asked["rows"] == rows
    assert (asked["batch_size"], asked["epochs"]) == (batch, epochs)
    assert asked["learning_rate"] == OneCycle(0.01, epochs)
    assert asked["validation_every"] == epochs // (25 if rows < 2000 else 12)


@pytest.mark.parametrize("num_members", [1, 2])
def test_step_sizes_change_by_the_schedule(num_members: int, diabetes: Any) -> None:
    """A training of constant steps ends elsewhere, and one of tiny ones where it began."""
    own = SMALL | {"num_members": num_members, "validation_fraction": 0}
    ends = [
        pm.ProbMixRegressor("erm", **own | {"scheduler": scheduler, "learning_rate": rate})
        .fit(*diabetes)
        .predict(diabetes[0])
        for scheduler, rate in (("one_cycle", 0.05), ("constant", 0.05), ("one_cycle", 1e-9), ("constant", 1e-9))
    ]
    assert not np.allclose(ends[0], ends[1], rtol=1e-3)
    np.testing.assert_allclose(ends[2], ends[3], rtol=1e-5)


def test_another_schedule_is_refused(diabetes: Any) -> None:
    with pytest.raises(ValueError, match=r"scheduler: expected .*one_cycle.*constant.*, got 'cosine'|got \"cosine\""):
        pm.ProbMixRegressor(scheduler="cosine", **SMALL).fit(*diabetes)
