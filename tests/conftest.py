"""Every test starts from one state and must leave the process as it found it."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyro
import pytest
import scipy.stats  # noqa: F401  (adds warning filters when it is first imported)
import torch
import torch._dynamo  # (likewise; the first optimiser imports it)

from tests.faults import pytest_pycollect_makeitem, pytest_terminal_summary  # noqa: F401  (hooks)

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("MPLBACKEND", "Agg")  # no window
torch.set_num_threads(1)  # the tests are small, and run in parallel

hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")


def global_state() -> dict[str, Any]:
    """Return what no function of the library may change, by name."""
    return {
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "thread count": torch.get_num_threads(),
        "Pyro settings": pyro.settings.get(),
        "warning filters": list(warnings.filters),
    }


@pytest.fixture(autouse=True)
def isolation() -> Iterator[None]:
    """Seed, clear Pyro's parameter store and validate; afterwards restore, and fail on a change of state."""
    random_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)
    before = global_state()
    yield
    after = global_state()
    torch.set_default_dtype(before["default dtype"])
    torch.set_grad_enabled(before["gradient mode"])
    torch.set_num_threads(before["thread count"])
    pyro.settings.set(**before["Pyro settings"])
    pyro.clear_param_store()
    random.setstate(random_state[0])
    np.random.set_state(random_state[1])
    torch.set_rng_state(random_state[2])
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    # pytest itself restores the warning filters after each test.
    changed = [f"{name}: {before[name]} -> {after[name]}" for name in before if after[name] != before[name]]
    if changed:
        pytest.fail("the test changed global state\n" + "\n".join(changed), pytrace=False)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of `uci/` and `stocks/`: PYRO_PROBMIX_DATA, or `../shared/data`."""
    named = os.environ.get("PYRO_PROBMIX_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"PYRO_PROBMIX_DATA is no folder: {folder}")
    pytest.skip(f"no data: PYRO_PROBMIX_DATA is not set and {folder} does not exist")
