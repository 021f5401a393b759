"""How a data set is split and scaled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pyro_probmix.datasets import TOYS, Dataset, Splitting, stock_split, uci_splits

__all__ = ["REPETITIONS", "Repetitions", "Split", "make_split"]


@dataclass(frozen=True)
class Repetitions:
    """What a method is trained and tested on more than once."""

    unit: str
    test_fraction: float
    """Share of the rows that one tests on, where they share rows; 0 where they do not."""


REPETITIONS: dict[Splitting, Repetitions] = {
    "random": Repetitions("splits", 0.1),
    "drawn": Repetitions("draws", 0.0),
    # Of one test set; how far they spread is due to the training alone.
    "last": Repetitions("seeds", 0.0),
}
"""By how data are divided into training and test rows."""


@dataclass(frozen=True)
class Split:
    """The rows ``(x, y)`` of one train/test split as tensors in standardised units, with the way back.

    Features, and targets of a regression, are shifted and scaled by the mean and standard deviation of the
    training rows (validation rows included, those set aside for recalibration not), unless the data are not to be
    standardised; constant columns are only shifted. Labels stay as they are.
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    calibration: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    x_scaler: StandardScaler
    y_scaler: StandardScaler | None

    @property
    def y_scale(self) -> float:
        """Own units of the target per standardised unit."""
        return 1.0 if self.y_scaler is None or self.y_scaler.scale_ is None else float(self.y_scaler.scale_[0])

    @property
    def y_shift(self) -> float:
        """The target in its own units that is zero in standardised ones."""
        return 0.0 if self.y_scaler is None or self.y_scaler.mean_ is None else float(self.y_scaler.mean_[0])

    @property
    def held_out(self) -> tuple[Tensor, Tensor] | None:
        """The validation rows, if there are any."""
        return self.validation if len(self.validation[0]) else None

    def to(self, device: torch.device) -> Split:
        """The same on another device."""
        parts = {name: getattr(self, name) for name in ("train", "validation", "calibration", "test")}
        return replace(self, **{name: (x.to(device), y.to(device)) for name, (x, y) in parts.items()})

    def standardise(self, x: NDArray[np.float64]) -> Tensor:
        """Features of shape ``(n, d)`` in standardised units."""
        return torch.as_tensor(self.x_scaler.transform(x), dtype=torch.float32)

    def own_units(self, x: Tensor, y: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Features and targets back in their own units; labels stay as they are."""
        back = self.x_scaler.inverse_transform(x.double().numpy())
        return back, y.numpy() if self.y_scaler is None else self.y_scaler.inverse_transform(y[:, None].double())[:, 0]


def make_split(
    data: Dataset,
    index: int,
    seed: int,
    validation_fraction: float = 0.2,
    fold: int = 0,
    standardise: bool = True,
    calibration_fraction: float = 0.0,
) -> Split:
    """Split number ``index`` of a data set, scaled on its training rows.

    A toy problem is drawn anew, training and test set; a stock is always tested on its last days; other data follow
    :func:`~pyro_probmix.datasets.uci_splits`, which knows no seed. The validation rows depend on the seed. Those of
    different folds have no row in common; the last may have fewer. A part of the training rows, which depends on the
    seed too, may be set aside for recalibration beforehand.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, index)))
    train, test = _parts(data, index, rng)
    aside, kept = _set_aside(len(train), calibration_fraction, seed, index)
    num_validation = round(validation_fraction * len(kept))
    if num_validation == len(kept) or (num_validation == 0) != (validation_fraction == 0):
        got = f"{len(kept)}, of which {validation_fraction:.0%} are to be held back"
        raise ValueError(f"{data.name}: expected training rows on both sides, got {got}")
    last = (len(kept) - 1) // num_validation if num_validation else 0
    if not 0 <= fold <= last:
        raise ValueError(f"fold: expected an integer from 0 to {last}, got {fold}")
    first, end = fold * num_validation, (fold + 1) * num_validation
    order = kept[rng.permutation(len(kept))]
    x_scaler, y_scaler = (StandardScaler(with_mean=standardise, with_std=standardise) for _ in range(2))
    x_scaler.fit(train.x[kept])
    y_scaler = y_scaler.fit(train.y[kept, None]) if data.task == "regression" else None

    def tensors(part: Dataset, rows: NDArray[np.int64] | slice = slice(None)) -> tuple[Tensor, Tensor]:
        x = torch.as_tensor(x_scaler.transform(part.x)[rows], dtype=torch.float32)
        if y_scaler is None:
            return x, torch.as_tensor(part.y[rows])
        return x, torch.as_tensor(y_scaler.transform(part.y[:, None])[rows, 0], dtype=torch.float32)

    chosen = np.concatenate([order[:first], order[end:]]), order[first:end], aside
    trained, validation, calibration = (tensors(train, rows) for rows in chosen)
    return Split(trained, validation, calibration, tensors(test), x_scaler, y_scaler)


def _set_aside(size: int, fraction: float, seed: int, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A random part of the training rows, and the others."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, index)))
    aside = rng.permutation(size)[: round(fraction * size)]
    return aside, np.setdiff1d(np.arange(size), aside)


def _parts(data: Dataset, index: int, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
    if data.splitting == "drawn":
        toy, seed = TOYS[data.name], int(rng.integers(2**32))
        return toy(len(data), seed, "train"), toy(len(data), seed, "test")
    train, test = stock_split(len(data)) if data.splitting == "last" else uci_splits(len(data), index + 1)[index]
    return replace(data, x=data.x[train], y=data.y[train]), replace(data, x=data.x[test], y=data.y[test])
