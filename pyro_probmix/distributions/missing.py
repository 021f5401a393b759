"""Components of weight zero are removed whatever their parameters are: a missing modality has none that are finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution, constraints
from torch.distributions.utils import lazy_property

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.components import broadcast_shapes, expanded
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.exponential_family import validates
from pyro_probmix.distributions.held_tensors import Path, map_tensors, tensors_by_path
from pyro_probmix.ops.values import at_hand

__all__ = ["check_present", "present"]

LOGITS = "logits", "_param"
"""Where they are those of classes, of which one may have no mass."""


def present(members: Sequence[Any], weights: Sequence[Tensor]) -> list[Any]:
    """The components; where one of weight zero is not finite it is another, or its parameters are ones, of no gradient.

    The weights, one tensor a component, broadcast with their batch shapes.
    """
    kept = list(members)
    if all(map(at_hand, weights)) and (all(map(torch.all, weights)) or all(map(_is_whole, members))):
        return kept
    gone = [w.detach() == 0 for w in weights]
    lacks = [_lacks(member, gone[0]) for member in members]
    if all(map(at_hand, gone + lacks)) and not any((g & lack).any() for g, lack in zip(gone, lacks, strict=True)):
        return kept
    shape = broadcast_shapes(*[m.batch_shape for m in members], *[g.shape for g in gone])
    mended = list(map(corrected, members))  # which can be expanded
    held = [{path: tensor for path, tensor, _ in _tensors(member)} for member in mended]
    for k, member in enumerate(mended):
        missing = (gone[k] & lacks[k]).expand(shape)
        sources: list[tuple[Tensor, dict[Path, Tensor]]] = []
        for j in range(len(members)):
            if j != k:
                sources.append((missing & ~lacks[j], held[j]))
                missing = missing & lacks[j]
        sources.append((missing, {}))
        kept[k] = _replaced(expanded(member, shape), sources)
    return kept


def _is_whole(member: Any) -> bool:
    """Whether all of a component is known to be finite, by one look at each tensor: no sum hides what is not."""
    tensors = [tensor.detach() for _, tensor, _ in _tensors(member)]
    return all(at_hand(tensor) and math.isfinite(tensor.sum().item()) for tensor in tensors)


def _lacks(member: Any, like: Tensor) -> Tensor:
    """Where in the batch something of a component is not finite."""
    batch, found = member.batch_shape, []
    for path, tensor, dims in _tensors(member):
        classes = path[-1] in LOGITS and tensor.dim() > dims
        lacks = tensor.isnan() | (tensor == math.inf) if classes else ~tensor.isfinite()
        if lacks.shape[: len(batch)] != batch:
            lacks = lacks.any()
        elif lacks.dim() > len(batch):
            lacks = lacks.flatten(len(batch)).any(-1)
        found.append(lacks)
    return reduce(torch.logical_or, found) if found else like.new_zeros(())


def _tensors(part: Any) -> list[tuple[Path, Tensor, int]]:
    """The numbers of a component, with the path to each and the batch dimensions of the law that holds it."""
    return [held for held in tensors_by_path(part) if held[1].is_floating_point()]


def _replaced(member: Any, sources: Sequence[tuple[Tensor, dict[Path, Tensor]]]) -> Any:
    """A component with the numbers of others, or ones, where masks of its batch shape are true."""
    paths = {id(tensor): path for path, tensor, _ in _tensors(member)}

    def replaced(tensor: Tensor) -> Tensor:
        path, own = paths.get(id(tensor)), tensor
        if path is None or any(numbers.get(path) is tensor for _, numbers in sources):
            return tensor  # no number of its own
        for where, numbers in sources:
            batch, value = where.shape, numbers.get(path)
            by_row = own.shape[: len(batch)] == batch  # else it is of all rows, and missing where they all are
            rows = where.reshape(batch + (1,) * (own.dim() - len(batch))) if by_row else where.all()
            value = own.new_ones(()) if value is None or not _broadcast(value, own) else value.detach().to(own.dtype)
            tensor = torch.where(rows, value, tensor)
        return tensor

    return _made_anew(map_tensors(member, replaced))


def _made_anew(p: Any) -> Any:
    """``p``, whose transforms are made of parameters that it holds: no gradient can be taken back from them."""
    made_of = isinstance(p, TransformedDistribution) and bool(_tensors(p.transforms))
    if made_of and p.arg_constraints.keys() & vars(p).keys():
        made = type(p)(**{name: vars(p)[name] for name in p.arg_constraints}, validate_args=False)
        made._validate_args = p._validate_args
        return made
    if isinstance(getattr(p, "base_dist", None), Distribution):
        p.base_dist = _made_anew(p.base_dist)
    return p


def _broadcast(a: Tensor, b: Tensor) -> bool:
    try:
        broadcast_shapes(a.shape, b.shape)
    except RuntimeError:
        return False
    return True


def check_present(members: Sequence[Any], weights: Sequence[Tensor]) -> None:
    """Raises ValueError if a component that takes part and checks nothing itself has a parameter outside its domain."""
    for k, (member, w) in enumerate(zip(members, weights, strict=True)):
        law = member
        while not law.arg_constraints and isinstance(getattr(law, "base_dist", None), Distribution):
            law = law.base_dist
        for name, constraint in {} if validates(member) else law.arg_constraints.items():
            asked = name in vars(law) or not isinstance(getattr(type(law), name, None), lazy_property)
            if constraints.is_dependent(constraint) or not asked:
                continue
            bad = ~constraint.check(getattr(law, name))
            if bad.dim() > len(member.batch_shape):
                bad = bad.flatten(len(member.batch_shape)).any(-1)
            bad = bad & (w != 0)
            if bad.any():
                at = f"at index {k}, got another{at_index(bad)}"
                raise ValueError(f"components: expected {name} in {constraint} of that {at}")
