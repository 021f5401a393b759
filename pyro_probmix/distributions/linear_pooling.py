"""Linear pools of distributions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix.distributions.components import Components, Weights, check_support, expanded
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.cumulative import scalar_cdf, scalar_icdf
from pyro_probmix.distributions.entropies import entropy
from pyro_probmix.distributions.mixtures import Mixture, parts_of
from pyro_probmix.distributions.modes import mode
from pyro_probmix.distributions.selection import Change
from pyro_probmix.distributions.supports import same_constraint
from pyro_probmix.distributions.weighted_pool import WeightedPool, asked
from pyro_probmix.ops.sums import log_weighted_sum, unsqueeze_right

__all__ = ["LinearPool", "linear_pool"]


class LinearPool(WeightedPool):
    r"""Linear pool :math:`\tilde p(y) = \sum_k w_k p_k(y)` (eq. 17), the mixture of the components.

    Args:
        components: distributions of any families with one support, equal event shapes and broadcasting batch
            shapes; or one distribution whose last batch dimension counts the components.
        weights: as for :class:`LogLinearPool`; default: equal weights.
        validate_args: whether values are checked; default: where a component's are.

    Raises:
        TypeError: if a component is not a distribution.
        ValueError: if shapes or supports do not match, or the weights are off the simplex.

    Example:
        >>> pool = LinearPool([dist.Normal(0.0, 1.0), dist.Laplace(3.0, 2.0)], weights=[0.25, 0.75])
        >>> pool.mean, pool.variance
        (tensor(2.2500), tensor(7.9375))
    """

    is_mixture = True

    def __init__(
        self, components: Components, weights: Weights | None = None, validate_args: bool | None = None
    ) -> None:
        super().__init__(components, weights, True, validate_args)
        self._members = tuple(map(corrected, self._given))
        check_support(self._members, self._validate_args)
        if self._validate_args and self._batched and not _alike(self._members[0].support):
            raise ValueError(f"components: expected one support, got {self._members[0].support} that differ")

    def expand(self, batch_shape: Any, _instance: Any = None) -> LinearPool:
        """The pool with this larger batch shape."""
        new: LinearPool = super().expand(batch_shape, _instance)
        if self._batched:
            shape = new.batch_shape + self._weights.shape[-1:]
            new._given, new._members = ((expanded(member, shape),) for (member,) in (self._given, self._members))
        return new

    def map_batch(self, function: Change) -> LinearPool:
        new: LinearPool = super().map_batch(function)
        new._members = tuple(map(corrected, new._given))
        return new

    @constraints.dependent_property
    def support(self) -> Any:
        support = self._members[0].support
        return _of_one_component(support, -1) if self._batched else support

    def can_rsample(self) -> bool:
        """Whether the components have it, and the weights no gradient, which none could reach through a choice."""
        return all(m.has_rsample for m in self._members) and not self._weights.requires_grad

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return all(m.has_enumerate_support for m in self._members)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = asked(self._members[0], "enumerate_support", expand=False)
        values = values.reshape(values.shape[:1] + (1,) * len(self.batch_shape) + self.event_shape)
        return values.expand(values.shape[:1] + self.batch_shape + self.event_shape) if expand else values

    def log_prob(self, value: Tensor) -> Tensor:
        every = value.unsqueeze(-1 - len(self.event_shape)) if self._batched else value
        if self._validate_args:
            (self._members[0] if self._batched else self)._validate_sample(every)
        log_probs = self._stacked([member.log_prob(every) for member in self._members])
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[: value.dim() - len(self.event_shape)])
        return log_weighted_sum(log_probs, self._weights).expand(shape)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.draw_by(lambda p, shape: p.sample(shape), torch.Size(sample_shape))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """A draw with the gradient of the component it is from."""
        if not self.can_rsample():
            raise NotImplementedError(
                "rsample: expected components that have it and weights without gradient; sample has neither need"
            )
        return self.draw_by(lambda p, shape: p.rsample(shape), torch.Size(sample_shape))

    def draw_by(self, draw: Callable[[Any, torch.Size], Tensor], sample_shape: torch.Size) -> Tensor:
        """A draw of the pool by another sampler of its components.

        Args:
            draw: from a distribution and a sample shape, a draw of shape ``sample_shape + batch_shape + event_shape``.
            sample_shape: shape in front of the batch shape.

        Returns:
            A tensor of shape ``sample_shape + batch_shape + event_shape``, the component having been chosen by the
            weights, to which there is no gradient.

        Example:
            >>> pool = LinearPool([dist.Normal(0.0, 1.0), dist.Normal(4.0, 1.0)])
            >>> set(pool.draw_by(lambda p, shape: p.mean.expand(shape), torch.Size([100])).tolist())
            {0.0, 4.0}
        """
        dim = -1 - len(self.event_shape)
        categorical = torch.distributions.Categorical(probs=self.weights, validate_args=False)
        shape = sample_shape + self.batch_shape  # PyTorch chooses none of no number
        chosen = categorical.sample(sample_shape) if shape.numel() else self._weights.new_zeros(shape, dtype=torch.long)
        if self._batched:
            values = draw(expanded(self._members[0], self.weights.shape), sample_shape)
        else:
            members = [expanded(m, self.batch_shape) for m in self._members]
            values = torch.stack([draw(m, sample_shape) for m in members], dim)
        index = unsqueeze_right(chosen.unsqueeze(-1), len(self.event_shape))
        index = index.expand(sample_shape + self.batch_shape + (1,) + self.event_shape)
        return values.gather(dim, index).squeeze(dim)

    def cdf(self, value: Tensor) -> Tensor:
        """Σₖ wₖ Fₖ(value), of scalars; 0 before the support and 1 behind it."""
        return scalar_cdf(self, value)

    def icdf(self, value: Tensor) -> Tensor:
        """The least values whose cdf reaches these shares, of scalars: see :func:`pyro_probmix.quantile`."""
        return scalar_icdf(self, value)

    def entropy(self) -> Tensor:
        """As :func:`~pyro_probmix.entropy` finds it: by quadrature, or a sum over finitely many values."""
        return entropy(self)

    @property
    def mode(self) -> Tensor:
        """The value of the highest density or mass: see :func:`pyro_probmix.mode`."""
        return mode(self)

    @property
    def mean(self) -> Tensor:
        return self._expected(lambda p, _: asked(p, "mean"))

    @property
    def variance(self) -> Tensor:
        mean = self.mean

        def about_the_mean(p: Any, dims: int) -> Tensor:
            center = mean.reshape(self.batch_shape + (1,) * dims + self.event_shape) if dims else mean
            return asked(p, "variance") + (asked(p, "mean") - center).square()  # type: ignore[no-any-return]

        return self._expected(about_the_mean)

    def _expected(self, moment: Callable[[Any, int], Tensor]) -> Tensor:
        """Σₖ wₖ mₖ, given a distribution of components and how many dimensions behind the batch count them."""
        size, sums = len(self.event_shape), []
        for p, weights, dims in parts_of(Mixture(list(self._members), self._batched, self._weights)):
            weights = unsqueeze_right(weights, size)
            products = weights * _where_counted(weights, moment(p, dims))
            sums.append(products.sum(tuple(range(-dims - size, -size))) if dims else products)
        return reduce(torch.add, sums).expand(self.batch_shape + self.event_shape)


def _alike(support: Any) -> bool:
    """Whether the components, which the last dimension counts in the bounds of their support, have one support."""
    return same_constraint(support, _of_one_component(support, -1, keepdim=True), validate=True)


def _of_one_component(support: Any, dim: int, keepdim: bool = False) -> Any:
    """The support of the first of the components, which ``dim`` counts in the bounds."""
    changed = {}
    for name, value in vars(support).items():
        if isinstance(value, constraints.Constraint):
            inner = dim - getattr(support, "reinterpreted_batch_ndims", 0)
            changed[name] = _of_one_component(value, inner, keepdim)
        elif isinstance(value, Tensor) and value.dim() >= -dim:
            changed[name] = value.narrow(dim, 0, 1) if keepdim else value.select(dim, 0)
    if all(value is getattr(support, name) for name, value in changed.items()):
        return support  # many are known by which they are
    own = copy.copy(support)
    vars(own).update(changed)
    return own


def _where_counted(weights: Tensor, values: Tensor) -> Tensor:
    """The values, without what is not finite and has weight 0."""
    return torch.where((weights == 0) & ~values.isfinite(), 0, values)


def linear_pool(components: Components, weights: Weights | None = None) -> LinearPool:
    r"""The mixture :math:`\sum_k w_k p_k(y)` (eq. 17).

    Args:
        components: as for :class:`LinearPool`.
        weights: as for :class:`LinearPool`; default: equal weights.

    Raises:
        TypeError: if a component is not a distribution.
        ValueError: if shapes or supports do not match, or the weights are off the simplex.

    Example:
        >>> linear_pool([dist.Bernoulli(0.2), dist.Bernoulli(0.6)], [0.5, 0.5]).mean
        tensor(0.4000)
    """
    return LinearPool(components, weights)
