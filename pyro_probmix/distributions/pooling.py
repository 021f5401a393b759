"""Log-linear pools of distributions."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from pyro.distributions import Delta, Independent, MaskedDistribution, MultivariateNormal
from pyro.distributions.kl import _kl_independent_mvn
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.kl import kl_divergence, register_kl

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.components import (
    Components,
    Weights,
    broadcast_batch,
    components_of,
    split_weights,
    sum_tolerance,
    tuple_of_distributions,
    unmask,
)
from pyro_probmix.distributions.cumulative import scalar_cdf, scalar_icdf
from pyro_probmix.distributions.entropies import entropy
from pyro_probmix.distributions.expectations import of_one_family
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    Members,
    Tensors,
    exponential_family,
    form_or_none,
    resolved,
    set_validation,
    validates,
)
from pyro_probmix.distributions.held_tensors import common_reference
from pyro_probmix.distributions.missing import check_present, present
from pyro_probmix.distributions.modes import mode
from pyro_probmix.distributions.selection import Change, map_batch, selected_along
from pyro_probmix.distributions.weighted_pool import Pool, asked
from pyro_probmix.ops.autocast import without_autocast
from pyro_probmix.ops.values import at_hand

__all__ = ["LogLinearPool", "log_linear_pool", "pool_alike", "pool_with_rows"]


class LogLinearPool(Pool):
    r"""Log-linear pool :math:`\tilde p(y) = e^\xi \prod_k p_k(y)^{w_k}` (eqs. 18, 38), a Pyro distribution.

    The components are members of one exponential family, and so is the pool, with natural parameters
    :math:`\tilde\eta = \sum_k w_k \eta_k`. It behaves as :attr:`fused` does, that member, and remembers what
    it was pooled from. Where Pyro makes a distribution anew from the class of a site, as ``compute_marginals`` of
    ``TraceEnum_ELBO`` does, give the site :attr:`fused`.

    Args:
        components: distributions of one family with equal event shapes and broadcasting batch shapes; or one
            distribution whose last batch dimension counts the components.
        weights: a tensor whose last dimension counts the components, or a sequence of numbers or tensors that
            broadcast with the batch; non-negative, summing to one, unless ``simplex`` is False.
        validate_args: whether values are checked; default: where a component's are.
        simplex: False for any finite weights: products of experts (all weights one), tempered members, ratios.
            Such a pool stays in families with base measure h = 1, and in others where the weights sum to one.

    Raises:
        TypeError: if a component is in no exponential family, or they are of different families.
        ValueError: if shapes do not match, fixed parameters differ, or the weights are off the simplex; with
            ``simplex=False``, if the pool leaves the family or the domain of its parameters.

    Example:
        >>> pool = LogLinearPool([dist.Normal(0.0, 1.0), dist.Normal(3.0, 2.0)], weights=[0.3, 0.7])
        >>> pool.fused
        Normal(loc: 1.1052..., scale: 1.4509...)
        >>> pool.log_normalizer
        tensor(0.6104)
    """

    def __init__(
        self,
        components: Components,
        weights: Weights,
        validate_args: bool | None = None,
        simplex: bool = True,
    ) -> None:
        self.components = _components(components)
        if validate_args is None:
            validate_args = any(map(validates, self.components))
        self._simplex = simplex
        self.fused, self._weights, self._forms = _fuse(self.components, weights, validate_args, simplex)
        super().__init__(self.fused.batch_shape, self.fused.event_shape, validate_args=validate_args)

    @property
    def weights(self) -> Tensor:
        """Weights, of shape ``batch_shape + (number of components,)``."""
        return torch.stack([w.expand(self.batch_shape) for w in self._weights], -1)

    @property
    def log_normalizer(self) -> Tensor:
        r"""Pooling normaliser :math:`\xi = \sum_k w_k A(\eta_k) - A(\tilde\eta)`, in nats; ≥ 0 on the simplex.

        A of one member, the pool's fused one included, is :func:`~pyro_probmix.distributions.log_normalizer`.
        """
        members, reference = _usual_parameters(self._forms)
        with without_autocast(reference):
            xi = self._forms[0].pooling_normalizer(members, self._weights, self._simplex)
        if not self._simplex:
            return xi.expand(self.batch_shape)
        # Rounding alone takes it below zero; the gradient is left as it is.
        return torch.where(xi < 0, xi - xi.detach(), xi).expand(self.batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogLinearPool:
        """The pool of the expanded components."""
        new: LogLinearPool = super().expand(batch_shape, _instance)
        new.fused = self.fused.expand(new.batch_shape)
        return new

    def map_batch(self, function: Change) -> LogLinearPool:
        """The pool with its batch changed, as :func:`~pyro_probmix.distributions.selection.map_batch` does."""
        new = copy.copy(self)
        new.fused = map_batch(self.fused, function)
        new.components = tuple(map_batch(member, function) for member in self.components)
        new._weights = [function(weight, 0) for weight in self._weights]
        new._forms = [exponential_family(form.map_batch(function)) for form in self._forms]
        new._batch_shape = new.fused.batch_shape
        return new

    def can_rsample(self) -> bool:
        return bool(self.fused.has_rsample)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return bool(self.fused.has_enumerate_support)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return self.fused.support

    @property
    def mean(self) -> Tensor:
        return asked(self.fused, "mean")

    @property
    def mode(self) -> Tensor:
        return mode(self.fused)

    @property
    def variance(self) -> Tensor:
        return asked(self.fused, "variance")

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return self.fused.sample(sample_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return self.fused.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.fused.log_prob(value)

    def cdf(self, value: Tensor) -> Tensor:
        return scalar_cdf(self.fused, value)

    def icdf(self, value: Tensor) -> Tensor:
        return scalar_icdf(self.fused, value)

    def entropy(self) -> Tensor:
        return entropy(self.fused)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return asked(self.fused, "enumerate_support", expand=expand)

    def __repr__(self) -> str:
        return f"LogLinearPool(fused: {self.fused}, components: {len(self.components)})"


def log_linear_pool(components: Components, weights: Weights, simplex: bool = True) -> Any:
    r"""The fused :math:`\tilde p(y) \propto \prod_k p_k(y)^{w_k}` (eqs. 18, 38) as a plain Pyro distribution.

    Args:
        components: as for :class:`LogLinearPool`.
        weights: as for :class:`LogLinearPool`.
        simplex: as for :class:`LogLinearPool`.

    Returns:
        The member of the components' family that is their pool. A weight of zero removes its component; a
        weight of one returns it.

    Raises:
        TypeError: as for :class:`LogLinearPool`.
        ValueError: as for :class:`LogLinearPool`.

    Example:
        >>> log_linear_pool([dist.Gamma(2.0, 1.0), dist.Gamma(4.0, 3.0)], [0.5, 0.5])
        Gamma(concentration: 3.0, rate: 2.0)
        >>> log_linear_pool([dist.Gamma(2.0, 1.0), dist.Gamma(4.0, 3.0)], [1, 1], simplex=False)
        Gamma(concentration: 5.0, rate: 4.0)
    """
    members = _components(components)
    fused, *_ = _fuse(members, weights, any(map(validates, members)), simplex)
    return fused


def _components(components: Components) -> tuple[Any, ...]:
    if not isinstance(components, Distribution):
        return tuple_of_distributions(components)
    _, size, _ = components_of(components)
    form, shape = exponential_family(components), components.batch_shape

    def component(k: int) -> Any:
        return form.map_batch(lambda t, d: t.expand(shape + t.shape[t.dim() - d :]).select(-1 - d, k))

    return tuple(map(component, range(size)))


def _fuse(
    components: Sequence[Any], weights: Weights, validate: bool, simplex: bool
) -> tuple[Any, list[Tensor], list[ExponentialFamily]]:
    """The pool of the components, their weights, one tensor each, and their natural forms without masks."""
    bases, mask = unmask(components)
    forms = _of_one_family(bases)
    members, reference = _usual_parameters(forms)
    split = split_weights(weights, len(components), broadcast_batch(components), reference, validate, simplex)
    kept = present(bases, split)
    if any(ours is not theirs for ours, theirs in zip(kept, bases, strict=True)):
        forms = [form if form.p is base else exponential_family(base) for form, base in zip(forms, kept, strict=True)]
        members, _ = _usual_parameters(forms)
    first = forms[0]
    _check_alike(forms)
    if validate:
        check_present(kept, split)
    with without_autocast(reference):
        parameters = first.pool(members, split) if simplex else _pool_off_simplex(first, members, split, validate)
    reason = first.domain_error(parameters) if validate and simplex else None
    if reason:
        raise ValueError(f"components: expected a common support, got a pool with {reason}")
    fused = first.build(parameters)
    set_validation(fused, validate)
    return (fused if mask is True else fused.mask(mask)), split, forms


def _of_one_family(bases: Sequence[Any]) -> list[ExponentialFamily]:
    """The natural forms of the components, which all belong to one family."""
    forms = [exponential_family(base) for base in bases]
    first = forms[0]
    for k, form in enumerate(forms[1:], 1):
        if type(form) is not type(first):
            raise TypeError(
                f"components: expected one family, got {type(first.p).__name__} and, "
                f"at index {k}, {type(form.p).__name__}; for scalars of different families use NumericalPool"
            )
        if form.p.event_shape != first.p.event_shape:
            _check_alike([first, form], k)
    return forms


def _check_alike(forms: Sequence[ExponentialFamily], start: int = 1) -> None:
    """Raises ValueError unless fixed parameters agree with the first's; the second is the component at ``start``."""
    for k, form in enumerate(forms[1:], start):
        reason = forms[0].mismatch(form)
        if reason:
            raise ValueError(f"components: expected {reason} at index {k}")


