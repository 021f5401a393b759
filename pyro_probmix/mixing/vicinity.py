"""What label a mixed pair has: vicinity kernels s_β(ỹ|y) and their fusion (eq. 14)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import one_hot, softplus

from pyro_probmix.distributions import (
    LinearPool,
    exponential_family,
    is_exponential_family,
    linear_pool,
    natural_parameters,
)
from pyro_probmix.distributions.exponential_family import plain
from pyro_probmix.distributions.families.normal import LOG_2PI, MultivariateNormalFamily, NormalFamily
from pyro_probmix.mixing.batches import check_positive_integer

__all__ = ["DiracVicinity", "Fusion", "LabelVicinity", "NormalVicinity", "Vicinity", "default_vicinity"]

Fusion = Literal["linear", "log-linear"]


def check_fusion(fusion: Any) -> None:
    """Refuses what is no fusion function."""
    if fusion not in ("linear", "log-linear"):
        raise ValueError(f'fusion: expected "linear" or "log-linear", got {fusion!r}')


class Vicinity(ABC):
    r"""Kernel :math:`s_\beta(\tilde y|y)` and the fused vicinal density of a pair (eq. 14).

    Args:
        fusion: ``"linear"`` or ``"log-linear"`` pooling of the two kernels.

    Raises:
        ValueError: if ``fusion`` is neither.
    """

    def __init__(self, fusion: Fusion) -> None:
        check_fusion(fusion)
        self.fusion = fusion

    def check(self, p: Any, labels: str = "exact") -> None:
        """STUB."""

    @abstractmethod
    def fused(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, support: Any = constraints.real) -> Any:
        r"""The vicinal density :math:`p_\beta(\tilde y|y_i, y_j, \lambda)` (eq. 14) as a Pyro distribution.

        Args:
            y: labels, of shape ``(B,) + event_shape``.
            partner_y: the partners' labels, of the same shape.
            coefficient: λ, of shape ``(..., B)``.
            support: where one label lives, a constraint; tells event dimensions, and one-hot vectors from others.
        """

    @abstractmethod
    def expected_log_prob(self, p: Any, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> Tensor:
        r""":math:`\mathbb{E}_{\tilde y}[\log p(\tilde y)]` under the vicinal density, without sampling.

        Args:
            p: the distribution that scores the label, of batch shape ``(..., B)``.
            y: labels, of shape ``(B,) + p.event_shape``.
            partner_y: the partners' labels, of the same shape.
            coefficient: λ, of shape ``(..., B)``.

        Raises:
            ValueError: if the expectation has no closed form for ``p``.
        """


class DiracVicinity(Vicinity):
    r"""Labels as they are: the β → 0 limit.

    With log-linear fusion the label is interpolated, :math:`\tilde y = \lambda y_i + (1-\lambda) y_j` (eq. 9), the
    limit of Normal kernels. With linear fusion it is :math:`y_i` with probability λ and else :math:`y_j`
    (Assumption 4.2), which suits any kind of label.

    Args:
        fusion: default ``"log-linear"``.

    Example:
        >>> y, partner_y = torch.tensor([0.0]), torch.tensor([4.0])
        >>> DiracVicinity().fused(y, partner_y, torch.tensor([0.25])).mean
        tensor([3.])
    """

    def __init__(self, fusion: Fusion = "log-linear") -> None:
        super().__init__(fusion)

    def fused(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, support: Any = constraints.real) -> Any:
        event_dim = support.event_dim
        if self.fusion == "log-linear":
            return dist.Delta(_interpolate(y, partner_y, coefficient, event_dim), event_dim=event_dim)
        kernels = [dist.Delta(label, event_dim=event_dim) for label in (y, partner_y)]
        return linear_pool(kernels, [coefficient, 1 - coefficient])

    def expected_log_prob(self, p: Any, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> Tensor:
        if self.fusion == "log-linear":
            return p.log_prob(_interpolate(y, partner_y, coefficient, len(p.event_shape)))
        return _average(p.log_prob, y, partner_y, coefficient)

    def __repr__(self) -> str:
        return f'DiracVicinity(fusion="{self.fusion}")'


class NormalVicinity(Vicinity):
    r"""Normal kernel :math:`s_\beta(\tilde y|y) = \mathcal{N}(y, \beta I)` of Section 5, for real labels.

    Log-linear fusion gives :math:`\mathcal{N}(\lambda y_i + (1-\lambda) y_j, \beta I)`, linear fusion the mixture.

    Args:
        beta: variance β ≥ 0 in squared units of y; 0 is :class:`DiracVicinity`.
        fusion: default ``"log-linear"``.

    Raises:
        ValueError: if ``beta`` is negative or not finite, or ``fusion`` is unknown.

    Example:
        >>> NormalVicinity(0.01).fused(torch.zeros(2), torch.ones(2), torch.tensor([0.5, 1.0])).mean
        tensor([0.5000, 0.0000])
    """

    def __init__(self, beta: float, fusion: Fusion = "log-linear") -> None:
        super().__init__(fusion)
        self.beta = _check_beta(beta)
        self._dirac = DiracVicinity(fusion)

    def fused(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, support: Any = constraints.real) -> Any:
        if self.beta == 0:
            return self._dirac.fused(y, partner_y, coefficient, support)
        event_dim = support.event_dim
        if self.fusion == "log-linear":
            return self._kernel(_interpolate(y, partner_y, coefficient, event_dim), event_dim)
        kernels = [self._kernel(label, event_dim) for label in (y, partner_y)]
        return linear_pool(kernels, [coefficient, 1 - coefficient])

    def _kernel(self, y: Tensor, event_dim: int) -> Any:
        y = y if y.is_floating_point() else y.to(torch.get_default_dtype())
        return dist.Normal(y, math.sqrt(self.beta), validate_args=False).to_event(event_dim)

    def expected_log_prob(self, p: Any, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> Tensor:
        r"""Exact for Normal p: :math:`\log\mathcal{N}(m; \mu, \sigma^2) - \beta/(2\sigma^2)` at the kernel's mean m."""
        if self.beta == 0:
            return self._dirac.expected_log_prob(p, y, partner_y, coefficient)
        if self.fusion == "log-linear":
            return _expect(p, _interpolate(y, partner_y, coefficient, len(p.event_shape)), self.beta)
        return _average(lambda label: _expect(p, label, self.beta), y, partner_y, coefficient)

    def __repr__(self) -> str:
        return f'NormalVicinity({self.beta}, fusion="{self.fusion}")'


