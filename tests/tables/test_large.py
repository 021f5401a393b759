"""A large table is read and prepared in memory of a few times its file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROWS = 200_000
MEASURE = """
import json, re, sys, warnings
import pandas, torch
from pyro_probmix.datasets import load_table
from pyro_probmix.tables import Preparation

warnings.simplefilter("ignore")
table = load_table(sys.argv[1], "y")
x = Preparation.fit(table.features).transform(table.features)
peak = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 2**20
print(json.dumps({"shape": x.shape, "gigabytes": peak}))
"""


@pytest.mark.slow
def test_two_hundred_thousand_rows_of_twenty_columns(tmp_path):
    if sys.platform != "linux":
        pytest.skip("the peak of a process is read from where Linux tells it, its parent's apart")
    rng = np.random.RandomState(0)
    columns = {f"x{i}": rng.normal(size=ROWS) for i in range(13)}
    columns |= {
        "town": rng.choice(["Bonn", "Rome", "Oslo"], ROWS),
        "street": rng.choice([f"street {i}" for i in range(300)], ROWS),
        "when": pd.date_range("1990-01-01", periods=ROWS, freq="h").strftime("%Y-%m-%d %H:%M"),
        "new": rng.choice(["yes", "no"], ROWS),
        "serial": rng.randint(10**9, 10**10, ROWS),
        "pay": [f"${value:,.2f}" for value in rng.gamma(2, 1000, ROWS)],
        "y": rng.normal(size=ROWS),
    }
    path = tmp_path / "large.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["shape"][0] == ROWS
    assert found["gigabytes"] < 1.5
