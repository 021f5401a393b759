"""What a regressor is asked to predict: likelihoods by name, the targets that they take, and how these are scaled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pyro_probmix._checks import check_choice, check_integer, name_rows
from pyro_probmix.distributions.affine import affine
from pyro_probmix.distributions.supports import bounds, is_real
from pyro_probmix.estimators.likelihoods import (
    CountLikelihood,
    NormalMixtureLikelihood,
    ShapeLikelihood,
    StudentTLikelihood,
)
from pyro_probmix.estimators.units import OwnUnits
from pyro_probmix.nn import Likelihood, NormalLikelihood

__all__ = ["LIKELIHOODS", "NamedLikelihood", "Target", "as_tensor", "candidates", "resolution"]

Array = NDArray[np.float64]

_LARGEST = 1e150
"""Number whose square is one, too."""


@dataclass(frozen=True)
class NamedLikelihood:
    """A likelihood that the regressor knows by name.

    Args:
        values: the targets that it takes, in words.
        takes: which of an array of numbers these are.
        how: how targets are scaled for training, as for :func:`~pyro_probmix.estimators.units.in_own_units`.
        make: makes it from a :class:`Target`.
        is_density: whether it has a density, and no probabilities of counts.
    """

    values: str
    takes: Callable[[Array], Any]
    how: str
    make: Callable[[Target], Likelihood]
    is_density: bool = True


@dataclass(frozen=True)
class Target:
    """A likelihood by name, and the scale of its targets.

    Args:
        name: of :data:`LIKELIHOODS`; None for a likelihood of the user's own.
        shape: of one target.
        how: how targets are scaled.
        shift: of the scaling, of ``shape``.
        scale: of the scaling, of ``shape``.
        unit: mean target, of ``shape``.
        floor: lower bound of scales, in units of scaled targets; None for the likelihood's own.
        num_components: of a mixture.
    """

    name: str | None
    shape: tuple[int, ...]
    how: str
    shift: Array
    scale: Array
    unit: Array
    floor: float | None = None
    num_components: int = 3

    @classmethod
    def of(
        cls,
        likelihood: Any,
        y: Array,
        weight: Array | None = None,
        floored: bool = False,
        num_components: int = 3,
        rows: Any = None,
    ) -> Target:
        """That of a likelihood, by name or one's own, and of targets y of shape ``(n,)`` or ``(n, k)``.

        Errors call rows by their names, if there are any.

        Raises:
            TypeError: if the likelihood is neither.
            ValueError: if its name is unknown, it has another shape, or targets are outside of its support.
        """
        shape = y.shape[1:]
        _check_size(y)
        if isinstance(likelihood, Likelihood):
            how = _scaling(likelihood, shape)
            _check_support("its support", likelihood.support, y, rows)
            name = None
        else:
            if not isinstance(likelihood, str):
                raise TypeError(
                    f'likelihood: expected a name such as "normal", or a Likelihood, got {type(likelihood).__name__}'
                )
            check_choice("likelihood", likelihood, [*LIKELIHOODS, "auto"])
            name, how = likelihood, LIKELIHOODS[likelihood].how
            _check_values("y", likelihood, y, rows)
            check_integer("num_components", num_components)
        shift, scale = np.zeros(shape), np.ones(shape)
        columns = y.reshape(len(y), -1)
        mean = np.average(columns, axis=0, weights=weight).reshape(shape)
        if how in ("standard", "log"):
            scaler = StandardScaler().fit(np.log(columns) if how == "log" else columns, sample_weight=weight)
            shift, scale = scaler.mean_.reshape(shape), scaler.scale_.reshape(shape)
        elif how == "divided":
            scale = np.where(mean > 0, mean, 1.0)
        unit = np.where(mean > 0, mean, 1.0)
        floor = None
        if floored and name is not None:
            floor = float(np.min(resolution(y) / 2 / (scale * mean if how == "log" else scale))) or None
        return cls(name, shape, how, shift, scale, unit, floor, num_components)

    def likelihood(self, own: Any = None) -> Likelihood:
        """A new likelihood of scaled targets, or a copy of one's own."""
        if self.name is None:
            return copy.deepcopy(own)
        with torch.device("cpu"):  # whichever the default is
            return LIKELIHOODS[self.name].make(self)

    def scaled(self, y: Array) -> Array:
        """Targets as networks are trained on them."""
        y = np.log(y) if self.how == "log" else y
        return (y - self.shift) / self.scale

    def log_jacobian(self, t: Tensor) -> Tensor:
        """log |dy/dt| of scaled targets, in nats, of shape ``(n,)``."""
        shift, scale = (as_tensor(own, t.device) for own in (self.shift, self.scale))
        each = scale.log().expand(t.shape)
        if self.how == "log":
            each = each + shift + scale * t
        return each.reshape(len(t), -1).sum(-1)

    def check(self, name: str, y: Array, strict: bool = True, rows: Any = None) -> bool:
        """Whether the likelihood has a density of all targets; refused by their rows where ``strict``."""
        good = LIKELIHOODS[self.name].takes(y).all() if self.name is not None else True
        if strict and not good:
            _check_values(name, str(self.name), y, rows)
        return bool(good)

    def in_own_units(self, likelihood: Any) -> OwnUnits:
        """The likelihood of targets in their units that goes with a trained one."""
        shift, scale = (torch.as_tensor(t, dtype=torch.float64, device="cpu") for t in (self.shift, self.scale))
        return OwnUnits(likelihood, shift, scale, self.how)

    def to_dict(self) -> dict[str, Any]:
        """As numbers, strings and lists."""
        own = {name: getattr(self, name) for name in ("name", "how", "floor", "num_components")}
        arrays = {name: getattr(self, name).tolist() for name in ("shift", "scale", "unit")}
        return {**own, "shape": list(self.shape), **arrays}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Target:
        """What :meth:`to_dict` gave.

        Raises:
            ValueError: if it is something else.
        """
        try:
            shape = tuple(check_integer("shape", size) for size in given["shape"])
            arrays = {name: np.asarray(given[name], np.float64) for name in ("shift", "scale", "unit")}
            others = {name: given[name] for name in ("name", "how", "floor", "num_components")}
        except (KeyError, TypeError) as error:
            raise ValueError(f"target: expected the settings of a fitted regressor, got none of {error}") from error
        check_choice("likelihood", others["name"], list(LIKELIHOODS))
        check_choice("target scaling", others["how"], (LIKELIHOODS[others["name"]].how,))
        for name, values in arrays.items():
            sound = values.shape == shape and np.isfinite(values).all() and (name == "shift" or (values > 0).all())
            if not sound:
                raise ValueError(f"target {name}: expected finite numbers of shape {shape}, got {given[name]}")
        own: dict[str, Any] = {"shape": shape, **others, **arrays}
        return cls(**own)


