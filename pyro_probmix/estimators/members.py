"""The members of an estimator: networks, the rows that each is trained on and holds back, and their training."""

from __future__ import annotations

import copy
import functools
import math
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

from pyro_probmix._checks import check_choice, check_integer, check_number
from pyro_probmix._random import seeded
from pyro_probmix.mixing import NearestNeighborGraph
from pyro_probmix.models import DensityModel, assemble
from pyro_probmix.nn import MLP, Likelihood
from pyro_probmix.training import History, OneCycle, fit, fit_replicas
from pyro_probmix.training.workers import one_thread

__all__ = ["Members", "Network", "Rows", "Schedule", "in_few_threads", "train"]

SCHEDULERS = "one_cycle", "constant"
"""What becomes of the step size in the course of a training."""

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
    epochs: int | None
    batch_size: int | str | None
    learning_rate: float
    scheduler: str
    validation_fraction: float
    patience: int | None
    ema_decay: float | None
    refit: bool
    num_neighbors: int | None
    num_workers: int
    progress: bool

    def plan(self, size: int) -> tuple[int, dict[str, Any]]:
        """The epochs for so many rows to train on, and the options of :func:`~pyro_probmix.fit` that follow.

        Raises:
            TypeError, ValueError: if a setting is none that there is; it is named.
        """
        check_choice("scheduler", self.scheduler, SCHEDULERS)
        batch_size: Any = self.batch_size
        if batch_size == "auto":
            batch_size = 2 ** min(9, max(5, round(math.log2(size / 32))))
        elif batch_size is not None:
            batch_size = check_integer("batch_size", batch_size)
        steps = min(50 * math.sqrt(size), 3000)
        epochs = math.ceil(steps / math.ceil(size / (batch_size or size)))
        if self.epochs is not None:
            epochs = check_integer("epochs", self.epochs)
        rate: Any = check_number("learning_rate", self.learning_rate)
        return epochs, {
            "batch_size": batch_size,
            "learning_rate": rate if self.scheduler == "constant" else OneCycle(rate, epochs),
            "ema_decay": self.ema_decay,
            "progress": self.progress,
            "validation_every": 1 if self.patience is not None else max(1, epochs // (25 if size < 2000 else 12)),
        }

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
    planned, options = schedule.plan(len(kept[0]))
    fitted = functools.partial(_fit, network, likelihood, schedule=schedule, options=options, seed=seed)
    with in_few_threads(first):
        models, histories = fitted(kept, held_out, epochs=[planned] * len(kept))
        if schedule.refit and held_out and validation is None:
            epochs = [history.best_epoch + 1 for history in histories]
            models, _ = fitted([rows.hard()] * len(epochs), [], epochs=epochs)
    return Members(models, histories, held_out)


def _fit(
    network: Network,
    likelihood: Likelihood,
    rows: Sequence[Rows],
    held_out: Sequence[Rows],
    schedule: Schedule,
    options: dict[str, Any],
    epochs: Sequence[int],
    seed: int,
) -> tuple[list[DensityModel], list[History]]:
    """Members side by side; one alone has no others to share operations with, and is trained as it is."""
    device = rows[0].x.device
    data, validation = [(own.x, own.y) for own in rows], [own.validation for own in held_out]
    make_model: Callable[[int], DensityModel] = lambda _: network.model(likelihood, device)  # noqa: E731
    graph: Any = None
    if schedule.num_neighbors is not None:
        graph = functools.partial(NearestNeighborGraph, num_neighbors=schedule.num_neighbors)
    options = {**options, "patience": schedule.patience if held_out else None}
    try:
        if len(rows) == 1:
            with seeded(seed, device):
                model = make_model(0)
            options |= {"weight": rows[0].weight, "validation": validation[0] if validation else None}
            options["graph"] = None if graph is None else graph(data[0][0])
            return [model], [fit(model, data[0], epochs=epochs[0], seed=seed, **options)]
        options |= {"weight": [own.weight for own in rows], "validation": validation or None, "graph": graph}
        options["num_workers"] = schedule.num_workers
        replicas = fit_replicas(make_model, data, epochs=epochs, seed=seed, **options)
    except (TypeError, ValueError) as error:
        message = re.sub(r"^replica \d+: ", "", str(error))  # members are alike in what is wrong
        if message.startswith(("loss: ", "validation: expected a finite loss")):
            message = f"learning_rate: expected one by which losses stay finite; try a smaller one ({message})"
        raise (TypeError if isinstance(error, TypeError) else ValueError)(message) from error
    if replicas.failed:
        member, epoch = next(iter(replicas.failed.items()))
        raise ValueError(
            "learning_rate: expected one by which losses stay finite, got one by which that of member "
            f"{member} is not in epoch {epoch}; try a smaller one"
        )
    return replicas.models, replicas.histories


def in_few_threads(model: DensityModel) -> AbstractContextManager[None]:
    """One thread inside where the network is small and on a CPU; as many as there are after it."""
    parameters = list(model.parameters())
    small = sum(p.numel() for p in parameters) <= _SMALL and all(p.device.type == "cpu" for p in parameters)
    return one_thread() if small else nullcontext()
