"""What a family in natural form is, and the registry that finds it.

A family is described once, by a subclass of :class:`ExponentialFamily`; whatever is public looks it up by the type of
a distribution, binds it to that distribution, and works for any of them, wrappers included.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.not_closed import why_not_closed
from pyro_probmix.ops.devices import double, filled_numbers
from pyro_probmix.ops.sums import masked_sum, restore_members, rounding, sum_products, sum_right, weighted_sums
from pyro_probmix.ops.values import equal_values

__all__ = [
    "FAMILIES",
    "ExponentialFamily",
    "Members",
    "Tensors",
    "exponential_family",
    "family_of",
    "form_or_none",
    "is_exponential_family",
    "register_family",
    "resolved",
    "set_validation",
    "validates",
]

Tensors = tuple[Tensor, ...]
"""The usual parameters of one member, its natural parameters, or statistics."""

Members = Sequence[Sequence[Tensor]]
"""The usual parameters of each component of a pool."""


class ExponentialFamily:
    r"""One family in natural form, :math:`p(y) = h(y) \exp(\langle \eta, T(y) \rangle - A(\eta))` (eq. 40).

    An instance is the natural form of one distribution. A subclass supplies small hooks over the family's *usual
    parameters* (``loc``, ``scale``, ...), taken by position: those of its own member, of other components, or of their
    pool. This class owns what is built from them. All tensors have a batch shape on the left and, on the right, the
    event dimensions given by ``parameter_dims`` (usual parameters) or ``natural_dims`` (η and T).

    Args:
        p: the distribution.

    Attributes:
        p: the distribution, which alone knows the fixed parameters.
        constructor: the Pyro distribution class that the family builds.
        names: names of the usual parameters, as the constructor and the instance spell them; default: those of the
            arguments of ``log_normalizer``.
        parameter_dims: number of event dimensions of each usual parameter; default: as the constructor's
            ``arg_constraints`` say.
        natural_dims: number of event dimensions of each natural parameter, and so of each statistic; default: those of
            the usual parameters.
        fixed: parameters that the family holds fixed; components of a pool must agree on them.
        linear: whether the natural parameters are the usual ones, or where each is linear in one of them,
            η = factor · parameter + shift, these pairs.
    """

    constructor: ClassVar[Any]
    names: ClassVar[tuple[str, ...]] = ()
    parameter_dims: tuple[int, ...] = ()
    natural_dims: tuple[int, ...] = ()
    fixed: ClassVar[tuple[str, ...]] = ()
    linear: ClassVar[bool | tuple[tuple[float, float], ...]] = False
    may_be_infinite: ClassVar[tuple[str, ...]] = ("logits", "gate_logits")
    """Parameters that may be infinite in a member."""
    infinite_eta: ClassVar[bool] = False
    """Whether η may be infinite in a member."""
    bounded: ClassVar[bool] = False
    """Whether T is bounded and h integrable, so that every finite η is a natural parameter."""
    cancels: ClassVar[bool] = False
    """Whether A(η) and E[log h] can be large beside what they differ by, and are computed in double precision."""
    constant_base: bool = True
    """Whether h = 1, so that powers of members stay in the family; default: unless ``log_base_measure`` is given."""

    def __init_subclass__(cls) -> None:
        own = vars(cls)
        if "log_normalizer" in own and "names" not in own:
            cls.names = tuple(inspect.signature(own["log_normalizer"]).parameters)[1:]
        if "constructor" in own and "parameter_dims" not in own:
            cls.parameter_dims = tuple(cls.constructor.arg_constraints[name].event_dim for name in cls.names)
        if "constructor" in own and "natural_dims" not in own:
            cls.natural_dims = cls.parameter_dims
        if "log_base_measure" in own and "constant_base" not in own:
            cls.constant_base = cls.log_base_measure is ExponentialFamily.log_base_measure

    def __init__(self, p: Any) -> None:
        self.p = p

    # Hooks: what a family is. Its own have the names of its parameters; tests/extending/rayleigh.py is one to copy.

    def to_natural(self, *parameters: Any, **by_name: Any) -> Tensors:
        """η from the usual parameters: these themselves unless ``linear``, or the family, says otherwise."""
        if isinstance(self.linear, bool):
            return parameters
        return tuple([_affine(t, a, b) for t, (a, b) in zip(parameters, self.linear, strict=True)])

    def from_natural(self, *eta: Any, **by_name: Any) -> Tensors:
        """The usual parameters from η."""
        if isinstance(self.linear, bool):
            return eta
        return tuple([_affine(t, 1 / a, -b / a) for t, (a, b) in zip(eta, self.linear, strict=True)])

    def log_normalizer(self, *parameters: Any, **by_name: Any) -> Tensor:
        """A(η) from the usual parameters, of the batch shape; ξ of a pool is :meth:`pooling_normalizer`."""
        raise NotImplementedError

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        """T(y); y itself unless a family says otherwise."""
        return (y,)

    def expected_sufficient_statistics(self, *parameters: Any, **by_name: Any) -> Tensors:
        """E[T(y)] of ``p``, whose usual parameters are given."""
        raise NotImplementedError

    def log_base_measure(self, y: Tensor) -> Tensor:
        """log h(y); zero unless a family says otherwise."""
        return y.new_zeros(y.shape[: y.dim() - len(self.p.event_shape)])

    def expected_log_base_measure(self, *parameters: Any, **by_name: Any) -> Tensor | float:
        """E[log h(y)] of ``p``, whose usual parameters are given; zero where h = 1."""
        if not self.constant_base:
            raise NotImplementedError(
                f"{type(self).__name__}: expected expected_log_base_measure beside log_base_measure"
            )
        return 0.0

    # What follows from the hooks. Wrappers and families with a better formula override these.

    @property
    def parameters(self) -> Tensors:
        """The usual parameters."""
        return tuple([getattr(self.p, name) for name in self.names])

    @property
    def varies_by_parameters(self) -> bool:
        """Whether members of one batch differ in their usual parameters alone, so that there is a pool of any two."""
        return not self.fixed and type(self).map_batch is ExponentialFamily.map_batch

    @property
    def fixed_parameters(self) -> dict[str, Any]:
        """What ``fixed`` names."""
        return {name: getattr(self.p, name) for name in self.fixed}

    def canonical(self, *parameters: Tensor) -> Tensors:
        """The usual parameters as members carry them, where several describe one member."""
        return parameters

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        """The member with these usual parameters, fixed parameters and validation being those of ``p``.

        The parameters are canonical and not validated again: they come from members that were.
        """
        arguments = self.fixed_parameters | fixed | dict(zip(self.names, parameters, strict=True))
        with filled_numbers(parameters[0]):
            member = self.constructor(**arguments, validate_args=False)
        member._validate_args = self.p._validate_args
        return member

    def map_batch(self, function: Callable[[Tensor, int], Tensor]) -> Any:
        """``p`` with its batch changed by ``function(t, d)``, t having d dimensions after the batch's."""
        fixed = self.fixed_parameters
        for name, value in fixed.items():
            if isinstance(value, Tensor) and value.dim():
                fixed[name] = function(value.expand(self.p.batch_shape), 0)
        return self.build([function(t, d) for t, d in zip(self.parameters, self.parameter_dims, strict=True)], **fixed)

    def in_double(self) -> Any:
        """The same of ``p`` in double precision."""
        parameters = self.parameters
        if parameters[0].dtype == torch.float64:
            return self
        fixed = {name: double(value) for name, value in self.fixed_parameters.items()}
        return type(self)(self.build([double(t) for t in parameters], **fixed))

    def mismatch(self, other: Any) -> str | None:
        """What ``other``, of this class, would need to be of the very same family, or None if it is.

        The values of tensors are compared where either validates and, on a CPU, wherever they can be read: not under
        vmap, nor where they would be waited for.
        """
        for name in self.fixed:
            first, second = getattr(self.p, name), getattr(other.p, name)
            if equal_values(first, second, wait=validates(self.p) or validates(other.p)) is False:
                return f"equal {name}, got {_short(first)} and {_short(second)}"
        return None

    def domain_error(self, parameters: Sequence[Tensor], inside: bool = False) -> str | None:
        """Which of these usual parameters leaves the family's domain and where, or None if none does.

        With ``inside`` none may be at the end of its domain either, where there is no density.
        """
        for name, value in zip(self.names, parameters, strict=True):
            constraint = self.constructor.arg_constraints[name]
            if value.numel() and (bad := ~constraint.check(value)).any():
                return f"{name} outside {constraint}{at_index(bad)}"
            if inside and (bad := self.at_boundary(name, value)).any():
                return f"{name} infinite{at_index(bad)}"
        return None

    def at_boundary(self, name: str, value: Tensor) -> Tensor:
        """Where a usual parameter is infinite, and not so in a member."""
        return torch.zeros_like(value, dtype=torch.bool) if name in self.may_be_infinite else ~value.isfinite()

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        """Usual parameters of the log-linear pool: η̃ = Σₖ wₖ ηₖ (eq. 38).

        Args:
            members: usual parameters of each component; fixed ones are those of ``p``.
            weights: one tensor a component, which broadcasts with the batch shape.
            simplex: whether the weights lie on the simplex. Off it the result is outside the domain, or NaN, where the
                product cannot be normalised.
        """
        total = masked_sum if self.infinite_eta or not simplex else sum_products
        if self.linear and simplex:
            return weighted_sums(members, weights, self.parameter_dims, total)
        etas = [self.to_natural(*member) for member in members]
        pooled = self.from_natural(*weighted_sums(etas, weights, self.natural_dims, total))
        return restore_members(pooled, members, weights, self.parameter_dims) if simplex else pooled

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        """ξ = Σₖ wₖ A(ηₖ) − A(η̃), arguments as for :meth:`pool`; A of one member is :meth:`log_normalizer`."""
        wide, shares = self.widened(members, weights)
        total = masked_sum([self.log_normalizer(*member) for member in wide], shares)
        return self.narrowed(total - self.log_normalizer(*self.pool(wide, shares, simplex)), weights[0])

    def diverges(self, members: Members, weights: Sequence[Tensor]) -> Tensor:
        """Where ∫ ∏ₖ pₖ^{wₖ} is infinite, supports aside: η̃ is no natural parameter, or one but for rounding.

        Arguments as for :meth:`pool` off the simplex; the result broadcasts with the batch shape.
        """
        result = torch.zeros_like(weights[0], dtype=torch.bool)
        if self.bounded or not self.natural_dims:
            return result
        etas = [self.to_natural(*member) for member in members]
        sums, noises = (weighted_sums(etas, weights, self.natural_dims, total) for total in (masked_sum, rounding))
        for sign in (1, -1):
            usual = self.from_natural(*[eta + sign * noise for eta, noise in zip(sums, noises, strict=True)])
            for name, value, dim in zip(self.names, usual, self.parameter_dims, strict=True):
                inside = self.constructor.arg_constraints[name].check(value)
                result = result | ~inside | _any_right(self.at_boundary(name, value), dim)
        for eta, dim in zip(sums, self.natural_dims, strict=True):  # of opposite infinities
            result = result & ~_any_right(eta.isnan(), dim)
        return result

    def cross_entropy(self, other: Any) -> Tensor:
        """−E_p[log q(y)] = A(η_q) − ⟨η_q, E_p[T]⟩ − E_p[log h], q being that of ``other``."""
        p, q, ours, theirs = self, other, self.parameters, other.parameters
        like = ours[0], theirs[0]
        if self.cancels:
            p, q = p.in_double(), q.in_double()
            ours, theirs = p.parameters, q.parameters
        log_normalizer = q.log_normalizer(*theirs)
        if self.cancels and (validates(self.p) or validates(other.p)):
            _check_resolved(log_normalizer)
        total = log_normalizer - p.expected_log_base_measure(*ours)
        means = p.expected_sufficient_statistics(*ours)
        for eta, mean, dim in zip(q.to_natural(*theirs), means, self.natural_dims, strict=True):
            total = total - sum_right(masked_sum([eta], [mean]), dim)
        return self.narrowed(total, *like)

    def expected_log_ratio(self, p: Any, q: Any) -> Tensor:
        """E[log p(y)/q(y)] under this law, all three of this very family; Jacobians cancel."""
        return self.cross_entropy(q) - self.cross_entropy(p)

    def widened(self, members: Members, weights: Sequence[Tensor]) -> tuple[Members, Sequence[Tensor]]:
        """The arguments of :meth:`pool` in the precision that normalisers are computed in."""
        if not self.cancels:
            return members, weights
        return [[double(t) for t in member] for member in members], [double(w) for w in weights]

    def narrowed(self, result: Tensor, *like: Tensor) -> Tensor:
        """A result of these in the precision and on the device of what it was asked for."""
        if not self.cancels:
            return result
        dtype = functools.reduce(torch.promote_types, [t.dtype for t in like])
        return result.to(like[0].device, dtype)


