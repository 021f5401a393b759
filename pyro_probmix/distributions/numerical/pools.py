"""Pools of scalars of any families: the log-linear one, and the Hölder family between it, the linear one and beyond."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.components import Components, Weights, tuple_of_distributions, unmask
from pyro_probmix.distributions.numerical.distribution import NumericalDistribution
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["HolderPool", "NumericalPool", "numerical_pool"]

SERIES_BELOW = 1e-3


class NumericalPool(NumericalDistribution):
    r"""Log-linear pool :math:`\tilde p(y) = e^\xi \prod_k p_k(y)^{w_k}` (eq. 18) of scalars of any families.

    For what is not closed under pooling: StudentT, Laplace or Logistic, mixtures, a Normal with a Laplace.
    The support is that of all components with a weight, [−π, π] for a von Mises. Sampling is by the inverse cdf, and
    reparametrised. Where a family is closed, :class:`LogLinearPool` is exact and much faster.

    Args:
        components: distributions of scalars, event shape (), all of them densities or all of them on the
            integers, with broadcasting batch shapes; or one distribution whose last batch dimension counts
            the components.
        weights: a tensor whose last dimension counts the components, or a sequence of numbers or tensors that
            broadcast with the batch.
        simplex: whether weights must be non-negative and sum to one.
        accuracy: relative error of the normaliser aimed at; default: 1e-10 of a quadrature that adapts to components
            in double precision, else 1e-6.
        num_nodes: how many values of the components the normaliser is made of, at least 15; default: as many as the
            accuracy takes, and 751 where values cannot be looked at, under ``torch.func.vmap`` or ``torch.compile``.
        validate_args: whether values are checked; default: where a component's are.

    Raises:
        TypeError: if a component is not a distribution, or densities are mixed with laws on integers.
        ValueError: if shapes do not match, the supports have nothing in common, the weights are off the
            simplex, or, when it is first needed, the integral is infinite or the accuracy not reached. Where values
            cannot be looked at, the log-density is NaN instead.

    Example:
        >>> pool = NumericalPool([dist.Normal(0.0, 1.0), dist.Laplace(3.0, 1.0)], [0.5, 0.5])
        >>> pool.mean, pool.log_normalizer
        (tensor(0.9030), tensor(0.8227))
        >>> fixed = NumericalPool(pool.components, pool.weights, num_nodes=751)
        >>> fixed.log_normalizer, bool(fixed.error < 1e-6)
        (tensor(0.8227), True)
    """

    def combine(self, log_probs: Tensor, weights: Tensor) -> Tensor:
        # A weight of zero removes even a density of zero, and no gradient meets 0 · ∞.
        infinite = log_probs.isinf()
        product = weights * log_probs.masked_fill(infinite, 0)
        at_infinity = infinite & (weights != 0)
        return torch.where(at_infinity, log_probs.detach() * weights.detach().sign(), product).sum(-1)


def numerical_pool(
    components: Components,
    weights: Weights,
    simplex: bool = True,
    accuracy: float | None = None,
    num_nodes: int | None = None,
) -> Any:
    r"""The :class:`NumericalPool` of scalars; of independent ones, that of each by itself, and under their masks.

    Args:
        components: as for :class:`NumericalPool`, or all of them :class:`~pyro.distributions.Independent`; an output
            counts where no component masks it.
        weights: as for :class:`NumericalPool`.
        simplex: as for :class:`NumericalPool`.
        accuracy: as for :class:`NumericalPool`.
        num_nodes: as for :class:`NumericalPool`.

    Raises:
        TypeError: as for :class:`NumericalPool`.
        ValueError: as for :class:`NumericalPool`, or if the components have different independent dimensions.

    Example:
        >>> p, q = (dist.StudentT(3.0, torch.tensor([m, -m]), 1.0).to_event(1) for m in (0.0, 2.0))
        >>> numerical_pool([p, q], [0.5, 0.5]).mean
        tensor([ 1., -1.])
    """
    if isinstance(components, Distribution):
        return NumericalPool(components, weights, simplex, accuracy, num_nodes=num_nodes)
    members, mask = unmask(tuple_of_distributions(components))
    if mask is not True:
        return numerical_pool(members, weights, simplex, accuracy, num_nodes).mask(mask)
    ndims = {m.reinterpreted_batch_ndims if isinstance(m, torch.distributions.Independent) else 0 for m in members}
    if len(ndims) > 1:
        raise ValueError(f"components: expected one number of independent dimensions, got {sorted(ndims)}")
    (ndim,) = ndims
    if not ndim:
        return NumericalPool(members, weights, simplex, accuracy, num_nodes=num_nodes)
    split = weights.unbind(-1) if isinstance(weights, Tensor) else weights
    each = [unsqueeze_right(w, ndim) if isinstance(w, Tensor) else w for w in split]
    return Independent(numerical_pool([m.base_dist for m in members], each, simplex, accuracy, num_nodes), ndim)


class HolderPool(NumericalDistribution):
    r"""Power-mean pool :math:`\tilde p(y) = e^\xi \left(\sum_k w_k\, p_k(y)^a\right)^{1/a}` of scalars.

    a = 1 is the linear pool, the limit a → 0 the log-linear one, a = −1 the harmonic one; large a tends to
    the largest density, large −a to the smallest. For a > 0 the support is that of any component with a
    weight, for a ≤ 0 that of all of them. It is normalised numerically, as :class:`NumericalPool` is.

    Args:
        components: as for :class:`NumericalPool`.
        weights: as for :class:`NumericalPool`, on the simplex.
        exponent: a, a finite number or a tensor that broadcasts with the batch.
        accuracy: as for :class:`NumericalPool`.
        validate_args: whether values are checked; default: where a component's are.

    Raises:
        TypeError: as for :class:`NumericalPool`.
        ValueError: as for :class:`NumericalPool`, or if the exponent is not finite.

    Example:
        >>> components = [dist.Normal(0.0, 1.0), dist.Normal(4.0, 1.0)]
        >>> HolderPool(components, [0.5, 0.5], exponent=1.0).variance
        tensor(5.)
        >>> HolderPool(components, [0.5, 0.5], exponent=0.0).variance
        tensor(1.)
    """

    _own = ("exponent",)

    def __init__(
        self,
        components: Components,
        weights: Weights,
        exponent: float | Tensor,
        accuracy: float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(exponent, (Tensor, Real)):
            raise TypeError(f"exponent: expected a number or a tensor, got {type(exponent).__name__}")
        device = exponent.device if isinstance(exponent, Tensor) else "cpu"
        self.exponent = torch.as_tensor(exponent, dtype=torch.float64, device=device)
        if not bool(self.exponent.isfinite().all()):
            raise ValueError(f"exponent: expected finite numbers, got {exponent}")
        self._own_shape = self.exponent.shape
        super().__init__(components, weights, accuracy=accuracy, validate_args=validate_args)
        self.exponent = self.exponent.to(self._reference.device)

    def combine(self, log_probs: Tensor, weights: Tensor) -> Tensor:
        a = self.exponent
        weights = weights / weights.sum(-1, keepdim=True)
        log_probs, _, weights = torch.broadcast_tensors(log_probs, a.unsqueeze(-1), weights)
        counts, finite = weights != 0, log_probs.isfinite()
        both = counts & finite
        held = log_probs.masked_fill(~finite, 0)
        steered = a.unsqueeze(-1) * held.detach()
        index = torch.where(both, steered, -math.inf).argmax(-1, keepdim=True)
        leading = held.gather(-1, index.expand(held.shape[:-1] + (1,)))
        d = torch.where(finite, held - leading, 0)
        near = (a.abs() * torch.where(counts, d, 0).detach().abs().amax(-1) < SERIES_BELOW) & (finite | ~counts).all(-1)
        # As a → 0, the cumulants of log p; else relative to the leading term. Only what does not count can be so
        # large that its exponential must be held finite.
        series = self._cumulants(torch.where(near.unsqueeze(-1), d, 0).clamp(-1e60, 1e60), weights)
        exponent = (a.unsqueeze(-1) * torch.where(near.unsqueeze(-1), 0, d)).clamp(max=300)
        total = (torch.where(finite, weights, 0) * exponent.exp()).sum(-1)
        power = torch.where(total > 0, total, 1).log() / torch.where(near, 1, a)
        result = leading.squeeze(-1) + torch.where(near, series, power)
        none = torch.where(a > 0, ~(counts & finite).any(-1), (counts & (log_probs == -math.inf)).any(-1))
        infinite = torch.where(a > 0, (counts & (log_probs == math.inf)).any(-1), False)
        nan = (log_probs.isnan() & counts).any(-1)
        result = torch.where(infinite, math.inf, torch.where(none, -math.inf, result))
        return torch.where(nan, math.nan, result)

    def _cumulants(self, d: Tensor, weights: Tensor) -> Tensor:
        """The series in a of log(Σ w eᵃᵈ) / a."""
        mean = (weights * d).sum(-1)
        square, cube, fourth = ((weights * (d - mean.unsqueeze(-1)) ** k).sum(-1) for k in (2, 3, 4))
        a = self.exponent
        return mean + a * (square / 2 + a * (cube / 6 + a * (fourth - 3 * square**2) / 24))

    def combined_bounds(self, low: Tensor, high: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        least, most = torch.where(counts, low, math.inf).amin(-1), torch.where(counts, high, -math.inf).amax(-1)
        low, high = super().combined_bounds(low, high, counts)
        return torch.where(self.exponent > 0, least, low), torch.where(self.exponent > 0, most, high)