class LabelVicinity(Vicinity):
    r"""Kernel :math:`s_\beta(\tilde y = k|y) \propto \mathbb{1}[y = k] + \beta` of Section 5, for class labels.

    Args:
        beta: β ≥ 0, added to each class before normalisation.
        num_classes: number of classes C; labels are 0..C−1, or one-hot vectors of length C.
        fusion: default ``"linear"``; ``"log-linear"`` needs β > 0, for two different labels have no common support
            at β = 0.

    Raises:
        TypeError: if ``num_classes`` is no integer.
        ValueError: if ``beta`` is negative or not finite, if it is 0 with log-linear fusion, if there are fewer than
            two classes, or ``fusion`` is unknown.

    Example:
        >>> vicinity = LabelVicinity(0.0, num_classes=3)
        >>> vicinity.probabilities(torch.tensor([0]), torch.tensor([2]), torch.tensor([0.75]))
        tensor([[0.7500, 0.0000, 0.2500]])
    """

    def __init__(self, beta: float, num_classes: int, fusion: Fusion = "linear") -> None:
        super().__init__(fusion)
        self.beta = _check_beta(beta)
        self.num_classes = check_positive_integer("num_classes", num_classes)
        if self.num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
        if self.beta == 0 and fusion == "log-linear":
            raise ValueError(
                "beta: expected beta > 0 with log-linear fusion, got 0: two different labels have no common "
                'support; use beta > 0, or fusion="linear"'
            )

    @classmethod
    def smoothing(cls, label_smoothing: float, num_classes: int) -> LabelVicinity:
        r"""Label smoothing: the kernel that gives the label :math:`1 - \varepsilon + \varepsilon/C`, others ε/C.

        Args:
            label_smoothing: ε in [0, 1), as PyTorch's ``CrossEntropyLoss`` has it;
                :math:`\beta = \varepsilon/(C(1-\varepsilon))`.
            num_classes: number of classes C.

        Raises:
            ValueError: if ``label_smoothing`` is not in [0, 1), or there are fewer than two classes.

        Source: Szegedy et al., "Rethinking the Inception architecture for computer vision" (2016).

        Example:
            >>> y = torch.tensor([0])
            >>> LabelVicinity.smoothing(0.3, num_classes=3).probabilities(y, y, torch.ones(1))
            tensor([[0.8000, 0.1000, 0.1000]])
        """
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: expected a number in [0, 1), got {label_smoothing}")
        num_classes = check_positive_integer("num_classes", num_classes)
        return cls(label_smoothing / (num_classes * (1 - label_smoothing)), num_classes)

    def probabilities(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, is_one_hot: bool = False) -> Tensor:
        """P(ỹ = k) of the vicinal density (eq. 14), of shape ``(..., B, C)``.

        Args:
            y: labels 0..C−1 of shape ``(B,)``, or one-hot vectors of shape ``(B, C)``.
            partner_y: the partners' labels, of the same shape.
            coefficient: λ, of shape ``(..., B)``.
            is_one_hot: which of the two the labels are.
        """
        ours, theirs = (
            (label if is_one_hot else one_hot(label.long(), self.num_classes)).to(coefficient.dtype)
            for label in (y, partner_y)
        )
        if self.fusion == "linear":
            mixed = _interpolate(ours, theirs, coefficient, 1)
            return (mixed + self.beta) / (1 + self.num_classes * self.beta)
        ours, theirs = ((label + self.beta).clamp(min=torch.finfo(label.dtype).tiny).log() for label in (ours, theirs))
        return _interpolate(ours, theirs, coefficient, 1).softmax(-1)

    def fused(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, support: Any = constraints.real) -> Any:
        if _is_one_hot(support):
            probabilities = self.probabilities(y, partner_y, _unsqueeze(coefficient, support.event_dim - 1), True)
            one = dist.OneHotCategorical(probabilities, validate_args=False)
            return one.to_event(support.event_dim - 1)
        probabilities = self.probabilities(y, partner_y, _unsqueeze(coefficient, support.event_dim))
        return dist.Categorical(probabilities, validate_args=False).to_event(support.event_dim)

    def expected_log_prob(self, p: Any, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> Tensor:
        r"""The soft-label cross-entropy :math:`\sum_k P(\tilde y = k) \log p(k)`, exact for any p over the classes."""
        if isinstance(p, dist.MaskedDistribution):
            value = self.expected_log_prob(p.base_dist, y, partner_y, coefficient)
            return torch.where(torch.as_tensor(p._mask), value, 0)
        if isinstance(p, torch.distributions.Independent):
            ndims = p.reinterpreted_batch_ndims
            inner = self.expected_log_prob(p.base_dist, y, partner_y, _unsqueeze(coefficient, ndims))
            return inner.flatten(-ndims).sum(-1)
        if isinstance(p, (torch.distributions.Categorical, torch.distributions.OneHotCategorical)):
            log_p = p.logits
        elif isinstance(p, torch.distributions.Bernoulli):
            log_p = -softplus(torch.stack([p.logits, -p.logits], -1))
        elif isinstance(p, LinearPool) and p.has_enumerate_support:
            log_p = p.log_prob(p.enumerate_support()).movedim(0, -1)
        else:
            raise ValueError(
                f'labels: expected "sample" for {type(p).__name__}: LabelVicinity has exact label expectations '
                "for Categorical, OneHotCategorical and Bernoulli likelihoods and their linear pools"
            )
        if log_p.shape[-1] != self.num_classes:
            raise ValueError(
                f"num_classes: expected the likelihood's {log_p.shape[-1]} classes, got {self.num_classes}"
            )
        is_one_hot = _is_one_hot(p.support)
        probabilities = self.probabilities(y, partner_y, coefficient, is_one_hot)
        return (probabilities * torch.where(probabilities == 0, 0, log_p)).sum(-1)

    def __repr__(self) -> str:
        return f'LabelVicinity({self.beta}, {self.num_classes}, fusion="{self.fusion}")'


def default_vicinity(p: Any) -> Vicinity:
    """STUB."""
    return DiracVicinity("linear" if p.support.is_discrete else "log-linear")


def _interpolate(y: Tensor, partner_y: Tensor, coefficient: Tensor, coefficient_dims: int) -> Tensor:
    """λ yᵢ + (1 − λ) yⱼ, λ being broadcast over that many dimensions on the right."""
    weight = _unsqueeze(coefficient, coefficient_dims)
    return weight * y + (1 - weight) * partner_y


def _unsqueeze(coefficient: Tensor, dims: int) -> Tensor:
    return coefficient.reshape(coefficient.shape + (1,) * dims)


def _is_one_hot(support: Any) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.one_hot


def _average(score: Callable[[Tensor], Tensor], y: Tensor, partner_y: Tensor, coefficient: Tensor) -> Tensor:
    """λ score(yᵢ) + (1 − λ) score(yⱼ), a score of −∞ at weight 0 counting for nothing."""
    ours, theirs = score(y), score(partner_y)
    ours = torch.where(coefficient == 0, 0, ours)
    theirs = torch.where(coefficient == 1, 0, theirs)
    return coefficient * ours + (1 - coefficient) * theirs


def _expect(p: Any, mean: Tensor, variance: float) -> Tensor:
    """E[log p(y)] of a Normal family under independent Normals about ``mean``."""
    p = plain(p)
    if isinstance(p, dist.MaskedDistribution):
        return torch.where(torch.as_tensor(p._mask), _expect(p.base_dist, mean, variance), 0)
    if isinstance(p, torch.distributions.Independent):
        return _expect(p.base_dist, mean, variance).flatten(-p.reinterpreted_batch_ndims).sum(-1)
    family = exponential_family(p) if is_exponential_family(p) else None
    if type(family) is NormalFamily:
        squares = ((mean - p.loc).square() + variance) / p.scale.square()
        return -0.5 * LOG_2PI - torch.add(p.scale.log(), squares, alpha=0.5)
    if type(family) is MultivariateNormalFamily:
        return p.log_prob(mean) + variance * natural_parameters(p)[1].diagonal(dim1=-2, dim2=-1).sum(-1)
    raise ValueError(
        f'labels: expected "sample" for {type(p).__name__}: NormalVicinity has exact label expectations for '
        "Normal and MultivariateNormal likelihoods"
    )


def _check_beta(beta: float) -> float:
    value = float(beta)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"beta: expected a finite number of at least 0, got {beta}")
    return value