def _affine(tensor: Tensor, factor: float, shift: float) -> Tensor:
    if factor != 1:
        tensor = -tensor if factor == -1 else factor * tensor
    return tensor + shift if shift else tensor


def _any_right(tensor: Tensor, dims: int) -> Tensor:
    return tensor.flatten(-dims).any(-1) if dims else tensor


def _check_resolved(log_normalizer: Tensor) -> None:
    """Raises ValueError where what is left of numbers of this size is rounding."""
    lost = log_normalizer.abs() > 1e-3 / torch.finfo(log_normalizer.dtype).eps
    if lost.any():
        raise ValueError(
            f"p, q: expected parameters so small that double precision resolves their expectations, "
            f"got{at_index(lost)} a log-normalizer of {log_normalizer[lost].flatten()[0].item():.3g}"
        )


def _short(value: Any) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    if value.numel() <= 4:
        return str(value.tolist())
    low, high = (end.item() for end in value.detach().aminmax())
    return f"{tuple(value.shape)} numbers from {low:g} to {high:g}"


FAMILIES: dict[type, tuple[type[ExponentialFamily], bool]] = {}
"""From a distribution type to its family, and whether it describes that very type alone."""

_FOUND: dict[type, type[ExponentialFamily] | None] = {}


def register_family(*types: type, exact: bool = False) -> Any:
    """Class decorator: the family describes these distribution types and what is derived from them.

    A Pyro distribution derived from one of ``torch.distributions`` needs no row of its own; a subclass with a
    ``log_prob`` of its own is another law, and is not described.

    Args:
        types: distribution types; the first is what a family without a ``constructor`` builds.
        exact: whether the family describes only these very types, and no subclass.
    """

    def register(cls: type[ExponentialFamily]) -> type[ExponentialFamily]:
        constraints: Any = getattr(types[0], "arg_constraints", {})
        if not hasattr(cls, "constructor") and cls.names and all(name in constraints for name in cls.names):
            cls.constructor = types[0]
            cls.__init_subclass__()
        FAMILIES.update(dict.fromkeys(types, (cls, exact)))
        _FOUND.clear()
        return cls

    return register


