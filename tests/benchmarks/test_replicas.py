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
from pyro_probmix.training import compiled
from tests.benchmarks.steps import HAND_WRITTEN, STEPS, Problem, load_problem

REPLICAS = 20
WAYS = {
    "replicas": {},
    "workers": {"num_workers": 2},
    "compiled workers": {"num_workers": 2, "compile": True},
}
EPOCHS = {"replicas": 50, "workers": 50, "compiled workers": 500}
"""More where the start takes seconds."""
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HAND_WRITTEN)
@pytest.mark.filterwarnings("ignore")  # what the compiler warns of is its own
def test_replicas(name, way, problem, measured, benchmark, monkeypatch):
    benchmark.group = f"{CONDITION}, {name}"
    data, options, epochs = [(problem.x, problem.y)] * REPLICAS, WAYS[way], EPOCHS[way]

    def train(epochs: int) -> pm.Replicas:
        return pm.fit_replicas(lambda r: problem.make_model(name), data, epochs=epochs, progress=False, **options)

    if not benchmark.enabled:
        if options.get("compile"):
            pytest.skip("compiled only with --benchmark-enable")
        replicas = benchmark(train, 2)
        assert replicas.failed == {}
        return
    monkeypatch.setattr(compiled, "COMPILED_FROM", 0)
    train(3)  # what is compiled is kept on disk
    start_up = min(_seconds(train, 3) for _ in range(3))
    benchmark.pedantic(train, args=(epochs,), rounds=5, warmup_rounds=1)
    step = (benchmark.stats.stats.min - start_up) / (REPLICAS * (epochs - 3))
    measured.setdefault(CONDITION, {})[f"{name} {way}"] = step


def _seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start