def _shape_family(name: str) -> Callable[[Target], Likelihood]:
    def make(target: Target) -> Likelihood:
        return ShapeLikelihood(name, target.shape, max(target.floor or 0, 1e-3))

    return make


def _counts(name: str) -> Callable[[Target], Likelihood]:
    return lambda target: CountLikelihood(name, target.shape, torch.as_tensor(target.unit))


def _least_scale(target: Target) -> float:
    return max(target.floor or 0, 1e-4)


def _normal(target: Target) -> Likelihood:
    return NormalLikelihood(target.shape, min_scale=_least_scale(target))


def _student_t(target: Target) -> Likelihood:
    return StudentTLikelihood(target.shape, _least_scale(target))


def _mixture(target: Target) -> Likelihood:
    return NormalMixtureLikelihood(target.num_components, target.shape, _least_scale(target))


def _named(values: str, how: str, make: Callable[[Target], Likelihood]) -> NamedLikelihood:
    return NamedLikelihood(values, _VALUES[values], how, make, is_density=values != "counts 0, 1, 2, …")


_VALUES: dict[str, Callable[[Array], Any]] = {
    "numbers": np.isfinite,
    "positive numbers": lambda y: y > 0,
    "numbers between 0 and 1": lambda y: (y > 0) & (y < 1),
    "counts 0, 1, 2, …": lambda y: (y >= 0) & (y == np.floor(y)),
}