def family_of(cls: Any) -> type[ExponentialFamily] | None:
    """The family that describes distributions of a type, None if none does.

    Example:
        >>> family_of(dist.Gamma).__name__, family_of(dist.Cauchy)
        ('GammaFamily', None)
    """
    if cls not in _FOUND:
        _FOUND[cls], base = None, next((base for base in cls.__mro__ if base in FAMILIES), None)
        if base is not None:
            family, exact = FAMILIES[base]
            constructor = getattr(family, "constructor", base)
            known = [getattr(c, "log_prob", None) for c in (*base.__mro__, *constructor.__mro__)]
            if cls in (base, constructor) if exact else any(cls.log_prob is own for own in known):
                _FOUND[cls] = family
    return _FOUND[cls]


def exponential_family(p: Distribution) -> ExponentialFamily:
    """The family of ``p``, bound to it: the natural form of a distribution.

    Raises:
        TypeError: if ``p`` is not a distribution, or its family is not closed under log-linear pooling.

    Example:
        >>> form = exponential_family(dist.Gamma(2.0, 1.0))
        >>> type(form).__name__, form.to_natural(*form.parameters)
        ('GammaFamily', (tensor(1.), tensor(-1.)))
    """
    family = _FOUND.get(type(p))
    if family is not None:
        return family(p)
    if not isinstance(p, Distribution):
        raise TypeError(f"expected a torch or Pyro distribution, got {type(p).__name__}")
    p = resolved(p)
    family = family_of(type(p))
    if family is None:
        known = sorted({f.constructor.__name__ for f, _ in FAMILIES.values() if hasattr(f, "constructor")})
        reason = why_not_closed(type(p))
        raise TypeError(
            f"{type(p).__name__} has no natural form here, so no log-linear pool in closed form: expected "
            f"one of {', '.join(known)}, or one of them under Independent, expand, mask or equal bijections; "
            "for scalars of any families use NumericalPool"
            + (f"; {type(p).__name__} is not closed: {reason}" if reason else "")
        )
    return family(p)


