"""``pyro-probmix compare``: methods side by side on one data set."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast

import joblib  # type: ignore[import-untyped]
import typer
from rich.console import Console

from pyro_probmix.cli.options import Plugins, experiment_settings, plain_errors
from pyro_probmix.datasets import NAMES, UCI, Task, load
from pyro_probmix.experiments import FIGURE, METHODS, RESULTS, import_plugins, select_methods, settings_for
from pyro_probmix.experiments import compare as run_comparison
from pyro_probmix.reports import REPORT

__all__ = ["compare"]


def compare(
    name: Annotated[
        str, typer.Argument(help=f"One of {', '.join(NAMES)}, or the path of a table (.csv, .parquet, .xlsx, …).")
    ] = ("toy-regression"),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder holding uci/NAME/data.txt; default $PYRO_PROBMIX_DATA, else downloaded."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Target column of a table.")] = None,
    task: Annotated[
        str | None, typer.Option(help="regression or classification, for a table; default: by its target.")
    ] = None,
    methods: Annotated[
        str, typer.Option(show_default=False, help=f"Comma-separated methods; default all: {', '.join(METHODS)}.")
    ] = ",".join(METHODS),
    splits: Annotated[int | None, typer.Option(help="Train/test splits; default 20 for UCI, else 5.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; default by data set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Output folder; default results/NAME.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Worker processes; default: the number of cores.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Mixing coefficient Beta(alpha, alpha).")] = None,
    beta: Annotated[float | None, typer.Option(help="Vicinity, in standardised units, of a toy in its own.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step; default all, 256 of many.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of Adam.")] = None,
    num_neighbors: Annotated[int | None, typer.Option(help="Neighbours a row in local methods.")] = None,
    plugin: Plugins = None,
) -> None:
    """Train methods on the splits of a data set; print a table, write results.json, figure.png and report.html."""
    changes = experiment_settings(locals())
    with plain_errors():
        import_plugins(plugin or ())
        chosen = select_methods(methods)
        if data is not None and name not in UCI:
            raise ValueError(f"data: expected none for {name}, which is no UCI set, got {data}")
        dataset = load(name, data, target=target, task=cast("Task | None", task))
        settings = replace(settings_for(dataset), **changes)
        folder = out or Path("results") / Path(dataset.name).stem
        workers = joblib.cpu_count() if jobs is None else jobs
        progress = sys.stderr.isatty()
        comparison = run_comparison(dataset, chosen, settings, seed=seed, jobs=workers, out=folder, progress=progress)
    for panel in comparison.tables():
        Console().print(panel)
    for note in comparison.notes():
        Console().print(note, markup=False, highlight=False)
    typer.echo(f"results: {folder / RESULTS}\nfigure:  {folder / FIGURE}\nreport:  {folder / REPORT}")
