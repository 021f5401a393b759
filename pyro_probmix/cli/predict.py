"""``pyro-probmix predict``: what a model says of new rows."""

from __future__ import annotations

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
    interval: Annotated[
        list[float] | None,
        typer.Option(metavar="SHARE", help="Central interval, such as 0.9: lower90 and upper90; repeatable."),
    ] = None,
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
    with plain_errors("stopped; no predictions are written"), notes_on_stderr():
        import_plugins(plugin or ())
        check_suffix(out)
        check_writable(out.parent)
        levels = QUANTILES if quantiles is None else numbers("quantiles", quantiles)
        estimator = load_estimator(model, device)
        about = remembered(model)
        aside = [name for name in about["set_aside"] if name not in (ids or ())]
        data = load_table(table, preparation=estimator.preparation_, drop=aside, **table_options(given))
        options: dict[str, Any] = {"quantiles": levels, "intervals": interval or (), "ids": data.ids}
        frame = prediction_table(estimator, data.features, targets=about["targets"], **options)
        write_table(frame, out)
    if as_json:
        print_json({"predictions": str(out), "rows": len(frame), "columns": list(frame.columns)})
    else:
        typer.echo(f"predictions: {out}, {len(frame)} rows")
