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

from pyro_probmix.distributions.exponential_family import form_or_none, set_validation, validates
from pyro_probmix.distributions.held_tensors import held_tensors, reference_tensor
from pyro_probmix.distributions.transforms import map_transforms
from pyro_probmix.ops.devices import filled_numbers
from pyro_probmix.ops.indexing import batch_indexer
from pyro_probmix.ops.rows import take

__all__ = ["Change", "index_select", "map_batch", "rows", "selected_along"]

Change = Callable[[Tensor, int], Tensor]
"""What makes a tensor of another batch, given how many of its last dimensions are not the batch's."""

# Parameters of which a distribution takes one, and has all: the last is taken.
ALTERNATIVES = ("probs", "logits"), ("covariance_matrix", "precision_matrix", "scale_tril")

# How many dimensions of a parameter are not the batch's, where the constraint of one number does not tell.
LAYOUTS: dict[type, Callable[[Any], dict[str, int]]] = {
    dist.Empirical: lambda p: {"samples": 1 + len(p.event_shape), "log_weights": 1},
    dist.MaskedMixture: lambda p: {"mask": 0},
    dist.MixtureOfDiagNormals: lambda p: {"locs": 2, "coord_scale": 2, "component_logits": 1},
    dist.MixtureOfDiagNormalsSharedCovariance: lambda p: {"locs": 2, "coord_scale": 1, "component_logits": 1},
    dist.Unit: lambda p: {"log_factor": 0},
}

GENERAL = torch.distributions.TransformedDistribution, dist.TransformedDistribution
MIXTURES = MixtureSameFamily, dist.MixtureSameFamily


def rows(p: Distribution, index: Any) -> Any:
    """``p`` with the members of its batch that ``index`` takes, as a tensor of the batch shape takes it.

    .. math:: \\mathrm{rows}(p, i)(y_i) = p(y)_i

    The class stays, and pools and mixtures keep their components; wrappers and masks are taken along. A distribution of
    no family here is made anew by its own constructor, from the parameters that its ``arg_constraints`` name.

    Args:
        p: any distribution, wrappers included.
        index: an integer, which drops its dimension; a slice, of a negative step too; a mask; a sequence or a tensor of
            integers; ``...`` or None; or a tuple of these, for the dimensions of the batch shape from the left.

    Returns:
        A distribution of the batch shape of ``torch.empty(p.batch_shape)[index]``.

    Raises:
        IndexError: if the index is out of range, or of another shape than the batch.
        TypeError: if it is no index, or it is not known where a parameter has its batch dimensions.
        ValueError: if ``p`` has transforms that vary over the batch in a way that is not known.

    Example:
        >>> p = dist.Normal(torch.arange(4.0), 1.0).mask(torch.tensor([True, False, True, True]))
        >>> rows(p, slice(None, None, -2)).base_dist.loc
        tensor([3., 1.])
        >>> rows(dist.StudentT(4.0, torch.arange(6.0).reshape(2, 3), 1.0), (0, [True, False, True])).loc
        tensor([0., 2.])
    """
    return map_batch(p, batch_indexer("index", index, _batch_of(p)))


def index_select(p: Distribution, dim: int, index: Tensor) -> Any:
    """:func:`rows` along one dimension, as :func:`torch.index_select` does, which ``torch.func.vmap`` follows fast.

    Args:
        p: as for :func:`rows`.
        dim: a dimension of the batch shape.
        index: positions along that dimension, of shape (M,).

    Raises:
        TypeError: as for :func:`rows`.
        ValueError: if ``dim`` is not one of the batch shape, or as for :func:`rows`.

    Example:
        >>> index_select(dist.Poisson(torch.tensor([1.0, 2.0, 3.0])), -1, torch.tensor([2, 0])).rate
        tensor([3., 1.])
        >>> index_select(dist.StudentT(4.0, torch.tensor([1.0, 2.0, 3.0]), 1.0), -1, torch.tensor([2, 0])).loc
        tensor([3., 1.])
    """
    return map_batch(p, selected_along(_batch_of(p), dim, index))


def selected_along(batch_shape: torch.Size, dim: int, index: Tensor) -> Change:
    """What takes the positions ``index`` along one dimension of a batch shape."""
    size = len(batch_shape)
    if not -size <= dim < size:
        raise ValueError(f"dim: expected a dimension of batch shape {tuple(batch_shape)}, got {dim}")
    from_right = dim - size if dim >= 0 else dim

    def change(tensor: Tensor, event_dim: int) -> Tensor:
        shape = batch_shape + tensor.shape[tensor.dim() - event_dim :]
        full = tensor if tensor.shape == shape else tensor.expand(shape)
        return take(full, from_right - event_dim, index)

    return change


