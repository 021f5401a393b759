"""A thousand models and a thousand invalid inputs at random; ``tests/random_models.py`` tries more."""

from __future__ import annotations

import pytest

from tests import random_models, random_refusals

EACH = 25
BLOCKS = [range(first, first + EACH) for first in range(0, 1000, EACH)]


@pytest.mark.parametrize("seeds", BLOCKS, ids=str)
def test_losses_and_gradients_of_valid_models_are_finite(seeds: range) -> None:
    found = random_models.failures(seeds)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("seeds", BLOCKS, ids=str)
def test_invalid_inputs_are_refused_by_name_and_change_nothing(seeds: range) -> None:
    found = random_refusals.failures(seeds)
    assert not found, "\n".join(found)


def test_every_refusal_is_among_a_thousand() -> None:
    assert len(random_refusals.REFUSALS) <= len(BLOCKS) * EACH


def test_the_script_counts_failures(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def failures(seeds: range) -> list[str]:
        return [f"{seed}: loss nan; chosen" for seed in seeds if seed == 3]

    monkeypatch.setattr(random_refusals, "failures", failures)
    assert random_models.main(["--number", "4", "--only", "refusals"]) == 1
    assert random_models.main(["--number", "3", "--only", "refusals"]) == 0
    assert "4 refusals, 1 failures\n3: loss nan; chosen" in capsys.readouterr().out
