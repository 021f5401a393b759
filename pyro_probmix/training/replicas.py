"""Training many models at once, as one vectorised computation over stacked parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_probmix._checks import check_integer
from pyro_probmix._random import seeded
from pyro_probmix.distributions import linear_pool, log_linear_pool
from pyro_probmix.mixing import PairBatch, SamplingGraph
from pyro_probmix.models import DensityModel
from pyro_probmix.training._checks import check_decay, without_validation
from pyro_probmix.training._chunk import Settings, num_epochs, train_chunks
from pyro_probmix.training._compiled import check_compiler
from pyro_probmix.training._replica import Data, Replica
from pyro_probmix.training._stack import saved_bytes
from pyro_probmix.training.history import VALIDATION_SAMPLES, History

__all__ = ["Replicas", "fit_replicas"]

Graphs = SamplingGraph | Sequence[SamplingGraph] | Callable[[Tensor], SamplingGraph]

MEMORY = 2**30
"""Bytes that the replicas trained at once may take on a CPU."""


@dataclass
class Replicas:
    """Trained models, one a replica.

    Attributes:
        models: ordinary models, in evaluation mode.
        histories: the losses of each replica, up to the epoch where it stopped.
        failed: replica → the epoch in which its loss or gradient was not finite for the first time; its parameters
            are those of its last finite step. Epoch 0 also where its validation loss was finite in no epoch. A loss
            with ``fusion="numerical"`` is not finite where its rule of quadrature misses its accuracy, either.
        seeds: replica → the ``seed`` with which :func:`~pyro_probmix.fit` draws the same random numbers.
    """

    models: list[DensityModel]
    histories: list[History]
    failed: dict[int, int]
    seeds: list[int]

    def ensemble(
        self,
        x: Tensor,
        pooling: Literal["linear", "log-linear"] = "linear",
        members: Sequence[int] | None = None,
        num_samples: int = 100,
        seed: int | None = 0,
    ) -> Any:
        """The equal-weight pool of the members' predictive densities, of batch shape ``(N,)``.

        Args:
            x: inputs, of shape ``(N, ...)``.
            pooling: ``"linear"`` for the mixture, ``"log-linear"`` for predictive densities of one exponential family.
            members: which replicas; default: all that have not failed.
            num_samples: embedding samples a point, as in ``predictive``.
            seed: seed of the embedding noise, as in ``predictive``.

        Raises:
            TypeError: if a log-linear pool is asked of densities that are in no exponential family.
            ValueError: if ``pooling`` is unknown, or there are no members.
        """
        if pooling not in ("linear", "log-linear"):
            raise ValueError(f'pooling: expected "linear" or "log-linear", got {pooling!r}')
        if members is None:
            members = [r for r in range(len(self.models)) if r not in self.failed]
        if len(members) == 0:
            raise ValueError(f"members: expected one at least, got none; failed: {sorted(self.failed)}")
        components = [self.models[r].predictive(x, num_samples=num_samples, seed=seed) for r in members]
        if pooling == "linear":
            return linear_pool(components)
        return log_linear_pool(components, [1 / len(members)] * len(members))


def fit_replicas(
    make_model: Callable[[int], DensityModel],
    data: Sequence[Data],
    *,
    graph: Graphs | None = None,
    validation: Sequence[Data] | None = None,
    epochs: int | Sequence[int] = 1000,
    batch_size: int | None = None,
    learning_rate: float | Sequence[float] = 5e-3,
    num_samples: int = 1,
    ema_decay: float | None = None,
    seed: int = 0,
    progress: bool = True,
    patience: int | None = None,
    validation_every: int = 1,
    chunk_size: int | None = None,
    num_workers: int = 0,
    compile: bool = False,
) -> Replicas:
    r"""Trains many models at once: splits, seeds, hyperparameters or members of an ensemble.

    Replica r ends as :func:`~pyro_probmix.fit` would leave ``make_model(r)`` with ``data[r]`` and the seed
    ``replicas.seeds[r]``, up to rounding: its pairs, λ, labels, noise of a :class:`~pyro_probmix.nn.NormalEmbedding`
    and initial parameters depend on ``seed`` and r alone. What a network draws itself, such as dropout, and an
    embedding of another family depend on the replicas trained beside it too. The global random state and Pyro's
    parameter store are left alone.

    Replicas that differ in the values of tensors and the law of λ alone are one computation; others, of another
    network or vicinity, are trained in turn. Data of uneven length are padded, and the padded rows are given no
    weight. A replica whose loss stops being finite, or whose validation loss has settled, stops alone; once half of
    those that are trained together have stopped, the others go on without them.

    Args:
        make_model: makes replica r, with parameters of its own, in a random state from ``seed`` and r.
        data: training inputs of shape ``(N, ...)`` and labels of shape ``(N,) + event_shape`` of each replica.
        graph: which pairs are mixed: one graph for all, one each, or what makes it from the inputs, such as
            :class:`~pyro_probmix.NearestNeighborGraph`; default: :class:`~pyro_probmix.CompleteGraph`.
        validation: inputs and labels that choose the epoch of each replica; default: the last epoch is kept.
        epochs: passes over the data, at least 1; for all or one each.
        batch_size: nodes a step; default: all of them.
        learning_rate: Adam's step size, positive; for all or one each.
        num_samples: K of eq. 16.
        ema_decay: of the moving average of the parameters that is validated and kept, as for :func:`~pyro_probmix.fit`.
        seed: seed of all random numbers.
        progress: whether a progress bar is shown.
        patience: epochs without a better validation loss after which a replica stops; default: never.
        validation_every: epochs from one validation to the next; the last epoch is validated too.
        chunk_size: replicas trained at once; default: as many as fit, into half of the free memory of a GPU.
        num_workers: processes, of one thread each, that share the replicas; 0 trains in this process, with all its
            threads. They are forked: on a CPU, and not under Windows.
        compile: whether steps are traced, once 20 of the same shapes have been taken, and, once they have taken some
            seconds, compiled by ``torch.compile``, which takes a C++ compiler and as long. They are about one and a
            half times as fast then, and equal up to rounding, but for what a network draws itself. Networks may do
            nothing but arithmetic on tensors, the same in every step.

    Returns:
        The models, their histories, and which of them failed.

    Raises:
        TypeError: if an argument is of another type, such as a model that is no :class:`DensityModel`.
        ValueError: if the data of a replica are not its model's (the replica is named), a network has priors, mixes its
            rows or changes its buffers, a number is out of range, there can be no workers, or there is no compiler.

    Example:
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(-1)
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> def make_model(r):
        ...     return pm.ProbMix(pm.nn.MLP(1, [16], likelihood.num_outputs), likelihood)
        >>> replicas = pm.fit_replicas(make_model, [(x, x.squeeze(-1))] * 5, epochs=20, progress=False)
        >>> replicas.ensemble(x)
        LinearPool(batch_shape: (64,), components: 5)
    """
    data = list(data)
    check_decay(ema_decay)
    settings = Settings(
        num_samples=check_integer("num_samples", num_samples),
        patience=math.inf if patience is None else check_integer("patience", patience),
        validation_every=check_integer("validation_every", validation_every),
        ema_decay=ema_decay,
        compile=compile,
    )
    if patience is not None and validation is None:
        raise ValueError(f"patience: expected validation data with it, got {patience} without")
    if not isinstance(epochs, Sequence | Tensor | np.ndarray):
        epochs = check_integer("epochs", epochs)
    if chunk_size is not None:
        chunk_size = check_integer("chunk_size", chunk_size)
    if not data:
        raise ValueError("data: expected one replica at least, got none")
    if num_workers:
        check_integer("num_workers", num_workers)
    ends, rates = _each(epochs, len(data)), _each(learning_rate, len(data))
    graphs = list(graph) if isinstance(graph, Sequence) else [graph] * len(data)
    held_out: list[Data | None] = [None] * len(data) if validation is None else list(validation)
    for name, values in (("epochs", ends), ("learning_rate", rates), ("graph", graphs), ("validation", held_out)):
        if len(values) != len(data):
            raise ValueError(f"{name}: expected one for each of the {len(data)} replicas, got {len(values)}")
    replicas = []
    with pyro.get_param_store().scope():
        for r, (own, end, rate, pairs, chosen) in enumerate(zip(data, ends, rates, graphs, held_out, strict=True)):
            try:
                replicas.append(Replica.make(make_model, r, own, end, rate, pairs, chosen, batch_size, seed))
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"replica {r}: {error}") from error
        _check_apart(replicas)
        if compile and any(replica.device.type == "cpu" for replica in replicas):
            check_compiler()
        # The data have been looked at: no step needs to wait for the device to look again.
        with without_validation():
            chunks = list(_chunks(replicas, settings, chunk_size, num_workers))
            with tqdm(
                total=num_epochs(chunks),
                desc=f"{len(data)} replicas",
                unit="epoch",
                disable=not progress,
                leave=False,
            ) as bar:
                train_chunks(chunks, settings, num_workers, bar)
    for replica in replicas:
        replica.model.eval()
    return Replicas(
        models=[replica.model for replica in replicas],
        histories=[replica.history for replica in replicas],
        failed={r: epoch for r, epoch in enumerate(replica.failed for replica in replicas) if epoch is not None},
        seeds=[replica.seed for replica in replicas],
    )


def _each(value: Any, size: int) -> list[Any]:
    """A number for each replica, from one for all or one each, each of its own type."""
    arrays = Tensor | np.ndarray | np.generic
    if isinstance(value, arrays):
        value = value.tolist()
    values = value if isinstance(value, Sequence) else [value] * size
    return [own.item() if isinstance(own, arrays) and own.ndim == 0 else own for own in values]


def _check_apart(replicas: Sequence[Replica]) -> None:
    owner: dict[int, int] = {}
    for r, replica in enumerate(replicas):
        for name, parameter in replica.model.named_parameters():
            if owner.setdefault(id(parameter), r) != r:
                raise ValueError(
                    f"make_model: expected parameters of its own in each replica, got one ({name}) that replicas "
                    f"{owner[id(parameter)]} and {r} share"
                )


def _chunks(
    replicas: Sequence[Replica], settings: Settings, size: int | None, num_workers: int
) -> Iterator[list[Replica]]:
    groups: dict[tuple, list[Replica]] = {}
    for replica in replicas:
        groups.setdefault(replica.kind, []).append(replica)
    places = max(1, num_workers)
    for group in groups.values():
        num_at_once = _num_at_once(group, settings.num_samples)  # refuses networks that cannot be stacked
        step = size
        if step is None:
            at_once = max(1, num_at_once // places)
            rounds = -(-len(group) // (places * at_once))
            step = -(-len(group) // (places * rounds))  # chunks of one size, as many for each place
        for start in range(0, len(group), step):
            yield group[start : start + step]


def _num_at_once(group: Sequence[Replica], num_samples: int) -> int:
    """How many replicas fit, their validation noise included where each has its own."""
    largest = max(group, key=lambda replica: replica.loader.x.numel())
    step = _step_bytes(largest, num_samples)
    held_out = [replica.validation[0] for replica in group if replica.validation is not None]
    noise = None
    if len({len(x) for x in held_out}) > 1:
        x = max(held_out, key=len)  # to which all are padded
        with seeded(0, largest.device):
            noise = largest.model.draw_noise(x, (VALIDATION_SAMPLES, len(x)))
    held = 0 if noise is None else noise.numel() * noise.element_size()
    free = torch.cuda.mem_get_info(largest.device)[0] // 2 if largest.device.type == "cuda" else MEMORY
    return max(1, free // max(1, 3 * step + held))


def _step_bytes(replica: Replica, num_samples: int) -> int:
    """How much a step keeps for its backward pass, on any rows: its random state and its graph see none of this.

    Raises:
        ValueError: if a network changes its buffers, of which replicas keep the first.
    """
    model, loader = replica.model, replica.loader
    assert loader.y is not None
    rows = min(loader.batch_size or len(loader.x), len(loader.x))
    batch = PairBatch(loader.x[:rows], loader.y[:rows], torch.arange(rows, device=replica.device))
    names = {id(buffer): name for name, buffer in model.named_buffers()}
    before = [
        (m._buffers, key, b, b.clone()) for m in model.modules() for key, b in m._buffers.items() if b is not None
    ]
    with seeded(0, replica.device):
        size = saved_bytes(lambda: model.risk(batch, num_samples))
    changed = []
    for owner, key, buffer, value in before:
        if owner[key] is not buffer or not torch.allclose(buffer, value, rtol=0, atol=0, equal_nan=True):
            changed.append(names[id(buffer)])
            owner[key] = value
    if changed:
        raise ValueError(
            f"make_model: expected networks whose buffers stay as they are in training, got {', '.join(changed)}"
        )
    return size
