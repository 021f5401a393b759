"""What a comparison came to: kept cell by cell, written to JSON, summarised in a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as TerminalTable

from pyro_probmix._files import versions, write_json
from pyro_probmix.datasets import Dataset
from pyro_probmix.evaluation import METRICS
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.paired import MAIN, PAIRED, Pair, pair_table, pair_with_best
from pyro_probmix.experiments.pictures import Picture
from pyro_probmix.experiments.runner import Result
from pyro_probmix.experiments.settings import ExperimentSettings
from pyro_probmix.experiments.splits import REPETITIONS
from pyro_probmix.experiments.table import Table, best, centre, heavy_tailed, mean_texts

__all__ = ["Comparison"]


@dataclass
class Comparison:
    """Methods by splits, filled one method at a time.

    Args:
        data: the data set.
        settings: how every method is trained.
        methods: names of the compared methods, in the order of the tables.
        seed: seed of the comparison.
        results: the results so far, by method.
    """

    data: Dataset
    settings: ExperimentSettings
    methods: tuple[str, ...]
    seed: int
    results: dict[str, Result] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that all finished methods have, in the units of the data."""
        found = [result.metrics for result in self.results.values()]
        return tuple(name for name in found[0] if all(name in metrics for metrics in found)) if found else ()

    @property
    def pictures(self) -> dict[str, Picture]:
        """The toy models on their grids, by method; empty for other data."""
        found = {method: self.results[method].picture for method in self.methods if method in self.results}
        return {method: picture for method, picture in found.items() if picture}

    def values(self, method: str, metric: str) -> NDArray[np.float64]:
        """A metric of a finished method on every split, of shape ``(splits,)``."""
        return np.array(self.results[method].metrics[metric])

    def best(self, metric: str) -> str:
        """The method with the best mean of a metric."""
        return best({method: float(self.values(method, metric).mean()) for method in self.methods}, metric)

    def to_json(self) -> dict[str, Any]:
        """Data set, settings, and per method and metric one number a split; ``None`` for a missing method."""
        settings = {
            **asdict(self.settings),
            "seed": self.seed,
            "rows": len(self.data),
            "features": self.data.num_features,
            "task": self.data.task,
            "versions": versions(),
        }
        missing = {metric: [None] * self.settings.splits for metric in self.metrics}
        found = {method: result.metrics for method, result in self.results.items()}
        methods = {method: found.get(method, missing) for method in self.methods}
        return {"dataset": self.data.name, "settings": settings, "methods": methods}

    def save(self, path: Path) -> None:
        """Write :meth:`to_json` to ``path``; a kill while writing leaves the file as it was."""
        write_json(path, self.to_json())

    def tables(self) -> list[TerminalTable]:
        """Tables for a terminal of 80 characters: the metrics, and the methods in pairs.

        They are means ± sample standard deviations over the splits, or, where few splits decide the means (see
        :func:`~pyro_probmix.experiments.table.heavy_tailed`), medians and quartiles; the best is bold.
        """
        title = f"{self.data.name}: test set" + f", {self.over}" * (self.settings.splits > 1)
        scores, pairs = self.score_table(title), self.pair_table()
        return scores.terminal() if pairs is None else [*scores.terminal(), *pairs.terminal()]

    def score_table(self, title: str = "") -> Table:
        """The metrics of the methods."""
        labels = [METHODS[key].label for key in self.methods]
        headings = [METRICS[metric].heading + ", median" * self.heavy_tailed(metric) for metric in self.shown]
        rows = list(zip(labels, *map(self._column, self.shown), strict=True))
        return Table(["method", *headings], rows, title)

    def pair_table(self) -> Table | None:
        """The main method against the best of the others, by metric; None without others, or of one split."""
        return pair_table({METRICS[metric].heading: self.pair(metric) for metric in self.shown}, "metric")

    def notes(self) -> list[str]:
        """What is to be known of the tables, a sentence each."""
        notes = []
        heavy = [METRICS[metric].heading for metric in self.shown if self.heavy_tailed(metric)]
        if self.settings.splits > 1:
            median = f"; of {' and '.join(heavy)} the median [quartiles], for few numbers decide the means"
            notes.append(f"Mean ± standard deviation over {self.over}{median if heavy else ''}.")
        if any(METHODS[key].local for key in self.methods):
            notes.append(f"Local methods mix a row with one of its {self.settings.num_neighbors} nearest.")
        return [*notes, PAIRED.replace("\n", " ")] if any(self.pair(metric) for metric in self.shown) else notes

    def heavy_tailed(self, metric: str) -> bool:
        """Whether few splits decide the means of a metric, so that its medians are shown."""
        return heavy_tailed(self.values(method, metric) for method in self.methods)

    def pair(self, metric: str) -> Pair | None:
        """The main method, or else the one that is best in the first metric, against the best of the others."""
        method = MAIN if MAIN in self.methods else self.best(self.shown[0])
        values = {key: self.values(key, metric) for key in self.methods}
        return pair_with_best(values, metric, self.data.splitting, method)

    @property
    def over(self) -> str:
        """How many splits, draws or seeds."""
        return f"{self.settings.splits} {REPETITIONS[self.data.splitting].unit}"

    @property
    def shown(self) -> list[str]:
        """Names of the metrics in the tables: of a mean square and its root one."""
        return [metric for metric in self.metrics if metric != "rmse" or "mse" not in self.metrics]

    def _column(self, metric: str) -> list[str]:
        values, median = [self.values(method, metric) for method in self.methods], self.heavy_tailed(metric)
        size = float(np.median([abs(centre(found, median)) for found in values]))
        digits = int(np.clip(2 - np.floor(np.log10(size)), 0, 6)) if size > 0 else 2
        spread = f".{digits}f" if self.settings.splits > 1 else None
        return mean_texts(values, metric, f".{digits}f", spread, median=median)