LIKELIHOODS: dict[str, NamedLikelihood] = {
    "normal": _named("numbers", "standard", _normal),
    "student_t": _named("numbers", "standard", _student_t),
    "mixture": _named("numbers", "standard", _mixture),
    "lognormal": _named("positive numbers", "log", _normal),
    "gamma": _named("positive numbers", "divided", _shape_family("gamma")),
    "beta": _named("numbers between 0 and 1", "none", _shape_family("beta")),
    "poisson": _named("counts 0, 1, 2, …", "none", _counts("poisson")),
    "negative_binomial": _named("counts 0, 1, 2, …", "none", _counts("negative_binomial")),
    "zero_inflated_poisson": _named("counts 0, 1, 2, …", "none", _counts("zero_inflated_poisson")),
}
"""The likelihoods of the regressor, by name."""


def candidates(y: Array) -> list[str]:
    """The likelihoods that the values of a target allow, of one base measure.

    Counts are whole numbers from 0 on with a gap of one between two of them, of which at most half are distinct; all
    else is of densities.

    Example:
        >>> candidates(np.array([0.0, 1.0, 1.0, 2.0, 0.0, 4.0, 1.0, 0.0]))
        ['poisson', 'negative_binomial', 'zero_inflated_poisson']
        >>> candidates(np.array([0.1, 2.0, 3.5]))
        ['normal', 'student_t', 'mixture', 'lognormal', 'gamma']
    """
    columns = y.reshape(len(y), -1)
    counts = bool(((columns >= 0) & (columns == np.floor(columns))).all()) and all(
        2 * len(np.unique(column)) <= len(column) and resolution(column) == 1 for column in columns.T
    )
    return [name for name, own in LIKELIHOODS.items() if own.is_density != counts and own.takes(columns).all()]


def resolution(y: Array) -> Array:
    """The smallest gap between two distinct values of each column, 0 of one that has no two.

    Example:
        >>> float(resolution(np.array([1.0, 1.5, 3.0, 1.5])))
        0.5
    """
    columns = y.reshape(len(y), -1)
    gaps = [np.diff(np.unique(column)) for column in columns.T]
    return np.array([gap.min() if len(gap) else 0.0 for gap in gaps]).reshape(y.shape[1:])


def _check_size(y: Array) -> None:
    """Refuse targets whose variance no number holds."""
    columns = y.reshape(len(y), -1)
    spread = columns.max(0) / 2 - columns.min(0) / 2
    if np.abs(columns).max() > _LARGEST or ((spread > 0) & (spread < 1 / _LARGEST)).any():
        raise ValueError(
            f"y: expected numbers of at most {_LARGEST:g} that differ by more than {1 / _LARGEST:g}, got others; "
            "rescale them"
        )


def _check_values(argument: str, name: str, y: Array, names: Any = None) -> None:
    """Refuse targets that a likelihood by name has no density of."""
    own = LIKELIHOODS[name]
    good = own.takes(y).reshape(len(y), -1).all(1)
    if not good.all():
        fit = [f'"{other}"' for other, theirs in LIKELIHOODS.items() if theirs.takes(y).all()]
        rows = name_rows(torch.as_tensor(~good), names)
        raise ValueError(
            f'{argument}: expected {own.values} for likelihood "{name}", got others in {rows}; '
            f"{', '.join(fit)} would fit"
        )


def _check_support(name: str, support: Any, y: Array, rows: Any) -> None:
    inside = support.check(torch.as_tensor(y))
    good = inside.reshape(len(y), -1).all(1)
    if not bool(good.all()):
        raise ValueError(f"y: expected values in {name}, {support}, got others in {name_rows(~good, rows)}")


def _scaling(likelihood: Likelihood, shape: tuple[int, ...]) -> str:
    """How targets are scaled for a likelihood of one's own: where its law in their units is known."""
    if tuple(likelihood.event_shape) != shape:
        raise ValueError(
            f"likelihood: expected one of event shape {shape}, that of a target, got {tuple(likelihood.event_shape)}"
        )
    support = likelihood.support
    probe: Any = likelihood.probe()
    if probe is None or support.is_discrete:
        return "none"
    ends = bounds(support)
    positive = ends is not None and ends[0] == 0 and ends[1] == np.inf
    how = "standard" if is_real(support) else "divided" if positive else "none"
    try:
        if how != "none":
            affine(probe, 0.0, torch.ones(shape, dtype=torch.float64))
    except (TypeError, ValueError):
        return "none"
    return how


def as_tensor(array: Any, device: Any, dtype: Any = None) -> Tensor:
    """The array as a tensor that may be written to."""
    return torch.as_tensor(np.require(array, requirements=["C", "W"]), device=device, dtype=dtype)
