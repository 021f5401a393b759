"""What a comparison came to: kept cell by cell, written to JSON, summarised in a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as TerminalTable

from pyro_probmix.datasets import Dataset
from pyro_probmix.evaluation import METRICS
from pyro_probmix.experiments.files import versions, write_json
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.pictures import Picture
from pyro_probmix.experiments.runner import Result
from pyro_probmix.experiments.settings import ExperimentSettings
from pyro_probmix.experiments.table import Table, best, mean_texts

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

    def table(self) -> TerminalTable:
        """Mean ± sample standard deviation over the splits, the best mean of a metric in bold."""
        draws = f"{self.settings.splits} {'draws' if self.data.splitting == 'drawn' else 'splits'}"
        title = f"{self.data.name}: test set, mean ± standard deviation over {draws}"
        shown = [metric for metric in self.metrics if metric != "rmse" or "mse" not in self.metrics]
        columns = [self._column(metric) for metric in shown]
        rows = []
        for key, *texts in zip(self.methods, *columns, strict=True):
            nearest = f"{self.settings.num_neighbors} nearest" if METHODS[key].local else "any"
            rows.append([METHODS[key].name, METHODS[key].fuses, "-" if key == "erm" else nearest, *texts])
        headings = ["method", "fuses", "partners", *(METRICS[metric].heading for metric in shown)]
        return Table(headings, rows, title, num_names=3).terminal()

    def _column(self, metric: str) -> list[str]:
        values = [self.values(method, metric) for method in self.methods]
        size = float(np.median([abs(found.mean()) for found in values]))
        digits = int(np.clip(2 - np.floor(np.log10(size)), 0, 6)) if size > 0 else 2
        return mean_texts(values, metric, f".{digits}f", f".{digits}f" if self.settings.splits > 1 else None)
