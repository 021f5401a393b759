"""What the command needs besides the library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["is_extra", "missing_extras_named"]


def is_extra(error: BaseException) -> bool:
    """Whether what is not installed is a package of the extra ``tables``.

    >>> is_extra(ModuleNotFoundError("No module named 'rich.console'", name="rich.console"))
    True
    """
    return isinstance(error, ModuleNotFoundError) and _package(error) in {"jinja2", "matplotlib", "rich", "typer"}


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]


@contextmanager
def missing_extras_named() -> Iterator[None]:
    """A package of the extra that is not installed is one line on standard error and exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        if not is_extra(error):
            raise
        print(f'error: the command needs {_package(error)}: pip install "pyro-probmix[tables]"', file=sys.stderr)
        raise SystemExit(2) from None
