"""What the command needs besides the library."""

from __future__ import annotations

__all__ = ["missing_extra"]


def missing_extra(error: ImportError) -> str | None:
    """What is said of a package that is not installed; nothing of one that the extra ``tables`` does not have.

    >>> missing_extra(ModuleNotFoundError("No module named 'rich.console'", name="rich.console"))
    'the command needs rich: pip install "pyro-probmix[tables]"'
    """
    name = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name not in {"jinja2", "matplotlib", "rich", "typer"}:
        return None
    return f'the command needs {name}: pip install "pyro-probmix[tables]"'
