"""What a family in natural form is, and the registry that finds it.

A family is described once, by a subclass of :class:`ExponentialFamily`; whatever is public looks the family
up by the type of the distribution and works for any of them, wrappers included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.autograd import forward_ad
from torch.distributions import Distribution

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.not_closed import why_not_closed
from pyro_probmix.ops.blocks import has_memory, is_recorded
from pyro_probmix.ops.devices import double, filled_numbers

__all__ = ["ExponentialFamily", "exponential_family", "is_exponential_family", "register_family"]


class ExponentialFamily:
    r"""One family in natural form, :math:`p(y) = h(y) \exp(\langle \eta, T(y) \rangle - A(\eta))` (eq. 40).

    A subclass supplies small hooks over the family's *usual parameters* (``loc``, ``scale``, ...); this class
    owns what is built from them. All tensors have the distribution's batch shape on the left and, on the
    right, the event dimensions given by ``parameter_dims`` (usual parameters) or ``natural_dims`` (η and T).

    Attributes:
        constructor: the Pyro distribution class that the family builds.
        names: names of the usual parameters, as the constructor and the instance spell them.
        parameter_dims: number of event dimensions of each usual parameter.
        natural_dims: number of event dimensions of each natural parameter, and so of each statistic.
        fixed: parameters that the family holds fixed; components of a pool must agree on them.
        linear: whether the pool, for weights on the simplex, is linear in the usual parameters themselves.
    """

    constructor: ClassVar[Any]
    names: ClassVar[tuple[str, ...]]
    parameter_dims: ClassVar[tuple[int, ...]]
    natural_dims: ClassVar[tuple[int, ...]]
    fixed: ClassVar[tuple[str, ...]] = ()
    linear: ClassVar[bool] = False
    infinite: ClassVar[tuple[str, ...]] = ("logits", "gate_logits")
    """Parameters that may be infinite in a member."""
    bounded: ClassVar[bool] = False
    """Whether T is bounded and h integrable, so that every finite η is a natural parameter."""
    cancels: ClassVar[bool] = False
    """Whether A(η) and E[log h] can be large beside what they differ by, and are computed in double precision."""

    # Hooks: what a family is.

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        """η from the usual parameters."""
        raise NotImplementedError

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        """The usual parameters from η."""
        raise NotImplementedError

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        """A(η) from the usual parameters, of the batch shape."""
        raise NotImplementedError

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        """T(y)."""
        raise NotImplementedError

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        """E[T(y)]."""
        raise NotImplementedError

    def base_measure(self, p: Distribution, y: Tensor) -> Tensor:
        """log h(y); zero unless a family says otherwise."""
        return y.new_zeros(y.shape[: y.dim() - len(p.event_shape)])

    def expected_base_measure(self, p: Distribution) -> Tensor | float:
        """E[log h(y)]; zero unless a family says otherwise."""
        return 0.0

    # What follows from the hooks. Wrappers and families with a better formula override these.

    def constant_base(self, p: Distribution) -> bool:
        """Whether h = 1, so that powers of members stay in the family."""
        return type(self).base_measure is ExponentialFamily.base_measure

    def check(self, p: Distribution) -> None:
        """Raises TypeError if ``p``, though of a registered type, has no natural form."""

    def parameters(self, p: Distribution) -> tuple[Tensor, ...]:
        """The usual parameters of ``p``."""
        return tuple(getattr(p, name) for name in self.names)

    def dims(self, p: Distribution) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Event dimensions of the usual and of the natural parameters of ``p``."""
        return self.parameter_dims, self.natural_dims

    def canonical(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        """The usual parameters as members carry them, where several describe one member."""
        return parameters

    def build(self, p: Distribution, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        """The member with these usual parameters, fixed parameters and validation being those of ``p``.

        The parameters are canonical and not validated again: they come from members that were.
        """
        arguments = {name: getattr(p, name) for name in self.fixed} | fixed
        arguments |= dict(zip(self.names, parameters, strict=True))
        with filled_numbers(parameters[0]):
            member = self.constructor(**arguments, validate_args=False)
        member._validate_args = p._validate_args
        return member

    def map_batch(self, p: Distribution, function: Callable[[Tensor, int], Tensor]) -> Any:
        """``p`` with its batch changed by ``function(t, d)``, t having d dimensions after the batch's."""
        parameters = [function(t, d) for t, d in zip(self.parameters(p), self.parameter_dims, strict=True)]
        fixed = {name: getattr(p, name) for name in self.fixed}
        for name, value in fixed.items():
            if isinstance(value, Tensor) and value.dim():
                fixed[name] = function(value.expand(p.batch_shape), 0)
        return self.build(p, parameters, **fixed)

    def same(self, p: Distribution, q: Distribution) -> str | None:
        """What ``q`` would need to be of the very family of ``p``, or None if it is.

        The values of tensors are compared where ``p`` or ``q`` validates and, on a CPU, wherever they can be read: not
        under vmap, nor where they would be waited for.
        """
        for name in self.fixed:
            first, second = getattr(p, name), getattr(q, name)
            if equal_values(first, second, wait=validates(p) or validates(q)) is False:
                return f"equal {name}, got {_short(first)} and {_short(second)}"
        return None

    def outside(self, p: Distribution, parameters: Sequence[Tensor]) -> str | None:
        """Which of these usual parameters leaves the family's domain and where, or None if none does."""
        for name, value in zip(self.names, parameters, strict=True):
            constraint = self.constructor.arg_constraints[name]
            if value.numel() == 0:
                continue
            bad = ~constraint.check(value)
            if bad.any():
                return f"{name} outside {constraint}{at_index(bad)}"
        return None

    def improper(self, p: Distribution, parameters: Sequence[Tensor]) -> str | None:
        """Which of these usual parameters is at the end of its domain, where there is no density, or None."""
        for name, value in zip(self.names, parameters, strict=True):
            bad = self.at_end(name, value)
            if bad.any():
                return f"{name} infinite{at_index(bad)}"
        return None

    def at_end(self, name: str, value: Tensor) -> Tensor:
        """Where a usual parameter is infinite, and not so in a member."""
        return torch.zeros_like(value, dtype=torch.bool) if name in self.infinite else ~value.isfinite()

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Usual parameters of the log-linear pool: η̃ = Σₖ wₖ ηₖ (eq. 38).

        ``parameters`` holds one tuple of usual parameters a component, ``weights`` one tensor a component
        that broadcasts with the batch shape; the weights lie on the simplex.
        """
        if self.linear:
            return weighted_sums(parameters, weights, self.parameter_dims)
        etas = [self.to_natural(p, *component) for component in parameters]
        pooled = self.from_natural(p, *weighted_sums(etas, weights, self.natural_dims))
        return restore_members(pooled, parameters, weights, self.parameter_dims)

    def pooling_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        """ξ = Σₖ wₖ A(ηₖ) − A(η̃), arguments as for :meth:`pool`."""
        wide, shares = self.widened(parameters, weights)
        total = masked_sum([self.normalizer(p, *component) for component in wide], shares)
        return self.narrowed(total - self.normalizer(p, *self.pool(p, wide, shares)), weights[0])

    def product(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Usual parameters at η̃ = Σₖ wₖ ηₖ as :meth:`pool` takes them, for weights off the simplex, too.

        They are outside the domain, or NaN, where the product cannot be normalised.
        """
        etas = [self.to_natural(p, *component) for component in parameters]
        sums = [
            masked_sum([eta[i] for eta in etas], [unsqueeze_right(w, dim) for w in weights])
            for i, dim in enumerate(self.natural_dims)
        ]
        return self.from_natural(p, *sums)

    def product_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        """Σₖ wₖ A(ηₖ) − A(η̃), for weights off the simplex, too."""
        wide, shares = self.widened(parameters, weights)
        total = masked_sum([self.normalizer(p, *component) for component in wide], shares)
        return self.narrowed(total - self.normalizer(p, *self.product(p, wide, shares)), weights[0])

    def diverges(self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        """Where ∫ ∏ₖ pₖ^{wₖ} is infinite, supports aside: η̃ is no natural parameter, or one but for rounding.

        Arguments as for :meth:`product`; the result broadcasts with the batch shape.
        """
        result = torch.zeros_like(weights[0], dtype=torch.bool)
        if self.bounded or not self.natural_dims:
            return result
        etas = [self.to_natural(p, *component) for component in parameters]
        sums, noises = [], []
        for i, dim in enumerate(self.natural_dims):
            terms, shares = [eta[i] for eta in etas], [unsqueeze_right(w, dim) for w in weights]
            sums.append(masked_sum(terms, shares))
            noises.append(rounding(terms, shares))
        for sign in (1, -1):
            usual = self.from_natural(p, *[eta + sign * noise for eta, noise in zip(sums, noises, strict=True)])
            for name, value, dim in zip(self.names, usual, self.parameter_dims, strict=True):
                ends = self.at_end(name, value)
                inside = self.constructor.arg_constraints[name].check(value)
                result = result | ~inside | (ends.flatten(-dim).any(-1) if dim else ends)
        for eta, dim in zip(sums, self.natural_dims, strict=True):  # of opposite infinities
            unknown = eta.isnan()
            result = result & ~(unknown.flatten(-dim).any(-1) if dim else unknown)
        return result

    def cross_entropy(self, p: Distribution, q: Distribution) -> Tensor:
        """−E_p[log q(y)] = A(η_q) − ⟨η_q, E_p[T]⟩ − E_p[log h]."""
        like = self.parameters(p)[0], self.parameters(q)[0]
        p, q = self.wide(p), self.wide(q)
        parameters = self.parameters(q)
        normalizer = self.normalizer(q, *parameters)
        if self.cancels and (validates(p) or validates(q)):
            _check_resolved(normalizer)
        total = normalizer - self.expected_base_measure(p)
        for eta, mean, dim in zip(self.to_natural(q, *parameters), self.moments(p), self.dims(q)[1], strict=True):
            total = total - sum_right(masked_sum([eta], [mean]), dim)
        return self.narrowed(total, *like)

    def in_double(self, p: Any) -> Any:
        """``p`` in double precision."""
        parameters = self.parameters(p)
        if parameters[0].dtype == torch.float64:
            return p
        fixed = {name: double(getattr(p, name)) for name in self.fixed}
        return self.build(p, [double(t) for t in parameters], **fixed)

    def wide(self, p: Any) -> Any:
        """``p`` in the precision that its expectations are computed in."""
        return self.in_double(p) if self.cancels else p

    def widened(
        self, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Sequence[Sequence[Tensor]], Sequence[Tensor]]:
        """The arguments of :meth:`pool` in the precision that normalisers are computed in."""
        if not self.cancels:
            return parameters, weights
        return [[double(t) for t in component] for component in parameters], [double(w) for w in weights]

    def narrowed(self, result: Tensor, *like: Tensor) -> Tensor:
        """A result of these in the precision and on the device of what it was asked for."""
        return result.to(max(like, key=lambda t: t.dtype.itemsize)) if self.cancels else result

    def expected_log_ratio(self, law: Distribution, p: Distribution, q: Distribution) -> Tensor:
        """E[log p(y)/q(y)] under ``law``, all three of this very family; Jacobians cancel."""
        return self.cross_entropy(law, q) - self.cross_entropy(law, p)


def blank_member(cls: Any, batch_shape: torch.Size, event_shape: torch.Size, validate_args: bool) -> Any:
    """An instance of ``cls`` without parameters yet, made as its own ``expand`` makes one."""
    member = cls.__new__(cls)
    Distribution.__init__(member, batch_shape, event_shape, validate_args=False)
    member._validate_args = validate_args
    return member


def unsqueeze_right(tensor: Tensor, dims: int) -> Tensor:
    """``tensor`` with ``dims`` dimensions of size one appended, to broadcast over event dimensions."""
    return tensor.reshape(tensor.shape + (1,) * dims) if dims else tensor


def sum_right(tensor: Tensor, dims: int) -> Tensor:
    """``tensor`` summed over its last ``dims`` dimensions."""
    return tensor.sum(tuple(range(-dims, 0))) if dims else tensor


def masked_sum(terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Σₖ wₖ tₖ, where a weight of zero removes even an infinite term.

    Infinite terms are masked before the product, so neither the value nor a gradient meets 0 · ∞.
    """
    products = []
    for w, t in zip(weights, terms, strict=True):
        if not differentiated(w):  # then no gradient meets an infinite term, and one selection does
            products.append((w * t).masked_fill(w == 0, 0))
            continue
        infinite = t.isinf()
        product = w * t.masked_fill(infinite, 0)
        products.append(torch.where(infinite & (w != 0), t.detach() * w.detach().sign(), product))
    return reduce(torch.add, products)


def differentiated(tensor: Tensor) -> bool:
    """Whether a derivative by ``tensor`` is under way, backward or forward, or may be, outside a ``vmap``."""
    if tensor.requires_grad or forward_ad.unpack_dual(tensor).tangent is not None:
        return True
    return not (torch.compiler.is_compiling() or has_memory(tensor))


def sum_products(terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Σₖ wₖ tₖ for finite terms."""
    total = weights[0] * terms[0]
    for w, t in zip(weights[1:], terms[1:], strict=True):
        total = torch.addcmul(total, w, t)
    return total


def rounding(terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """How far off Σₖ wₖ tₖ may be by rounding; zero where that is infinite."""
    size = reduce(torch.add, [(w * t).abs() for w, t in zip(weights, terms, strict=True)])
    return (4 * torch.finfo(size.dtype).eps * size).nan_to_num(0, 0, 0)


def weighted_sums(
    terms: Sequence[Sequence[Tensor]], weights: Sequence[Tensor], dims: Sequence[int]
) -> tuple[Tensor, ...]:
    """Σₖ wₖ tₖ for each of the tuple's tensors, whose numbers of event dimensions are ``dims``."""
    return tuple(
        sum_products([term[i] for term in terms], [unsqueeze_right(w, dim) for w in weights])
        for i, dim in enumerate(dims)
    )


def restore_members(
    pooled: Sequence[Tensor],
    members: Sequence[Sequence[Tensor]],
    weights: Sequence[Tensor],
    dims: Sequence[int],
) -> tuple[Tensor, ...]:
    """``pooled``, equal to a member to the last bit where that member's weight is one, with its own gradient."""
    restored = []
    alone = [w == 1 for w in weights]
    for i, dim in enumerate(dims):
        value = pooled[i]
        with torch.no_grad():
            exact = value.detach()  # of its tangent, which no_grad keeps
            for one, member in zip(alone, members, strict=True):
                exact = torch.where(unsqueeze_right(one, dim), member[i].detach(), exact)
        nothing = value - value.detach()  # but a gradient
        restored.append(exact + nothing.masked_fill(nothing.isnan(), 0))
    return tuple(restored)


def can_be_read(tensor: Tensor) -> bool:
    """Whether the values of ``tensor`` can be read: not under vmap, nor by a compiler, nor where there are none."""
    if is_recorded() or tensor.is_meta:
        return False
    if has_memory(tensor):
        return True
    try:
        bool(tensor.detach().isnan().any())  # what torch.func.grad stands for has values, if no memory of its own
    except RuntimeError:
        return False
    return True


def _check_resolved(normalizer: Tensor) -> None:
    """Raises ValueError where what is left of numbers of this size is rounding."""
    lost = normalizer.abs() > 1e-3 / torch.finfo(normalizer.dtype).eps
    if lost.any():
        raise ValueError(
            f"p, q: expected parameters so small that double precision resolves their expectations, "
            f"got{at_index(lost)} a log-normalizer of {normalizer[lost].flatten()[0].item():.3g}"
        )


def at_hand(tensor: Tensor) -> bool:
    """Whether the values of ``tensor`` can be read without waiting."""
    return tensor.device.type == "cpu" and can_be_read(tensor)


def equal_values(a: Any, b: Any, wait: bool) -> bool | None:
    """Whether two tensors or numbers are equal up to broadcasting; None where their values cannot be told.

    Args:
        a: a tensor or a number.
        b: likewise.
        wait: whether to wait for values on another device.
    """
    if a is b:
        return True
    tensors = [value for value in (a, b) if isinstance(value, Tensor)]
    try:
        torch.broadcast_shapes(*[tensor.shape for tensor in tensors])
    except RuntimeError:
        return False
    if not all(at_hand(tensor) or (wait and can_be_read(tensor)) for tensor in tensors):
        return None
    equal = a == b
    return bool(equal.all()) if isinstance(equal, Tensor) else bool(equal)


def _short(value: Any) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    if value.numel() <= 4:
        return str(value.tolist())
    low, high = (end.item() for end in value.detach().aminmax())
    return f"{tuple(value.shape)} numbers from {low:g} to {high:g}"


_FAMILIES: dict[type, tuple[ExponentialFamily, bool]] = {}


def register_family(*types: type, exact: bool = False) -> Any:
    """Class decorator: the family describes these distribution types and what is derived from them.

    A Pyro distribution derived from one of ``torch.distributions`` needs no row of its own; a subclass with a
    ``log_prob`` of its own is another law, and is not described.

    Args:
        types: distribution types.
        exact: whether the family describes only these very types, and no subclass.
    """

    def register(cls: type[ExponentialFamily]) -> type[ExponentialFamily]:
        _FAMILIES.update(dict.fromkeys(types, (cls(), exact)))
        _FOUND.clear()
        return cls

    return register


_FOUND: dict[Any, ExponentialFamily | None] = {}


def _lookup(cls: Any) -> ExponentialFamily | None:
    if cls not in _FOUND:
        _FOUND[cls] = _search(cls)
    return _FOUND[cls]


def _search(cls: Any) -> ExponentialFamily | None:
    for base in cls.__mro__:
        if base in _FAMILIES:
            family, exact = _FAMILIES[base]
            constructor = getattr(family, "constructor", base)
            if exact:
                return family if cls in (base, constructor) else None
            known = {*base.__mro__, *constructor.__mro__}
            return family if any(cls.log_prob is vars(c).get("log_prob") for c in known) else None
    return None


def plain(p: Any) -> Any:
    """``p`` without what only stands for another distribution: a pool for its fused member, an expansion."""
    while isinstance(p, Distribution) and _lookup(type(p)) is None:
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


def validates(p: Any) -> bool:
    """Whether ``p`` checks its arguments and values; some wrappers leave that to what they wrap."""
    while isinstance(p, (torch.distributions.Independent, MaskedDistribution, ExpandedDistribution)):
        p = p.base_dist
    return bool(p._validate_args)


def set_validation(p: Any, validate: bool) -> None:
    """Makes ``p`` and what it wraps check values, or not."""
    p._validate_args = validate
    if hasattr(p, "base_dist"):
        set_validation(p.base_dist, validate)


def is_exponential_family(p: Distribution) -> bool:
    """Whether ``p`` has a natural form here.

    Example:
        >>> is_exponential_family(dist.Normal(0.0, 1.0)), is_exponential_family(dist.Cauchy(0.0, 1.0))
        (True, False)
    """
    try:
        exponential_family(p)
    except TypeError:
        return False
    return True


def exponential_family(p: Distribution) -> ExponentialFamily:
    """The family that describes ``p``.

    Raises:
        TypeError: if ``p`` is not a distribution, or its family is not closed under log-linear pooling.

    Example:
        >>> type(exponential_family(dist.Gamma(2.0, 1.0))).__name__
        'GammaFamily'
    """
    if not isinstance(p, Distribution):
        raise TypeError(f"expected a torch or Pyro distribution, got {type(p).__name__}")
    p = plain(p)
    family = _lookup(type(p))
    if family is None:
        known = sorted({f.constructor.__name__ for f, _ in _FAMILIES.values() if hasattr(f, "constructor")})
        reason = why_not_closed(type(p))
        raise TypeError(
            f"{type(p).__name__} has no natural form here, so no log-linear pool in closed form: expected "
            f"one of {', '.join(known)}, or one of them under Independent, expand, mask or equal bijections; "
            "for scalars of any families use NumericalPool"
            + (f"; {type(p).__name__} is not closed: {reason}" if reason else "")
        )
    family.check(p)
    return family
