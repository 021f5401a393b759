"""Trainings of replicas, and what each is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from tests.models import cases

__all__ = ["assert_as_fit", "assert_same", "data", "fit_replicas", "initial", "maker"]


def data(r: int = 0, size: int = 12, likelihood: str = "normal") -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(100 + r)
        return cases.make_data(likelihood, size)


def maker(method: str = "ProbMix", likelihood: str = "normal", **arguments: Any) -> Callable[[int], Any]:
    return lambda r: cases.make_model(method, likelihood, **arguments)


def fit_replicas(make_model: Any, data: Any, **arguments: Any) -> pm.Replicas:
    return pm.fit_replicas(make_model, data, **{"epochs": 4, "progress": False, "learning_rate": 0.02} | arguments)


def initial(make_model: Callable[[int], Any], r: int, seed: int = 0) -> Any:
    """Replica r before training, made as documented: in a random state from the seed and r."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed, spawn_key=(r,)).generate_state(2)[0]))
        return make_model(r)


def assert_same(model: nn.Module, other: nn.Module, rtol: float = 1e-9) -> None:
    """Equal parameters, bitwise for ``rtol=0``."""
    other_state = other.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(
            value, other_state[name], rtol=rtol, atol=rtol, msg=lambda text, n=name: f"{n}: {text}"
        )


def assert_as_fit(
    replicas: pm.Replicas,
    make_model: Any,
    data: Any,
    validation: Any = None,
    graphs: Any = None,
    learning_rate: Any = 0.02,
    epochs: Any = 4,
    **arguments: Any,
) -> None:
    """Each replica is what ``pm.fit`` makes of it, in float64 up to rounding."""
    rates = learning_rate if isinstance(learning_rate, list) else [learning_rate] * len(data)
    ends = epochs if isinstance(epochs, list) else [epochs] * len(data)
    for r, own in enumerate(data):
        model = initial(make_model, r)
        history = pm.fit(
            model,
            own,
            graph=None if graphs is None else graphs[r],
            validation=None if validation is None else validation[r],
            learning_rate=rates[r],
            seed=replicas.seeds[r],
            epochs=ends[r],
            **{"progress": False} | arguments,
        )
        assert_same(replicas.models[r], model)
        assert replicas.histories[r].train_loss == pytest.approx(history.train_loss, rel=1e-9)
        assert replicas.histories[r].validation_loss == pytest.approx(history.validation_loss, rel=1e-9)
        assert replicas.histories[r].best_epoch == history.best_epoch
