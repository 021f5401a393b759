"""One replica, and the stacked batches of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_probmix._checks import check_integer
from pyro_probmix._random import RandomState, seeded
from pyro_probmix.distributions import LogSpaceBeta
from pyro_probmix.mixing import CompleteGraph, EmbeddingGraph, PairBatch, PairLoader, SamplingGraph
from pyro_probmix.models import DensityModel
from pyro_probmix.models.priors import refuse_priors
from pyro_probmix.training._checks import (
    check_labels,
    check_learning_rate,
    check_model,
    check_pair,
    check_rows,
    check_validation,
    make_lazy_layers,
)
from pyro_probmix.training._stack import StackCache, check_stackable, configuration, pad, saved_bytes
from pyro_probmix.training.history import VALIDATION_SAMPLES, History

__all__ = ["Batches", "Data", "Replica", "held_out_data"]

Data = tuple[Tensor, Tensor]

_VALIDATED_AT_ONCE = 2**23, 2**30
"""Bytes that a validation loss computes at once for all replicas: on a CPU, where they are to stay in the cache, and on
a GPU."""


class Replica:
    """A model, its data and its random state; its history in the end."""

    def __init__(
        self,
        model: DensityModel,
        loader: PairLoader,
        validation: Data | None,
        epochs: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        self.model, self.loader, self.validation, self.epochs = model, loader, validation, epochs
        self.learning_rate, self.seed, self.device = learning_rate, seed, loader.x.device
        self.history = History()
        self.failed: int | None = None
        self._random_state = RandomState(seed, self.device)

    @classmethod
    def make(
        cls,
        make_model: Callable[[int], DensityModel],
        r: int,
        data: Data,
        epochs: int,
        learning_rate: float,
        graph: Any,
        validation: Data | None,
        batch_size: int | None,
        seed: int,
    ) -> Replica:
        """Replica r of a seed, its arguments checked."""
        epochs = check_integer("epochs", epochs)
        check_learning_rate(learning_rate)
        if isinstance(data, Tensor):
            raise TypeError("data: expected a sequence of (x, y), got a tensor in it")
        check_pair(data)
        x, y = data
        model_seed, fit_seed = np.random.SeedSequence(seed, spawn_key=(r,)).generate_state(2).tolist()
        if graph is None:
            graph = CompleteGraph(len(x))
        graph = graph if isinstance(graph, SamplingGraph) else graph(x)
        if isinstance(graph, EmbeddingGraph):
            raise ValueError(
                "graph: expected one that does not look at a network, got EmbeddingGraph: while replicas train, the "
                "networks themselves stay as they began"
            )
        loader = PairLoader(x, y, graph, batch_size)
        with seeded(model_seed, x.device):
            model = make_model(r)
        check_model("make_model", model)
        refuse_priors(model, "fit_replicas")
        make_lazy_layers(x, model, fit_seed)
        check_stackable(model)
        check_rows("x", x, model, fit_seed)
        check_labels("y", y, model)
        if validation is not None:
            check_validation(*validation, model)
            check_rows("validation x", validation[0], model)
        return cls(model.train(), loader, validation, epochs, learning_rate, fit_seed)

    @property
    def kind(self) -> tuple:
        """What replicas have in common that are trained together."""
        tensors = (self.loader.x, self.loader.y, *(self.validation or ()))
        return configuration(self.model), *((t.shape[1:], t.dtype, t.device) for t in tensors)

    def learnt(self) -> tuple[dict[str, Tensor], dict[str, Any], int | None]:
        """What training has made of it, for another process: tensors and numbers."""
        return {name: p.detach() for name, p in self.model.named_parameters()}, asdict(self.history), self.failed

    @torch.no_grad()
    def learn(self, state: tuple[dict[str, Tensor], dict[str, Any], int | None]) -> None:
        """Take over what another process has learnt."""
        parameters, history, self.failed = state
        self.history = History(**history)
        for name, p in self.model.named_parameters():
            p.copy_(parameters[name])

    def epoch(self, num_samples: int, parts: bool) -> Iterator[tuple[PairBatch, dict[str, Tensor]]]:
        """The batches of an epoch and the random numbers of their risks, in the order in which ``fit`` draws.

        What λ is made from may be left as it is.
        """
        batches = iter(self.loader)
        for _ in range(len(self.loader)):
            with self._random_state:
                batch = next(batches)
                draw = self.model.draw
                draws = draw(batch, num_samples, parts=True) if parts else draw(batch, num_samples)
            yield batch, draws


class Batches:
    """The batches of all replicas, stacked."""

    def __init__(self, replicas: Sequence[Replica], num_samples: int) -> None:
        self.replicas, self.num_samples = replicas, num_samples
        self._x, self._y = StackCache(), StackCache()
        self._vectors: dict[tuple[int, ...], Tensor] = {}
        self._num_rows = num_samples * replicas[0].model.mixing.num_coefficients
        self._law = _stacked_law(replicas, self._num_rows)

    def epoch(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Stacked arguments of the risk, and the nodes of each replica in this step: none once it is through."""
        own = [replica.epoch(self.num_samples, self._law is not None) for replica in self.replicas]
        lengths = [len(replica.loader) for replica in self.replicas]
        dim = 0 if self._num_rows == 1 else 1
        drawn: list[Any] = [None] * len(own)
        for step in range(max(lengths)):
            # A replica that is through waits at its last batch.
            drawn = [next(batches, last) for batches, last in zip(own, drawn, strict=True)]
            pairs = [batch for batch, _ in drawn]
            arguments = {
                "x": self._x([batch.x for batch in pairs]),
                "y": self._y([batch.y for batch in pairs]),
                "partner": pad([batch.partner for batch in pairs]),
                **{name: pad([draws[name] for _, draws in drawn], dim) for name in drawn[0][1]},
            }
            if self._law is not None and "gamma" in arguments:
                coefficient = self._law.from_parts(arguments.pop("gamma"), arguments.pop("uniform"))
                arguments["coefficient"] = coefficient
            sizes = [len(batch) for batch in pairs]
            if len(set(sizes)) > 1:
                arguments["weight"] = _row_weight(self._vector(sizes), arguments["x"])
            active = [size if step < length else 0 for size, length in zip(sizes, lengths, strict=True)]
            yield arguments, self._vector(active)

    def _vector(self, values: list[int]) -> Tensor:
        """The values on the device, which are the same in every epoch."""
        key = tuple(values)
        if key not in self._vectors:
            self._vectors[key] = torch.tensor(values, device=self.replicas[0].device)
        return self._vectors[key]


