"""``pyro-probmix compare``: methods side by side on one data set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pyro_probmix.cli.options import (
    AsJson,
    Decimal,
    Drop,
    Encoding,
    Ids,
    Kinds,
    Na,
    NoHeader,
    Plugins,
    Sep,
    SkipRows,
    as_column,
    experiment_settings,
    notes_on_stderr,
    plain_errors,
    print_json,
    say,
    table_options,
)

if TYPE_CHECKING:
    from pyro_probmix.datasets import Dataset, Task

__all__ = ["compare"]

_DATA = (
    "toy-regression, toy-classification, breast-cancer, diabetes, digits, iris, wine, bostonHousing, concrete, energy, "
    "kin8nm, naval-propulsion-plant, power-plant, wine-quality-red, yacht"
)
_METHODS = (
    "erm, mixup, local_mixup, manifold_mixup, local_manifold_mixup, probmix, local_probmix, manifold_probmix, "
    "local_manifold_probmix, manifold_probmix_separate_variance, local_manifold_probmix_separate_variance"
)


def compare(
    name: Annotated[str, typer.Argument(help=f"One of {_DATA}, or the path of a table (.csv, .parquet, .xlsx, …).")] = (
        "toy-regression"
    ),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder holding uci/NAME/data.txt; default $PYRO_PROBMIX_DATA, else downloaded."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Target column of a table.")] = None,
    task: Annotated[
        str | None, typer.Option(help="regression or classification, for a table; default: by its target.")
    ] = None,
    methods: Annotated[str | None, typer.Option(help=f"Comma-separated methods; default all: {_METHODS}.")] = None,
    splits: Annotated[int | None, typer.Option(help="Train/test splits; default 20 for UCI, else 5.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; default by data set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Output folder, written anew; default results/NAME.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Worker processes; default: the number of cores.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Mixing coefficient Beta(alpha, alpha).")] = None,
    beta: Annotated[float | None, typer.Option(help="Vicinity, in standardised units, of a toy in its own.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step; default all, 256 of many.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of Adam.")] = None,
    num_neighbors: Annotated[int | None, typer.Option(help="Neighbours a row in local methods.")] = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
    sep: Sep = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    na: Na = None,
    skip_rows: SkipRows = 0,
    drop: Drop = None,
    ids: Ids = None,
    kinds: Kinds = None,
) -> None:
    """Train methods on the splits of a data set; print a table, write results.json, figure.png and report.html."""
    given = locals()
    with plain_errors(given), notes_on_stderr() as said:
        import joblib  # type: ignore[import-untyped]
        from rich.console import Console

        from pyro_probmix._files import check_writable
        from pyro_probmix.datasets import UCI
        from pyro_probmix.experiments import FIGURE, METHODS, RESULTS, import_plugins, select_methods, settings_for
        from pyro_probmix.experiments import compare as run_comparison
        from pyro_probmix.reports import REPORT

        changes = experiment_settings(given)
        import_plugins(plugin or ())
        chosen = tuple(METHODS) if methods is None else select_methods(methods)
        if data is not None and name not in UCI:
            raise ValueError(f"data: expected none for {name}, which is no UCI set, got {data}")
        dataset, notes = _data(name, data, target, cast("Task | None", task), table_options(given), said)
        settings = replace(settings_for(dataset), **changes)
        folder = out or Path("results") / Path(dataset.name).stem
        check_writable(folder)
        workers = joblib.cpu_count() if jobs is None else jobs
        progress = sys.stderr.isatty()
        comparison = run_comparison(
            dataset,
            chosen,
            settings,
            seed=seed,
            jobs=workers,
            out=folder,
            progress=progress,
            data_notes=notes,
            warnings=[note for note in said if note not in notes],
        )
    if as_json:
        print_json({**comparison.to_json(), "notes": said})
        return
    for panel in comparison.tables():
        Console().print(panel)
    for note in comparison.notes():
        Console().print(note, markup=False, highlight=False)
    typer.echo(f"results: {folder / RESULTS}\nfigure:  {folder / FIGURE}\nreport:  {folder / REPORT}")


def _data(
    name: str, folder: Path | None, target: str | None, task: Task | None, options: dict[str, Any], said: list[str]
) -> tuple[Dataset, Sequence[str]]:
    """The data, and what is to be said of a table."""
    from pyro_probmix.datasets import is_table, load, load_table

    if not is_table(name):
        for option in options:
            raise ValueError(f"{option}: expected none for {name}, which is no table")
        return load(name, folder, target=target, task=task), ()
    if target is None:
        raise ValueError(f"target: expected the column to predict of {name}, --target NAME, got none")
    table = load_table(name, as_column(target, "header" in options), task=task, **options)
    say(said, table.notes)
    return table.dataset(), table.notes
