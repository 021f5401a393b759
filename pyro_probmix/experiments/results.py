"""What a comparison came to: kept cell by cell, written to JSON, summarised in a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from pyro_probmix.datasets import Dataset
from pyro_probmix.evaluation import METRICS
from pyro_probmix.experiments.cells import CellResult, Picture
from pyro_probmix.experiments.files import versions, write_json
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.protocol import ExperimentSettings

__all__ = ["Comparison"]


@dataclass
class Comparison:
    """Methods by splits, filled one cell at a time.

    Args:
        data: the data set.
        settings: how every method is trained.
        methods: names of the compared methods, in the order of the tables.
        seed: seed of the comparison.
        cells: the results so far, by method and split.
    """

    data: Dataset
    settings: ExperimentSettings
    methods: tuple[str, ...]
    seed: int
    cells: dict[tuple[str, int], CellResult] = field(default_factory=dict)

    def add(self, result: CellResult) -> None:
        """Keep the result of a cell."""
        self.cells[result.method, result.split] = result

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the cells have, in the units of the data."""
        found = [cell.metrics for cell in self.cells.values()]
        return tuple(name for name in found[0] if all(name in metrics for metrics in found)) if found else ()

    @property
    def pictures(self) -> dict[str, Picture]:
        """The toy models on their grids, by method; empty for other data."""
        first = {method: self.cells.get((method, 0)) for method in self.methods}
        return {method: cell.picture for method, cell in first.items() if cell and cell.picture}

    def values(self, method: str, metric: str) -> NDArray[np.float64]:
        """A metric on every finished split, of shape ``(splits,)`` once all are."""
        found = [self.cells.get((method, split)) for split in range(self.settings.splits)]
        return np.array([cell.metrics[metric] for cell in found if cell])

    def best(self, metric: str) -> str:
        """The method with the best mean of a metric."""
        sign = 1.0 if METRICS[metric].lower_is_better else -1.0
        means = {method: sign * self.values(method, metric).mean() for method in self.methods}
        return min(means, key=means.__getitem__)

    def to_json(self) -> dict[str, Any]:
        """Data set, settings, and per method and metric one number a split; ``None`` for a missing cell."""
        settings = {
            **asdict(self.settings),
            "seed": self.seed,
            "rows": len(self.data),
            "features": self.data.num_features,
            "task": self.data.task,
            "versions": versions(),
        }
        cells = {
            method: [self.cells.get((method, split)) for split in range(self.settings.splits)]
            for method in self.methods
        }
        methods = {
            method: {metric: [c.metrics[metric] if c else None for c in found] for metric in self.metrics}
            for method, found in cells.items()
        }
        return {"dataset": self.data.name, "settings": settings, "methods": methods}

    def save(self, path: Path) -> None:
        """Write :meth:`to_json` to ``path``; a kill while writing leaves the file as it was."""
        write_json(path, self.to_json())

    def table(self) -> Table:
        """Mean ± sample standard deviation over the splits, the best mean of a metric in bold."""
        draws = f"{self.settings.splits} {'draws' if self.data.splitting == 'drawn' else 'splits'}"
        title = f"{self.data.name}: test set, mean ± standard deviation over {draws}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("method", "fuses", "partners"):
            table.add_column(heading, no_wrap=True)
        columns = []
        for metric in self.metrics:
            if metric != "rmse" or "mse" not in self.metrics:
                table.add_column(METRICS[metric].heading, justify="right", no_wrap=True)
                columns.append(self._column(metric))
        neighbors = f"{self.settings.num_neighbors} nearest"
        for row, key in enumerate(self.methods):
            method = METHODS[key]
            partners = "-" if key == "erm" else neighbors if method.local else "any"
            table.add_row(method.name, method.fuses, partners, *(column[row] for column in columns))
        return table

    def _column(self, metric: str) -> list[str]:
        values = [self.values(method, metric) for method in self.methods]
        size = float(np.median([abs(found.mean()) for found in values]))
        digits = int(np.clip(2 - np.floor(np.log10(size)), 0, 6)) if size > 0 else 2
        texts = []
        for method, found in zip(self.methods, values, strict=True):
            deviation = f" ± {found.std(ddof=1):.{digits}f}" if len(found) > 1 else ""
            text = f"{found.mean():.{digits}f}{deviation}"
            texts.append(f"[bold]{text}[/bold]" if method == self.best(metric) else text)
        return texts
