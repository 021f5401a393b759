from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def global_state() -> Callable[[], np.ndarray]:
    """Reads NumPy's global random state."""
    return lambda: np.random.get_state()[1].copy()
