"""Files of results: written whole or not at all, with the versions that made them."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyro_probmix._version import __version__

__all__ = ["versions", "write_json", "write_text"]


def versions() -> dict[str, str]:
    """Versions of Python, this package and what its numbers depend on."""
    packages = {name: version(name) for name in ("torch", "pyro-ppl", "numpy", "scikit-learn")}
    return {"python": platform.python_version(), "pyro-probmix": __version__, **packages}


def write_text(path: Path, text: str) -> None:
    """Write a text file; a kill while writing leaves the file as it was."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON as :func:`write_text` does."""
    write_text(path, json.dumps(content, indent=1) + "\n")
