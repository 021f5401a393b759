"""Finished cells, kept in a folder: a cell is a method on all splits of a data set."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyro_probmix._files import versions, write_json
from pyro_probmix.experiments.settings import ExperimentSettings

__all__ = ["CellStore", "Cells"]

Cells = dict[str, dict[str, dict[str, list[float]]]]
"""Numbers a split, by row, method and metric."""

_DEFAULTS = json.loads(json.dumps(asdict(ExperimentSettings())))
_Records = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class CellStore:
    """Finished cells in a folder, one file each, and the file that holds all of them.

    What a run has finished is never overwritten: a folder is refused whose cells are of other settings. The file of
    all is a store too: a cell that it has is finished where there is no file of its own, as beside published results.
    """

    folder: Path
    name: str
    """Of the file of all, without suffix."""
    protocol: str
    methods: Sequence[str]
    settings: Mapping[str, ExperimentSettings]
    data: Mapping[str, str]
    """What identifies the data of a row."""
    seed: int
    run: Mapping[str, Any]
    """How the cells are trained, such as on which device; kept beside their numbers."""

    def load(self) -> Cells:
        """All finished cells; one of other settings is an error, and so is a file that cannot be read."""
        return _part(self._finished(), "metrics")

    def save(self, row: str, method: str, metrics: dict[str, list[float]], seconds: float) -> None:
        """Keep a cell, and write the file of all cells anew; a cell that another process has kept since stays."""
        path = self._path(row, method)
        path.parent.mkdir(parents=True, exist_ok=True)
        cell = {
            "dataset": row,
            "method": method,
            "settings": self._settings(row),
            "run": {"versions": versions(), **self.run, "seconds": round(seconds, 1)},
            "metrics": metrics,
        }
        with contextlib.suppress(FileExistsError):
            write_json(path, cell, new=True)
        self.collect()

    def collect(self, write: Callable[[Cells], None] = lambda cells: None) -> Cells:
        """All finished cells, also written to the file of results; ``write`` may write more of what is made of them."""
        records = self._finished()
        while True:
            settings = {row: next(iter(found.values()))["settings"] for row, found in records.items()}
            runs, cells = _part(records, "run"), _part(records, "metrics")
            content = {"settings": {"protocol": self.protocol, "datasets": settings}, "runs": runs, "cells": cells}
            write_json(self._file, content)
            write(cells)
            now = self._finished()
            if now == records:
                return cells
            records = now  # another process has finished a cell, and may have written its file before ours

    def _finished(self) -> _Records:
        """The settings, run and metrics of every finished cell."""
        published = self._published()
        records: _Records = {}
        for row in self.settings:
            for method in self.methods:
                path, record = self._path(row, method), published.get((row, method))
                if path.is_file():
                    with _reading(path, "a cell"):
                        content = json.loads(path.read_text(encoding="utf-8"))
                        record = {key: content[key] for key in ("settings", "run", "metrics")}
                elif record:
                    path = self._file
                if record:
                    self._check_settings(path, row, method, record["settings"])
                    records.setdefault(row, {})[method] = record
        return records

    def _published(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The cells of the file of all."""
        if not self._file.is_file():
            return {}
        with _reading(self._file, "results"):
            content = json.loads(self._file.read_text(encoding="utf-8"))
            settings, runs = content["settings"]["datasets"], content["runs"]
            return {
                (row, method): {"settings": settings[row], "run": runs[row][method], "metrics": metrics}
                for row, found in content["cells"].items()
                for method, metrics in found.items()
            }

    def _check_settings(self, path: Path, row: str, method: str, found: dict[str, Any]) -> None:
        """Refuse a cell of other settings; of one that was kept before there was a setting, it is the default."""
        ours, theirs = self._settings(row), {**_DEFAULTS, **found}
        other = [
            f"{key} {theirs.get(key)}, not {ours.get(key)}"
            for key in {**ours, **theirs}
            if ours.get(key) != theirs.get(key)
        ]
        if other:
            raise ValueError(
                f"{path}: expected {method} on {row} of these settings, got others ({'; '.join(other)}); "
                "choose another output folder"
            )

    def _settings(self, row: str) -> dict[str, Any]:
        settings = json.loads(json.dumps(asdict(self.settings[row])))
        return {"seed": self.seed, "data": self.data[row], **settings}

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _path(self, row: str, method: str) -> Path:
        return self.folder / "cells" / self.name / row / f"{method}.json"


@contextlib.contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the file of {what}, got another ({error!r}); remove it") from error


def _part(records: _Records, part: str) -> dict[str, dict[str, Any]]:
    return {row: {method: record[part] for method, record in found.items()} for row, found in records.items()}
