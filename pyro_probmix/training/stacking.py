"""Tensors of many models stacked, and which models can be."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Hashable, Sequence
from types import FunctionType
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_probmix.models import DensityModel

__all__ = ["Adam", "StackCache", "check_stackable", "configuration", "pad", "saved_bytes", "stack"]


def check_stackable(model: DensityModel) -> None:
    """Refuse a model that mixes its rows, has nothing to train, or parameters of more than one dtype."""
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

    The steps are those of ``torch.optim.Adam``, the moments having the precision of the step size, of shape ``(R, 1)``.
    """

    betas = 0.9, 0.999
    eps = 1e-8

    def __init__(self, rows: Tensor, learning_rate: Tensor) -> None:
        self.learning_rate = learning_rate
        self.mean, self.square = (torch.zeros_like(rows, dtype=learning_rate.dtype) for _ in range(2))
        self.count = torch.zeros_like(learning_rate)

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

        A row that has begun a step and is not moving has counted it, until that is taken back.
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

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, given by their numbers."""
        self.mean, self.square, self.count = self.mean[rows], self.square[rows], self.count[rows]
        self.learning_rate = self.learning_rate[rows]

    def take_back(self, waited: Tensor) -> None:
        """Uncount the step of the rows that have begun it and not taken it, of shape ``(R, 1)``."""
        self.count -= waited.to(self.count.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "square": self.square, "count": self.count}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state[name])


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
