"""The table of faults: tests are tied to its rows by name, and rows without a test are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import FAULTS

CONFTEST = Path(__file__).with_name("conftest.py")
NAME = "bad weights"

TESTS = f"""
import pytest

@pytest.mark.faults("{NAME}")
@pytest.mark.parametrize("i", range(4))
def test_row(i):
    assert i != 3

@pytest.mark.faults("{NAME}")
def test_that_cannot_run():
    pytest.skip("no device")

@pytest.mark.faults("odd batches")
class TestOfAClass:
    def test_method(self):
        pass

def test_of_no_row():
    pass
"""


def run(pytester: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(tests)
    pytester.makeini("[pytest]\nmarkers = faults(name): of a row")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *options)


@pytest.mark.parametrize("processes", ["0", "2"])
def test_the_table_counts_cases_and_shows_rows_without_one(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CONFTEST.parents[1]))
    result = run(pytester, TESTS, "-m", "faults", "-n", processes)
    result.assert_outcomes(passed=4, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["fault *cases  passed*", f"{NAME}*    5       3  {FAULTS[NAME]}", "odd batches*    1       1  *"]
    )
    result.stdout.fnmatch_lines([f"nothing was fused*no test  {FAULTS['nothing was fused']}"])
    result.stdout.fnmatch_lines([f"2 of {len(FAULTS)} faults have a test"])


@pytest.mark.parametrize("expression", ["", "not faults"])
def test_the_table_is_printed_on_request(pytester: pytest.Pytester, expression: str) -> None:
    assert "what is done" not in run(pytester, TESTS, "-m", expression).stdout.str()


@pytest.mark.parametrize("mark", ['faults("misspelt")', "faults()", f'faults("{NAME}", "odd batches")', "faults"])
def test_a_name_without_a_row_is_an_error_of_collection(pytester: pytest.Pytester, mark: str) -> None:
    result = run(pytester, f"import pytest\n\n@pytest.mark.{mark}\ndef test_it():\n    pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*test_it: faults(*): expected one of the names in tests/faults.py: *"])


def test_a_row_fits_a_line_of_a_terminal() -> None:
    widest = max(map(len, FAULTS))
    assert [name for name, behaviour in FAULTS.items() if widest + len(behaviour) > 122] == []
