"""The settings are the paper's, and what is out of range is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_probmix.datasets import Dataset, load
from pyro_probmix.experiments import ExperimentSettings, settings_for
from pyro_probmix.experiments.settings import Candidate


def test_defaults_are_the_papers_but_for_the_steps_of_the_toy_regression():
    steps = settings_for(load("toy-regression"))
    assert (steps.hidden_features, steps.standardise, steps.splits) == ((128, 64), False, 5)
    assert (steps.epochs, steps.learning_rate, steps.batch_size) == (300, 0.005, 20)
    toy = settings_for(load("toy-classification"))
    assert (toy.hidden_features, toy.epochs, toy.learning_rate) == ((128, 64), 500, 0.01)
    assert (toy.validation_fraction, toy.standardise) == (0.2, False)
    small = Dataset("yacht", np.zeros((308, 6)), np.zeros(308), "regression")
    uci = settings_for(small)
    assert (uci.hidden_features, uci.epochs, uci.learning_rate, uci.splits) == ((128, 32), 1000, 0.005, 20)
    assert (uci.alpha, uci.beta, uci.num_neighbors, uci.batch_size) == (0.2, 0.01, 5, None)
    large = settings_for(Dataset("kin8nm", np.zeros((8192, 8)), np.zeros(8192), "regression"))
    assert (large.batch_size, large.epochs, large.splits) == (256, 200, 20)
    assert settings_for(load("iris")).splits == 5


REFUSED = {
    "splits": (0, r"splits: expected an integer >= 1, got 0"),
    "epochs": (0, r"epochs: expected an integer >= 1"),
    "num_neighbors": (0, r"num_neighbors: expected an integer >= 1"),
    "num_samples": (0, r"num_samples: expected an integer >= 1"),
    "validation_every": (0, r"validation_every: expected an integer >= 1"),
    "patience": (0, r"patience: expected an integer >= 1"),
    "members": (0, r"members: expected an integer >= 1, got 0"),
    "learning_rate": (float("nan"), r"learning_rate: expected a number in \(0, inf\)"),
    "alpha": (0.0, r"alpha: expected a number in \(0, inf\), got 0.0"),
    "beta": (float("inf"), r"beta: expected a number in \[0, inf\), got inf"),
    "ema_decay": (1.0, r"ema_decay: expected a number in \(0, 1\), got 1.0"),
    "batch_size": (1, r"batch_size: expected an integer >= 2, got 1"),
    "network": ("cnn", r'network: expected one of "mlp", "lstm", "transformer", got "cnn"'),
    "validation_fraction": (1.0, r"validation_fraction: expected a number in \[0, 1\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_out_of_range_are_refused(name):
    value, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        ExperimentSettings(**{name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation_fraction": 0.25}, "members: expected so many that each can hold back 25% of the training rows"),
        ({"validation_fraction": 0.0}, r"validation_fraction: expected a number in \(0, 1\), got 0.0"),
    ],
)
def test_candidates_need_rows_that_choose(change, message):
    assert ExperimentSettings(**change)
    with pytest.raises(ValueError, match=message):
        ExperimentSettings(candidates=(Candidate(1e-3, 64, 0.1, 0.01),), **change)
