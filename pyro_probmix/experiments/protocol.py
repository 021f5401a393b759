"""How a data set is split, scaled and trained on: the paper's settings, one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from pyro_probmix.datasets import TOYS, UCI, Dataset, stock_split, uci_splits
from pyro_probmix.nn import MLP

__all__ = ["LARGE", "ExperimentSettings", "Split", "make_split", "settings_for"]

LARGE = 2000
"""Rows of a data set beyond which a step takes a part of them, and fewer epochs are trained."""


@dataclass(frozen=True)
class ExperimentSettings:
    """Every choice of an experiment besides the data and the seed.

    Args:
        hidden_features: widths of the two hidden layers; the first is the embedding of the manifold methods.
        splits: number of train/test splits, or of redrawn data sets for a toy problem.
        epochs: passes over the training rows.
        batch_size: rows a step; ``None`` for all.
        learning_rate: of Adam.
        alpha: the mixing coefficient is Beta(alpha, alpha).
        beta: variance of the Normal vicinity, or the constant added to the label probabilities.
        num_neighbors: neighbours of a row in the nearest-neighbour graph.
        validation_fraction: part of the training rows held back to pick the epoch; 0 for the last epoch.
        num_samples: embedding samples of a prediction.
        standardise: whether features and targets are standardised by the training rows; β is in those units.

    Raises:
        ValueError: if a value is out of its range.

    >>> ExperimentSettings(alpha=0.0)
    Traceback (most recent call last):
        ...
    ValueError: alpha must be positive and finite; got 0.0
    """

    hidden_features: tuple[int, int] = (128, 32)
    splits: int = 20
    epochs: int = 1000
    batch_size: int | None = None
    learning_rate: float = 5e-3
    alpha: float = 0.2
    beta: float = 0.01
    num_neighbors: int = 5
    validation_fraction: float = 0.2
    num_samples: int = 100
    standardise: bool = True

    def make_network(self, num_features: int, num_outputs: int) -> nn.Sequential:
        """A freshly initialised network whose first layer is the embedding of the manifold methods."""
        return MLP(num_features, self.hidden_features, num_outputs)

    def __post_init__(self) -> None:
        for name in ("splits", "epochs", "num_neighbors", "num_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("learning_rate", "alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite; got {getattr(self, name)}")
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta must be at least 0 and finite; got {self.beta}")
        if self.batch_size is not None and self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, or None for all rows; got {self.batch_size}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must be in [0, 1); got {self.validation_fraction}")


def settings_for(data: Dataset) -> ExperimentSettings:
    """The paper's settings for a data set.

    A toy problem has widths 128 and 64, 500 epochs at learning rate 0.01, 5 draws and its own units; a UCI regression
    widths 128 and 32, 1000 epochs at learning rate 0.005 and 20
    splits; other data the same with 5 splits. Beyond 2000 rows a step takes 256 rows instead of all, and 200
    epochs are trained.

    Source: El-Laham et al. (2025), sections 6.1 and 6.2.

    >>> from pyro_probmix.datasets import load
    >>> settings_for(load("toy-regression")).epochs, settings_for(load("iris")).splits
    (500, 5)
    """
    if data.splitting == "drawn":
        return ExperimentSettings(
            hidden_features=(128, 64),
            splits=5,
            epochs=500,
            learning_rate=0.01,
            standardise=False,
        )
    settings = ExperimentSettings(splits=20 if data.name in UCI else 5)
    return replace(settings, batch_size=256, epochs=200) if len(data) > LARGE else settings


@dataclass(frozen=True)
class Split:
    """The rows of one train/test split as tensors in standardised units, with the way back.

    Features, and targets of a regression, are shifted and scaled by the mean and standard deviation of the
    training rows (validation rows included), unless the data are not to be standardised; constant columns are
    only shifted. Labels stay as they are.

    Args:
        train: ``(x, y)`` of the rows that are trained on, ``(n, d)`` and ``(n,)``.
        validation: ``(x, y)`` of the training rows held back to pick the epoch.
        test: ``(x, y)`` of the test rows.
        x_scaler: from features in their own units to standardised ones.
        y_scaler: the same for targets; ``None`` for labels.
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
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
        parts = {name: getattr(self, name) for name in ("train", "validation", "test")}
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
) -> Split:
    """Split number ``index`` of a data set, scaled on its training rows.

    A toy problem is drawn anew, training and test set; a stock is always tested on its last days; other data follow
    :func:`~pyro_probmix.datasets.uci_splits`, which knows no seed. The validation rows depend on the seed.

    Args:
        data: the data set.
        index: number of the split, from 0.
        seed: seed of the whole comparison.
        validation_fraction: part of the training rows held back.
        fold: which part, from 0; parts of different folds have no row in common, and the last may
            be smaller.
        standardise: whether features and targets are standardised.

    Raises:
        ValueError: if the data set has too few rows for three non-empty parts, or for that many folds.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, index)))
    train, test = _toy_draw(data, rng) if data.splitting == "drawn" else _rows(data, index)
    num_validation = round(validation_fraction * len(train))
    if num_validation == len(train) or (num_validation == 0) != (validation_fraction == 0):
        raise ValueError(f"{data.name}: {len(train)} training rows are too few to hold back {validation_fraction:.0%}")
    last = (len(train) - 1) // num_validation if num_validation else 0
    if not 0 <= fold <= last:
        raise ValueError(f"fold must be from 0 to {last}; got {fold}")
    first, end = fold * num_validation, (fold + 1) * num_validation
    order = rng.permutation(len(train))
    x_scaler, y_scaler = (StandardScaler(with_mean=standardise, with_std=standardise) for _ in range(2))
    x_scaler.fit(train.x)
    y_scaler = y_scaler.fit(train.y[:, None]) if data.task == "regression" else None

    def tensors(part: Dataset, rows: NDArray[np.int64] | slice = slice(None)) -> tuple[Tensor, Tensor]:
        x = torch.as_tensor(x_scaler.transform(part.x)[rows], dtype=torch.float32)
        if y_scaler is None:
            return x, torch.as_tensor(part.y[rows])
        return x, torch.as_tensor(y_scaler.transform(part.y[:, None])[rows, 0], dtype=torch.float32)

    trained = np.concatenate([order[:first], order[end:]])
    return Split(tensors(train, trained), tensors(train, order[first:end]), tensors(test), x_scaler, y_scaler)


def _toy_draw(data: Dataset, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
    seed = int(rng.integers(2**32))
    toy = TOYS[data.name]
    return toy(len(data), seed, "train"), toy(len(data), seed, "test")


def _rows(data: Dataset, index: int) -> tuple[Dataset, Dataset]:
    train, test = stock_split(len(data)) if data.splitting == "last" else uci_splits(len(data), index + 1)[index]
    return replace(data, x=data.x[train], y=data.y[train]), replace(data, x=data.x[test], y=data.y[test])
