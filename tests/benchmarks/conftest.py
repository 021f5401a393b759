"""Prints the ratios of what was measured at the end of a run with ``--benchmark-enable``."""

from __future__ import annotations

import pytest

from tests.benchmarks.steps import report

REPORTED: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()
MEASURED: pytest.StashKey[dict[str, dict[str, float]]] = pytest.StashKey()


@pytest.fixture(scope="session")
def measured(pytestconfig):
    """Least seconds of each step, by condition."""
    return pytestconfig.stash.setdefault(MEASURED, {})


@pytest.fixture(scope="session")
def reported(pytestconfig):
    """Keeps a line under a title, to be printed at the end of a run with ``--benchmark-enable``."""
    lines = pytestconfig.stash.setdefault(REPORTED, {})
    return lambda title, line: lines.setdefault(title, []).append(line)


def pytest_terminal_summary(terminalreporter, config):
    for condition, seconds in config.stash.get(MEASURED, {}).items():
        terminalreporter.write_sep("-", f"ratios, {condition}")
        terminalreporter.write_line("\n".join(report(seconds)))
    if config.getoption("benchmark_enable", False):
        for title, lines in config.stash.get(REPORTED, {}).items():
            terminalreporter.write_sep("-", title)
            terminalreporter.write_line("\n".join(lines))
