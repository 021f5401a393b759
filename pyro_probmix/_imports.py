"""What is imported when it is used."""

from __future__ import annotations

import importlib
import random
import sys
from typing import Any

__all__ = ["imported"]


def imported(name: str) -> Any:
    """A module by its full name; random numbers that are drawn when it is imported are put back.

    scikit-learn imports ``rich`` where that is installed, which draws from Python's generator.

    Example:
        >>> imported("colorsys").rgb_to_hsv(0.0, 0.0, 0.0)
        (0.0, 0.0, 0.0)
    """
    if name in sys.modules:
        return importlib.import_module(name)  # which waits until another thread has imported it
    state = random.getstate()
    try:
        return importlib.import_module(name)
    finally:
        random.setstate(state)
