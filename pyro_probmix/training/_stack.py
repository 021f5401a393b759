"""Models of one configuration as one function of stacked parameters."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Hashable, Sequence
from types import FunctionType
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pyro_probmix.mixing import PairBatch
from pyro_probmix.models import DensityModel
from pyro_probmix.models.objectives import weighted_mean
from pyro_probmix.training._averaging import MovingAverage
from pyro_probmix.training._compiled import Compiled

__all__ = ["Adam", "ModelStack", "StackCache", "check_stackable", "configuration", "pad", "saved_bytes", "stack"]


class ModelStack:
    """Models that differ in the values of their parameters and buffers alone, evaluated side by side.

    Args:
        models: of one :func:`configuration`, that pass :func:`check_stackable`.
        learning_rates: of each model.
        num_samples: K of eq. 16.
        validation_samples: embedding samples a point in the validation loss.
        compile: whether steps and losses are compiled once they have been asked for often.
        ema_decay: of the :class:`MovingAverage` of what is trained, if there is one.

    Attributes:
        flat: what is trained, a row a model, of shape ``(R, P)``.
    """

    def __init__(
        self,
        models: Sequence[DensityModel],
        learning_rates: Sequence[float],
        num_samples: int,
        validation_samples: int,
        compile: bool = False,
        ema_decay: float | None = None,
    ) -> None:
        self._models = list(models)
        self._call = _Call(models[0], num_samples, validation_samples)
        self._trained = [name for name, p in self._call.named_parameters() if p.requires_grad]
        tensors = [_tensors(model) for model in models]
        parameters = [tensors[0][name] for name in self._trained]
        self._shapes = [p.shape for p in parameters]
        self._sizes = [p.numel() for p in parameters]
        rows = [torch.cat([own[name].detach().flatten() for name in self._trained]) for own in tensors]
        self.flat = torch.stack(rows)
        self._rest = {
            name: stack([own[name].detach() for own in tensors]) for name in tensors[0] if name not in self._trained
        }
        dtype = torch.promote_types(self.flat.dtype, torch.float32)
        rates = torch.tensor(learning_rates, device=self.flat.device, dtype=dtype)
        self._optimizer = Adam(self.flat, rates.unsqueeze(1))
        self._average = None if ema_decay is None else MovingAverage([self.flat], ema_decay, (len(rows), 1))
        self._step: Callable[..., tuple[Tensor, Tensor]] = self._take_step
        self._validation: Callable[..., Tensor] = self._evaluate_validation
        if compile:
            # Each row meets each parameter once, and twice more on the way back.
            samples = validation_samples if models[0].stochastic else 1
            self._step = Compiled(
                self._step, lambda flat, _, own, __: 3 * num_samples * flat.numel() * own["x"].shape[1]
            )
            self._validation = Compiled(
                self._validation, lambda flat, _, own: samples * flat.numel() * own["x"].shape[1]
            )

    def step(self, arguments: dict[str, Tensor], moving: Tensor) -> tuple[Tensor, Tensor]:
        """A step of the models that are moving, of shape ``(R,)``, but where the risk or its gradient is not finite.

        Args:
            arguments: of the risk, stacked too.
            moving: which models are to be changed.

        Returns:
            The risk of each model before the step, of shape ``(R,)``, and which of them have moved.
        """
        state = {**self._optimizer.begin(moving.unsqueeze(1)), "moving": moving}
        loss, moved = self._step(self.flat, self._rest, arguments, state)
        if self._average is not None:
            self._average.update(moved.unsqueeze(1))
        return loss, moved

    @property
    def kept(self) -> Tensor:
        """What is validated and becomes of the models: ``flat``, or its average."""
        return self.flat if self._average is None else self._average.values[0].to(self.flat.dtype)

    def validation(self, blocks: Sequence[dict[str, Tensor]]) -> Tensor:
        """The validation loss of each model, of shape ``(R,)``: the sum over blocks of rows, which have weights."""
        kept = self.kept
        return torch.stack([self._validation(kept, self._rest, block) for block in blocks]).sum(0)

    def _take_step(
        self, flat: Tensor, rest: dict[str, Tensor], arguments: dict[str, Tensor], state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        self._call.train()
        parameters = flat.detach().requires_grad_()
        loss = self._losses("risk", parameters, rest, arguments)
        (gradient,) = torch.autograd.grad(loss.sum(), parameters)
        loss = loss.detach()
        moved = state["moving"] & loss.isfinite() & gradient.abs().amax(1).isfinite()
        Adam.change(flat, state, gradient, moved.unsqueeze(1))
        return loss, moved

    @torch.no_grad()
    def _evaluate_validation(self, flat: Tensor, rest: dict[str, Tensor], arguments: dict[str, Tensor]) -> Tensor:
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

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, given by their numbers."""
        self._models = [self._models[row] for row in rows.tolist()]
        self.flat = self.flat[rows]
        self._rest = {name: tensor[rows] for name, tensor in self._rest.items()}
        if self._average is not None:
            self._average.keep(rows, self.flat)
        self._optimizer.keep(rows, self.flat)

    @torch.no_grad()
    def write(self, flat: Tensor, rows: Tensor) -> None:
        """Give the models of these rows their parameters."""
        for row, values in zip(rows.tolist(), flat, strict=True):
            own = _tensors(self._models[row])
            for name, piece in zip(self._trained, values.split(self._sizes), strict=True):
                own[name].copy_(piece.view(own[name].shape))


