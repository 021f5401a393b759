"""What trains the cells of an experiment: a cell is a method on all splits of a data set."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from pyro_probmix._checks import check_device, check_integer
from pyro_probmix.datasets import Dataset
from pyro_probmix.evaluation import METRICS, Metric, evaluate
from pyro_probmix.experiments.calibration.scores import predictive, score_recalibrated
from pyro_probmix.experiments.methods import Method
from pyro_probmix.experiments.pictures import Picture, take_picture
from pyro_probmix.experiments.settings import ExperimentSettings
from pyro_probmix.experiments.splits import Split, make_split
from pyro_probmix.reports import Predictions
from pyro_probmix.training import History, Replicas, fit_replicas
from pyro_probmix.training.compiled import check_compiler
from pyro_probmix.training.workers import in_workers, one_thread

__all__ = ["Cell", "Result", "Runner", "keep_predictions", "metrics_for", "score"]


@dataclass(frozen=True)
class Cell:
    """A method on all splits of a data set, in a row and a column of a table: everything a worker process needs.

    Methods of one seed are paired split by split, by their random numbers and the initial parameters that they share.
    """

    row: str
    column: str
    data: Dataset
    method: Method
    settings: ExperimentSettings
    seed: int
    chosen: Sequence[float] | None = None
    """The candidate of each split, for an ensemble; for a single model it is chosen."""
    pictured: bool = False
    """Whether the model of the first split is pictured."""
    reported: bool = False
    """Whether the predictions and the training of the first split are kept, for a report."""

    def __str__(self) -> str:
        return f"{self.column} on {self.row}"


@dataclass(frozen=True)
class Result:
    """What a cell came to: a number a split, by metric, in the units of the data; as ``candidate`` what was chosen."""

    metrics: dict[str, list[float]]
    seconds: float = 0.0
    picture: Picture | None = None
    predictions: Predictions | None = None
    """Those of the test rows of the first split, in the units of the data, of a cell that is reported."""
    history: History | None = None
    """Of the training of the first split, of a cell that is reported."""


@dataclass(frozen=True)
class Runner:
    """Trains cells, the splits of each as replicas, on a device and in processes of one thread each.

    Processes share the cells or, where these are few, the replicas of each. Results depend on the cell alone, up to
    rounding where replicas are shared or steps compiled. ``joblib.parallel_config`` may name other machines.
    """

    device: str = "cpu"
    jobs: int = 1
    compile: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        check_integer("jobs", self.jobs)
        check_device(self.device)
        if self.compile and torch.device(self.device).type == "cpu":
            check_compiler()

    def run(self, cells: Sequence[Cell]) -> Generator[tuple[Cell, Result], None, None]:
        """The results of cells, in the order in which they are finished; an error names the cell, and its splits.

        Who may leave off before the end closes it, which ends the processes at work.
        """
        shared = self.jobs > 1 and len(cells) >= min([self.jobs, *(cell.settings.splits for cell in cells)])
        alone = replace(self, jobs=1, progress=False) if shared else self
        # Metrics that have been registered are handed over, for a process may not know them.
        train = functools.partial(alone.train, known=tuple(METRICS.values()))
        results = in_workers(train, cells, self.jobs if shared else 0)
        with tqdm(total=len(cells), unit="cell", disable=not self.progress, leave=False) as bar, closing(results):
            for index, result in results:
                bar.set_postfix_str(str(cells[index]), refresh=False)
                bar.update()
                yield cells[index], result

    def train(self, cell: Cell, known: Iterable[Metric] = METRICS.values()) -> Result:
        """The result of a cell. Test rows are looked at once, by what has been chosen.

        An ensemble has the candidates chosen for a single model; its members hold back different validation rows, to
        choose their epochs.
        """
        settings, start, size = cell.settings, time.perf_counter(), cell.settings.members if cell.chosen else 1
        with one_thread():
            splits = [self._split(cell, index) for index in range(settings.splits)]
            if cell.chosen is None:
                tried = [
                    self._fit(cell, splits, [own] * len(splits)) for own in range(max(1, len(settings.candidates)))
                ]
                trained = [min(fits, key=lambda fit: fit.loss) for fits in zip(*tried, strict=True)]
            else:
                chosen = [int(candidate) for candidate in cell.chosen for _ in range(size)]
                folds = [self._split(cell, k // size, k % size) for k in range(len(chosen))]
                # Other initial networks than those the candidate was chosen with; others again for what is refitted.
                trained = self._fit(cell, folds, chosen, key=2)
            _refuse(cell, trained)
            if settings.refit:
                whole = [self._split(cell, k // size, None) for k in range(len(trained))]
                chosen, epochs = [fit.candidate for fit in trained], [fit.history.best_epoch + 1 for fit in trained]
                trained = self._fit(cell, whole, chosen, key=2 + size, epochs=epochs)
                _refuse(cell, trained)
            with torch.no_grad():
                metrics = metrics_for(cell.data, known)
                members = [[fit.model for fit in trained[k : k + size]] for k in range(0, len(trained), size)]
                pairs = list(zip(members, splits, strict=True))
                if settings.calibration_fraction:
                    found = [score_recalibrated(*pair, settings.num_samples) for pair in pairs]
                else:
                    found = [score(*pair, settings.num_samples, metrics) for pair in pairs]
                picture = take_picture(members[0][0], splits[0], settings, cell.data) if cell.pictured else None
                kept = keep_predictions(*pairs[0], settings.num_samples) if cell.reported else None
        values: dict[str, list[float]] = {name: [own[name] for own in found] for name in found[0]}
        if settings.candidates:
            values["candidate"] = [fit.candidate for fit in trained[::size]]
        history = trained[0].history if cell.reported else None
        return Result(values, time.perf_counter() - start, picture, kept, history)

    def _split(self, cell: Cell, index: int, fold: int | None = 0) -> Split:
        """A split that holds back a part of the training rows, or none."""
        settings = cell.settings
        fraction = settings.validation_fraction if fold is not None else 0.0
        aside = settings.calibration_fraction
        split = make_split(cell.data, index, cell.seed, fraction, fold or 0, settings.standardise, aside)
        return split.to(torch.device(self.device))

    def _fit(
        self,
        cell: Cell,
        splits: Sequence[Split],
        chosen: Sequence[int],
        key: int | None = None,
        epochs: Sequence[int] = (),
    ) -> list[_Fit]:
        """A model a split, of the candidate chosen for it; those of one candidate are trained together."""
        fits: dict[int, _Fit] = {}
        for index in sorted(set(chosen)):
            rows = [k for k, other in enumerate(chosen) if other == index]
            seed = cell.seed
            if key is not None:
                seed = int(np.random.SeedSequence(seed, spawn_key=(key, index)).generate_state(1)[0])
            replicas = self._replicas(
                cell, index, [splits[k] for k in rows], seed, [epochs[k] for k in rows] if epochs else ()
            )
            for r, (k, model, history) in enumerate(zip(rows, replicas.models, replicas.histories, strict=True)):
                loss = float(np.nanmin(history.validation_loss)) if history.validation_loss else 0.0
                failed = replicas.failed.get(r)
                fits[k] = _Fit(model, index, history, loss if failed is None else math.inf, failed)
        return [fits[k] for k in range(len(splits))]

    def _replicas(
        self, cell: Cell, candidate: int, splits: Sequence[Split], seed: int, epochs: Sequence[int]
    ) -> Replicas:
        settings = cell.settings.candidate(candidate)
        held_out = [split.validation for split in splits if split.held_out is not None]
        try:
            return fit_replicas(
                lambda r: cell.method.make_model(cell.data, settings).to(self.device),
                [split.train for split in splits],
                graph=functools.partial(cell.method.graph, num_neighbors=settings.num_neighbors),
                validation=held_out or None,
                epochs=epochs or settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                validation_every=settings.validation_every,
                patience=settings.patience if held_out else None,
                ema_decay=settings.ema_decay,
                seed=seed,
                progress=self.progress,
                num_workers=0 if self.jobs == 1 else self.jobs,
                compile=self.compile,
            )
        except ValueError as error:
            raise ValueError(f"{cell}: {error}") from error


@dataclass(frozen=True)
class _Fit:
    """A trained model, its candidate, how it was trained, its validation loss, and where it failed."""

    model: Any
    candidate: int
    history: History
    loss: float
    failed: int | None


def _refuse(cell: Cell, fits: Sequence[_Fit]) -> None:
    size, tried = len(fits) // cell.settings.splits, len(cell.settings.candidates)
    failed = {k // size + 1: fit.failed for k, fit in enumerate(fits) if fit.failed is not None}
    if failed:
        splits = ", ".join(f"{split} (epoch {epoch})" for split, epoch in failed.items())
        rest = f" with any of {tried} candidates" if tried > 1 else ""
        raise ValueError(f"{cell}: expected finite losses, got others on splits {splits}{rest}")


def metrics_for(data: Dataset, known: Iterable[Metric] = METRICS.values()) -> tuple[Metric, ...]:
    """What predictions are scored by: what :func:`~pyro_probmix.evaluate` gives, and ``mse`` on the toy regression."""
    return tuple(m for m in known if m.default or (m.name == "mse" and data.splitting == "drawn"))


def score(models: Sequence[Any], split: Split, num_samples: int, metrics: Sequence[Metric]) -> dict[str, float]:
    """Test metrics of the equal mixture of trained models, in the units of the data."""
    x, y = split.test
    found = evaluate(predictive(models, x, num_samples), y, metrics)
    return {m.name: m.rescaled(found[m.name], split.y_scale) for m in metrics if m.name in found}


def keep_predictions(models: Sequence[Any], split: Split, num_samples: int) -> Predictions:
    """What a report needs of the equal mixture of trained models on the test rows, in the units of the data."""
    x, y = split.test
    return Predictions.of(predictive(models, x, num_samples), y, shift=split.y_shift, scale=split.y_scale)
