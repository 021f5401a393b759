"""One optimiser step of every method: all descriptions of it have one loss, and what each costs is reported.

Measure with ``pytest tests/benchmarks --benchmark-enable``; otherwise each step is taken once, untimed. No test
fails on time.
"""

from __future__ import annotations

import math
import time

import pyro
import pytest

from tests.benchmarks.steps import COMPILED, NAMES, STEPS, Problem, load_problem

CONDITIONS = {False: "validation off", True: "validation on"}


@pytest.fixture(scope="session")
def problem(data_dir) -> Problem:
    return load_problem(data_dir)


@pytest.mark.parametrize("name", NAMES)
def test_every_description_of_a_method_has_one_loss(name, problem):
    losses = {}
    for description in ("svi", "risk", "by hand"):
        if f"{name} {description}" in STEPS:
            step = STEPS[f"{name} {description}"](problem)
            pyro.set_rng_seed(1)
            losses[description] = float(step())
    assert losses == pytest.approx(dict.fromkeys(losses, losses["risk"]), rel=1e-5)


@pytest.mark.parametrize("validation", CONDITIONS, ids=CONDITIONS.get)
@pytest.mark.parametrize("name", [*(name for name in STEPS if name != "matrix products"), *COMPILED])
@pytest.mark.benchmark(timer=time.process_time, max_time=0.5, warmup=True, warmup_iterations=20)
def test_step(name, validation, problem, measured, benchmark):
    if name in COMPILED and not benchmark.enabled:
        pytest.skip("compiled only with --benchmark-enable")
    benchmark.group = f"one step, {CONDITIONS[validation]}"
    with pyro.validation_enabled(validation):
        loss = benchmark((STEPS | COMPILED)[name](problem))
    assert math.isfinite(loss)
    if benchmark.enabled:
        measured.setdefault(CONDITIONS[validation], {})[name] = benchmark.stats.stats.min