class _Call(nn.Module):
    """The losses of a model as a module's call, which is what ``functional_call`` can make."""

    def __init__(self, model: DensityModel, num_samples: int, validation_samples: int) -> None:
        super().__init__()
        self.model, self.num_samples, self.validation_samples = model, num_samples, validation_samples

    def forward(self, function: str, x: Tensor, y: Tensor, weight: Tensor | None = None, **rest: Any) -> Tensor:
        if function == "risk":
            partner = rest.pop("partner")
            return self.model.risk(PairBatch(x, y, partner), self.num_samples, weight=weight, **rest)
        p = self.model.predictive(x, num_samples=self.validation_samples, **rest)
        return -weighted_mean(p.log_prob(y), weight)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": t for name, t in (*model.named_parameters(), *model.named_buffers())}


def check_stackable(model: DensityModel) -> None:
    """Refuse a model that cannot be evaluated beside others.

    Raises:
        ValueError: if nothing is trained, or in more than one dtype, or a network mixes its rows.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            got = f"{type(module).__name__} ({name})"
            raise ValueError(f"make_model: expected networks that treat each row alone, got {got}")
    dtypes = {p.dtype for p in model.parameters() if p.requires_grad}
    if len(dtypes) != 1:
        got = ", ".join(sorted(map(str, dtypes))) or "none"
        raise ValueError(f"make_model: expected trainable parameters of one dtype, got {got}")


def saved_bytes(function: Callable[[], Tensor]) -> int:
    """How much a computation keeps for its backward pass: the most of what it takes."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function()
    total = sum(kept.values())
    del result  # until here nothing is freed, and no address comes twice
    return total


