"""The ``pyro-probmix`` command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, cast

try:
    import joblib  # type: ignore[import-untyped]
    import typer
    from rich.console import Console

    from pyro_probmix._checks import check_choice
    from pyro_probmix._version import __version__
    from pyro_probmix.datasets import NAMES, UCI, Task, load
    from pyro_probmix.experiments import (
        ABLATIONS,
        CALIBRATION,
        FIGURE,
        METHODS,
        PICTURES,
        RESULTS,
        TABLES,
        Ablation,
        CalibrationTable,
        ExperimentSettings,
        PaperTable,
        ablate,
        draw_picture,
        import_plugins,
        recalibrate,
        select_methods,
        settings_for,
    )
    from pyro_probmix.experiments import compare as run_comparison
    from pyro_probmix.experiments import reproduce as run_reproduction
    from pyro_probmix.reports import REPORT
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in {"jinja2", "matplotlib", "rich", "typer"}:
        raise
    print(f'error: the command needs {missing}: pip install "pyro-probmix[experiments]"', file=sys.stderr)
    raise SystemExit(2) from None

__all__ = ["REPRODUCTIONS", "app", "compare", "main", "reproduce"]

REPRODUCTIONS = (*TABLES, *ABLATIONS, CALIBRATION.name, *PICTURES)
"""What ``reproduce`` reproduces."""

Plugins = Annotated[
    list[str] | None,
    typer.Option(metavar="MODULE", help="Module or .py file that registers methods or metrics; repeatable."),
]

app = typer.Typer(name="pyro-probmix", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@contextmanager
def _plain_errors(stopped: str = "stopped; finished cells are kept") -> Iterator[None]:
    """An error the user can mend is one line on standard error and exit code 2."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(stopped, err=True)
        raise typer.Exit(130) from None
    except (ValueError, OSError, ImportError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@app.callback(invoke_without_command=True)
def pyro_probmix(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Mixup on statistical manifolds, compared on real data."""
    if version:
        typer.echo(f"pyro-probmix {__version__}")
        raise typer.Exit


@app.command()
def compare(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}, or a file ending in .csv.")] = (
        "toy-regression"
    ),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder holding uci/NAME/data.txt; default $PYRO_PROBMIX_DATA, else downloaded."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Target column of a CSV file.")] = None,
    task: Annotated[
        str | None, typer.Option(help="regression or classification, for a CSV file; default: by its target.")
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
    changes = _settings(locals())
    with _plain_errors():
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


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(REPRODUCTIONS)}.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder holding uci/NAME/data.txt and stocks/TICKER.csv; default as for compare."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder; what is finished there is not computed again.")] = (
        Path("results") / "paper"
    ),
    protocol: Annotated[
        str, typer.Option(help="paper, or tuned for table1 and table3: settings chosen on validation rows.")
    ] = "paper",
    datasets: Annotated[str | None, typer.Option(help="Comma-separated rows of a table; default all.")] = None,
    methods: Annotated[str | None, typer.Option(help="Comma-separated columns of a table; default all.")] = None,
    splits: Annotated[int | None, typer.Option(help="Splits or draws; default as in the paper.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; default by the protocol.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="Where a table or an ablation is trained, such as cuda.")] = "cpu",
    jobs: Annotated[
        int | None, typer.Option(help="Processes that share a table or an ablation, on a CPU; default: the cores.")
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the steps of a table or an ablation, with a C++ compiler.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Compute a table, an ablation or a figure of the paper, or calibration; print and write it beside the paper's."""
    common: dict[str, Any] = {"out": out, "seed": seed, "progress": sys.stderr.isatty(), **_settings(locals())}
    with _plain_errors(*(["stopped"] if name in PICTURES else [])):
        import_plugins(plugin or ())
        check_choice("name", name, REPRODUCTIONS)
        of_data = {"datasets": datasets, "data": data}
        of_table = {"protocol": protocol if protocol != "paper" else None}
        places = {"device": device if device != "cpu" else None, "jobs": jobs, "compile": compile or None}
        with_data, trained = (*TABLES, CALIBRATION.name), (*TABLES, *ABLATIONS, CALIBRATION.name)
        for names, given in ((with_data, of_data), (TABLES, of_table), (trained, {"methods": methods, **places})):
            for option, value in given.items():
                if value is not None and name not in names:
                    raise ValueError(f"{option}: expected none for {name}, got {value}")
        if name in PICTURES:
            typer.echo(f"figure:  {draw_picture(name, **common)}")
            return
        cores = joblib.cpu_count() if device == "cpu" else 1
        common |= {"device": device, "jobs": cores if jobs is None else jobs, "compile": compile}
        common["report"] = lambda line: typer.echo(line, err=True)
        if methods is not None:
            common["methods"] = methods.split(",")
        if datasets is not None:
            common["datasets"] = datasets.split(",")
        shown: PaperTable | Ablation | CalibrationTable
        if name in TABLES:
            shown, cells = run_reproduction(name, data, protocol=protocol, **common)
        elif name == CALIBRATION.name:
            shown, cells = recalibrate(data, **common)
        else:
            shown, cells = ablate(name, **common)
    for panel in shown.terminal(cells):
        Console().print(panel)
    for claim in shown.claims(cells):
        typer.echo(str(claim))
    typer.echo(f"results: {out / shown.results}.json\ntable:   {out / shown.name}.md\nfigure:  {out / shown.name}.png")


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """What has been given of the settings of an experiment."""
    names = {field.name for field in fields(ExperimentSettings)}
    return {name: value for name, value in given.items() if name in names and value is not None}


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
