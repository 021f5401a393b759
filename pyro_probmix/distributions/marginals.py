"""The marginals of vectors."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution

from pyro_probmix.distributions.components import expanded
from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.exponential_family import resolved, set_validation, validates
from pyro_probmix.distributions.linear_pooling import LinearPool
from pyro_probmix.distributions.mixtures import Mixture, mixture_of
from pyro_probmix.distributions.selection import map_batch
from pyro_probmix.distributions.transforms import elementwise_transforms

__all__ = ["marginals"]


def marginals(p: Any) -> Any:
    """The distribution of each entry of a vector by itself, without masks; of a scalar, its distribution.

    Args:
        p: a distribution of scalars, or one of vectors whose marginals are known: independent ones, Normal, Student's
            t, Dirichlet, counts that share a total, elementwise transforms, mixtures, pools and wrappers of them.

    Returns:
        A distribution of batch shape ``batch_shape + event_shape`` and event shape ().

    Raises:
        TypeError: if p is no distribution, or its marginals are not known.

    Example:
        >>> marginals(dist.MultivariateNormal(torch.zeros(2), torch.diag(torch.tensor([1.0, 4.0])))).scale
        tensor([1., 2.])
        >>> marginals(dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0]))).mean
        tensor([0.1667, 0.3333, 0.5000])
    """
    if not isinstance(p, Distribution):
        raise TypeError(f"p: expected a torch or Pyro distribution, got {type(p).__name__}")
    found = _marginals(p)
    shape = p.batch_shape + p.event_shape
    return found if found.batch_shape == shape else expanded(found, shape)


def _marginals(p: Any) -> Any:
    """As :func:`marginals`, of a batch shape that broadcasts with its."""
    p = resolved(p)
    if isinstance(p, (MaskedDistribution, ExpandedDistribution)):
        return expanded(_marginals(p.base_dist), p.base_dist.batch_shape + p.base_dist.event_shape)
    if not p.event_shape:
        return p
    if isinstance(p, torch.distributions.Independent):
        return marginals(p.base_dist)
    mixture = mixture_of(p)
    if mixture is not None:
        return _of_mixture(p, mixture)
    found = _by_family(p)
    if found is None and isinstance(p, TransformedDistribution):
        found = _of_transformed(p)
    if found is None:
        raise TypeError(
            f"p: expected a distribution whose marginals are known (independent entries, Normal, Student's t, "
            f"Dirichlet, Multinomial, elementwise transforms, mixtures and pools of them), got {type(p).__name__}; "
            "draws have them all: torch.quantile(p.sample((1000,)), q, 0)"
        )
    set_validation(found, validates(p))
    return found


def _by_family(p: Any) -> Any:
    """Of one of the families known, None of another."""
    if isinstance(p, (torch.distributions.MultivariateNormal, torch.distributions.LowRankMultivariateNormal)):
        return dist.Normal(p.loc, p.variance.sqrt(), validate_args=False)
    if isinstance(p, dist.MultivariateStudentT):
        return dist.StudentT(p.df.unsqueeze(-1), p.loc, p.scale_tril.norm(dim=-1), validate_args=False)
    if isinstance(p, torch.distributions.Dirichlet):
        return corrected_class(dist.Beta)(p.concentration, _others(p.concentration), validate_args=False)
    if isinstance(p, torch.distributions.Multinomial):
        return corrected_class(dist.Binomial)(p.total_count, p.probs, validate_args=False)
    if isinstance(p, dist.DirichletMultinomial):
        total = p.total_count.unsqueeze(-1) if isinstance(p.total_count, Tensor) else p.total_count
        law = corrected_class(dist.BetaBinomial)
        return law(p.concentration, _others(p.concentration), total, validate_args=False)
    if isinstance(p, torch.distributions.OneHotCategorical):
        return dist.Bernoulli(p.probs, validate_args=False)
    if isinstance(p, dist.Delta):
        return dist.Delta(p.v, validate_args=False)
    if isinstance(p, dist.Empirical):
        samples, weights = p._samples.movedim(len(p.batch_shape), -1), p._log_weights
        weights = weights.reshape(p.batch_shape + (1,) * len(p.event_shape) + weights.shape[-1:]).expand_as(samples)
        return dist.Empirical(samples, weights, validate_args=False)
    return None


def _others(values: Tensor) -> Tensor:
    """For each entry along the last dimension the sum of the others, in which nothing cancels."""
    nothing = torch.zeros_like(values[..., :1])
    before = torch.cat([nothing, values[..., :-1].cumsum(-1)], -1)
    behind = torch.cat([values[..., 1:].flip(-1).cumsum(-1).flip(-1), nothing], -1)
    return before + behind


def _of_transformed(p: Any) -> Any:
    transforms = elementwise_transforms(p)
    if transforms is None:
        return None
    return dist.TransformedDistribution(marginals(p.base_dist), transforms, validate_args=False)


def _of_mixture(p: Any, mixture: Mixture) -> LinearPool:
    """The pool of the components' marginals by the same weights."""
    events, weights = (1,) * len(p.event_shape), mixture.weights
    weights = weights.reshape(weights.shape[:-1] + events + weights.shape[-1:])
    if not mixture.batched:
        return LinearPool([marginals(m) for m in mixture.members], weights, validate_args=False)
    (together,) = mixture.members
    each = marginals(expanded(together, p.batch_shape + together.batch_shape[-1:]))
    batch, dim = each.batch_shape, len(p.batch_shape)

    def components_last(tensor: Tensor, event_dim: int) -> Tensor:
        full = tensor.expand(batch + tensor.shape[tensor.dim() - event_dim :])
        return full.movedim(dim, len(batch) - 1)

    return LinearPool(map_batch(each, components_last), weights, validate_args=False)
