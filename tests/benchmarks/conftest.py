"""Prints the ratios of what was measured at the end of a run with ``--benchmark-enable``."""

from __future__ import annotations

import pytest

from tests.benchmarks.steps import report

MEASURED: pytest.StashKey[dict[str, dict[str, float]]] = pytest.StashKey()


@pytest.fixture(scope="session")
def measured(pytestconfig):
    """Least seconds of each step, by condition."""
    return pytestconfig.stash.setdefault(MEASURED, {})


def pytest_terminal_summary(terminalreporter, config):
    for condition, seconds in config.stash.get(MEASURED, {}).items():
        terminalreporter.write_sep("-", f"ratios, {condition}")
        terminalreporter.write_line("\n".join(report(seconds)))
