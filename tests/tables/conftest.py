from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wild() -> Path:
    """Return the folder of small tables as found in the wild, beside that of the data."""
    named = os.environ.get("PYRO_PROBMIX_DATA")
    folder = (Path(named).resolve().parent if named else ROOT.parent / "shared") / "tables"
    if not folder.is_dir():
        pytest.skip(f"no tables: {folder} does not exist")
    return folder
