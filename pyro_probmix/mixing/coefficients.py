"""The mixing coefficient λ: the check of its density, and the sampler that it is drawn with."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Tensor

from pyro_probmix.distributions.expanded_beta import ExpandedBeta
from pyro_probmix.distributions.held_tensors import map_tensors
from pyro_probmix.distributions.log_space_beta import LogSpaceBeta
from pyro_probmix.distributions.supports import bounds, elementwise, is_binary
from pyro_probmix.mixing.quadrature import GaussJacobi

__all__ = ["LogSpaceBeta", "as_coefficient", "coefficient_to"]


def as_coefficient(distribution: torch.distributions.Distribution) -> TorchDistribution:
    """Check a density of the mixing coefficient, and give it a sampler with the right law.

    A Beta comes back as :class:`LogSpaceBeta`. Every other distribution keeps its own sampler; one of
    ``torch.distributions`` comes back as a Pyro distribution. A mask is taken off: no log-probability of the
    coefficient is ever counted.

    Args:
        distribution: Any distribution of a scalar within [0, 1], such as Beta, Delta, Uniform, Bernoulli or
            a mixture, or an ExpandedBeta, which alone leaves it. Its batch shape is (), or broadcasts with the
            edges of a batch, which have a λ each.

    Raises:
        TypeError: If ``distribution`` is not a distribution.
        ValueError: If it is not of a scalar, its support is unknown or leaves [0, 1], or the concentrations
            of a Beta are not positive and finite, whether or not arguments are validated.

    Example:
        >>> as_coefficient(dist.Beta(0.2, 0.2)).sample((3,)).shape
        torch.Size([3])
        >>> as_coefficient(dist.Uniform(0.0, 2.0))
        Traceback (most recent call last):
        ...
        ValueError: coefficient: expected a support within [0, 1], got Uniform on [0.0, 2.0]
    """
    if not isinstance(distribution, torch.distributions.Distribution):
        raise TypeError(
            "coefficient: expected a distribution, such as Beta(0.2, 0.2) or Delta(torch.tensor(0.5)), "
            f"got {type(distribution).__name__}"
        )
    if isinstance(distribution, dist.MaskedDistribution):
        return as_coefficient(distribution.base_dist)
    if distribution.event_shape != ():
        raise ValueError(
            "coefficient: expected a distribution of a scalar, event shape (), "
            f"got {type(distribution).__name__} with event shape {tuple(distribution.event_shape)}"
        )
    if isinstance(distribution, (torch.distributions.Beta, ExpandedBeta)):
        _check_concentrations(distribution)
        if isinstance(distribution, (LogSpaceBeta, ExpandedBeta)):
            return distribution
        a1, a0 = distribution.concentration1, distribution.concentration0
        return LogSpaceBeta(a1, a0, validate_args=distribution._validate_args)
    _check_support(distribution)
    if isinstance(distribution, TorchDistributionMixin):
        return distribution
    return dist.Independent(distribution, 0)


def coefficient_to(distribution: TorchDistribution, device: torch.device, dtype: torch.dtype) -> TorchDistribution:
    """Return the law with its parameters on a device and in a dtype.

    Args:
        distribution: What :func:`as_coefficient` returned; of whatever kind, for all tensors that it holds are moved.
        device: Where λ is drawn.
        dtype: The dtype of λ.

    Example:
        >>> coefficient = as_coefficient(dist.Beta(0.2, 0.2))
        >>> coefficient_to(coefficient, torch.device("cpu"), torch.float64).sample().dtype
        torch.float64
    """
    if isinstance(distribution, GaussJacobi):  # keeps its nodes in double precision
        return distribution.to(device, dtype)

    def move(tensor: Tensor) -> Tensor:
        kept = dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(device, kept, non_blocking=device.type == "cuda")

    return map_tensors(distribution, move)


def _check_concentrations(beta: torch.distributions.Beta | ExpandedBeta) -> None:
    for name in ("concentration1", "concentration0"):
        value = getattr(beta, name).detach()
        good = (value > 0) & (value < float("inf"))
        if not bool(good.all()):
            bad = value[~good][0].item()
            raise ValueError(f"coefficient: expected a positive, finite {name}, got {bad}")


def _check_support(distribution: torch.distributions.Distribution) -> None:
    name = type(distribution).__name__
    if isinstance(distribution, dist.Delta):
        lower = upper = distribution.v
    else:
        try:
            support = distribution.support
        except NotImplementedError:
            support = None
        ends = bounds(support)
        if ends is None or (elementwise(support).is_discrete and not is_binary(support)):
            raise ValueError(f"coefficient: expected a support within [0, 1], got {name}, whose support is {support}")
        lower, upper = ends
    lower, upper = torch.as_tensor(lower).min().item(), torch.as_tensor(upper).max().item()
    if not (lower >= 0 and upper <= 1):
        raise ValueError(f"coefficient: expected a support within [0, 1], got {name} on [{lower}, {upper}]")