class Adam:
    """Adam on the rows of a matrix, each with a step size, a step count and a fate of its own.

    The steps are those of ``torch.optim.Adam``, the moments having the precision of the step size.

    Args:
        rows: what is optimised in place, of shape ``(R, P)``.
        learning_rate: of shape ``(R, 1)``, at least in single precision.
    """

    betas = 0.9, 0.999
    eps = 1e-8

    def __init__(self, rows: Tensor, learning_rate: Tensor) -> None:
        self.rows, self.learning_rate = rows, learning_rate
        self.mean, self.square = (torch.zeros_like(rows, dtype=learning_rate.dtype) for _ in range(2))
        self.count = torch.zeros_like(learning_rate)

    def keep(self, rows: Tensor, kept: Tensor) -> None:
        """Go on with these rows alone, given by their numbers, which are in ``kept`` from now on."""
        self.rows, self.learning_rate, self.count = kept, self.learning_rate[rows], self.count[rows]
        self.mean, self.square = self.mean[rows], self.square[rows]

    @torch.no_grad()
    def begin(self, moving: Tensor) -> dict[str, Tensor]:
        """Count a step of the rows that are ``moving``, of shape ``(R, 1)``: what :meth:`change` takes."""
        self.count += moving
        # 1 − βᵗ, to the last digit in single precision too
        bias1, bias2 = (-torch.expm1(self.count * math.log(beta)) for beta in self.betas)
        inverse_rate = bias1 / self.learning_rate
        factor, shift = inverse_rate / bias2.sqrt(), inverse_rate * self.eps
        return {"mean": self.mean, "square": self.square, "factor": factor, "shift": shift}

    @classmethod
    @torch.no_grad()
    def change(cls, rows: Tensor, state: dict[str, Tensor], gradient: Tensor, moving: Tensor) -> None:
        """Change rows and state, all by their names since it may be compiled; what is not moving stays bitwise.

        A row that has begun a step and is not moving has counted it in vain.
        """
        mean, square, shift = state["mean"], state["square"], state["shift"]
        gradient = torch.where(moving, gradient, 0).to(mean.dtype)  # which may be infinite where nothing moves
        moves = moving.to(mean.dtype)
        mean.lerp_(gradient, moves * (1 - cls.betas[0]))
        decay = torch.where(moving, torch.full_like(shift, cls.betas[1]), 1)
        square.mul_(decay).addcmul_(gradient, gradient, value=1 - cls.betas[1])
        # What waits is divided by infinity, also where its square is infinite.
        root = square.sqrt() * torch.where(moving, state["factor"], 1)
        root.add_(torch.where(moving, shift, math.inf))
        rows.addcdiv_(mean, root, value=-1)

    def step(self, gradient: Tensor, moving: Tensor) -> None:
        """One step of the rows that are ``moving``, of shape ``(R, 1)``."""
        self.change(self.rows, self.begin(moving), gradient, moving)


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """``torch.stack``, without a copy of what is one tensor."""
    first = tensors[0]
    if all(t is first for t in tensors):
        return first.expand(len(tensors), *first.shape)
    return torch.stack(list(tensors))


def pad(tensors: Sequence[Tensor], dim: int = 0, size: int | None = None) -> Tensor:
    """Stack tensors of uneven length along ``dim``: the short ones start again, so a padded row is a copy of a row.

    They have ``size`` rows then; default: as many as the longest.
    """
    if size is None:
        size = max(t.shape[dim] for t in tensors)
    padded: dict[int, Tensor] = {}  # what is one tensor for several stays one
    for t in tensors:
        if t.shape[dim] != size and id(t) not in padded:
            padded[id(t)] = t.index_select(dim, torch.arange(size, device=t.device) % t.shape[dim])
    return stack([padded.get(id(t), t) for t in tensors])


class StackCache:
    """:func:`pad` that remembers its last result, for data that are the same tensors in every step."""

    def __init__(self) -> None:
        self._tensors: Sequence[Tensor] = ()
        self._result = torch.empty(0)

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        known = len(tensors) == len(self._tensors) and all(a is b for a, b in zip(tensors, self._tensors, strict=True))
        if not known:
            self._tensors, self._result = tensors, pad(tensors)
        return self._result


def configuration(model: DensityModel) -> Hashable:
    """What two models must have in common to be evaluated side by side: all but the values of tensors and, where λ is
    random, its law.

    A model that cannot be pickled has a configuration of its own.
    """
    file = io.BytesIO()
    try:
        _Skeleton(file, model).dump(model)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):  # the last from parametrized networks
        return id(model)
    return file.getvalue()


class _Skeleton(pickle.Pickler):
    """Pickles a model without the values of its tensors, its name and the law of λ."""

    def __init__(self, file: io.BytesIO, model: DensityModel) -> None:
        super().__init__(file)
        self._named: dict[int, tuple] = {
            id(t): (name, t.dtype, str(t.device), tuple(t.shape), t.requires_grad)
            for name, t in (*model.named_parameters(), *model.named_buffers())
        }
        self._named |= {id(m._pyro_name): ("name",) for m in model.modules() if isinstance(m, PyroModule)}
        mixing = model.mixing
        self._named |= {id(mixing._laws): ("laws",), id(mixing._vicinities): ("vicinities",)}
        if mixing.coefficient is not None and mixing.num_coefficients == 1:
            self._named[id(mixing.coefficient)] = ("law", id(type(mixing.coefficient)))

    def persistent_id(self, obj: Any) -> tuple | bytes | None:
        if isinstance(obj, type | FunctionType):
            return "object", id(obj)
        if isinstance(obj, str) and id(obj) not in self._named:
            return obj.encode()  # whichever of the equal strings it is
        return self._named.get(id(obj))
