"""Options that commands have in common, and how they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Annotated, Any

import typer

from pyro_probmix.experiments import ExperimentSettings

__all__ = ["Plugins", "experiment_settings", "plain_errors"]

Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="MODULE", help="Module or .py file that registers methods or metrics; repeatable."
    ),
]


@contextmanager
def plain_errors(stopped: str = "stopped; finished cells are kept") -> Iterator[None]:
    """An error the user can mend is one line on standard error and exit code 2."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(stopped, err=True)
        raise typer.Exit(130) from None
    except (ValueError, OSError, ImportError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def experiment_settings(given: dict[str, Any]) -> dict[str, Any]:
    """What has been given of the settings of an experiment."""
    names = {field.name for field in fields(ExperimentSettings)}
    return {name: value for name, value in given.items() if name in names and value is not None}
