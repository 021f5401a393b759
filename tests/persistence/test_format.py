"""Folders of every format that has been released are read, by their predictions: they are committed beside this file.

A folder that is there is never written again: a new format gets new ones. ``expected.json`` holds the inputs and what
each model said of them when it was saved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_probmix as pm
from pyro_probmix.persistence import FORMAT

FORMATS = Path(__file__).parent / "formats"
FOLDERS = sorted(path.parent for path in FORMATS.glob("*/*/settings.json"))


def expected_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder.parent / "expected.json").read_text(encoding="utf-8"))[folder.name]


def close(expected: Any) -> Any:
    return pytest.approx(np.array(expected), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_a_folder_of_an_old_format_predicts_as_it_did(folder):
    model, expected = pm.load(folder), expected_of(folder)
    if "log_prob" in expected:
        p = model.predictive(torch.tensor(expected["x"]), num_samples=5)
        assert p.log_prob(torch.tensor(expected["y"])).detach().numpy() == close(expected["log_prob"])
    elif "quantiles" in expected:
        rows = pd.DataFrame(expected["rows"])
        assert model.predict(rows) == close(expected["mean"])
        assert model.predict_quantiles(rows, [0.1, 0.9]) == close(expected["quantiles"])
    else:
        assert model.classes_.tolist() == expected["classes"]
        assert model.predict_proba(np.array(expected["rows"])) == close(expected["probabilities"])


def test_every_format_is_here():
    assert {folder.parent.name for folder in FOLDERS} == {str(k) for k in range(1, FORMAT + 1)}
    assert {folder.name for folder in FOLDERS if folder.parent.name == "1"} == {
        "classifier",
        "manifold_probmix",
        "probmix_of_classes",
        "regressor",
        "student_t",
    }
