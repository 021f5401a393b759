"""One cell of a comparison: a method trained and tested on one split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_probmix._random import seeded
from pyro_probmix.datasets import TOY_REGIONS, Dataset
from pyro_probmix.distributions import linear_pool
from pyro_probmix.evaluation import METRICS, Metric, evaluate
from pyro_probmix.experiments.methods import Method
from pyro_probmix.experiments.protocol import ExperimentSettings, Split, make_split
from pyro_probmix.training import fit

__all__ = ["HEIGHTS", "Cell", "CellResult", "Picture", "metrics_for", "run_cell", "score"]

HEIGHTS = np.linspace(-120.0, 270.0, 196)
"""Targets at which the density of a toy regression is pictured."""

_CHUNK = 1000
_HALF_WIDTH = 3.6


@dataclass(frozen=True)
class Cell:
    """What has to be trained: everything a worker process needs, which has not registered what its parent has.

    Args:
        data: the data set.
        settings: how to train.
        method: name of the method.
        split: number of the split.
        seed: seed of the comparison.
        column: the method.
        metrics: what its predictions are scored by.
    """

    data: Dataset
    settings: ExperimentSettings
    method: str
    split: int
    seed: int
    column: Method
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Picture:
    """A trained toy model on a grid, in the units of the data.

    Args:
        grid: inputs, ``(m, 1)`` for the regression and ``(m, 2)`` for the classification.
        mean: predictive mean ``(m,)``, or class probabilities ``(m, num_classes)``.
        deviation: predictive standard deviation ``(m,)``; ``None`` for the classification.
        density: predictive density at :data:`HEIGHTS`, ``(k, m)``; ``None`` for the classification.
        train: features and targets of the training rows, validation rows included.
        test: features and targets of the test rows.
    """

    grid: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64] | None
    density: NDArray[np.float64] | None
    train: tuple[NDArray[np.float64], NDArray[np.float64]]
    test: tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class CellResult:
    """What a cell came to.

    Args:
        method: name of the method.
        split: number of the split.
        metrics: test metrics in the units of the data, see :func:`metrics_for`.
        picture: the model on a grid, for the first split of a toy problem.
    """

    method: str
    split: int
    metrics: dict[str, float]
    picture: Picture | None = None


def run_cell(cell: Cell) -> CellResult:
    """Train and test one method on one split.

    The result depends on the cell alone: torch's random state is set from the seed and the split,
    one thread is used, and both are restored.

    Raises:
        ValueError: if training fails; the method and the split are named.
    """
    method, settings = cell.column, cell.settings
    split = make_split(cell.data, cell.split, cell.seed, settings.validation_fraction, standardise=settings.standardise)
    # The methods of a split start from one network and see the same random numbers: their differences are paired.
    seeds = np.random.SeedSequence(cell.seed, spawn_key=(1, cell.split))
    init_seed, fit_seed = seeds.generate_state(2).tolist()
    with seeded(init_seed, torch.device("cpu")), _one_thread():
        model = method.make_model(cell.data, settings)
        try:
            fit(
                model,
                split.train,
                graph=method.graph(split.train[0], settings.num_neighbors),
                validation=split.held_out,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                seed=fit_seed,
                progress=False,
            )
        except ValueError as error:
            raise ValueError(f"{cell.method} on split {cell.split + 1}: {error}") from error
        with torch.no_grad():
            metrics = score([model], split, settings, cell.data, cell.metrics)
            drawn = cell.data.splitting == "drawn" and cell.split == 0
            picture = _picture(model, split, settings, cell.data) if drawn else None
    return CellResult(cell.method, cell.split, metrics, picture)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def metrics_for(data: Dataset) -> tuple[Metric, ...]:
    """What predictions are scored by: what :func:`~pyro_probmix.evaluate` gives, and ``mse`` on the toy regression."""
    return tuple(m for m in METRICS.values() if m.default or (m.name == "mse" and data.splitting == "drawn"))


def score(
    models: Sequence[Any],
    split: Split,
    settings: ExperimentSettings,
    data: Dataset,
    metrics: Sequence[Metric] | None = None,
) -> dict[str, float]:
    """Test metrics of the equal mixture of trained models, in the units of the data; default: :func:`metrics_for`."""
    x, y = split.test
    members = [model.predictive(x, num_samples=settings.num_samples) for model in models]
    metrics = metrics_for(data) if metrics is None else metrics
    found = evaluate(members[0] if len(members) == 1 else linear_pool(members), y, metrics)
    return {m.name: m.rescaled(found[m.name], split.y_scale) for m in metrics if m.name in found}


def _picture(model: Any, split: Split, settings: ExperimentSettings, data: Dataset) -> Picture:
    grid = _line() if data.task == "regression" else _square()
    means, deviations, densities = [], [], []
    heights = torch.as_tensor((HEIGHTS - split.y_shift) / split.y_scale, dtype=torch.float32)
    for rows in split.standardise(grid).split(_CHUNK):
        p = model.predictive(rows, num_samples=settings.num_samples)
        if split.y_scaler is None:
            means.append(torch.stack([p.log_prob(torch.tensor(k)).exp() for k in range(data.num_classes)], dim=-1))
        else:
            means.append(p.mean)
            deviations.append(p.stddev)
            densities.append(torch.stack([p.log_prob(y.expand(len(rows))) for y in heights]).exp() / split.y_scale)
    mean = torch.cat(means).double().numpy()
    train = tuple(torch.cat(parts) for parts in zip(split.train, split.validation, strict=True))
    if split.y_scaler is None:
        return Picture(grid, mean, None, None, split.own_units(*train), split.own_units(*split.test))
    deviation = torch.cat(deviations).double().numpy() * split.y_scale
    mean = split.y_scaler.inverse_transform(mean[:, None])[:, 0]
    density = torch.cat(densities, dim=1).double().numpy()
    return Picture(grid, mean, deviation, density, split.own_units(*train), split.own_units(*split.test))


def _line() -> NDArray[np.float64]:
    return np.linspace(TOY_REGIONS["train"][0] - 0.5, TOY_REGIONS["test"][1] + 0.5, 401)[:, None]


def _square() -> NDArray[np.float64]:
    side = np.linspace(-_HALF_WIDTH, _HALF_WIDTH, 121)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
