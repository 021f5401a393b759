"""Methods side by side on one data set."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pyro_probmix.datasets import Dataset
from pyro_probmix.experiments.cells import Cell, metrics_for, run_cell
from pyro_probmix.experiments.figures import draw
from pyro_probmix.experiments.methods import METHODS, select_methods
from pyro_probmix.experiments.protocol import ExperimentSettings, make_split, settings_for
from pyro_probmix.experiments.results import Comparison
from pyro_probmix.training._processes import in_processes

__all__ = ["FIGURE", "RESULTS", "compare"]

RESULTS = "results.json"
"""Name of the file of results in the output folder."""

FIGURE = "figure.png"
"""Name of the figure in the output folder."""


def compare(
    data: Dataset,
    methods: Sequence[str] = tuple(METHODS),
    settings: ExperimentSettings | None = None,
    *,
    seed: int = 0,
    jobs: int = 1,
    out: str | Path | None = None,
    progress: bool = True,
) -> Comparison:
    """Train and test methods on the splits of a data set, under one protocol.

    Splits are scaled, if ``settings`` say so, on their training rows, a part of which picks the epoch; metrics are in
    the units of the data. A cell's random numbers come from the seed and its split alone, so methods are paired and
    results depend neither on ``jobs`` nor on which other methods are compared.

    Args:
        data: the data set.
        methods: names of methods, by default all of :data:`~pyro_probmix.experiments.methods.METHODS`; those of
            :func:`~pyro_probmix.models.register_method` too, with ``local_`` before them on nearest neighbours.
        settings: how to train; by default :func:`~pyro_probmix.experiments.protocol.settings_for` the data.
        seed: seed of everything random.
        jobs: worker processes; 1 works in this process. With more, a script needs the usual
            ``if __name__ == "__main__":`` guard.
        out: folder for ``results.json``, which is rewritten after every cell, and ``figure.png``; ``None``
            writes nothing.
        progress: show a progress bar on standard error.

    Raises:
        ValueError: if a method is unknown, or the data are too few for the settings.

    >>> from dataclasses import replace
    >>> from pyro_probmix.datasets import toy_regression
    >>> data = toy_regression()
    >>> settings = replace(settings_for(data), splits=1, epochs=2)
    >>> comparison = compare(data, ["erm", "probmix"], settings, progress=False)
    >>> comparison.values("erm", "nll").shape
    (1,)
    """
    methods = select_methods(",".join(methods))
    settings = settings or settings_for(data)
    if jobs < 1 or seed < 0:
        raise ValueError(f"jobs must be at least 1 and seed not negative; got jobs={jobs}, seed={seed}")
    _check_neighbors(data, methods, settings, seed)
    comparison = Comparison(data, settings, methods, seed)
    folder = None if out is None else Path(out)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    cells = [
        Cell(data, settings, method, split, seed, METHODS[method], metrics_for(data))
        for split in range(settings.splits)
        for method in methods
    ]
    results = in_processes(run_cell, cells, min(jobs, len(cells))) if jobs > 1 else (run_cell(cell) for cell in cells)
    with _bar(progress) as bar, closing(results):
        task = bar.add_task("", total=len(cells))
        for result in results:
            comparison.add(result)
            if folder:
                comparison.save(folder / RESULTS)
            bar.update(task, advance=1, description=f"{METHODS[result.method].label}, split {result.split + 1}")
    if folder:
        draw(comparison, folder / FIGURE)
    return comparison


def _check_neighbors(data: Dataset, methods: Sequence[str], settings: ExperimentSettings, seed: int) -> None:
    rows = len(make_split(data, 0, seed, settings.validation_fraction).train[0])
    if any(METHODS[method].local for method in methods) and settings.num_neighbors >= rows:
        raise ValueError(f"num_neighbors must be below the {rows} training rows; got {settings.num_neighbors}")


def _bar(progress: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
