"""``pyro-probmix predict``: what a model says of new rows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pyro_probmix.cli.models import load_estimator, remembered
from pyro_probmix.cli.options import (
    AsJson,
    Decimal,
    Device,
    Encoding,
    Ids,
    Na,
    NoHeader,
    Plugins,
    Sep,
    SkipRows,
    check_apart,
    notes_on_stderr,
    numbers,
    plain_errors,
    print_json,
    say,
    table_options,
)

__all__ = ["predict"]


def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a model, as fit has written it.")],
    table: Annotated[Path, typer.Argument(help="The rows: a .csv, .tsv, .txt (also .gz), .parquet or .xlsx file.")],
    out: Annotated[Path, typer.Option(help="File of the predictions: .csv, .csv.gz or .parquet.")],
    quantiles: Annotated[
        str | None,
        typer.Option(metavar="LEVELS", help="Levels of quantiles, such as 0.1,0.9; default 0.05,0.5,0.95."),
    ] = None,
    intervals: Annotated[
        list[float] | None,
        typer.Option("--interval", metavar="SHARE", help="Central interval, such as 0.9; repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    device: Device = "cpu",
    as_json: AsJson = False,
    plugin: Plugins = None,
    sep: Sep = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    na: Na = None,
    skip_rows: SkipRows = 0,
    ids: Ids = None,
) -> None:
    """Predict rows, in their order.

    Columns of a number: mean, std, quantiles such as q05, and lower90 and
    upper90 of an interval; of classes: class, then p[NAME] in their order.
    Those of --id go first; by default they are those of fit.
    """
    given = locals()
    with plain_errors(given, "stopped; no predictions are written"), notes_on_stderr() as said:
        from pyro_probmix._files import check_writable
        from pyro_probmix.datasets import load_table
        from pyro_probmix.estimators import prediction_table
        from pyro_probmix.experiments import import_plugins
        from pyro_probmix.reports.page import plural
        from pyro_probmix.tables import Reading, check_suffix, read_cells, write_table

        import_plugins(plugin or ())
        check_suffix(out)
        check_apart(out, model)
        _check_new(out, table, overwrite)
        check_writable(out.parent, out)
        levels = None if quantiles is None else numbers("quantiles", quantiles)
        estimator = load_estimator(model, device).set_params(verbose=sys.stderr.isatty())
        about = remembered(model)
        reading = table_options(given)
        named = reading.pop("ids", None)
        reading["na"] = (*reading.get("na", ()), *about["na"])
        cells = read_cells(table, Reading(**reading))
        names = list(cells.frame.columns)
        named = [name for name in about["ids"] if name in names] if named is None else named
        unused = [name for name in about["targets"] if name in names and name not in named]
        say(said, [f'the target "{name}" is not used' for name in unused])
        aside = [*about["set_aside"], *about["targets"]]
        data = load_table(cells, preparation=estimator.preparation_, drop=aside, ids=named)
        options: dict[str, Any] = {"quantiles": levels, "intervals": intervals or (), "ids": data.ids}
        frame = prediction_table(estimator, data.features, targets=about["targets"], **options)
        write_table(frame, out)
    if as_json:
        print_json({"predictions": str(out), "rows": len(frame), "columns": list(frame.columns), "notes": said})
    else:
        typer.echo(f"predictions: {out}, {plural(len(frame), 'row')}")


def _check_new(out: Path, table: Path, overwrite: bool) -> None:
    """Refuses a file that is there, unless it is to be replaced; and the table always."""
    if not os.path.lexists(out):
        return
    if out.is_dir():
        raise IsADirectoryError(f"out: expected a file, got the folder {out}")
    if out.exists() and table.exists() and out.samefile(table):
        raise ValueError(f"out: expected another file than the table, got {out}")
    if not overwrite:
        raise FileExistsError(f"out: expected a new file, got {out}, which is there; overwrite=True replaces it")
