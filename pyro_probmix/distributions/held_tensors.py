"""The tensors that a distribution holds: which they are, and the same distribution with others in their place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import _InverseTransform

from pyro_probmix.distributions.exponential_family import form_or_none, resolved

__all__ = [
    "Path",
    "common_reference",
    "held_tensors",
    "map_tensors",
    "reference_tensor",
    "tensors_by_path",
]

Path = tuple[str | int, ...]
"""Names of attributes, and positions in lists, that lead to a tensor."""


def tensors_by_path(part: Any, path: Path = (), dims: int = 0) -> Iterator[tuple[Path, Tensor, int]]:
    """What :func:`held_tensors` yields, with the path to each and the batch dimensions of the law that holds it."""
    if isinstance(part, Tensor):
        yield path, part, dims
    elif isinstance(part, (list, tuple)):
        for i, item in enumerate(part):
            yield from tensors_by_path(item, (*path, i), dims)
    elif isinstance(part, _InverseTransform):
        yield from tensors_by_path(part.inv, path, dims)
    elif isinstance(part, (Distribution, Transform)):
        if isinstance(part, Distribution):
            dims = len(part.batch_shape)
        for name, value in vars(part).items():
            if not (isinstance(part, Transform) and name.startswith("_")):  # it and its inverse have each other
                yield from tensors_by_path(value, (*path, name), dims)


def held_tensors(part: Any) -> Iterator[Tensor]:
    """The tensors that a distribution, a transform or a list of them holds, parameters of modules aside."""
    return (tensor for _, tensor, _ in tensors_by_path(part))


def reference_tensor(members: Sequence[Any]) -> Tensor:
    """A tensor with the device of the components and the dtype of their pool."""
    return common_reference(t for m in members for t in _parameters(_innermost(m)))


def common_reference(tensors: Iterable[Any]) -> Tensor:
    """A tensor with the device of these tensors and the dtype of the floating ones together."""
    found = list(tensors)
    dtypes = {t.dtype for t in found if t.is_floating_point()} or {torch.get_default_dtype()}
    dtype = dtypes.pop()
    for other in dtypes:
        dtype = torch.promote_types(dtype, other)
    return torch.empty((), dtype=dtype, device=found[0].device if found else None)


def _parameters(p: Any) -> Iterable[Tensor]:
    # A distribution may also hold what it keeps in another precision.
    form = form_or_none(p)
    return held_tensors(p) if form is None else form.parameters


def _innermost(p: Any) -> Any:
    p = resolved(p)
    return _innermost(p.base_dist) if hasattr(p, "base_dist") else p


def map_tensors(part: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A distribution, transform or constraint with ``function`` of each tensor that it holds; itself if none changes.

    What they are made of is followed, and one tensor in several places stays one. The parameters of a transform that
    is a module stay: they move with the module.

    Example:
        >>> law = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Beta(torch.ones(2), torch.ones(2)))
        >>> map_tensors(law, torch.Tensor.double).sample().dtype
        torch.float64
    """
    return _map(part, function, {})


def _map(part: Any, function: Callable[[Tensor], Tensor], known: dict[int, Any]) -> Any:
    if id(part) in known:
        return known[id(part)]
    found = part
    if isinstance(part, Tensor):
        found = function(part)
    elif isinstance(part, _InverseTransform):  # a copy of which has lost what it is the inverse of
        inverse: Any = part.inv
        mapped = _map(inverse, function, known)
        found = part if mapped is inverse else mapped.inv
    elif isinstance(part, dict):
        items = {name: _map(item, function, known) for name, item in part.items()}
        found = part if all(items[name] is item for name, item in part.items()) else items
    elif type(part) in (list, tuple):
        mapped = [_map(item, function, known) for item in part]
        found = part if all(ours is theirs for ours, theirs in zip(mapped, part, strict=True)) else type(part)(mapped)
    elif isinstance(part, (Distribution, Transform, Constraint)) and not isinstance(part, nn.Module):
        new = copy.copy(part)
        if isinstance(new, Transform):
            new._inv = None
        items = {name: _map(value, function, known) for name, value in vars(new).items()}
        if any(items[name] is not value for name, value in vars(new).items()):
            vars(new).update(items)
            found = new
    known[id(part)] = found
    return found
