"""What a step of one of twenty replicas costs, beside the step of a plain-torch and of an SVI training.

The clock is the wall's, for two cores may work at once: on replicas as two workers, on the others as torch's threads.
Measure with ``pytest tests/benchmarks/test_replicas.py --benchmark-enable``; otherwise two epochs are trained,
untimed. No test fails on time.
"""

from __future__ import annotations

import math
import time

import pyro
import pytest

import pyro_probmix as pm
from tests.benchmarks.steps import HAND_WRITTEN, STEPS, Problem, load_problem

REPLICAS, EPOCHS = 20, 50
CONDITION = f"one step of {REPLICAS} trainings"


@pytest.fixture(scope="session")
def problem(data_dir) -> Problem:
    return load_problem(data_dir)


@pytest.mark.parametrize("way", ["by hand", "svi"])
@pytest.mark.parametrize("name", HAND_WRITTEN)
@pytest.mark.benchmark(max_time=0.5, warmup=True, warmup_iterations=20)
def test_trainings_in_a_row(name, way, problem, measured, benchmark):
    benchmark.group = f"{CONDITION}, {name}"
    with pyro.validation_enabled(False):
        loss = benchmark(STEPS[f"{name} {way}"](problem))
    assert math.isfinite(loss)
    if benchmark.enabled:
        measured.setdefault(CONDITION, {})[f"{name} {way}"] = benchmark.stats.stats.min


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_replicas(name, workers, problem, measured, benchmark):
    benchmark.group = f"{CONDITION}, {name}"
    data = [(problem.x, problem.y)] * REPLICAS

    def train(epochs: int) -> pm.Replicas:
        return pm.fit_replicas(
            lambda r: problem.make_model(name), data, epochs=epochs, num_workers=workers, progress=False
        )

    if not benchmark.enabled:
        replicas = benchmark(train, 2)
        assert replicas.failed == {}
        return
    start_up = min(_seconds(train, 1) for _ in range(3))
    benchmark.pedantic(train, args=(EPOCHS,), rounds=5, warmup_rounds=1)
    step = (benchmark.stats.stats.min - start_up) / (REPLICAS * (EPOCHS - 1))
    way = "workers" if workers else "replicas"
    measured.setdefault(CONDITION, {})[f"{name} {way}"] = step


def _seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start
