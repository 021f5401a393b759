"""Folders of every format that has been released are read, by their predictions: they are committed beside this file.

A folder that is there is never written again: a new format gets new ones. ``expected.json`` holds the inputs and what
each model said of them when it was saved.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import pyro_probmix as pm
from pyro_probmix.persistence import FORMAT

FORMATS = Path(__file__).parent / "formats"
MODELS = sorted(str(path.parent.relative_to(FORMATS)) for path in FORMATS.glob("*/*/settings.json"))


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_an_old_format_predicts_as_it_did(name):
    model = pm.load(FORMATS / name)
    expected = json.loads((FORMATS / name).parent.joinpath("expected.json").read_text())[Path(name).name]
    p = model.predictive(torch.tensor(expected["x"]), num_samples=5)
    found = p.log_prob(torch.tensor(expected["y"]))
    assert found.tolist() == pytest.approx(expected["log_prob"], rel=1e-4, abs=1e-4)


def test_every_format_is_here():
    assert {name.partition("/")[0] for name in MODELS} == {str(k) for k in range(1, FORMAT + 1)}