def is_exponential_family(p: Distribution) -> bool:
    """Whether ``p`` has a natural form here.

    Example:
        >>> is_exponential_family(dist.Normal(0.0, 1.0)), is_exponential_family(dist.Cauchy(0.0, 1.0))
        (True, False)
    """
    return form_or_none(p) is not None


def form_or_none(p: Distribution) -> ExponentialFamily | None:
    """:func:`exponential_family`, or None where it raises TypeError."""
    try:
        return exponential_family(p)
    except TypeError:
        return None


def resolved(p: Any) -> Any:
    """``p`` without what only stands for another distribution: a pool for its fused member, an expansion."""
    while isinstance(p, Distribution) and family_of(type(p)) is None:
        if hasattr(p, "fused"):
            p = p.fused
        elif isinstance(p, ExpandedDistribution) and p.batch_shape == p.base_dist.batch_shape:
            p = p.base_dist
        elif isinstance(p, ExpandedDistribution):
            expanded = p.base_dist.expand(p.batch_shape)
            if isinstance(expanded, ExpandedDistribution):  # it has no other expansion
                break
            p = expanded
        else:
            break
    return p


def unwrapped(p: Any) -> Any:
    """The distribution that is made independent, masked or expanded in ``p``."""
    while isinstance(p, (torch.distributions.Independent, MaskedDistribution, ExpandedDistribution)):
        p = p.base_dist
    return p


def validates(p: Any) -> bool:
    """Whether ``p`` checks its arguments and values; some wrappers leave that to what they wrap."""
    return bool(unwrapped(p)._validate_args)


def set_validation(p: Any, validate: bool) -> None:
    """Makes ``p`` and what it wraps check values, or not."""
    p._validate_args = validate
    if hasattr(p, "base_dist"):
        set_validation(p.base_dist, validate)
