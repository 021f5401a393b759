"""Scikit-learn's own checks of an estimator."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyro_probmix as pm
from tests.estimators.cases import SMALL

CHECKED: dict[str, Any] = SMALL | {"epochs": 12, "batch_size": 16, "learning_rate": 0.03, "patience": None}
NOT_MEANT = {
    "check_sample_weight_equivalence_on_dense_data": "a row of weight two and two rows are drawn into other batches"
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [pm.ProbMixRegressor(**CHECKED), pm.ProbMixClassifier(**CHECKED)], expected_failed_checks=lambda _: NOT_MEANT
)
def test_what_scikit_learn_asks_of_an_estimator(estimator: Any, check: Any) -> None:
    check(estimator)
