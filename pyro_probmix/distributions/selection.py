"""Members of a batch by their positions, for distributions of any kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

from pyro_probmix.distributions.components import expanded
from pyro_probmix.distributions.exponential_family import form_or_none, resolved, set_validation, validates
from pyro_probmix.distributions.held_tensors import check_shared_transforms, held_tensors
from pyro_probmix.distributions.linear_pooling import LinearPool
from pyro_probmix.ops.devices import filled_numbers
from pyro_probmix.ops.rows import take

__all__ = ["index_select"]

# Parameters of which a distribution takes one, and has all: the last is taken.
ALTERNATIVES = ("probs", "logits"), ("covariance_matrix", "precision_matrix", "scale_tril")

GENERAL = torch.distributions.TransformedDistribution, dist.TransformedDistribution
MIXTURES = MixtureSameFamily, dist.MixtureSameFamily


def index_select(p: Distribution, dim: int, index: Tensor) -> Any:
    """``p`` with the members of its batch that ``index`` names, as :func:`torch.index_select` does.

    A distribution of no family here is made anew by its own constructor, from the parameters that its
    ``arg_constraints`` name.

    Args:
        p: any distribution, wrappers included.
        dim: a dimension of the batch shape.
        index: positions along that dimension, of shape (M,).

    Raises:
        TypeError: if it is not known where a parameter has its batch dimensions.
        ValueError: if ``dim`` is not one of the batch shape, or ``p`` has transforms that vary over it.

    Example:
        >>> index_select(dist.Poisson(torch.tensor([1.0, 2.0, 3.0])), -1, torch.tensor([2, 0])).rate
        tensor([3., 1.])
        >>> index_select(dist.StudentT(4.0, torch.tensor([1.0, 2.0, 3.0]), 1.0), -1, torch.tensor([2, 0])).loc
        tensor([3., 1.])
    """
    size = len(p.batch_shape)
    if not -size <= dim < size:
        raise ValueError(f"dim: expected a dimension of batch shape {tuple(p.batch_shape)}, got {dim}")
    from_right = dim - size if dim >= 0 else dim
    return _select(p, from_right, index)


def _select(p: Any, dim: int, index: Tensor) -> Any:
    """The members along a negative dimension of the batch shape."""

    def change(tensor: Tensor, event_dim: int) -> Tensor:
        return take(tensor, dim - event_dim, index)

    p = resolved(p)
    form = form_or_none(p)
    if form is not None:
        return form.map_batch(change)
    if isinstance(p, torch.distributions.Independent):
        ndims = p.reinterpreted_batch_ndims
        return type(p)(_select(p.base_dist, dim - ndims, index), ndims)
    shape = list(p.batch_shape)
    shape[dim] = len(index)
    if isinstance(p, MaskedDistribution):
        mask = change(p._mask.expand(p.batch_shape), 0) if isinstance(p._mask, Tensor) else p._mask
        return type(p)(_select(p.base_dist, dim, index), mask)
    if isinstance(p, ExpandedDistribution):  # along a dimension that it has made, members are alike
        base = p.base_dist
        own = -dim <= len(base.batch_shape) and base.batch_shape[dim] == p.batch_shape[dim]
        return ExpandedDistribution(_select(base, dim, index) if own else base, torch.Size(shape))
    if isinstance(p, LinearPool):
        batched = isinstance(p.components, Distribution)
        members = [p.components] if isinstance(p.components, Distribution) else list(p.components)
        rest = p.weights.shape[-1:] if batched else torch.Size()
        members = [_select(expanded(m, p.batch_shape + rest), dim - len(rest), index) for m in members]
        selected: Any = LinearPool(members[0] if batched else members, change(p.weights, 1), validate_args=False)
    elif type(p) in MIXTURES:
        component, mixture = p.component_distribution, p.mixture_distribution
        component = _select(expanded(component, p.batch_shape + component.batch_shape[-1:]), dim - 1, index)
        selected = type(p)(_select(expanded(mixture, p.batch_shape), dim, index), component, validate_args=False)
    elif type(p) in GENERAL:
        check_shared_transforms(p)
        selected = type(p)(_select(p.base_dist, dim, index), p.transforms, validate_args=False)
    else:
        selected = _made_anew(p, dim, index, change)
    if list(selected.batch_shape) != shape or selected.event_shape != p.event_shape:
        raise _unknown(p, f"members of batch shape {tuple(selected.batch_shape)} instead of {tuple(shape)}")
    set_validation(selected, validates(p))
    return selected


def _made_anew(p: Any, dim: int, index: Tensor, change: Callable[[Tensor, int], Tensor]) -> Any:
    """``p`` by its constructor, from parameters whose batch dimensions are known."""
    constraints_of = p.arg_constraints if isinstance(p.arg_constraints, dict) else {}
    event_dims = [constraint.event_dim for constraint in constraints_of.values()]
    taken = inspect.signature(type(p).__init__).parameters
    nested = any(isinstance(getattr(p, name, None), Distribution) for name in taken)
    if len(p.event_shape) > max(event_dims, default=0) and not nested:  # of vectors, and no parameter is known for one
        raise _unknown(p, f"parameters of event dimensions {event_dims} for event shape {tuple(p.event_shape)}")
    arguments: dict[str, Any] = {}
    for name, parameter in taken.items():
        if name in ("self", "validate_args"):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not hasattr(p, name):
            raise _unknown(p, f"{name}, which is no attribute")
        if any(name in names and hasattr(p, names[-1]) and name != names[-1] for names in ALTERNATIVES):
            continue
        value = getattr(p, name)
        if isinstance(value, Distribution) and value.batch_shape == p.batch_shape:
            value = _select(value, dim, index)
        elif isinstance(value, Tensor) and name in constraints_of:
            event_dim = constraints_of[name].event_dim
            event_shape = value.shape[value.dim() - event_dim :]
            if value.dim() - event_dim > len(p.batch_shape):
                raise _unknown(p, f"{name} of shape {tuple(value.shape)} for batch shape {tuple(p.batch_shape)}")
            value = change(value.expand(p.batch_shape + event_shape), event_dim)
        elif isinstance(value, Distribution) or any(tensor.dim() for tensor in held_tensors(value)):
            raise _unknown(p, f"{name}, whose batch dimensions are not known")
        arguments[name] = value
    if "validate_args" in taken:
        arguments["validate_args"] = False
    try:
        with filled_numbers(index):
            return type(p)(**arguments)
    except (TypeError, ValueError) as error:
        raise _unknown(p, f"arguments {sorted(arguments)}: {error}") from error


def _unknown(p: Any, got: str) -> TypeError:
    return TypeError(
        f"{type(p).__name__}: expected a distribution whose members can be selected, one that its constructor makes "
        f"from parameters that its arg_constraints name, got {got}"
    )
