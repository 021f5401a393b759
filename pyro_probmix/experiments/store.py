"""Cells trained as replicas and kept in a folder: a cell is a method on all splits of a data set."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from pyro_probmix.datasets import Dataset
from pyro_probmix.experiments.cells import score
from pyro_probmix.experiments.files import versions, write_json
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.paper import Cells
from pyro_probmix.experiments.protocol import ExperimentSettings, Split, make_split
from pyro_probmix.training import Replicas, fit_replicas

__all__ = ["CellStore", "Compute", "PaperSettings", "scores", "train_cell", "train_splits", "with_changes"]


@dataclass(frozen=True)
class PaperSettings(ExperimentSettings):
    """Settings of a cell that is trained as replicas.

    Args:
        validation_every: epochs from one validation to the next.
        patience: epochs without a better validation loss after which a split stops; ``None`` for never.
    """

    validation_every: int = 1
    patience: int | None = None


@dataclass(frozen=True)
class Compute:
    """What trains the replicas of a cell.

    Args:
        device: where the models are trained.
        jobs: processes that share the replicas; 1 trains in this one.
        compile: whether steps are compiled.

    Raises:
        ValueError: if there is no such device, or ``jobs`` is below 1.
    """

    device: str = "cpu"
    jobs: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1; got {self.jobs}")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device: expected one that is here, such as cpu, got {self.device!r}: {error}") from error


@dataclass(frozen=True)
class CellStore:
    """Finished cells in a folder, one file each, and the file that holds all of the same settings.

    Args:
        folder: where the cells are, in a folder of the name of the results.
        name: of the file of results, without its suffix.
        settings: of every row of the table, by name.
        data: what identifies the data of a row, by name.
        seed: seed of the reproduction.
        compute: what trains the cells.
    """

    folder: Path
    name: str
    settings: dict[str, PaperSettings]
    data: dict[str, str]
    seed: int
    compute: Compute
    protocol: ClassVar[str] = "paper"
    """Name of the protocol."""
    labels: ClassVar[Mapping[str, str]] = {name: method.label for name, method in METHODS.items()}
    """The methods of the cells, and how they are shown."""

    def load(self, dataset: str, method: str) -> dict[str, list[float]] | None:
        """The metrics of a cell, or ``None`` where it has not been computed with these settings."""
        path = self._path(dataset, method)
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            same = found["settings"] == self._settings(dataset)
            return found["metrics"] if same else None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not the file of a cell ({error!r}); remove it") from error

    def save(self, dataset: str, method: str, metrics: dict[str, list[float]], seconds: float) -> None:
        """Keep a cell, and write the file of all cells anew."""
        content = {
            "dataset": dataset,
            "method": method,
            "settings": self._settings(dataset),
            "versions": versions(),
            "device": self.compute.device,
            "compile": self.compute.compile,
            "seconds": round(seconds, 1),
            "metrics": metrics,
        }
        path = self._path(dataset, method)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
        self.collect()

    def fill(
        self,
        data: dict[str, Dataset],
        methods: Sequence[str],
        report: Callable[[str], None] | None,
        progress: bool,
    ) -> Cells:
        """Compute what is not there yet, and return what then is."""
        for name, dataset in data.items():
            for method in methods:
                metrics, start = self.load(name, method), time.perf_counter()
                done = "kept"
                if metrics is None:
                    metrics = self.train(name, dataset, method, progress)
                    seconds = time.perf_counter() - start
                    self.save(name, method, metrics, seconds)
                    done = f"{seconds:.0f} s"
                if report:
                    figures = {metric: values for metric, values in metrics.items() if isinstance(values[0], float)}
                    means = ", ".join(f"{metric} {np.mean(values):.3f}" for metric, values in figures.items())
                    report(f"{name}, {self.labels[method]}: {means} ({done})")
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.collect()

    def train(self, name: str, data: Dataset, method: str, progress: bool) -> dict[str, list[float]]:
        """The metrics of a cell, trained anew."""
        return train_cell(data, method, self.settings[name], self.seed, self.compute, progress)

    def collect(self) -> Cells:
        """All finished cells of these settings, also written to the file of results."""
        cells = self._finished()
        while True:
            self._write(cells)
            now = self._finished()
            if now == cells:
                return cells
            cells = now  # another process has finished a cell, and may have written its file before ours

    def _finished(self) -> Cells:
        cells: Cells = {}
        for dataset in self.settings:
            found = {method: self.load(dataset, method) for method in self.labels}
            done = {method: metrics for method, metrics in found.items() if metrics is not None}
            if done:
                cells[dataset] = done
        return cells

    def _write(self, cells: Cells) -> None:
        settings = {"protocol": self.protocol, "datasets": {name: self._settings(name) for name in cells}}
        content = {"settings": {**settings, "versions": versions()}, "cells": cells}
        write_json(self.folder / f"{self.name}.json", content)

    def _path(self, dataset: str, method: str) -> Path:
        return self.folder / "cells" / self.name / dataset / f"{method}.json"

    def _settings(self, dataset: str) -> dict[str, Any]:
        settings = json.loads(json.dumps(asdict(self.settings[dataset])))
        return {"seed": self.seed, "data": self.data[dataset], **settings}


def train_cell(
    data: Dataset,
    method: str,
    settings: PaperSettings,
    seed: int,
    compute: Compute,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Test metrics of one method, a number a split, all splits being trained as replicas.

    Raises:
        ValueError: if a training fails; the method, the data set and the splits are named.
    """
    place = torch.device(compute.device)
    splits = [
        make_split(data, index, seed, settings.validation_fraction, standardise=settings.standardise).to(place)
        for index in range(settings.splits)
    ]
    replicas = train_splits(data, method, settings, splits, seed, compute, progress)
    if replicas.failed:
        failed = ", ".join(f"{split + 1} (epoch {epoch})" for split, epoch in replicas.failed.items())
        raise ValueError(f"{method} on {data.name}: the loss is not finite on splits {failed}")
    return scores([[model] for model in replicas.models], splits, settings, data)


def train_splits(
    data: Dataset,
    method: str,
    settings: PaperSettings,
    splits: Sequence[Split],
    seed: int,
    compute: Compute,
    progress: bool,
) -> Replicas:
    """One method trained on splits, as replicas."""
    column, device = METHODS[method], splits[0].train[0].device
    held_out = [split.validation for split in splits if split.held_out is not None]
    return fit_replicas(
        lambda r: column.make_model(data, settings).to(device),
        [split.train for split in splits],
        graph=functools.partial(column.graph, num_neighbors=settings.num_neighbors),
        validation=held_out or None,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        validation_every=settings.validation_every,
        patience=settings.patience,
        seed=seed,
        progress=progress,
        num_workers=0 if compute.jobs == 1 else compute.jobs,
        compile=compute.compile,
    )


def scores(
    models: Sequence[Sequence[Any]], splits: Sequence[Split], settings: PaperSettings, data: Dataset
) -> dict[str, list[float]]:
    """Test metrics, a number a split, of the equal mixture of the models of each."""
    found = [score(members, split, settings, data) for members, split in zip(models, splits, strict=True)]
    return {metric: [metrics[metric] for metrics in found] for metric in found[0]}


def with_changes(notes: str, changes: Mapping[str, Any]) -> str:
    """The notes on a protocol, with the settings of this run that differ from it."""
    changed = ", ".join(f"{name} = {value}" for name, value in changes.items())
    return f"{notes} This run differs: {changed}." if changed else notes
