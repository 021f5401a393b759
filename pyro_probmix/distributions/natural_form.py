"""The natural form of a distribution: η, T, A, h and the mean parameters, of any family and wrapper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.exponential_family import exponential_family, validates

__all__ = [
    "from_natural_parameters",
    "log_base_measure",
    "log_normalizer",
    "mean_parameters",
    "natural_parameters",
    "sufficient_statistics",
]


def natural_parameters(p: Distribution) -> tuple[Tensor, ...]:
    r"""Natural parameters :math:`\eta` of ``p`` (eq. 40), in the family's documented order.

    Args:
        p: a member of an exponential family, of batch shape ``(...)``.

    Returns:
        One tensor a statistic: batch shape, then the statistic's own dimensions.

    Raises:
        TypeError: if ``p`` belongs to no family here.

    Example:
        >>> natural_parameters(dist.Normal(1.0, 0.5))
        (tensor(4.), tensor(-2.))
    """
    form = exponential_family(p)
    return form.to_natural(*form.parameters)


def from_natural_parameters(p: Distribution, eta: Sequence[Tensor]) -> Any:
    r"""The member of ``p``'s family with natural parameters ``eta``.

    Args:
        p: gives the family, the fixed parameters and the wrappers.
        eta: natural parameters, in the order of :func:`natural_parameters`.

    Raises:
        TypeError: if ``p`` belongs to no family here.
        ValueError: if the number of tensors is not the family's, or, where ``p`` validates its arguments, if
            ``eta`` is outside the natural parameter space.

    Example:
        >>> from_natural_parameters(dist.Normal(0.0, 1.0), (torch.tensor(4.0), torch.tensor(-2.0)))
        Normal(loc: 1.0, scale: 0.5)
    """
    form = exponential_family(p)
    name, expected = type(form.p).__name__, len(form.natural_dims)
    if len(eta) != expected:
        raise ValueError(f"eta: expected {expected} natural parameters of {name}, got {len(eta)}")
    try:
        parameters = form.from_natural(*eta)
        reason = form.domain_error(parameters, inside=True) if validates(form.p) else None
    except RuntimeError as error:
        reason = str(error)
    if reason:
        raise ValueError(f"eta: expected natural parameters of {name}, got {reason}")
    return form.build(form.canonical(*parameters))


def sufficient_statistics(p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
    """Sufficient statistics T(y) of ``p``'s family (eq. 40).

    Args:
        p: gives the family.
        y: values of shape ``sample_shape + batch_shape + event_shape``.

    Raises:
        TypeError: if ``p`` belongs to no family here.

    Example:
        >>> sufficient_statistics(dist.Normal(0.0, 1.0), torch.tensor(3.0))
        (tensor(3.), tensor(9.))
    """
    return exponential_family(p).sufficient_statistics(y)


def mean_parameters(p: Distribution) -> tuple[Tensor, ...]:
    r"""Mean parameters :math:`\mathbb{E}_p[T(y)] = \nabla A(\eta)`.

    Raises:
        TypeError: if ``p`` belongs to no family here.

    Example:
        >>> mean_parameters(dist.Normal(1.0, 2.0))
        (tensor(1.), tensor(5.))
    """
    form = exponential_family(p)
    return form.expected_sufficient_statistics(*form.parameters)


def log_normalizer(p: Distribution) -> Tensor:
    r"""Log-normalizer :math:`A(\eta)` of ``p`` (eq. 40), of the batch shape.

    Of a pool it is that of the fused member; what normalises the product of its components, ξ, is
    :attr:`LogLinearPool.log_normalizer`.

    Raises:
        TypeError: if ``p`` belongs to no family here.

    Example:
        >>> log_normalizer(dist.Poisson(3.0))
        tensor(3.)
    """
    form = exponential_family(p)
    return form.log_normalizer(*form.parameters)


def log_base_measure(p: Distribution, y: Tensor) -> Tensor:
    """log h(y) of ``p``'s family (eq. 40).

    Args:
        p: gives the family.
        y: values of shape ``sample_shape + batch_shape + event_shape``.

    Raises:
        TypeError: if ``p`` belongs to no family here.

    Example:
        >>> log_base_measure(dist.Poisson(3.0), torch.tensor(2.0))
        tensor(-0.6931)
    """
    return exponential_family(p).log_base_measure(y)