def _usual_parameters(forms: Sequence[ExponentialFamily]) -> tuple[Members, Tensor]:
    """The usual parameters of each component, floating ones in the dtype of the pool, and a tensor of that dtype."""
    each = [form.parameters for form in forms]
    reference = common_reference(t for parameters in each for t in parameters)
    dtype = reference.dtype
    if all(t.dtype == dtype for own in each for t in own):
        return each, reference
    return [tuple(t.to(dtype) if t.is_floating_point() else t for t in own) for own in each], reference


def _pool_off_simplex(first: ExponentialFamily, members: Members, weights: Sequence[Tensor], validate: bool) -> Tensors:
    """Usual parameters of the pool for weights off the simplex, where it is a member of the family."""
    name = _name(first.p)
    if validate and not first.constant_base:
        surplus = reduce(torch.add, weights).detach() - 1
        leaves = surplus.abs() > sum_tolerance(len(weights), surplus.dtype)
        if leaves.any():
            value = 1 + surplus[leaves].flatten()[0].item()
            raise ValueError(
                f"weights: expected a sum of 1, got {value:g}{at_index(leaves)}: the base measure h of {name} is not "
                "constant, so the pool, with h to the power of the sum, is in no family here; for scalars use "
                "NumericalPool"
            )
    try:
        pooled = first.canonical(*first.pool(members, weights, simplex=False))
        reason = first.domain_error(pooled, inside=True) if validate else None
    except RuntimeError as error:
        reason = str(error)
    if reason:
        raise ValueError(f"weights: expected a pool within the domain of {name}, got {reason}")
    return pooled


