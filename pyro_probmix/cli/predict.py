"""``pyro-probmix predict``: what a model says of new rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pyro_probmix._files import check_writable
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
    check_apart,
    notes_on_stderr,
    numbers,
    plain_errors,
    print_json,
    table_options,
)
from pyro_probmix.datasets import load_table
from pyro_probmix.experiments import (
    QUANTILES,
    check_suffix,
    import_plugins,
    load_estimator,
    prediction_table,
    remembered,
    write_table,
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
    ids: Ids = None,
) -> None:
    """Predict rows: mean, std and quantiles of a number, or the class and its probabilities; in their order."""
    given = locals()
    with plain_errors(given, "stopped; no predictions are written"), notes_on_stderr():
        import_plugins(plugin or ())
        check_suffix(out)
        check_apart(out, model)
        _check_new(out, table, overwrite)
        check_writable(out.parent, out)
        levels = QUANTILES if quantiles is None else numbers("quantiles", quantiles)
        estimator = load_estimator(model, device)
        about = remembered(model)
        aside = [name for name in about["set_aside"] if name not in (ids or ())]
        data = load_table(table, preparation=estimator.preparation_, drop=aside, **table_options(given))
        options: dict[str, Any] = {"quantiles": levels, "intervals": intervals or (), "ids": data.ids}
        frame = prediction_table(estimator, data.features, targets=about["targets"], **options)
        write_table(frame, out)
    if as_json:
        print_json({"predictions": str(out), "rows": len(frame), "columns": list(frame.columns)})
    else:
        typer.echo(f"predictions: {out}, {len(frame)} rows")


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
