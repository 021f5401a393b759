"""``pyro-probmix fit``: a model of a table, as a folder."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pyro_probmix.cli.models import of_target
from pyro_probmix.cli.options import (
    AsJson,
    Decimal,
    Device,
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
    notes_on_stderr,
    numbers,
    plain_errors,
    print_json,
    say,
    table_options,
)

__all__ = ["fit"]

_MODEL: Any = {"rich_help_panel": "The model; defaults are those of the estimators"}
_TRAINING: Any = {"rich_help_panel": "Its training"}


def fit(
    table: Annotated[Path, typer.Argument(help="A .csv, .tsv, .txt (also .gz), .parquet or .xlsx file.")],
    target: Annotated[
        list[str], typer.Option(help="Column to predict, by name, or -1 for the last; repeatable for several outputs.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the model.")],
    task: Annotated[str | None, typer.Option(help="regression or classification; default: by the target.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="erm, mixup, manifold_mixup, probmix, manifold_probmix or a plugin's.", **_MODEL),
    ] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            help="Of numbers normal, student_t, mixture, lognormal, gamma, beta, poisson, negative_binomial, "
            "zero_inflated_poisson or auto; of classes categorical or ordinal.",
            **_MODEL,
        ),
    ] = None,
    fusion: Annotated[str | None, typer.Option(help="log-linear, linear or numerical.", **_MODEL)] = None,
    hidden_features: Annotated[
        str | None, typer.Option(metavar="WIDTHS", help="Widths of hidden layers, such as 128,32.", **_MODEL)
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Mixing coefficient Beta(alpha, alpha).", **_MODEL)] = None,
    beta: Annotated[float | None, typer.Option(help="Vicinity of a label, in standardised units.", **_MODEL)] = None,
    num_members: Annotated[int | None, typer.Option(help="Networks of the ensemble.", **_MODEL)] = None,
    num_neighbors: Annotated[int | None, typer.Option(help="Mix with one of so many neighbours.", **_MODEL)] = None,
    num_samples: Annotated[int | None, typer.Option(help="Embedding samples of a prediction.", **_MODEL)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the rows, at most.", **_TRAINING)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.", **_TRAINING)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.", **_TRAINING)] = None,
    scheduler: Annotated[str | None, typer.Option(help="one_cycle or constant.", **_TRAINING)] = None,
    validation_fraction: Annotated[
        float | None, typer.Option(help="Part of the rows that chooses the epoch; 0: the last.", **_TRAINING)
    ] = None,
    patience: Annotated[int | None, typer.Option(help="Epochs without a better one, at most.", **_TRAINING)] = None,
    ema_decay: Annotated[float | None, typer.Option(help="Of the average of parameters.", **_TRAINING)] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Then train on all rows.", **_TRAINING)] = False,
    class_weight: Annotated[
        str | None, typer.Option(metavar="balanced", help="Classes count alike.", **_TRAINING)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Device = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")] = False,
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
    """Fit a model of a column given the others, and save it as a folder.

    Predictions have the columns mean, std, quantiles such as q05, and on
    demand lower90 and upper90; or class, and p[NAME] of each class in order.
    """
    given = locals()
    started = time.monotonic()
    with plain_errors(given, "stopped; no model is written"), notes_on_stderr() as said:
        from pyro_probmix._checks import check_integer
        from pyro_probmix._files import check_writable
        from pyro_probmix.datasets import load_table
        from pyro_probmix.experiments import import_plugins
        from pyro_probmix.persistence import check_destination, save

        import_plugins(plugin or ())
        if check_integer("seed", seed, 0) >= 2**32:
            raise ValueError(f"seed: expected an integer below 2**32, got {seed}")
        check_writable(check_destination(out, overwrite).parent, out)
        columns = [as_column(name, no_header) for name in target]
        options, wanted = table_options(given), columns if len(columns) > 1 else columns[0]
        data = load_table(table, wanted, task=_task(task, likelihood), **options)
        say(said, data.notes)
        say(said, _counts(given, data))
        estimator = _estimator(given, data)
        with of_target(data):
            estimator.fit(data.features, _labels(data, options.get("kinds", {}), likelihood))
        estimator.set_params(verbose=False)  # the terminal's, not the model's
        names = [data.target_name] if isinstance(data.target_name, str) else list(data.target_name or ())
        aside = [name for name in (*options.get("drop", ()), *options.get("ids", ())) if isinstance(name, str)]
        named = [] if data.ids is None else list(data.ids.columns)
        about = {"table": data.name, "targets": names, "task": data.task, "set_aside": aside, "ids": named}
        about |= {"na": list(options.get("na", ())), "target_kinds": list(data.target_kinds.values())}
        save(estimator, out, overwrite=overwrite, about=about)
    _report(estimator, data, names, out, time.monotonic() - started, said, as_json)


def _task(task: str | None, likelihood: str | None) -> Any:
    """The task, which a likelihood tells too."""
    from pyro_probmix.estimators import LIKELIHOODS

    own = "classification" if likelihood in ("categorical", "ordinal") else None
    own = "regression" if likelihood in (*LIKELIHOODS, "auto") else own
    if own is not None and task in {"regression", "classification"} - {own}:
        raise ValueError(f"likelihood: expected one of a {task}, got {likelihood}, of a {own}")
    return own if task is None else task


def _counts(given: dict[str, Any], data: Any) -> list[str]:
    """What is said of a target that counts, where no likelihood has been chosen."""
    from pyro_probmix.estimators.targets import candidates

    if given["likelihood"] is not None or data.task != "regression" or "poisson" not in candidates(data.target):
        return []
    ends = f"{data.target.min():.0f}…{data.target.max():.0f}"
    return [f"the target is counts {ends}; --likelihood auto chooses among the likelihoods of counts"]


def _labels(data: Any, kinds: dict[str, Any], likelihood: str | None) -> Any:
    """The target; labels as an ordered category where their order is given."""
    from pyro_probmix.tables.kinds import clean_name, resolve_kinds

    name = data.target_name
    if not isinstance(name, str) or data.task == "regression":
        return data.target
    cleaned = {clean_name(column): kind for column, kind in kinds.items()}
    own = resolve_kinds({name: cleaned[name]}, [name]) if name in cleaned else {}
    _, levels = own.get(name, (None, None))
    if levels is None:
        if likelihood == "ordinal" and data.target.dtype.kind == "U":
            some = " < ".join(dict.fromkeys(data.target[:100].tolist()))
            raise ValueError(
                f'kinds: expected the order of the labels of {name}, such as "{name}={some:.60}", got none'
            )
        return data.target
    unknown = [label for label in dict.fromkeys(data.target.tolist()) if label not in levels]
    if unknown:
        raise ValueError(f"kinds: expected the order of all labels of {name}, got none of {unknown[0]!r}")
    import pandas as pd

    return pd.Series(pd.Categorical(data.target, categories=list(levels), ordered=True))


def _estimator(given: dict[str, Any], data: Any) -> Any:
    """The estimator of the task, with the settings that have been given."""
    from pyro_probmix.estimators import ProbMixClassifier, ProbMixRegressor

    kind = ProbMixRegressor if data.task == "regression" else ProbMixClassifier
    known = kind().get_params()
    settings = {name: value for name, value in given.items() if value is not None and name != "kinds"}
    if "hidden_features" in settings:
        settings["hidden_features"] = _widths(settings["hidden_features"])
    if "class_weight" in settings and "class_weight" not in known:
        raise ValueError("class_weight: expected none for a regression, got " + settings["class_weight"])
    chosen = {name: value for name, value in settings.items() if name in known}
    return kind(kinds=data.kinds or None, random_state=given["seed"], verbose=sys.stderr.isatty(), **chosen)


def _widths(text: str) -> tuple[int, ...]:
    widths = numbers("hidden_features", text)
    if not all(width.is_integer() for width in widths):
        raise ValueError(f'hidden_features: expected whole numbers, such as 128,32, got "{text}"')
    return tuple(map(int, widths))


def _report(
    estimator: Any, data: Any, targets: list[str], out: Path, seconds: float, said: list[str], as_json: bool
) -> None:
    from pyro_probmix.reports.page import plural

    best = [history.best_epoch + 1 for history in estimator.histories_]
    validated = [history.validation_loss for history in estimator.histories_]
    losses = [own[epoch - 1] if own else None for own, epoch in zip(validated, best, strict=True)]
    told = {
        "model": str(out),
        "targets": targets,
        "task": data.task,
        "rows": len(data),
        "features": estimator.preparation_.num_features,
        "method": estimator.method,
        "likelihood": estimator.likelihood_,
        "epochs": best,
        "validation_loss": losses,
        "seconds": round(seconds, 1),
        "notes": said,
    }
    if as_json:
        print_json(told)
        return
    features, columns = plural(estimator.preparation_.num_features, "feature"), plural(data.features.shape[1], "column")
    typer.echo(f"rows:       {told['rows']}, {features} from {columns}")
    typer.echo(f"target:     {', '.join(targets)} ({data.task})")
    typer.echo(f"method:     {told['method']}, {told['likelihood']} likelihood")
    typer.echo(f"best epoch: {', '.join(map(str, best))}")
    typer.echo(f"model:      {out}")
