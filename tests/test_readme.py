"""The README's example runs, and its two commands are there for `.ci/run` to read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = dict(re.findall(r"^<!-- command: (\w+) -->\n```bash\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("source", EXAMPLES, ids=lambda source: source.splitlines()[0])
def test_example_runs(source: str) -> None:
    exec(compile(source, "<example of README.md>", "exec"), {"__name__": "__main__"})


def test_the_two_commands_do_all_setup_with_one_version_of_torch() -> None:
    assert COMMANDS.keys() == {"compare", "test"}
    assert "pyro-probmix compare toy-regression" in COMMANDS["compare"]
    assert "pytest" in COMMANDS["test"]
    setup = {re.match(r".*?torch==[\d.]+ && ", command).group() for command in COMMANDS.values()}
    assert len(setup) == 1
