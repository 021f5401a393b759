"""``pyro-probmix evaluate``: what a model's predictions of labelled rows are worth."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from pyro_probmix.cli.models import labelled, load_estimator, of_target, remembered
from pyro_probmix.cli.options import (
    AsJson,
    Decimal,
    Device,
    Encoding,
    Na,
    NoHeader,
    Plugins,
    Sep,
    SkipRows,
    as_column,
    check_apart,
    notes_on_stderr,
    plain_errors,
    print_json,
    table_options,
)

__all__ = ["SCORES", "evaluate"]

SCORES = "scores.json"
"""Name of the file of scores in the output folder."""


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a model, as fit has written it.")],
    table: Annotated[Path, typer.Argument(help="The rows: a .csv, .tsv, .txt (also .gz), .parquet or .xlsx file.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Column of what came; default: named as that of training; repeatable.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Comma-separated, such as nll,crps,coverage@0.9; default: the usual ones.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help=f"Folder for {SCORES} and report.html, written anew; default: none.")
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
    plugin: Plugins = None,
    sep: Sep = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    na: Na = None,
    skip_rows: SkipRows = 0,
) -> None:
    """Score a model's predictions of rows whose target is known; with --out, write them and a report."""
    given = locals()
    with plain_errors(given, "stopped; nothing is written"), notes_on_stderr() as said:
        from rich.console import Console

        from pyro_probmix._files import check_writable, write_json
        from pyro_probmix.datasets import load_table
        from pyro_probmix.estimators import score
        from pyro_probmix.evaluation import find_metric
        from pyro_probmix.experiments import import_plugins
        from pyro_probmix.experiments.table import Table
        from pyro_probmix.reports import REPORT, estimator_report
        from pyro_probmix.reports.page import plural, shown

        import_plugins(plugin or ())
        if out is not None:
            check_apart(out, model)
            check_writable(out)
        estimator = load_estimator(model, device)
        about = remembered(model)
        columns = [as_column(name, no_header) for name in target or ()] or about["targets"]
        if not columns:
            raise ValueError(f"target: expected the column of what came, of which {model} does not tell; --target NAME")
        if {*columns} == {*about["targets"]}:
            columns = about["targets"]  # in the order of the model
        if len(columns) != len(about["targets"] or columns):
            raise ValueError(f"target: expected a column for each of {', '.join(about['targets'])}, got {columns}")
        wanted = columns if len(columns) > 1 else columns[0]
        options = {**table_options(given), "task": about["task"], "drop": about["set_aside"]}
        options["na"] = (*options.get("na", ()), *about["na"])
        classes = getattr(estimator, "classes_", None)
        kinds = about["target_kinds"]
        if classes is not None and classes.dtype.kind in "OU":  # names, though those of new rows may look like numbers
            kinds = ["category"] * len(columns)
        if len(kinds) == len(columns):
            options["kinds"] = dict(zip(columns, kinds, strict=True))
        data = load_table(table, wanted, preparation=estimator.preparation_, **options)
        names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
        if names == []:
            raise ValueError("metrics: expected names, such as nll,crps, got none")
        with of_target(data):
            scores = score(estimator, data.features, labelled(data), names)
        told = {"model": str(model), "table": data.name, "rows": len(data), "scores": scores, "notes": said}
        if out is not None:
            is_new = not out.exists()
            out.mkdir(parents=True, exist_ok=True)
            try:
                estimator_report(out / REPORT, estimator, data, scores, warnings=said)
                write_json(out / SCORES, told)
            except BaseException:
                if is_new:
                    shutil.rmtree(out)
                raise
    if as_json:
        print_json(told)
        return
    rows = [[find_metric(name).heading, shown(value)] for name, value in scores.items()]
    for panel in Table(["metric", "value"], rows, f"{data.name}: {plural(len(data), 'row')}").terminal():
        Console().print(panel)
    if out is not None:
        typer.echo(f"scores: {out / SCORES}\nreport: {out / REPORT}")
