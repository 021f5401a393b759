"""The members of an estimator: networks, the rows that each is trained on and holds back, and their training."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_probmix._random import seeded
from pyro_probmix.mixing import NearestNeighborGraph
from pyro_probmix.models import DensityModel, assemble
from pyro_probmix.nn import MLP, Likelihood
from pyro_probmix.training import History, Replicas, fit_replicas
from pyro_probmix.training.workers import one_thread

__all__ = ["Members", "Network", "Rows", "Schedule", "in_few_threads", "train"]

_SMALL = 2**18
"""Parameters of a network up to which threads cost more than they give."""


@dataclass(frozen=True)
class Network:
    """What a member is made of.

    Args:
        method, hidden_features, alpha, beta, fusion: as for :class:`~pyro_probmix.ProbMixRegressor`.
        num_features: d, of one row.
        dtype: of parameters.
    """

    method: str
    hidden_features: tuple[int, ...]
    alpha: float
    beta: float
    fusion: Any
    num_features: int
    dtype: str

    def model(self, likelihood: Likelihood, device: Any) -> DensityModel:
        """A new member with a copy of this likelihood."""
        own = copy.deepcopy(likelihood)
        with torch.device(device):  # whichever the default is
            law = dist.Beta(float(self.alpha), float(self.alpha))
            network = MLP(self.num_features, self.hidden_features, own.num_outputs)
            width = next(iter(self.hidden_features), 0)
            model = assemble(self.method, network, width, own, coefficient=law, beta=self.beta, fusion=self.fusion)
            return model.to(device, getattr(torch, self.dtype))


@dataclass(frozen=True)
class Rows:
    """Rows to train on or to validate on.

    Args:
        x: prepared features, of shape ``(n, d)``.
        y: scaled targets, or labels; of shape ``(n, C)`` where they are ``soft``, the probability of each class.
        weight: how much each counts, None for equally.
        soft: whether labels are probabilities.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None = None
    soft: bool = False

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: NDArray[np.int64]) -> Rows:
        """The rows at these positions."""
        weight = None if self.weight is None else self.weight[index]
        return replace(self, x=self.x[index], y=self.y[index], weight=weight)

    def hard(self) -> Rows:
        """With labels that are classes: a row with probabilities is one row a class, of these weights."""
        if not self.soft:
            return self
        row, label = self.y.nonzero(as_tuple=True)
        weight = self.y[row, label] if self.weight is None else self.y[row, label] * self.weight[row]
        return Rows(self.x[row], label, weight)

    @property
    def validation(self) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
        """As training takes them: with weights where there are any."""
        return (self.x, self.y) if self.weight is None else (self.x, self.y, self.weight)


@dataclass(frozen=True)
class Schedule:
    """How members are trained, as for :class:`~pyro_probmix.ProbMixRegressor`."""

    num_members: int
    epochs: int
    batch_size: int | None
    learning_rate: float
    validation_fraction: float
    patience: int | None
    ema_decay: float | None
    refit: bool
    num_neighbors: int | None
    num_workers: int
    progress: bool

    def folds(self, size: int) -> Iterator[NDArray[np.int64]]:
        """The rows that each member holds back, other rows for each as long as there are."""
        held_out = max(1, round(self.validation_fraction * size)) if self.validation_fraction else 0
        if held_out == size:
            raise ValueError(
                f"validation_fraction: expected one that leaves rows to train on, got {self.validation_fraction} "
                f"of {size} rows"
            )
        folds = size // held_out if held_out else 1
        for member in range(self.num_members):
            first = member % folds * held_out
            yield np.arange(first, first + held_out)


@dataclass
class Members:
    """Trained members.

    Args:
        models: the members.
        histories: the losses of each, of the training that chose its epoch.
        held_out: the rows by which the epoch of each was chosen; empty where it was the last.
    """

    models: list[DensityModel]
    histories: list[History]
    held_out: list[Rows]


def train(
    network: Network, likelihood: Likelihood, rows: Rows, validation: Rows | None, schedule: Schedule, seed: int
) -> Members:
    """Members of one network and likelihood, each with rows held back, or with the validation rows that are given.

    Raises:
        ValueError: if a setting is out of range, the method does not take the likelihood, or a loss stops being finite.
    """
    device = rows.x.device
    with seeded(0, torch.device("cpu")):  # what is wrong with a network is said of no replica of it
        first = network.model(likelihood, device)
    if validation is None:
        folds = list(schedule.folds(len(rows)))
        held_out = [rows.take(fold).hard() for fold in folds] if len(folds[0]) else []
        kept = [rows.take(np.delete(np.arange(len(rows)), fold)).hard() for fold in folds]
    else:
        held_out, kept = [validation.hard()] * schedule.num_members, [rows.hard()] * schedule.num_members
    with in_few_threads(first):
        replicas = _fit(network, likelihood, kept, held_out, schedule, schedule.epochs, seed)
        models = replicas.models
        if schedule.refit and held_out and validation is None:
            epochs = [history.best_epoch + 1 for history in replicas.histories]
            models = _fit(network, likelihood, [rows.hard()] * len(epochs), [], schedule, epochs, seed).models
    return Members(models, replicas.histories, held_out)


def _fit(
    network: Network,
    likelihood: Likelihood,
    rows: Sequence[Rows],
    held_out: Sequence[Rows],
    schedule: Schedule,
    epochs: int | Sequence[int],
    seed: int,
) -> Replicas:
    device = rows[0].x.device
    make_model: Callable[[int], DensityModel] = lambda _: network.model(likelihood, device)  # noqa: E731
    graph = None
    if schedule.num_neighbors is not None:
        graph = functools.partial(NearestNeighborGraph, num_neighbors=schedule.num_neighbors)
    try:
        replicas = fit_replicas(
            make_model,
            [(own.x, own.y) for own in rows],
            weight=[own.weight for own in rows],
            graph=graph,
            validation=[own.validation for own in held_out] or None,
            epochs=epochs,
            batch_size=schedule.batch_size,
            learning_rate=schedule.learning_rate,
            ema_decay=schedule.ema_decay,
            seed=seed,
            progress=schedule.progress,
            patience=schedule.patience if held_out else None,
            num_workers=schedule.num_workers,
        )
    except (TypeError, ValueError) as error:
        message = re.sub(r"^replica \d+: ", "", str(error))  # members are alike in what is wrong
        raise (TypeError if isinstance(error, TypeError) else ValueError)(message) from error
    if replicas.failed:
        member, epoch = next(iter(replicas.failed.items()))
        raise ValueError(
            "learning_rate: expected one by which losses stay finite, got one by which that of member "
            f"{member} is not in epoch {epoch}; try a smaller one"
        )
    return replicas


def in_few_threads(model: DensityModel) -> AbstractContextManager[None]:
    """One thread inside where the network is small and on a CPU; as many as there are after it."""
    parameters = list(model.parameters())
    small = sum(p.numel() for p in parameters) <= _SMALL and all(p.device.type == "cpu" for p in parameters)
    return one_thread() if small else nullcontext()
