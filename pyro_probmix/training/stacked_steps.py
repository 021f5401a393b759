"""A step of many models that differ in the values of tensors alone, as one computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pyro_probmix._random import RandomState, seeded
from pyro_probmix.distributions import LogSpaceBeta
from pyro_probmix.mixing import PairBatch, PairLoader
from pyro_probmix.models import DensityModel
from pyro_probmix.models.objectives import weighted_mean
from pyro_probmix.training.checkpoints import Checkpoint
from pyro_probmix.training.compiled import Compiled
from pyro_probmix.training.data import HeldOut
from pyro_probmix.training.history import VALIDATION_SAMPLES
from pyro_probmix.training.loop import Taken
from pyro_probmix.training.rates import Rate
from pyro_probmix.training.settings import Settings
from pyro_probmix.training.stacking import Adam, StackCache, configuration, pad, saved_bytes, stack
from pyro_probmix.training.validation import validation_noise

__all__ = ["VALIDATED_AT_ONCE", "Replica", "StackedStep"]

VALIDATED_AT_ONCE = 2**23, 2**30
"""Bytes that a validation loss computes at once for all replicas: on a CPU, where they are to stay in the cache, and on
a GPU."""


@dataclass
class Replica:
    """A model, its data and its random state."""

    number: int
    model: DensityModel
    loader: PairLoader
    validation: HeldOut | None
    epochs: int
    learning_rate: Rate
    seed: int

    def __post_init__(self) -> None:
        self.device = next(p.device for p in self.model.parameters() if p.requires_grad)
        self.random_state = RandomState(self.seed, self.device)

    @property
    def rate(self) -> float:
        """The step size in the epoch that is next."""
        return self.learning_rate(self.loader.epoch) if callable(self.learning_rate) else self.learning_rate

    def epoch(self, num_samples: int, labels: Any, **parts: bool) -> Iterator[tuple[PairBatch, dict[str, Tensor]]]:
        """The batches of an epoch and the random numbers of their risks, in the order in which ``fit`` draws."""
        batches = iter(self.loader)
        for _ in range(len(self.loader)):
            with self.random_state:
                batch = next(batches)
                if batch.x.device != self.device:
                    batch = batch.to(self.device, non_blocking=True)
                draws = self.model.draw(batch, num_samples, labels, **parts)
            yield batch, draws


class StackedStep:
    """A :class:`~pyro_probmix.training.loop.Step` of stackable replicas of one :func:`configuration`, by Adam."""

    def __init__(self, replicas: Sequence[Replica], settings: Settings) -> None:
        self.replicas, self.settings, self.device = list(replicas), settings, replicas[0].device
        self.models = self._all = [replica.model for replica in replicas]
        self.validated, self.deferred = replicas[0].validation is not None, self.device.type == "cuda"
        self._call = _Call(self.models[0], settings)
        self._kind = configuration(self.models[0]) if settings.compile else None
        self._trained = [name for name, p in self._call.named_parameters() if p.requires_grad]
        tensors = [_tensors(model) for model in self.models]
        parameters = [tensors[0][name] for name in self._trained]
        self._shapes, self._sizes = [p.shape for p in parameters], [p.numel() for p in parameters]
        self._flat = torch.stack([self._flatten(own) for own in tensors])
        self._rest = {
            name: stack([own[name].detach() for own in tensors]) for name in tensors[0] if name not in self._trained
        }
        self.dtype = torch.promote_types(self._flat.dtype, torch.float32)
        self._scheduled = any(callable(replica.learning_rate) for replica in replicas)
        self._optimizer = Adam(self._flat, self._rates())
        # What the networks draw themselves they draw side by side, apart from what each replica draws.
        seed = np.random.SeedSequence([replica.seed for replica in replicas]).generate_state(1).item()
        self._network_state = RandomState(seed, self.device)
        self._labels = None if settings.objective == "expected-log" else "sample"
        self._prepare()
        self._compile()

    def _prepare(self) -> None:
        """What is made of the data of the replicas that are still here."""
        self._caches = {name: StackCache() for name in ("x", "y", "weight", "mask")}
        self._vectors: dict[tuple, Tensor] = {}
        self._held_out = _held_out(self.replicas) if self.validated else _HeldOut([])
        self._law = _stacked_law(self.replicas, self._num_rows)

    def _compile(self) -> None:
        self._change: Callable[..., tuple[Tensor, Tensor, Tensor]] = self._take_step
        self._loss: Callable[..., Tensor] = self._validation_loss
        if self.settings.compile:
            # Each row meets each parameter once, and twice more on the way back.
            samples = VALIDATION_SAMPLES if self.models[0].stochastic else 1
            passes = 3 * self.settings.num_samples
            self._change = Compiled(self._change, lambda flat, _, own, __: passes * flat.numel() * own["x"].shape[1])
            self._loss = Compiled(self._loss, lambda flat, _, own: samples * flat.numel() * own["x"].shape[1])

    @property
    def parameters(self) -> list[Tensor]:
        return [self._flat]

    @property
    def _num_rows(self) -> int:
        return self.settings.num_samples * self.models[0].mixing.num_coefficients

    def _rates(self) -> Tensor:
        rates = [replica.rate for replica in self.replicas]
        return torch.tensor(rates, device=self.device, dtype=self.dtype).unsqueeze(1)

    # The protocol.

    def batches(self, coefficient: Any) -> Iterator[tuple[tuple[dict[str, Tensor], Tensor | None], Tensor]]:
        """Stacked arguments of the risk, who has a batch of its own (None for all), and the nodes of each."""
        if coefficient is not None:
            self._anneal(coefficient)
        if self._scheduled:
            self._optimizer.learning_rate = self._rates()
        parts = {} if self._law is None else {"parts": True}
        own = [replica.epoch(self.settings.num_samples, self._labels, **parts) for replica in self.replicas]
        lengths = [len(replica.loader) for replica in self.replicas]
        drawn: list[Any] = [None] * len(own)
        for step in range(max(lengths)):
            # A replica that is through waits at its last batch.
            drawn = [next(batches, last) for batches, last in zip(own, drawn, strict=True)]
            waits = [step >= length for length in lengths]
            sizes = [len(batch) for batch, _ in drawn]
            active = None if not any(waits) else self._vector([not wait for wait in waits])
            nodes = [0 if wait else size for wait, size in zip(waits, sizes, strict=True)]
            yield (self._arguments(drawn, sizes), active), self._vector(nodes)

    def _anneal(self, coefficient: Any) -> None:
        for model in self.models:
            model.coefficient = coefficient
        self._law = _stacked_law(self.replicas, self._num_rows)
        kind = configuration(self.models[0]) if self.settings.compile else None
        if kind != self._kind:  # the law is a part of what was compiled
            self._kind = kind
            self._compile()

    def _arguments(self, drawn: Sequence[Any], sizes: Sequence[int]) -> dict[str, Tensor]:
        batches = [batch for batch, _ in drawn]
        arguments = {"partner": pad([batch.partner for batch in batches])}
        for name, cache in self._caches.items():
            if getattr(batches[0], name) is not None:
                arguments[name] = cache([getattr(batch, name) for batch in batches])
        dim = 0 if self._num_rows == 1 else 1
        arguments |= {name: pad([draws[name] for _, draws in drawn], dim) for name in drawn[0][1]}
        if self._law is not None and "gamma" in arguments:
            arguments["coefficient"] = self._law.from_parts(arguments.pop("gamma"), arguments.pop("uniform"))
        if len(set(sizes)) > 1:
            arguments["share"] = _row_weight(self._vector(sizes), arguments["x"])
        return arguments

    def _vector(self, values: Sequence[int]) -> Tensor:
        """The values on the device, which are the same in every epoch."""
        key = (type(values[0]), *values)
        if key not in self._vectors:
            self._vectors[key] = torch.tensor(values, device=self.device)
        return self._vectors[key]

    def take(self, batch: tuple[dict[str, Tensor], Tensor | None], running: Tensor) -> Taken:
        arguments, active = batch
        moving = running if active is None else running & active
        state = {**self._optimizer.begin(moving.unsqueeze(1)), "moving": moving}
        with self._network_state:
            loss, finite, moved = self._change(self._flat, self._rest, arguments, state)
        fault = moving ^ moved
        if self.settings.max_skipped:
            self._optimizer.take_back(fault.unsqueeze(1))
        if not self.deferred and not bool(fault.any()):
            return Taken(loss if active is None else torch.where(active, loss, 0), finite, moved, None)
        return Taken(loss, finite, moved, fault)

    @torch.no_grad()
    def validate(self) -> Tensor:
        """The sum over blocks of rows, which have weights."""
        return torch.stack([self._loss(self._flat, self._rest, block) for block in self._held_out]).sum(0)

    def schedule(self, loss: Tensor | None) -> None: ...

    def spread(self, values: Tensor) -> Tensor:
        return values.unsqueeze(1)

    def state(self) -> dict[str, Tensor]:
        return {"flat": self._flat}

    def keep(self, rows: Tensor) -> None:
        self.replicas = [self.replicas[row] for row in rows.tolist()]
        self.models = [replica.model for replica in self.replicas]
        self._call = _Call(self.models[0], self.settings)
        self._flat = self._flat[rows]
        self._rest = {name: tensor[rows] for name, tensor in self._rest.items()}
        self._optimizer.keep(rows)
        self._prepare()

    @torch.no_grad()
    def write(self, rows: Sequence[int]) -> None:
        for row in rows:
            own = _tensors(self.models[row])
            for name, piece in zip(self._trained, self._flat[row].split(self._sizes), strict=True):
                own[name].copy_(piece.view(own[name].shape))

    def culprit(self) -> tuple[str, str]:
        return "the loss or a gradient", ""

    def save(self) -> dict[str, Any]:
        self.write(range(len(self.models)))
        loaders = [replica.loader.epoch for replica in self.replicas]
        states = [replica.random_state.states for replica in self.replicas]
        return {
            "model": nn.ModuleList(self._all).state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "sampler": {"epoch": loaders, "replicas": states, "networks": self._network_state.states},
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        checkpoint.restore(nn.ModuleList(self._all), self._optimizer)
        for row, model in zip(self._flat, self.models, strict=True):
            row.copy_(self._flatten(_tensors(model)))
        sampler = checkpoint.sampler
        for replica, epoch, states in zip(self.replicas, sampler["epoch"], sampler["replicas"], strict=True):
            replica.loader.epoch, replica.random_state.states = epoch, states
        self._network_state.states = sampler["networks"]

    # The computation.

    def _flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        return torch.cat([tensors[name].detach().flatten() for name in self._trained])

    def _take_step(
        self, flat: Tensor, rest: dict[str, Tensor], arguments: dict[str, Tensor], state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The risk of each model before the step, whether it is finite, and who has moved."""
        settings = self.settings
        self._call.train()
        parameters = flat.detach().requires_grad_()
        cast = nullcontext() if settings.precision is None else torch.autocast(self.device.type, settings.precision)
        with cast:
            loss = self._losses("risk", parameters, rest, arguments)
        (gradient,) = torch.autograd.grad(loss.sum(), parameters)
        loss = loss.detach()
        finite = loss.isfinite()
        moved = state["moving"] & finite & gradient.abs().amax(1).isfinite()
        if settings.max_grad_norm is not None:  # as torch.nn.utils.clip_grad_norm_
            norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
            gradient = gradient * (settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        Adam.change(flat, state, gradient, moved.unsqueeze(1))
        return loss, finite, moved

    def _validation_loss(self, flat: Tensor, rest: dict[str, Tensor], arguments: dict[str, Tensor]) -> Tensor:
        self._call.eval()
        return self._losses("validation", flat, rest, arguments)

    def _losses(self, function: str, flat: Tensor, rest: dict[str, Tensor], arguments: dict[str, Tensor]) -> Tensor:
        def one(flat: Tensor, rest: dict[str, Tensor], own: dict[str, Tensor]) -> Tensor:
            pieces = zip(self._trained, flat.split(self._sizes), self._shapes, strict=True)
            parameters = {name: piece.view(shape) for name, piece, shape in pieces}
            return functional_call(self._call, {**parameters, **rest}, (function,), own)

        with pyro.get_param_store().scope():  # Pyro modules find no parameter of an earlier call there
            try:
                return vmap(one, randomness="different")(flat, rest, arguments)
            except RuntimeError as error:
                if "vmap" not in str(error):
                    raise
                expected = "networks and a likelihood that torch.func.vmap can follow"
                got = f"{self._call.model.likelihood}: {error}"
                raise ValueError(f"make_model: expected {expected}, got {got}") from error


class _Call(nn.Module):
    """The losses of a model as a module's call, which is what ``functional_call`` can make."""

    def __init__(self, model: DensityModel, settings: Settings) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    def forward(
        self,
        function: str,
        x: Tensor,
        y: Tensor,
        share: Tensor | None = None,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **rest: Any,
    ) -> Tensor:
        """The risk or the validation loss; rows count with their ``share``, and by it a row of padding not at all."""
        if function == "validation":
            p = self.model.predictive(x, num_samples=VALIDATION_SAMPLES, **rest)
            return -weighted_mean(p.log_prob(y), share)
        if share is not None and weight is not None:
            # The mean is over as many rows as are not padding, and an edge has the weights of both its nodes.
            of_rows = len(share) / share.sum()
            weight, share = weight * share * (of_rows if self.model.mixing.at is None else of_rows.sqrt()), None
        batch = PairBatch(x, y, rest.pop("partner"), weight, mask)
        settings = self.settings
        return self.model.risk(batch, settings.num_samples, weight=share, objective=settings.objective, **rest)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": t for name, t in (*model.named_parameters(), *model.named_buffers())}


def _stacked_law(replicas: Sequence[Replica], num_rows: int) -> LogSpaceBeta | None:
    """The law of λ of all replicas, if each ``is_edgewise_beta``: these are made into λ for all at once."""
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


def _held_out(replicas: Sequence[Replica]) -> _HeldOut:
    """Stacked arguments of the validation loss, in blocks of rows, whose losses add up to it.

    In every epoch there is the noise that ``predictive`` draws by default.
    """
    data = [replica.validation for replica in replicas if replica.validation is not None]
    device, model = replicas[0].device, replicas[0].model
    sizes = torch.tensor([len(x) for x, *_ in data], device=device)
    longest, row_bytes = max(len(x) for x, *_ in data), len(data) * _row_bytes(model, *data[0][:2])
    num_blocks = -(-longest // max(1, VALIDATED_AT_ONCE[device.type == "cuda"] // row_bytes))
    length = -(-longest // num_blocks)  # of each, for one shape is compiled
    x = pad([own for own, _, _ in data], size=length * num_blocks)
    y = pad([own for _, own, _ in data], size=length * num_blocks)
    share = _row_weight(sizes, x) / sizes.unsqueeze(1)
    for row, (own, _, given) in zip(share, data, strict=True):
        if given is not None:
            row[: len(own)] = given
    arguments = {"x": x, "y": y, "share": share}
    cut = {name: tensor.split(length, dim=1) for name, tensor in arguments.items()}  # of shape (R, N, ...)
    blocks = [{name: _dense(pieces[number]) for name, pieces in cut.items()} for number in range(num_blocks)]
    drawn: dict[int, Tensor] = {}
    for own, *_ in data:
        if len(own) not in drawn and (noise := validation_noise(model, own)) is not None:
            drawn[len(own)] = noise
    if not drawn:
        return _HeldOut(blocks)
    whole = max(noise.shape[1] for noise in drawn.values())
    return _HeldOut(blocks, pad([drawn[len(own)] for own, *_ in data], dim=1, size=whole), length)


class _HeldOut:
    """Blocks of validation rows, of ``length`` each, and their noise, of shape ``(R, S, rows) + event_shape``."""

    def __init__(self, blocks: list[dict[str, Tensor]], noise: Tensor | None = None, length: int = 0) -> None:
        self.blocks, self.noise, self.length = blocks, noise, length

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for number, block in enumerate(self.blocks):
            yield block if self.noise is None else {**block, "noise": self._of(number, self.noise)}

    def _of(self, number: int, noise: Tensor) -> Tensor:
        """Of the rows of a block; the first ones' comes again behind the last."""
        rows = torch.arange(number * self.length, (number + 1) * self.length, device=noise.device) % noise.shape[2]
        if noise.stride(0) == 0:  # one for all replicas
            return noise[0].index_select(1, rows).expand(len(noise), -1, -1, *noise.shape[3:])
        return noise.index_select(2, rows)


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
