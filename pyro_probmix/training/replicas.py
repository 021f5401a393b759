"""Training many models at once, as one vectorised computation over stacked parameters."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_probmix._checks import check_choice, check_integer
from pyro_probmix._random import seeded
from pyro_probmix.distributions import linear_pool, log_linear_pool
from pyro_probmix.mixing import EmbeddingGraph, SamplingGraph
from pyro_probmix.models import DensityModel
from pyro_probmix.models.objectives import Objective
from pyro_probmix.models.priors import refuse_priors
from pyro_probmix.training.bars import bar_size
from pyro_probmix.training.chunks import Chunk, divide, train_apart
from pyro_probmix.training.compiled import check_compiler
from pyro_probmix.training.data import (
    Data,
    Validation,
    check_model,
    check_pair,
    check_rows,
    prepare,
    without_validation,
)
from pyro_probmix.training.history import History
from pyro_probmix.training.loop import Result
from pyro_probmix.training.rates import Rate, check_rate
from pyro_probmix.training.settings import Settings
from pyro_probmix.training.stacked_steps import Replica
from pyro_probmix.training.stacking import check_stackable
from pyro_probmix.training.workers import in_workers

__all__ = ["Replicas", "fit_replicas"]

Graphs = SamplingGraph | Sequence[SamplingGraph] | Callable[[Tensor], SamplingGraph]


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
        check_choice("pooling", pooling, ("linear", "log-linear"))
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
    validation: Sequence[Validation] | None = None,
    weight: Sequence[Tensor | None] | None = None,
    mask: Sequence[Tensor | None] | None = None,
    epochs: int | Sequence[int] = 1000,
    batch_size: int | None = None,
    learning_rate: Rate | Sequence[Rate] = 5e-3,
    num_samples: int = 1,
    objective: Objective = "expected-log",
    max_grad_norm: float | None = None,
    ema_decay: float | None = None,
    precision: torch.dtype | None = None,
    compile: bool = False,
    coefficient: Callable[[int], Any] | None = None,
    patience: int | None = None,
    validation_every: int = 1,
    non_finite: Literal["stop", "skip"] = "stop",
    max_skipped: int = 10,
    checkpoint_dir: str | os.PathLike | None = None,
    checkpoint_every: int = 50,
    resume: bool = False,
    seed: int = 0,
    progress: bool = True,
    chunk_size: int | None = None,
    num_workers: int = 0,
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
        validation, weight, mask: of each replica, as for :func:`~pyro_probmix.fit`; a weight or a mask may be None.
        epochs: passes over the data, at least 1; for all or one each.
        batch_size, num_samples, objective, max_grad_norm, ema_decay, patience, validation_every, checkpoint_every:
            as for :func:`~pyro_probmix.fit`, of each replica alone.
        learning_rate: step size as for :func:`~pyro_probmix.fit`, for all or one each. The optimiser is Adam: steps of
            other optimisers of PyTorch, and its schedules, are of one model.
        precision: ``torch.bfloat16`` as for :func:`~pyro_probmix.fit`; float16 needs a scale of the loss, which is of
            one model. Layers with a bias give single precision under ``vmap`` (PyTorch 2.13), unlike in ``fit``.
        compile: whether steps are traced, once 20 of the same shapes have been taken, and, once they have taken some
            seconds, compiled by ``torch.compile``, which takes a C++ compiler and as long. They are about one and a
            half times as fast then, and equal up to rounding, but for what a network draws itself. Networks may do
            nothing but arithmetic on tensors, the same in every step.
        coefficient: as for :func:`~pyro_probmix.fit`, of all replicas.
        non_finite: ``"stop"``: a replica whose loss or gradient is not finite stops alone; or ``"skip"`` to go on with
            the next batch, which its history counts.
        max_skipped: how many steps of a replica may be skipped before it stops.
        checkpoint_dir: folder in which a file for each chunk of replicas is kept; default: none is written.
        resume: go on from the checkpoints that are there, of replicas divided into the same chunks.
        seed: seed of all random numbers.
        progress: whether a progress bar is shown.
        chunk_size: replicas trained at once; default: as many as fit, into half of the free memory of a GPU.
        num_workers: processes, of one thread each, that share the chunks of replicas, on a CPU; 0 trains in this
            process, with all its threads. They are joblib's, which hands out pickled models: on this machine, or where
            ``joblib.parallel_config`` says. The bar then moves from chunk to chunk.

    Returns:
        The models, their histories, and which of them failed.

    Raises:
        TypeError: if an argument is of another type, such as a model that is no :class:`DensityModel`.
        ValueError: if the data of a replica are not its model's (the replica is named), a network has priors, mixes its
            rows or changes its buffers, a number is out of range, there can be no workers, there is no compiler, or a
            checkpoint is refused as by :func:`~pyro_probmix.fit`.
        RuntimeError: if a worker ends by itself; its replicas are named. Chunks that were finished before are in their
            checkpoints, if there are any.

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
    check_choice("non_finite", non_finite, ("stop", "skip"))
    check_choice("precision", precision, (torch.bfloat16, None))
    settings = Settings.among(locals())
    if not isinstance(epochs, Sequence | Tensor | np.ndarray):
        epochs = check_integer("epochs", epochs)
    if chunk_size is not None:
        chunk_size = check_integer("chunk_size", chunk_size)
    if not data:
        raise ValueError("data: expected one replica at least, got none")
    num_workers, seed = check_integer("num_workers", num_workers, 0), check_integer("seed", seed, 0)
    each = {
        "epochs": _each(epochs, len(data)),
        "learning_rate": _each(learning_rate, len(data)),
        "graph": list(graph) if isinstance(graph, Sequence) else [graph] * len(data),
    }
    for name, given in (("validation", validation), ("weight", weight), ("mask", mask)):
        each[name] = [None] * len(data) if given is None else list(given)
    for name, values in each.items():
        if len(values) != len(data):
            raise ValueError(f"{name}: expected one for each of the {len(data)} replicas, got {len(values)}")
    replicas = []
    with pyro.get_param_store().scope():
        for r, (own, *rest) in enumerate(zip(data, *each.values(), strict=True)):
            try:
                replicas.append(_make(r, make_model, own, batch_size, seed, **dict(zip(each, rest, strict=True))))
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"replica {r}: {error}") from error
        _check_apart(replicas)
        if compile and any(replica.device.type == "cpu" for replica in replicas):
            check_compiler()
        if num_workers and any(replica.device.type != "cpu" for replica in replicas):
            raise ValueError(f"num_workers: expected 0 for replicas that are not on a CPU, got {num_workers}")
        with without_validation():
            chunks = divide(replicas, settings, chunk_size, num_workers)
        total = sum(chunk.epochs for chunk in chunks)
        name = "1 replica" if len(data) == 1 else f"{len(data)} replicas"
        with tqdm(total=total, desc=name, unit="epoch", disable=not progress, leave=False, **bar_size()) as bar:
            results = _train_all(chunks, num_workers, bar)
    for replica in replicas:
        replica.model.eval()
    return Replicas(
        models=[replica.model for replica in replicas],
        histories=[results[r].history for r in range(len(data))],
        failed={r: failed for r in range(len(data)) if (failed := results[r].failed) is not None},
        seeds=[replica.seed for replica in replicas],
    )


def _train_all(chunks: Sequence[Chunk], num_workers: int, bar: Any) -> dict[int, Result]:
    """What became of each replica; the bar counts the epochs of all chunks, of which one may have stopped early."""
    results: dict[int, Result] = {}

    def finish(chunk: Chunk, found: Sequence[Result]) -> None:
        results.update(zip((replica.number for replica in chunk.replicas), found, strict=True))
        bar.update(sum(c.epochs for c in chunks if c.replicas[0].number in results) - bar.n)

    if not num_workers:
        for chunk in chunks:
            finish(chunk, chunk.train(bar))
        return results
    shared = in_workers(train_apart, chunks, min(num_workers, len(chunks)))
    with closing(shared), _pickled():
        for number, (found, trained) in shared:
            for replica, (parameters, law) in zip(chunks[number].replicas, trained, strict=True):
                with torch.no_grad():
                    for name, p in replica.model.named_parameters():
                        p.copy_(parameters[name])
                if replica.model.coefficient is not law is not None:
                    replica.model.coefficient = law
            finish(chunks[number], found)
    return results


@contextmanager
def _pickled() -> Iterator[None]:
    try:
        yield
    except pickle.PicklingError as error:
        reason = str(error.__cause__ or error).strip('\n"').rpartition("\n")[2]
        raise ValueError(f"num_workers: expected 0 for replicas that cannot be pickled, got {reason}") from error


def _make(
    r: int,
    make_model: Callable[[int], DensityModel],
    data: Data,
    batch_size: int | None,
    seed: int,
    *,
    epochs: int,
    learning_rate: Rate,
    **options: Any,
) -> Replica:
    """Replica r of a seed, its arguments checked."""
    epochs = check_integer("epochs", epochs)
    learning_rate = check_rate(learning_rate, epochs)
    x, _ = check_pair("data", data)
    model_seed, fit_seed = np.random.SeedSequence(seed, spawn_key=(r,)).generate_state(2).tolist()
    with seeded(model_seed, x.device):
        model = make_model(r)
    check_model("make_model", model)
    refuse_priors(model, "fit_replicas")
    loader, validation = prepare(model, data, batch_size=batch_size, seed=fit_seed, **options)
    if isinstance(loader.graph, EmbeddingGraph):
        raise ValueError(
            "graph: expected one that does not look at a network, got EmbeddingGraph: while replicas train, the "
            "networks themselves stay as they began"
        )
    check_stackable(model)
    check_rows("x", loader.x, model, fit_seed)
    return Replica(r, model.train(), loader, validation, epochs, learning_rate, fit_seed)


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
