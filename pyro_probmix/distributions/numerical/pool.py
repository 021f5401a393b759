"""The log-linear pool of scalars of any families."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.components import Components, Weights, tuple_of_distributions, unmask
from pyro_probmix.distributions.exponential_family import unsqueeze_right
from pyro_probmix.distributions.numerical.distribution import NumericalDistribution

__all__ = ["NumericalPool", "numerical_pool"]


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

    def __init__(
        self,
        components: Components,
        weights: Weights,
        simplex: bool = True,
        accuracy: float | None = None,
        validate_args: bool | None = None,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__(components, weights, simplex, accuracy, validate_args, num_nodes)

    def combine(self, log_probs: Tensor, weights: Tensor) -> Tensor:
        # A weight of zero removes even a density of zero, and no gradient meets 0 · ∞.
        infinite = log_probs.isinf()
        product = weights * log_probs.masked_fill(infinite, 0)
        at_infinity = infinite & (weights != 0)
        return torch.where(at_infinity, log_probs.detach() * weights.detach().sign(), product).sum(-1)

    def combined_bounds(self, low: Tensor, high: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        counts = weights != 0
        return torch.where(counts, low, -math.inf).amax(-1), torch.where(counts, high, math.inf).amin(-1)


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