def _stacked_law(replicas: Sequence[Replica], num_rows: int) -> LogSpaceBeta | None:
    """The law of λ of all replicas, if each has a Beta of each edge: these are made into λ for all at once."""
    laws = []
    for replica in replicas:
        mixing = replica.model.mixing
        if not mixing.is_edgewise_beta or type(replica.model).draw is not DensityModel.draw:
            return None
        laws.append(mixing.law(replica.loader.x))
    shape = (-1, 1) if num_rows == 1 else (-1, 1, 1)
    a1 = torch.stack([law.concentration1 for law in laws]).reshape(shape)
    a0 = torch.stack([law.concentration0 for law in laws]).reshape(shape)
    return LogSpaceBeta(a1, a0, validate_args=False)


def _row_weight(sizes: Tensor, x: Tensor) -> Tensor:
    """One for a row of a replica's own, zero for padding."""
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    return (torch.arange(x.shape[1], device=x.device) < sizes.unsqueeze(1)).to(dtype)


def held_out_data(replicas: Sequence[Replica]) -> list[dict[str, Tensor]]:
    """Stacked arguments of the validation loss, in blocks of rows, whose losses add up to it.

    In every epoch there is the noise that ``predictive`` draws by default.
    """
    data = [replica.validation for replica in replicas if replica.validation is not None]
    if not data:
        return []
    device, model = replicas[0].device, replicas[0].model
    sizes = torch.tensor([len(x) for x, _ in data], device=device)
    longest, row_bytes = max(len(x) for x, _ in data), len(data) * _row_bytes(model, *data[0])
    num_blocks = -(-longest // max(1, _VALIDATED_AT_ONCE[device.type == "cuda"] // row_bytes))
    length = -(-longest // num_blocks)  # of each, for one shape is compiled
    x, y = (pad(tensors, size=length * num_blocks) for tensors in zip(*data, strict=True))
    arguments = {"x": x, "y": y, "weight": _row_weight(sizes, x) / sizes.unsqueeze(1)}
    drawn: dict[int, Tensor] = {}
    for own, _ in data:
        with seeded(0, device):
            noise = model.draw_noise(own, (VALIDATION_SAMPLES, len(own)))
        if noise is not None:
            drawn.setdefault(len(own), noise)
    if drawn:
        arguments["noise"] = pad([drawn[len(own)] for own, _ in data], dim=1, size=length * num_blocks)
    # Of shape (R, N, ...), and the noise (R, S, N, ...).
    cut = {name: tensor.split(length, dim=2 if name == "noise" else 1) for name, tensor in arguments.items()}
    return [{name: _dense(pieces[number]) for name, pieces in cut.items()} for number in range(num_blocks)]


def _row_bytes(model: DensityModel, x: Tensor, y: Tensor) -> int:
    """How much of what it computes for a row of validation data a model would keep for a backward pass."""
    model.eval()

    def evaluate(size: int) -> Tensor:
        rows, labels = (values[:1].expand(size, *values.shape[1:]) for values in (x, y))
        if rows.is_floating_point():
            rows = rows.clone().requires_grad_()  # behind networks that are not trained, too
        return model.predictive(rows, num_samples=VALIDATION_SAMPLES).log_prob(labels)

    with seeded(0, x.device):
        one, two = saved_bytes(lambda: evaluate(1)), saved_bytes(lambda: evaluate(2))
    return max(1, two - one)  # without the parameters


def _dense(stacked: Tensor) -> Tensor:
    """The same without gaps; what is one tensor for all replicas stays that."""
    if stacked.stride(0) == 0:
        return stacked[0].contiguous().expand(stacked.shape)
    return stacked.contiguous()
