"""Entropies: exact, by quadrature, or from draws."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution

from pyro_probmix._checks import check_choice, check_integer
from pyro_probmix._random import seeded
from pyro_probmix.distributions.classes import class_log_probabilities, joint_values
from pyro_probmix.distributions.corrected import corrected, corrected_class
from pyro_probmix.distributions.expectations import expected_log_prob
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.families.jacobians import expected_log_jacobian
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.numerical import NumericalDistribution, NumericalPool
from pyro_probmix.distributions.supports import is_one_hot, num_classes
from pyro_probmix.distributions.transforms import independent_entries
from pyro_probmix.ops.sums import masked_sum, sum_right

__all__ = ["entropy"]

METHODS = "exact", "quadrature", "samples"

# Families of no natural form whose entropy PyTorch has right.
CLOSED = {
    law
    for name in ("Cauchy", "GeneralizedPareto", "HalfCauchy", "Logistic", "StudentT")
    for home in (torch.distributions, dist)
    if hasattr(home, name)
    for law in (getattr(home, name), corrected_class(getattr(home, name)))
}


class _Impossible(Exception):
    """There is no entropy by this method, for the reason given."""


def entropy(p: Any, method: str | None = None, num_samples: int = 10_000, seed: int = 0) -> Tensor:
    r"""Entropy :math:`-\mathbb{E}_p[\log p]`, exact where it is known, else by quadrature.

    Exact are exponential families, :math:`A(\eta) - \langle\eta, \nabla A(\eta)\rangle - \mathbb{E}_p[\log h]`, points
    (by their log-density), Student's t, Cauchy, logistic and generalised Pareto laws, laws of finitely many values and
    mixtures of them, and bijections of all these whose expected log-Jacobian is known: affine maps of any, the
    exponential of what has a known mean. The quadrature, in double precision, is for any other scalar: mixtures, pools,
    transforms, counts, by a sum. Entropies of independent entries add up. What is left, a mixture of vectors above all,
    has an estimate from draws, when it is asked for.

    Args:
        p: any distribution, of batch shape ``(...)``. Masks do not count: they belong to the sites, not to the laws.
        method: ``"exact"``; ``"quadrature"``, to a relative error of 1e-10 in the mass for parameters in double
            precision, else 1e-6; ``"samples"``, the mean of ``num_samples`` draws; default: the first of the exact one
            and the quadrature that is possible.
        num_samples: number of draws.
        seed: seed of the draws; the global random state is left alone.

    Returns:
        Nats, of the batch shape; differentiable in the parameters of ``p`` by each of the methods.

    Raises:
        TypeError: if ``p`` is not a distribution.
        NotImplementedError: if no method is given, and none but draws is possible.
        ValueError: if there is no such method, or not for ``p``, or the quadrature does not find the mass.

    Example:
        >>> entropy(dist.Exponential(1.0))
        tensor(1.)
        >>> entropy(pm.LinearPool([dist.Normal(-9.0, 1.0), dist.Normal(9.0, 1.0)]), method="quadrature")
        tensor(2.1121)
        >>> vectors = dist.MultivariateNormal(torch.eye(2), torch.eye(2))
        >>> entropy(pm.LinearPool(vectors), method="samples", num_samples=1000)
        tensor(3.0...)
    """
    if not isinstance(p, Distribution):
        raise TypeError(f"p: expected a torch or Pyro distribution, got {type(p).__name__}")
    if method is not None:
        check_choice("method", method, METHODS)
    check_integer("num_samples", num_samples)
    p = corrected(p)
    if method == "samples":
        found = _by_draws(p, num_samples, seed)
    else:
        try:
            found = _entropy(p, method)
        except _Impossible as reason:
            if method is None:
                raise NotImplementedError(f'p: {reason}; method="samples" estimates it from draws') from None
            raise ValueError(f'method: expected another than "{method}" for {type(p).__name__}: {reason}') from None
    return found.to(reference_tensor([p]).dtype).expand(p.batch_shape)


def _entropy(p: Any, method: str | None) -> Tensor:
    p = resolved(p)
    if isinstance(p, (MaskedDistribution, ExpandedDistribution)):
        return _entropy(p.base_dist, method)
    entries = independent_entries(p)
    if entries is not None:
        base, ndims = entries
        return sum_right(_entropy(base, method).expand(base.batch_shape), ndims)
    if method == "quadrature":
        return _by_quadrature(p)
    try:
        return _exactly(p)
    except _Impossible:
        if method == "exact":
            raise
        return _by_quadrature(p)


def _exactly(p: Any) -> Tensor:
    if type(p) in CLOSED:
        return p.entropy()
    try:
        return -expected_log_prob(p, p)
    except (TypeError, NotImplementedError):
        pass
    if isinstance(p, dist.MultivariateStudentT):
        return _of_multivariate_student(p)
    if isinstance(p, TransformedDistribution) and all(t.bijective for t in p.transforms):
        with suppress(NotImplementedError):
            return _entropy(p.base_dist, "exact") + expected_log_jacobian(p.transforms, p.base_dist)
    if num_classes(p) is not None and len(p.event_shape) == is_one_hot(p.support):
        log_p = class_log_probabilities(p)
    else:
        values = joint_values(p)
        if values is None:
            raise _Impossible("there is no closed form here")
        log_p = p.log_prob(values).movedim(0, -1)
    return -masked_sum([log_p], [log_p.exp()]).sum(-1)


def _of_multivariate_student(p: Any) -> Tensor:
    size = p.event_shape[0]
    half, more = 0.5 * p.df, 0.5 * (p.df + size)
    log_peak = more.lgamma() - half.lgamma() - 0.5 * size * (p.df * torch.pi).log()
    log_scale = p.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return log_scale - log_peak + more * (more.digamma() - half.digamma())


def _by_quadrature(p: Any) -> Tensor:
    if p.event_shape:
        raise _Impossible(
            f"expected scalars, independent entries or a law whose entropy is known, got {type(p).__name__} of event "
            f"shape {tuple(p.event_shape)}"
        )
    if 0 in p.batch_shape:
        return reference_tensor([p]).new_zeros(p.batch_shape)
    if isinstance(p, NumericalDistribution):
        return p.entropy()
    try:
        return NumericalPool([p], [1.0], validate_args=False).entropy()
    except TypeError as error:
        raise _Impossible(str(error).replace("components: ", "")) from None
    except ValueError as error:
        reason = str(error).replace("components, weights: ", "")
        raise ValueError(f"p: expected a law whose mass can be found, got {type(p).__name__}: {reason}") from None


def _by_draws(p: Any, num_samples: int, seed: int) -> Tensor:
    p = resolved(p)
    if isinstance(p, (MaskedDistribution, ExpandedDistribution)):
        return _by_draws(p.base_dist, num_samples, seed).expand(p.batch_shape)
    if isinstance(p, Independent):  # whose parts may be masked
        return sum_right(_by_draws(p.base_dist, num_samples, seed), p.reinterpreted_batch_ndims)
    with torch.no_grad(), seeded(seed, reference_tensor([p]).device):
        y = p.sample((num_samples,))
    surprise = -p.log_prob(y)
    mean = surprise.detach().mean(0)
    # The law of the draws depends on the parameters, too: each draw has its likelihood ratio, one, as a factor.
    ratio = (surprise.detach() - surprise).exp()
    return mean + (ratio * (surprise - mean)).mean(0)