def pool_alike(components: Sequence[Any], weights: Sequence[Tensor]) -> Any:
    """:func:`log_linear_pool` of members of one batch shape by weights on the simplex, which are not validated."""
    forms = [exponential_family(component) for component in components]
    first, members = forms[0], [form.parameters for form in forms]
    unlike = any(first.mismatch(form) for form in forms[1:])
    if unlike or any(t.dtype != weights[0].dtype for t in members[0]):
        return log_linear_pool(components, weights)
    fused = first.build(first.pool(members, weights))
    set_validation(fused, False)
    return fused


def pool_with_rows(p: Any, dim: int, index: Tensor, weights: Sequence[Tensor]) -> Any:
    """:func:`log_linear_pool` of a batch and its members at ``index`` along ``dim``, which are not made for it.

    It is in every step. The two weights are w and 1 − w. None where more than the usual parameters has to be looked at,
    or with validation something may be wrong, which the general pool then says.
    """
    form = form_or_none(p)
    if form is None or form.p is not p or not form.varies_by_parameters:
        return None
    ours, change, validate = form.parameters, selected_along(p.batch_shape, dim, index), validates(p)
    if any(t.dtype != weights[0].dtype for t in ours) or (validate and not _are_sound(weights[0], ours)):
        return None
    theirs = [change(t, d) for t, d in zip(ours, form.parameter_dims, strict=True)]
    parameters = form.pool([ours, theirs], weights)
    if validate and form.domain_error(parameters):
        return None
    fused = form.build(parameters)
    set_validation(fused, validate)
    return fused


def _are_sound(weight: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether a weight is known to be in [0, 1] and parameters to be finite; no sum hides what is not."""
    if not all(map(at_hand, (weight, *parameters))):
        return False
    low, high = weight.detach().aminmax()
    return bool(low >= 0) and bool(high <= 1) and all(math.isfinite(t.detach().sum().item()) for t in parameters)


def _name(p: Any) -> str:
    return f"{type(p).__name__}({_name(p.base_dist)})" if hasattr(p, "base_dist") else type(p).__name__


@register_kl(LogLinearPool, LogLinearPool)
@register_kl(LogLinearPool, Distribution)
@register_kl(Delta, LogLinearPool)
@register_kl(Distribution, LogLinearPool)
def _kl(p: Any, q: Any) -> Tensor:
    """KL(p‖q) in closed form within a family, else PyTorch's; what a mask means is Pyro's to say."""
    p, q = resolved(p), resolved(q)
    try:
        ours, theirs = of_one_family(p, q)
    except (TypeError, ValueError):
        return kl_divergence(p, q)
    if isinstance(p, MaskedDistribution):
        return kl_divergence(p, q)
    return ours.expected_log_ratio(ours, theirs).expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))


@register_kl(Independent, torch.distributions.MultivariateNormal)
@register_kl(torch.distributions.Independent, MultivariateNormal)
@register_kl(Independent, MultivariateNormal)
def _kl_of_independent(p: Any, q: Any) -> Tensor:
    """Pyro's, which asks for the type of what ``p`` makes independent: that of a pool is its fused member's."""
    return _kl_independent_mvn(torch.distributions.Independent(resolved(p.base_dist), p.reinterpreted_batch_ndims), q)
