"""Files of results: written whole or not at all, with the versions that made them."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyro_probmix._version import __version__

__all__ = ["check_writable", "versions", "write_bytes", "write_json"]


def versions() -> dict[str, str]:
    """Versions of Python, this package and what its numbers depend on."""
    packages = {name: version(name) for name in ("torch", "pyro-ppl", "numpy", "scikit-learn")}
    return {"python": platform.python_version(), "pyro-probmix": __version__, **packages}


def check_writable(folder: Path, out: Path | None = None) -> None:
    """Fail before hours of training, not after them, where a folder cannot be made or written to.

    Args:
        folder: the folder.
        out: what is to be written in it, which an error names; default: the folder itself.
    """
    place = folder
    try:
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        got = f"{folder if out is None else out} ({place}: {(error.strerror or str(error)).lower()})"
        raise type(error)(f"out: expected a place that can be written to, got {got}") from None


def write_bytes(path: Path, content: bytes, new: bool = False) -> None:
    """Write a file; a kill while writing leaves it as it was. One that has to be new and is there is left alone."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        if new:
            os.link(temporary, path)
        else:
            os.replace(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if not new:
            raise OSError(error.errno, error.strerror, str(path)) from error  # not of the temporary file
        os.replace(temporary, path)  # on a file system without links
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, new: bool = False) -> None:
    """Write JSON as :func:`write_bytes` does."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode(), new)
