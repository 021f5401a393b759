"""Cells trained as replicas and kept in a folder: a cell is a method on all splits of a data set."""

from __future__ import annotations

import contextlib
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
from pyro_probmix.experiments.files import check_writable, versions, write_json
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.paper import Cells
from pyro_probmix.experiments.protocol import ExperimentSettings, Split, make_split
from pyro_probmix.training import Replicas, fit_replicas
from pyro_probmix.training._checks import check_device

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
        check_device(self.device)


@dataclass(frozen=True)
class CellStore:
    """Finished cells in a folder, one file each, and the file that holds all of them.

    What a run has finished is never overwritten: a folder is refused whose cells are of other settings. The file of
    all is a store too: a cell that it has is finished where there is no file of its own, as beside published results.

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
        """The metrics of a cell, or ``None`` where it has not been computed.

        Raises:
            ValueError: if it has been computed with other settings, or a file cannot be read.
        """
        found = self._record(dataset, method, self._results())
        return None if found is None else found["metrics"]

    def save(self, dataset: str, method: str, metrics: dict[str, list[float]], seconds: float) -> None:
        """Keep a cell, and write the file of all cells anew; a cell that another process has kept since stays.

        Raises:
            ValueError: if that cell is of other settings.
        """
        run = {
            "versions": versions(),
            "device": self.compute.device,
            "compile": self.compute.compile,
            "seconds": round(seconds, 1),
        }
        path = self._path(dataset, method)
        path.parent.mkdir(parents=True, exist_ok=True)
        cell = {"dataset": dataset, "method": method, "settings": self._settings(dataset)}
        with contextlib.suppress(FileExistsError):
            write_json(path, {**cell, "run": run, "metrics": metrics}, new=True)
        self.collect()

    def fill(
        self,
        data: dict[str, Dataset],
        methods: Sequence[str],
        report: Callable[[str], None] | None,
        progress: bool,
    ) -> Cells:
        """Compute what is not there yet, and return what then is.

        Raises:
            ValueError: if a cell of the folder, in a row of the table, has been computed with other settings; nothing
                is trained then.
            OSError: if the folder cannot be written to; nothing is trained then.
        """
        self._finished()
        check_writable(self.folder)
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
        """All finished cells, also written to the file of results."""
        records = self._finished()
        while True:
            self._write(records)
            now = self._finished()
            if now == records:
                return _part(records, "metrics")
            records = now  # another process has finished a cell, and may have written its file before ours

    def publish(self, cells: Cells, write: Callable[[Cells], None]) -> Cells:
        """Write what is made of all cells, and anew where another process has finished one meanwhile.

        Args:
            cells: those of :meth:`fill`.
            write: writes it.

        Returns:
            The cells that it was made of in the end.
        """
        while True:
            write(cells)
            now = self.collect()
            if now == cells:
                return cells
            cells = now

    def _finished(self) -> _Records:
        records: _Records = {}
        results = self._results()
        for dataset in self.settings:
            found = {method: self._record(dataset, method, results) for method in self.labels}
            done = {method: record for method, record in found.items() if record is not None}
            if done:
                records[dataset] = done
        return records

    def _record(self, dataset: str, method: str, results: _Results) -> dict[str, Any] | None:
        """The metrics of a finished cell and how it was run."""
        path = self._path(dataset, method)
        if path.is_file():
            found = _read(path, "a cell", ("settings", "run", "metrics"))
        elif method in results["cells"].get(dataset, {}):
            path, found = self._file, _of_results(results, dataset, method)
        else:
            return None
        ours, theirs = self._settings(dataset), found["settings"]
        other = [
            f"{key} {theirs.get(key)}, not {ours.get(key)}"
            for key in {**ours, **theirs}
            if ours.get(key) != theirs.get(key)
        ]
        if other:
            raise ValueError(
                f"{path} has {method} on {dataset} of other settings ({'; '.join(other)}); choose another output folder"
            )
        return {"metrics": found["metrics"], "run": found["run"]}

    def _results(self) -> _Results:
        if not self._file.is_file():
            return {"cells": {}}
        return _read(self._file, "results", ("settings", "runs", "cells"), _check_results)

    def _write(self, records: _Records) -> None:
        settings = {"protocol": self.protocol, "datasets": {name: self._settings(name) for name in records}}
        content = {"settings": settings, "runs": _part(records, "run"), "cells": _part(records, "metrics")}
        write_json(self._file, content)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _path(self, dataset: str, method: str) -> Path:
        return self.folder / "cells" / self.name / dataset / f"{method}.json"

    def _settings(self, dataset: str) -> dict[str, Any]:
        settings = json.loads(json.dumps(asdict(self.settings[dataset])))
        return {"seed": self.seed, "data": self.data[dataset], **settings}


_Results = dict[str, Any]
_Records = dict[str, dict[str, dict[str, Any]]]


def _part(records: _Records, part: str) -> dict[str, dict[str, Any]]:
    return {dataset: {m: record[part] for m, record in found.items()} for dataset, found in records.items()}


def _of_results(results: _Results, dataset: str, method: str) -> dict[str, Any]:
    return {
        "settings": results["settings"]["datasets"][dataset],
        "run": results["runs"][dataset][method],
        "metrics": results["cells"][dataset][method],
    }


def _check_results(results: _Results) -> None:
    for dataset, found in results["cells"].items():
        for method in found:
            _of_results(results, dataset, method)


def _read(
    path: Path, what: str, keys: tuple[str, ...], check: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {key: content[key] for key in keys}
        check(found)
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the file of {what} ({error!r}); remove it") from error


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
    epochs: Sequence[int] | None = None,
    ema_decay: float | None = None,
) -> Replicas:
    """One method trained on splits, as replicas; for the epochs of the settings, or for a number of epochs each."""
    column, device = METHODS[method], splits[0].train[0].device
    held_out = [split.validation for split in splits if split.held_out is not None]
    return fit_replicas(
        lambda r: column.make_model(data, settings).to(device),
        [split.train for split in splits],
        graph=functools.partial(column.graph, num_neighbors=settings.num_neighbors),
        validation=held_out or None,
        epochs=settings.epochs if epochs is None else epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        validation_every=settings.validation_every,
        patience=settings.patience if held_out else None,
        ema_decay=ema_decay,
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


def with_changes(notes: str, changes: Mapping[str, Any], seed: int) -> str:
    """The notes on a protocol, with the settings of this run that differ from it, a seed that is not 0 included."""
    changes = {**changes, "seed": seed} if seed else changes
    changed = ", ".join(f"{name} = {value}" for name, value in changes.items())
    return f"{notes} This run differs: {changed}." if changed else notes