def _batch_of(p: Any) -> torch.Size:
    if not isinstance(p, Distribution):
        raise TypeError(f"p: expected a distribution, got {type(p).__name__}")
    return p.batch_shape


def map_batch(p: Any, function: Change, dims: int = 0) -> Any:
    """``p`` with its batch changed.

    Args:
        p: any distribution, wrappers included, or a tensor.
        function: of a tensor, and of how many of its last dimensions are not the batch's; the others broadcast with it.
        dims: how many of the last dimensions of the batch of ``p`` are not among those that ``function`` changes.

    Raises:
        TypeError: as for :func:`rows`.
        ValueError: as for :func:`rows`.
    """
    if isinstance(p, Tensor):
        return function(p, dims)
    if dims:
        return map_batch(p, lambda t, d: function(t, d + dims))
    if isinstance(p, ExpandedDistribution):  # its members are those of what it expands, which function makes
        return map_batch(p.base_dist, function)
    if hasattr(p, "map_batch"):
        return p.map_batch(function)
    form = form_or_none(p)
    if form is not None:
        return form.map_batch(function)
    if isinstance(p, torch.distributions.Independent):
        ndims = p.reinterpreted_batch_ndims
        return type(p)(map_batch(p.base_dist, function, ndims), ndims)
    if isinstance(p, MaskedDistribution):
        mask = function(p._mask, 0) if isinstance(p._mask, Tensor) else p._mask
        return type(p)(map_batch(p.base_dist, function), mask)
    if type(p) in MIXTURES:
        mixture = map_batch(p.mixture_distribution, function)
        component = map_batch(p.component_distribution, function, 1)
        selected = type(p)(mixture, component, validate_args=False)
    elif type(p) in GENERAL:
        transforms = map_transforms(p, lambda part, d: map_batch(part, function, d))
        selected = type(p)(map_batch(p.base_dist, function), transforms, validate_args=False)
    else:
        selected = _made_anew(p, function)
    shape = function(reference_tensor([p]).expand(p.batch_shape), 0).shape
    if selected.batch_shape != shape or selected.event_shape != p.event_shape:
        raise _unknown(p, f"members of batch shape {tuple(selected.batch_shape)} instead of {tuple(shape)}")
    set_validation(selected, validates(p))
    return selected


def _made_anew(p: Any, function: Change) -> Any:
    """``p`` by its constructor, from parameters whose batch dimensions are known."""
    constraints_of = p.arg_constraints if isinstance(p.arg_constraints, dict) else {}
    event_dims = {name: constraint.event_dim for name, constraint in constraints_of.items()}
    taken = inspect.signature(type(p).__init__).parameters
    nested = any(isinstance(getattr(p, name, None), Distribution) for name in taken)
    if type(p) in LAYOUTS:
        event_dims = LAYOUTS[type(p)](p)
    elif len(p.event_shape) > max(event_dims.values(), default=0) and not nested:  # no parameter is known for a vector
        got = list(event_dims.values())
        raise _unknown(p, f"parameters of event dimensions {got} for event shape {tuple(p.event_shape)}")
    arguments: dict[str, Any] = {}
    for name, parameter in taken.items():
        if name in ("self", "validate_args"):
            continue
        own = name if hasattr(p, name) else f"_{name}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not hasattr(p, own):
            raise _unknown(p, f"{name}, which is no attribute")
        if any(name in names and hasattr(p, names[-1]) and name != names[-1] for names in ALTERNATIVES):
            continue
        value = getattr(p, own)
        if isinstance(value, Distribution) and value.batch_shape == p.batch_shape:
            value = map_batch(value, function)
        elif isinstance(value, Tensor) and name in event_dims:
            event_dim = event_dims[name]
            if value.dim() - event_dim > len(p.batch_shape):
                raise _unknown(p, f"{name} of shape {tuple(value.shape)} for batch shape {tuple(p.batch_shape)}")
            value = function(value.expand(p.batch_shape + value.shape[value.dim() - event_dim :]), event_dim)
        elif isinstance(value, Distribution) or any(tensor.dim() for tensor in held_tensors(value)):
            raise _unknown(p, f"{name}, whose batch dimensions are not known")
        arguments[name] = value
    if "validate_args" in taken:
        arguments["validate_args"] = False
    try:
        with filled_numbers(reference_tensor([p])):
            return type(p)(**arguments)
    except (TypeError, ValueError) as error:
        raise _unknown(p, f"arguments {sorted(arguments)}: {error}") from error


def _unknown(p: Any, got: str) -> TypeError:
    return TypeError(
        f"{type(p).__name__}: expected a distribution whose members can be selected, one that its constructor makes "
        f"from parameters that its arg_constraints name, got {got}"
    )
