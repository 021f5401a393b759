"""Progress bars on terminals that do not tell their size."""

from __future__ import annotations

import os
import sys

__all__ = ["bar_size"]


def bar_size() -> dict[str, int]:
    """Arguments of tqdm for a terminal on standard error that says it has no columns, where it would show no bar."""
    try:
        told = os.get_terminal_size(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # no terminal
        return {}
    return {} if told.columns and told.lines else {"ncols": 80, "nrows": 24}
