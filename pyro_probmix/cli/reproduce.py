"""``pyro-probmix reproduce``: tables, ablations and figures of the paper, and calibration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyro_probmix.cli.options import AsJson, Plugins, experiment_settings, plain_errors, print_json

if TYPE_CHECKING:
    from pyro_probmix.experiments import Ablation, CalibrationTable, PaperTable

__all__ = ["REPRODUCTIONS", "reproduce"]

_PICTURES = ("figure2", "figure3", "figure14")
REPRODUCTIONS = (
    *("table1", "table2", "table3", "table4"),
    *("ablation-regression", "ablation-classification", "calibration"),
    *_PICTURES,
)
"""What ``reproduce`` reproduces."""


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
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Compute a table, an ablation or a figure of the paper, or calibration; print and write it beside the paper's."""
    given = locals()
    with plain_errors(given, *(["stopped"] if name in _PICTURES else [])):
        import joblib  # type: ignore[import-untyped]
        from rich.console import Console

        from pyro_probmix._checks import check_choice
        from pyro_probmix.experiments import (
            ABLATIONS,
            CALIBRATION,
            TABLES,
            ablate,
            draw_picture,
            import_plugins,
            recalibrate,
        )
        from pyro_probmix.experiments import reproduce as run_reproduction

        common: dict[str, Any] = {
            "out": out,
            "seed": seed,
            "progress": sys.stderr.isatty(),
            **experiment_settings(given),
        }
        import_plugins(plugin or ())
        check_choice("name", name, REPRODUCTIONS)
        of_data = {"datasets": datasets, "data": data}
        of_table = {"protocol": protocol if protocol != "paper" else None}
        places = {"device": device if device != "cpu" else None, "jobs": jobs, "compile": compile or None}
        with_data, trained = (*TABLES, CALIBRATION.name), (*TABLES, *ABLATIONS, CALIBRATION.name)
        for names, chosen in ((with_data, of_data), (TABLES, of_table), (trained, {"methods": methods, **places})):
            for option, value in chosen.items():
                if value is not None and name not in names:
                    raise ValueError(f"{option}: expected none for {name}, got {value}")
        if name in _PICTURES:
            figure = draw_picture(name, **common)
            if as_json:
                print_json({"figure": str(figure)})
            else:
                typer.echo(f"figure:  {figure}")
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
    files = {"results": out / f"{shown.results}.json", "table": out / f"{shown.name}.md"}
    files["figure"] = out / f"{shown.name}.png"
    if as_json:
        written = {what: str(path) for what, path in files.items()}
        print_json({**written, "claims": [str(claim) for claim in shown.claims(cells)]})
        return
    for panel in shown.terminal(cells):
        Console().print(panel)
    for claim in shown.claims(cells):
        typer.echo(str(claim))
    typer.echo("\n".join(f"{what + ':':9}{path}" for what, path in files.items()))
