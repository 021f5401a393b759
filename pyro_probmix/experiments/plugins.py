"""Modules of the user's that register methods, metrics and families."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["import_plugins"]


def import_plugins(names: Iterable[str]) -> None:
    """Import modules for what they register.

    Args:
        names: names of modules that Python finds, or paths of files that end in ``.py``. The folder of a file joins
            those where this process, and worker processes that it starts later, look for modules.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if there is no such module, or one of the file's name is another.

    Example:
        >>> import_plugins(["colorsys"])
    """
    for name in names:
        path = Path(name).resolve() if name.endswith(".py") else None
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"plugin: expected a module or a file, got {name}, which is not there")
        if path is not None and str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        module = importlib.import_module(name if path is None else path.stem)
        if path is not None and path != Path(getattr(module, "__file__", None) or "").resolve():
            raise ImportError(f"plugin: expected a file whose name no other module has, got {name} beside {module}")
