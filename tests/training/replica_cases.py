"""Trainings of replicas, and what each is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

import pyro_probmix as pm
from tests.models import cases

__all__ = ["assert_as_fit", "assert_same", "computations", "data", "fit_replicas", "initial", "maker"]


def data(r: int = 0, size: int = 12, likelihood: str = "normal") -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(100 + r)
        return cases.make_data(likelihood, size)


def maker(method: str = "ProbMix", likelihood: str = "normal", **arguments: Any) -> Callable[[int], Any]:
    return lambda r: cases.make_model(method, likelihood, **arguments)


def fit_replicas(make_model: Any, data: Any, **arguments: Any) -> pm.Replicas:
    return pm.fit_replicas(make_model, data, **{"epochs": 4, "progress": False, "learning_rate": 0.02} | arguments)


def computations(make_model: Any, data: Any, training: bool = True, **arguments: Any) -> int:
    """Of how many computations a full-batch epoch of the replicas consists, or its validation."""
    counts = []
    for epochs in (1, 2):
        modes: list[bool] = []

        def note(module: nn.Module, inputs: Any, modes: list[bool] = modes) -> None:
            if isinstance(module, pm.nn.Likelihood):
                modes.append(module.training)

        with register_module_forward_pre_hook(note):
            fit_replicas(make_model, data, epochs=epochs, **arguments)
        counts.append(modes.count(training))
    return counts[1] - counts[0]


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
    weight: Any = None,
    mask: Any = None,
    rtol: float = 1e-9,
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
            weight=None if weight is None else weight[r],
            mask=None if mask is None else mask[r],
            learning_rate=rates[r],
            seed=replicas.seeds[r],
            epochs=ends[r],
            **{"progress": False} | arguments,
        )
        assert_same(replicas.models[r], model, rtol=rtol)
        found = replicas.histories[r]
        assert found.train_loss == pytest.approx(history.train_loss, rel=rtol, nan_ok=True)
        assert found.validation_loss == pytest.approx(history.validation_loss, rel=rtol)
        assert (found.best_epoch, found.skipped_steps) == (history.best_epoch, history.skipped_steps)
