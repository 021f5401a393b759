"""Options that commands have in common, and how they end."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from pyro_probmix.cli.extras import is_extra

__all__ = [
    "AsJson",
    "Decimal",
    "Device",
    "Drop",
    "Encoding",
    "Ids",
    "Kinds",
    "Na",
    "NoHeader",
    "Plugins",
    "Sep",
    "SkipRows",
    "as_column",
    "check_apart",
    "experiment_settings",
    "notes_on_stderr",
    "numbers",
    "plain_errors",
    "print_json",
    "say",
    "table_options",
]

_OPTIONS = {"ids": "--id", "intervals": "--interval", "kinds": "--kind"}
"""Options that are not named as in Python, for they are repeated."""

_TABLE: Any = {"rich_help_panel": "How the table is read"}

Sep = Annotated[str | None, typer.Option(help="What separates cells: a character, tab or blank.", **_TABLE)]
Decimal = Annotated[str | None, typer.Option(help='Decimal sign, "." or ",".', **_TABLE)]
Encoding = Annotated[str | None, typer.Option(help="Encoding of the text, such as utf-8.", **_TABLE)]
NoHeader = Annotated[
    bool, typer.Option("--no-header", help='The first row is data; names are "column 1" and on.', **_TABLE)
]
Na = Annotated[list[str] | None, typer.Option(help="A cell that is missing, such as ?; repeatable.", **_TABLE)]
SkipRows = Annotated[
    int, typer.Option("--skip-rows", metavar="N", help="Rows above the names of columns, such as a title.", **_TABLE)
]
Drop = Annotated[list[str] | None, typer.Option(help="A column to leave out; repeatable.", **_TABLE)]
Ids = Annotated[
    list[str] | None, typer.Option("--id", help="A column that names rows, no feature; repeatable.", **_TABLE)
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="NAME=KIND",
        help='Kind of a column: number, category, date, boolean, ordered, or "low < mid < high"; repeatable.',
        **_TABLE,
    ),
]
Device = Annotated[str, typer.Option(help="Where networks run, such as cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE", help="Module or .py file that registers methods, metrics; repeatable."),
]


def table_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`~pyro_probmix.datasets.load_table` that have been given.

    Raises:
        ValueError: if a kind is not ``NAME=KIND``.
    """
    found = {name: given[name] for name in ("sep", "decimal", "encoding") if given[name] is not None}
    if given["no_header"]:
        found["header"] = False
    if given["skip_rows"]:
        found["skip_rows"] = given["skip_rows"]
    if given["na"]:
        found["na"] = tuple(given["na"])
    for name in ("drop", "ids"):
        if given.get(name):
            found[name] = [as_column(column, given["no_header"]) for column in given[name]]
    kinds = {}
    for pair in given.get("kinds") or ():
        column, equals, kind = pair.rpartition("=")
        if not (equals and column):
            raise ValueError(f'kinds: expected NAME=KIND, such as zip=category, got "{pair}"')
        kinds[column] = kind
    return {**found, **({"kinds": kinds} if kinds else {})}


def as_column(text: str, no_header: bool = False) -> str | int:
    """A column by its name; or by its position, from the end where that is negative, from 0 where there are no names.

    >>> as_column("price"), as_column("-1"), as_column("2020"), as_column("0", no_header=True)
    ('price', -1, '2020', 0)
    """
    return int(text) if re.fullmatch(r"-\d+" if not no_header else r"-?\d+", text) else text


def check_apart(out: Path, model: Path) -> None:
    """Refuses to write into the folder of a model.

    Raises:
        ValueError: if the place is that folder or in it.
    """
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(model)):
        raise ValueError(f"out: expected a place outside of the model {model}, got {out}")


def numbers(option: str, text: str | None) -> list[float]:
    """Numbers of a comma-separated list.

    >>> numbers("quantiles", "0.1, 0.9")
    [0.1, 0.9]
    """
    try:
        return [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise ValueError(f'{option}: expected numbers with commas between them, got "{text}"') from None


def print_json(content: Any) -> None:
    """Prints what a program is to read; numbers that JSON does not have are null."""
    typer.echo(json.dumps(_finite(content), indent=1))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(name): _finite(own) for name, own in value.items()}
    return [_finite(own) for own in value] if isinstance(value, list | tuple) else value


@contextmanager
def notes_on_stderr() -> Iterator[list[str]]:
    """What is warned of is a line on standard error, once; the lines are handed on."""
    found: list[str] = []

    def show(message: Any, *_: Any, **__: Any) -> None:
        say(found, [" ".join(str(message).split())])

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield found


def say(said: list[str], notes: Iterable[str]) -> None:
    """Notes as lines on standard error, but those that have been said; they are added to these."""
    for note in notes:
        if note not in said:
            said.append(note)
            typer.echo(f"note: {note}", err=True)


@contextmanager
def plain_errors(given: Iterable[str], stopped: str = "stopped; finished cells are kept") -> Iterator[None]:
    """An error the user can mend is one line on standard error and exit code 2; it names options, not arguments.

    Args:
        given: names of the parameters of the command.
        stopped: what is said of an interruption.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(stopped, err=True)
        raise typer.Exit(130) from None
    except (ValueError, OSError, ImportError, TypeError) as error:
        if isinstance(error, TypeError) and not re.match(r"[\w.\[\]]+: expected ", str(error)):
            raise  # a fault of the library's own
        if is_extra(error):
            raise
        typer.echo(f"error: {_with_options(str(error), given)}", err=True)
        raise typer.Exit(2) from None


def _with_options(text: str, given: Iterable[str]) -> str:
    """A message that names arguments of Python, with the options that the command has for them."""
    names = {*given} - {"model", "name", "table"}
    options = {name: _OPTIONS.get(name, f"--{name.replace('_', '-')}") for name in names}
    head, colon, rest = text.partition(": ")
    if colon and names.issuperset(head.split(", ")):
        text = f"{', '.join(options[name] for name in head.split(', '))}: {rest}"
    inner = re.match(r"(.*?: )(\w+)(: expected .*)", text, re.DOTALL)  # after the name of a table
    if inner and inner[2] in names:
        text = f"{inner[1]}{options[inner[2]]}{inner[3]}"
    return re.sub(r"\b(\w+)=True\b", lambda found: options.get(found[1], found[0]), text)


def experiment_settings(given: dict[str, Any]) -> dict[str, Any]:
    """What has been given of the settings of an experiment."""
    from pyro_probmix.experiments import ExperimentSettings

    names = {field.name for field in fields(ExperimentSettings)}
    return {name: value for name, value in given.items() if name in names and value is not None}
