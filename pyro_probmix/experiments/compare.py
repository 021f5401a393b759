"""Methods side by side on one data set."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pyro_probmix._checks import check_integer
from pyro_probmix.datasets import Dataset
from pyro_probmix.experiments.figures import draw
from pyro_probmix.experiments.methods import METHODS, select_methods
from pyro_probmix.experiments.report import write_report
from pyro_probmix.experiments.results import Comparison
from pyro_probmix.experiments.runner import Cell, Runner
from pyro_probmix.experiments.settings import ExperimentSettings, settings_for
from pyro_probmix.experiments.splits import make_split
from pyro_probmix.reports import REPORT

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
    data_notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Comparison:
    """Train and test methods on the splits of a data set, under one protocol.

    Splits are scaled, if ``settings`` say so, on their training rows, a part of which picks the epoch; metrics are in
    the units of the data. The splits of a method are trained as replicas, whose random numbers come from the seed and
    the split alone, so methods are paired and results depend neither on ``jobs`` nor on which others are compared.

    Args:
        data: the data set.
        methods: names of methods, by default all of :data:`~pyro_probmix.experiments.METHODS`.
        settings: how to train; by default :func:`~pyro_probmix.experiments.settings_for` the data.
        seed: seed of everything random.
        jobs: processes that share the methods; 1 trains in this one.
        out: folder for ``results.json``, which is rewritten after every method, ``figure.png`` and
            ``report.html``; ``None`` writes nothing.
        progress: show a progress bar on standard error.
        data_notes: what was noticed when the data were read, a sentence each, for the report.
        warnings: what was warned of, a sentence each, for the report.

    Raises:
        RuntimeError: if a process ends by itself.
        ValueError: if a method is unknown, the data are too few for the settings, or a training fails.

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
    check_integer("seed", seed, minimum=0)
    # No more than methods, so that none shares out its splits and is rounded in another way.
    runner = Runner(jobs=min(check_integer("jobs", jobs), len(methods)), progress=progress)
    rows = len(make_split(data, 0, seed, settings.validation_fraction).train[0])
    if any(METHODS[method].local for method in methods) and settings.num_neighbors >= rows:
        raise ValueError(f"num_neighbors: expected fewer than the {rows} training rows, got {settings.num_neighbors}")
    comparison = Comparison(data, settings, methods, seed)
    folder = None if out is None else Path(out)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    pictured, reported = data.splitting == "drawn", folder is not None
    cells = [
        Cell(data.name, name, data, METHODS[name], settings, seed, pictured=pictured, reported=reported)
        for name in methods
    ]
    with closing(runner.run(cells)) as results:
        for cell, result in results:
            comparison.results[cell.column] = result
            if folder:
                comparison.save(folder / RESULTS)
    if folder:
        draw(comparison, folder / FIGURE)
        write_report(comparison, folder / REPORT, data_notes, warnings)
    return comparison
