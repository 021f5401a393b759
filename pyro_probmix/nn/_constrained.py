"""Parameters of a Pyro family read off unconstrained outputs: which, in what shape, by which map."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints, transform_to

from pyro_probmix._checks import check_integer
from pyro_probmix.distributions.supports import elementwise

__all__ = ["ConstrainedParameter", "Layout", "accepts", "parameter_names", "pyro_class"]

Family: TypeAlias = type[dist.TorchDistribution]

# Names of one parameter in several forms; the first is the one to predict.
_ALTERNATIVES = (
    ("logits", "probs"),
    ("gate_logits", "gate"),
    ("scale_tril", "covariance_matrix", "precision_matrix"),
)
_CLASS_SCORES = ("logits", "probs")


def pyro_class(distribution_class: Any) -> Family:
    """Return the Pyro distribution class of a Pyro or torch class."""
    base = torch.distributions.Distribution
    if not (isinstance(distribution_class, type) and issubclass(distribution_class, base)):
        raise TypeError(f"distribution_class: expected a Pyro distribution class, got {distribution_class!r}")
    if not issubclass(distribution_class, TorchDistributionMixin):
        counterpart = getattr(dist, distribution_class.__name__, object)
        if not issubclass(counterpart, distribution_class):
            raise TypeError(f"distribution_class: expected one that Pyro has too, got {distribution_class!r}")
        distribution_class = counterpart
    return cast(Family, distribution_class)


def accepts(family: Family, name: str) -> bool:
    """Whether the family's constructor has an argument of that name."""
    return name in _arguments(family)


def _arguments(family: Family) -> dict[str, inspect.Parameter]:
    arguments = dict(inspect.signature(family.__init__).parameters)
    del arguments["self"]
    return arguments


def _domains(family: Family) -> dict[str, constraints.Constraint]:
    domains: Any = family.arg_constraints
    if not isinstance(domains, dict):
        raise ValueError(
            f"distribution_class: expected a family whose parameters have domains of their own, got {family.__name__}"
        )
    return domains


def parameter_names(family: Family, parameters: Sequence[str] | None, fixed: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parameters to predict, by default all continuous ones; check them and what is fixed."""
    arguments = _arguments(family)
    for name in fixed:
        if name not in arguments:
            raise ValueError(f"{name}: expected one of {[*arguments]} of {family.__name__}, got {name!r}")
    legal = [name for name in _domains(family) if name in arguments and name not in fixed]
    names = _default_names(family, legal, fixed) if parameters is None else tuple(parameters)
    if len(set(names)) < len(names) or not set(names) <= set(legal):
        raise ValueError(f"parameters: expected distinct names among {legal}, got {names}")
    for name, argument in arguments.items():
        required = argument.default is argument.empty and argument.kind is argument.POSITIONAL_OR_KEYWORD
        if required and name not in names and name not in fixed:
            raise ValueError(f"{name}: expected it predicted or fixed for {family.__name__}, got neither")
    if not names:
        raise ValueError(f"parameters: expected at least one of {legal} of {family.__name__}, got none")
    return names


def _default_names(family: Family, legal: Sequence[str], fixed: Mapping[str, Any]) -> tuple[str, ...]:
    domains = _domains(family)
    names = [name for name in legal if not _is_discrete(domains[name])]
    for group in _ALTERNATIVES:
        present = [name for name in group if name in names]
        chosen = [] if any(name in fixed for name in group) else present[:1]
        names = [name for name in names if name not in present or name in chosen]
    return tuple(names)


def _is_discrete(constraint: constraints.Constraint) -> bool:
    return not constraints.is_dependent(constraint) and constraint.is_discrete


@dataclass(frozen=True)
class Layout:
    """One y: ``batch`` independent draws of shape ``event``, and the number of classes of a label."""

    batch: torch.Size
    event: torch.Size
    num_classes: int | None

    @staticmethod
    def of(family: Family, names: Sequence[str], size: torch.Size, num_classes: int | None) -> Layout:
        """Split the shape of one y for this family, and check that num_classes is there when needed."""
        support: Any = family.support
        try:
            event_dim = support.event_dim
        except NotImplementedError as error:
            raise ValueError(
                f"distribution_class: expected a family whose class tells the dimensions of y, got {family.__name__}"
            ) from error
        if len(size) < event_dim:
            raise ValueError(
                f"event_shape: expected at least {event_dim} dimension(s) for {family.__name__}, got {tuple(size)}"
            )
        domains = _domains(family)
        has_classes = event_dim == 0 and any(domains[n].event_dim == 1 for n in names if n in _CLASS_SCORES)
        if has_classes:
            num_classes = check_integer("num_classes", num_classes, minimum=2)
        elif num_classes is not None:
            raise ValueError(
                f"num_classes: expected None for {family.__name__}, sized by event_shape, got {num_classes!r}"
            )
        split = len(size) - event_dim
        return Layout(size[:split], size[split:], num_classes)


@dataclass(frozen=True)
class ConstrainedParameter:
    """A predicted parameter: the shape of its raw outputs for one data point, and the map into its domain."""

    name: str
    raw_shape: torch.Size
    constrain: Callable[[Tensor], Tensor]

    @staticmethod
    def of(family: Family, name: str, layout: Layout, floor: float) -> ConstrainedParameter:
        """Work out the raw shape and the map from the family's constraint of that name."""
        domain: Any = _domains(family)[name]
        if constraints.is_dependent(domain) or domain.is_discrete or domain is constraints.positive_definite:
            raise ValueError(
                f"{name}: expected a parameter with a continuous domain (and scale_tril for a matrix), "
                f"got {domain} of {family.__name__}; fix it instead"
            )
        shape = layout.batch + _event_shape_of(family, name, domain, layout)
        domain = elementwise(domain)
        if isinstance(domain, (constraints.greater_than, constraints.greater_than_eq)):
            return ConstrainedParameter(name, shape, partial(_above, bound=domain.lower_bound + floor))
        if domain is constraints.lower_cholesky:
            size = shape[-1]
            raw_shape = torch.Size([*shape[:-2], size * (size + 1) // 2])
            return ConstrainedParameter(name, raw_shape, partial(_cholesky_factor, size=size, floor=floor))
        transform = transform_to(domain)
        return ConstrainedParameter(name, torch.Size(transform.inverse_shape(shape)), transform)


def _event_shape_of(family: Family, name: str, domain: constraints.Constraint, layout: Layout) -> torch.Size:
    """Shape of a parameter of one draw: y's, its last dimensions, one score a class, or a square matrix."""
    missing = domain.event_dim - len(layout.event)
    if missing <= 0:
        return layout.event[-missing:]
    if layout.num_classes is not None and name in _CLASS_SCORES:
        return torch.Size([layout.num_classes])
    if domain is constraints.lower_cholesky:
        return layout.event * 2
    raise ValueError(
        f"{name}: expected a parameter whose shape follows from event_shape, "
        f"got {domain} of {family.__name__}; fix it instead"
    )


def _above(raw: Tensor, bound: float) -> Tensor:
    return F.softplus(raw) + bound


def _cholesky_factor(raw: Tensor, size: int, floor: float) -> Tensor:
    rows, columns = torch.tril_indices(size, size, -1, device=raw.device)
    factor = torch.diag_embed(F.softplus(raw[..., :size]) + floor)
    factor[..., rows, columns] = raw[..., size:]
    return factor
