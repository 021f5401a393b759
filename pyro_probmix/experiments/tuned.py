"""Protocol *tuned*: settings chosen on the validation rows of each split, the same ones tried for every method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from pyro_probmix.datasets import UCI, Dataset
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.protocol import LARGE, Split, make_split
from pyro_probmix.experiments.store import CellStore, PaperSettings, scores, train_splits
from pyro_probmix.training import Replicas

__all__ = ["ENSEMBLES", "TUNED", "Candidate", "TunedSettings", "TunedStore", "tuned_settings"]

ENSEMBLES = {"ensemble": "manifold_probmix", "local_ensemble": "local_manifold_probmix"}
"""The ensembles by name, and the method of their members."""

TUNED = {
    **{name: METHODS[name].label for name in ("erm", "mixup", "manifold_probmix", "local_manifold_probmix")},
    "ensemble": "Ensemble",
    "local_ensemble": "Local ensemble",
}
"""The columns, and how they are shown."""


@dataclass(frozen=True)
class Candidate:
    """What is chosen between, besides the epoch.

    Args:
        learning_rate: of Adam.
        batch_size: rows a step.
        alpha: the mixing coefficient is Beta(alpha, alpha).
        beta: variance of the Normal vicinity, in standardised units.
    """

    learning_rate: float
    batch_size: int
    alpha: float
    beta: float


_CANDIDATES = (
    Candidate(5e-3, 64, 0.1, 1e-5),
    Candidate(2e-3, 32, 0.4, 1e-5),
    Candidate(2e-3, 64, 0.1, 1e-4),
    Candidate(1e-3, 32, 0.1, 1e-3),
    Candidate(5e-3, 64, 0.4, 1e-2),
    Candidate(2e-3, 128, 0.1, 1e-2),
    Candidate(5e-3, 128, 0.4, 3e-2),
    Candidate(2e-3, 64, 1.0, 3e-2),
)


@dataclass(frozen=True)
class TunedSettings(PaperSettings):
    """Settings of a cell whose candidates are compared on validation rows.

    Args:
        candidates: what is tried; they replace the settings of the same names.
        ema_decay: of the moving average of the parameters that is validated and kept; ``None`` for the parameters.
        members: networks of an ensemble, each with a part of its own of the training rows held back.
        refit: whether what has been chosen is trained anew, on all training rows, for as many epochs as were chosen.

    Raises:
        ValueError: if no rows are held back, or members cannot hold back other rows each.
    """

    candidates: tuple[Candidate, ...] = _CANDIDATES
    ema_decay: float | None = None
    members: int = 5
    refit: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.validation_fraction > 0:
            raise ValueError(
                "validation_fraction must be positive in protocol tuned, which chooses by these rows; got 0"
            )
        if self.members < 1 or (self.members - 1) * self.validation_fraction >= 1:
            raise ValueError(
                f"members must be at least 1, and have rows of their own to hold back, {self.validation_fraction:.0%} "
                f"of all each; got {self.members}"
            )

    def candidate(self, index: int) -> TunedSettings:
        """The settings with those of a candidate in place."""
        found = self.candidates[index]
        return replace(
            self,
            learning_rate=found.learning_rate,
            batch_size=found.batch_size,
            alpha=found.alpha,
            beta=found.beta,
        )


_AVERAGED: Mapping[str, Any] = {"ema_decay": 0.99, "refit": True}
"""Averages of about a hundred steps, refitted: better on rows held out of the training rows of three sets."""

_REFINED: Mapping[str, Mapping[str, Any]] = {
    # The smallest learning rate was chosen on 75 of 80 splits: four around smaller ones, with smaller β, and that one.
    "naval-propulsion-plant": {
        "candidates": (
            Candidate(1e-3, 128, 0.1, 1e-3),
            Candidate(5e-4, 128, 0.1, 1e-5),
            Candidate(5e-4, 128, 0.1, 1e-4),
            Candidate(5e-4, 64, 0.1, 1e-4),
            Candidate(3e-4, 64, 0.1, 1e-5),
        )
    },
    # Longer training was better on rows held out of the training rows; of what any method had chosen more than once.
    "energy": {"epochs": 1000, "patience": 200, "candidates": (*_CANDIDATES[:4], _CANDIDATES[6]), **_AVERAGED},
    "wine-quality-red": _AVERAGED,
}
"""What a later search changes, by data set, for what training rows alone had shown."""


def tuned_settings(dataset: str) -> TunedSettings:
    """The settings of protocol *tuned* for a UCI data set.

    >>> settings = tuned_settings("yacht")
    >>> len(settings.candidates), settings.candidate(3).learning_rate, tuned_settings("kin8nm").candidate(3).batch_size
    (8, 0.001, 128)
    """
    settings = TunedSettings(epochs=600, validation_every=10, patience=100)
    if UCI[dataset].rows > LARGE:
        candidates = tuple(replace(found, batch_size=4 * found.batch_size) for found in _CANDIDATES)
        settings = TunedSettings(epochs=200, validation_every=4, patience=40, candidates=candidates)
    return replace(settings, **_REFINED.get(dataset, {}))


@dataclass(frozen=True)
class TunedStore(CellStore):
    """Cells of protocol *tuned*. Beside the metrics they hold, as ``candidate``, which was chosen for each split."""

    protocol: ClassVar[str] = "tuned"
    labels: ClassVar[Mapping[str, str]] = TUNED

    def train(self, name: str, data: Dataset, method: str, progress: bool) -> dict[str, list[float]]:
        """The metrics of a cell, trained anew. Test rows are looked at once, by what has been chosen.

        An ensemble has the candidates chosen for a single model; its members hold back different validation rows, to
        choose their epochs.

        Raises:
            ValueError: if no candidate can be trained on a split, or what has been chosen cannot.
        """
        settings = self.settings[name]
        assert isinstance(settings, TunedSettings)
        splits = [self._split(data, settings, index) for index in range(settings.splits)]
        base, size = method, 1
        if method in ENSEMBLES:
            base, size = ENSEMBLES[method], settings.members
            single = self.load(name, base)
            if single is None:
                raise ValueError(f"{method} on {name} needs the finished cell of {base}")
            chosen = [int(candidate) for candidate in single["candidate"] for _ in range(size)]
            folds = [self._split(data, settings, k // size, k % size) for k in range(len(chosen))]
            # Other initial networks than those the candidate was chosen with, and others again for what is refitted.
            models, epochs = self._train(data, base, settings, folds, chosen, 2, progress)
        else:
            models, epochs, chosen = self._choose(data, method, settings, splits, progress)
        if settings.refit:
            whole = [self._split(data, settings, k // size, None) for k in range(len(chosen))]
            models, _ = self._train(data, base, settings, whole, chosen, 2 + size, progress, epochs)
        members = [models[k : k + size] for k in range(0, len(models), size)]
        return {**scores(members, splits, settings, data), "candidate": [*chosen[::size]]}

    def _split(self, data: Dataset, settings: TunedSettings, index: int, fold: int | None = 0) -> Split:
        """A split that holds back a part of the training rows, or none."""
        fraction = settings.validation_fraction if fold is not None else 0.0
        split = make_split(data, index, self.seed, fraction, fold or 0, settings.standardise)
        return split.to(torch.device(self.compute.device))

    def _choose(
        self, data: Dataset, method: str, settings: TunedSettings, splits: list[Split], progress: bool
    ) -> tuple[list[Any], list[int], list[int]]:
        """The best model for each split, the epochs that it was trained, and its candidate."""
        losses = np.full(len(splits), np.inf)
        models: list[Any] = [None] * len(splits)
        epochs, chosen = [0] * len(splits), [0] * len(splits)
        for index in range(len(settings.candidates)):
            replicas = self._fit(data, method, settings, index, splits, self.seed, progress)
            for r, (model, history) in enumerate(zip(replicas.models, replicas.histories, strict=True)):
                loss = np.inf if r in replicas.failed else np.nanmin(history.validation_loss)
                if loss < losses[r]:
                    losses[r], models[r], epochs[r], chosen[r] = loss, model, history.best_epoch + 1, index
        hopeless = [str(r + 1) for r, model in enumerate(models) if model is None]
        if hopeless:
            raise ValueError(f"{method} on {data.name}: no candidate has a finite loss on splits {', '.join(hopeless)}")
        return models, epochs, chosen

    def _fit(
        self,
        data: Dataset,
        method: str,
        settings: TunedSettings,
        index: int,
        splits: list[Split],
        seed: int,
        progress: bool,
        epochs: list[int] | None = None,
    ) -> Replicas:
        """A candidate, trained on splits."""
        own = settings.candidate(index)
        return train_splits(data, method, own, splits, seed, self.compute, progress, epochs, settings.ema_decay)

    def _train(
        self,
        data: Dataset,
        method: str,
        settings: TunedSettings,
        splits: list[Split],
        chosen: list[int],
        key: int,
        progress: bool,
        epochs: list[int] | None = None,
    ) -> tuple[list[Any], list[int]]:
        """Models of the candidates that have been chosen, those of one trained together, and the epochs they were.

        Of a test split there are as many, one after the other, as an ensemble has members.
        """
        models: list[Any] = [None] * len(splits)
        trained = [0] * len(splits)
        for index in sorted(set(chosen)):
            rows = [k for k, other in enumerate(chosen) if other == index]
            seed = int(np.random.SeedSequence(self.seed, spawn_key=(key, index)).generate_state(1)[0])
            own = None if epochs is None else [epochs[k] for k in rows]
            replicas = self._fit(data, method, settings, index, [splits[k] for k in rows], seed, progress, own)
            if replicas.failed:
                size = len(splits) // settings.splits
                failed = sorted({rows[r] // size + 1 for r in replicas.failed})
                raise ValueError(f"{method} on {data.name}: the loss is not finite on splits {failed}")
            for k, model, history in zip(rows, replicas.models, replicas.histories, strict=True):
                models[k], trained[k] = model, history.best_epoch + 1
        return models, trained
