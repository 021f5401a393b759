"""The guard of `conftest.py` is itself guarded: a test that changes global state must fail."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")

CHANGES = {
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "gradient mode": "torch.set_grad_enabled(False)",
    "thread count": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "Pyro settings": "pyro.enable_validation(False)",
    "warning filters": "warnings.simplefilter('ignore')",
}


STORE_AND_DRAWS = """
def draw():
    assert not list(pyro.get_param_store().keys())
    assert pyro.settings.get("validate_infer")
    pyro.param("weight", torch.ones(()))
    return random.random(), numpy.random.rand(), torch.rand(()).item()

FIRST = []

def test_first():
    FIRST.append(draw())

def test_second():
    assert FIRST == [draw()]
"""


def run(pytester: pytest.Pytester, tests: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(f"import random\nimport warnings\nimport numpy\nimport pyro\nimport torch\n\n{tests}")
    return pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider")


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_global_state_fails_and_is_undone(pytester: pytest.Pytester, name: str) -> None:
    result = run(pytester, f"def test_change():\n    {CHANGES[name]}\n\ndef test_next():\n    pass\n")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*the test changed global state*", f"*{name}: *"])


def test_every_test_starts_from_the_same_state(pytester: pytest.Pytester) -> None:
    run(pytester, STORE_AND_DRAWS).assert_outcomes(passed=2)
