"""What label a mixed pair has: vicinity kernels s_β(ỹ|y) and their fusion (eq. 14)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal, NoReturn, get_args

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import one_hot, softplus

from pyro_probmix._checks import check_choice, check_integer, check_number
from pyro_probmix.distributions import NumericalPool, linear_pool, log_linear_pool, supports
from pyro_probmix.distributions.expectations import expected_log_prob, point
from pyro_probmix.distributions.exponential_family import form_or_none, is_exponential_family, resolved, unwrapped
from pyro_probmix.distributions.families.normal import NormalFamily
from pyro_probmix.distributions.supports import is_circular, is_convex, num_classes
from pyro_probmix.ops.special import LOG_2PI
from pyro_probmix.ops.sums import sum_right, unsqueeze_right

__all__ = ["DiracVicinity", "Fusion", "LabelVicinity", "NormalVicinity", "Vicinity", "default_vicinity"]

Fusion = Literal["linear", "log-linear"]


class Vicinity(ABC):
    r"""Kernel :math:`s_\beta(\tilde y|y)` and the fused vicinal density of a pair (eq. 14).

    A subclass says what :meth:`kernel` is, a distribution of one family; all else follows. Masks and weights are none
    of its business.

    Args:
        fusion: ``"linear"`` or ``"log-linear"`` pooling of the two kernels; default: the latter.

    Raises:
        ValueError: if ``fusion`` is neither.

    Example:
        >>> class GammaVicinity(Vicinity):
        ...     def __init__(self, shape, fusion="log-linear"):
        ...         super().__init__(fusion)
        ...         self.shape = shape
        ...     def kernel(self, y, support=None):
        ...         return dist.Gamma(self.shape, self.shape / y)
        >>> likelihood = pm.nn.DistributionLikelihood(dist.Gamma)
        >>> network = pm.nn.MLP(2, [8], likelihood.num_outputs)
        >>> model = pm.ProbMix(network, likelihood, vicinity=GammaVicinity(torch.tensor(50.0)))
    """

    def __init__(self, fusion: Fusion = "log-linear") -> None:
        check_choice("fusion", fusion, get_args(Fusion))
        self.fusion = fusion

    def __repr__(self) -> str:
        own = "".join(f"{value}, " for name, value in vars(self).items() if name != "fusion")
        return f'{type(self).__name__}({own}fusion="{self.fusion}")'

    @abstractmethod
    def kernel(self, y: Tensor, support: Any = constraints.real) -> Any:
        r"""The kernel :math:`s_\beta(\tilde y|y)` of each label, a Pyro distribution.

        Args:
            y: labels, of shape ``(B,) + event_shape``, or with more batch dimensions.
            support: where one label lives, a constraint; tells event dimensions, and one-hot vectors from others.

        Returns:
            A distribution of the labels' batch and event shape.
        """

    def fused(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, support: Any = constraints.real) -> Any:
        r"""The vicinal density :math:`p_\beta(\tilde y|y_i, y_j, \lambda)` (eq. 14) as a Pyro distribution.

        Args:
            y: labels, of shape ``(B,) + event_shape``.
            partner_y: the partners' labels, of the same shape.
            coefficient: λ, of shape ``(..., B)``.
            support: where one label lives, a constraint; tells event dimensions, and one-hot vectors from others.
        """
        kernels, weights = [self.kernel(label, support) for label in (y, partner_y)], [coefficient, 1 - coefficient]
        if self.fusion == "linear":
            return linear_pool(kernels, weights)
        return log_linear_pool(kernels, weights, simplex=False)  # an ExpandedBeta leaves it

    def expected_log_prob(self, p: Any, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> Tensor:
        r""":math:`\mathbb{E}_{\tilde y}[\log p(\tilde y)]` under the vicinal density, without sampling.

        It is minus the :func:`~pyro_probmix.cross_entropy` of the vicinal density and p, which is known where they are
        of one family, where the labels are points or finitely many, or where their law is inside the support of p and
        knows the expectations that p asks for. Under linear fusion it is the average of the two kernels'.

        Args:
            p: the distribution that scores the label, of batch shape ``(..., B)``, without masks.
            y: labels, of shape ``(B,) + p.event_shape``.
            partner_y: the partners' labels, of the same shape.
            coefficient: λ, of shape ``(..., B)``.

        Raises:
            ValueError: if the expectation is not known for ``p``.
        """
        if self.fusion == "log-linear":
            return self._expect(p, self.fused(y, partner_y, coefficient, p.support))
        ours, theirs = (self._expect(p, self.kernel(label, p.support)) for label in (y, partner_y))
        # −∞ at weight 0 counts for nothing.
        ours, theirs = torch.where(coefficient == 0, 0, ours), torch.where(coefficient == 1, 0, theirs)
        return coefficient * ours + (1 - coefficient) * theirs

    def _expect(self, p: Any, law: Any) -> Tensor:
        try:
            return expected_log_prob(law, p)
        except (NotImplementedError, TypeError, ValueError) as error:
            if isinstance(error, ValueError) and not str(error).startswith("p, q: "):
                raise  # of a label that is checked
            known = isinstance(p, NumericalPool) or is_exponential_family(p)
            why = str(error).removeprefix("p, q: ") if known else f"{_name(p)} is in no exponential family"
            raise ValueError(
                f'labels: expected "sample" for {_name(p)}, whose expected logarithm under {self!r} is not known: {why}'
            ) from error

    def check(self, p: Any, labels: str = "exact") -> None:
        """Refuses what would go wrong later, by a look at a likelihood.

        Args:
            p: the distribution that will score labels, of any parameters, without masks.
            labels: ``"exact"`` or ``"sample"``.

        Raises:
            ValueError: if ``p`` does not have the labels, the kernel's shape is not that of ``p``, or, with
                ``"exact"``, the expectation is not known.
        """
        y = None if torch.compiler.is_compiling() else supports.some_value(p)
        if y is None:
            return
        kernel = self.kernel(y, p.support)
        got, expected = (kernel.batch_shape, kernel.event_shape), (p.batch_shape, p.event_shape)
        if got != expected:
            raise ValueError(
                f"vicinity: expected a kernel of the labels' batch shape {tuple(expected[0])} and event shape "
                f"{tuple(expected[1])}, got {tuple(got[0])} and {tuple(got[1])} from {self!r}"
            )
        is_point = point(kernel) is not None
        moves = is_point or (is_circular(p) and not is_circular(kernel))
        if self.fusion == "log-linear" and moves and not is_convex(p):
            self._refuse(p, "lie between them")
        if not (is_point or supports.is_inside(kernel.support, p.support)):
            self._refuse(p, "lie between them" if p.support.is_discrete else "leave them")
        if labels == "exact":
            with torch.no_grad():
                self.expected_log_prob(p, y, y, y.new_full(p.batch_shape, 0.5))

    def _refuse(self, p: Any, what: str) -> NoReturn:
        if p.support.is_discrete:
            where = "which is discrete"
            remedy = 'LabelVicinity for classes, with β > 0 or fusion="linear", or DiracVicinity(fusion="linear")'
        elif not is_convex(p):
            where, remedy = "which is curved", 'DiracVicinity(fusion="linear")'
        else:
            where = f"in {supports.elementwise(p.support)}"
            remedy = f"DiracVicinity, or a kernel of the family of {_name(p)}"
        raise ValueError(
            f"vicinity: expected labels that the likelihood has, {where}, got {self!r}, whose labels {what}; "
            f"use {remedy}"
        )


class DiracVicinity(Vicinity):
    r"""Labels as they are: the β → 0 limit.

    With log-linear fusion the label is interpolated, :math:`\tilde y = \lambda y_i + (1-\lambda) y_j` (eq. 9), the
    limit of Normal kernels. With linear fusion it is :math:`y_i` with probability λ and else :math:`y_j`
    (Assumption 4.2), which suits any kind of label. Exact for any likelihood.

    Args:
        fusion: default ``"log-linear"``.

    Example:
        >>> y, partner_y = torch.tensor([0.0]), torch.tensor([4.0])
        >>> DiracVicinity().fused(y, partner_y, torch.tensor([0.25])).mean
        tensor([3.])
    """

    def kernel(self, y: Tensor, support: Any = constraints.real) -> Any:
        return dist.Delta(y, event_dim=support.event_dim)

    def fused(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, support: Any = constraints.real) -> Any:
        if self.fusion == "linear":
            return super().fused(y, partner_y, coefficient, support)
        return self.kernel(_interpolate(y, partner_y, coefficient, support.event_dim), support)


class NormalVicinity(DiracVicinity):
    r"""Normal kernel :math:`s_\beta(\tilde y|y) = \mathcal{N}(y, \beta I)` of Section 5, for real labels.

    Log-linear fusion gives :math:`\mathcal{N}(\lambda y_i + (1-\lambda) y_j, \beta I)`, linear fusion the mixture.
    Exact for Normal likelihoods, :math:`\log\mathcal{N}(m; \mu, \sigma^2) - \beta/(2\sigma^2)` at the kernel's mean m,
    for multivariate ones, and for Laplace and Gumbel.

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
        self.beta = check_number("beta", beta, "[0, inf)")

    def kernel(self, y: Tensor, support: Any = constraints.real) -> Any:
        if self.beta == 0:
            return super().kernel(y, support)
        y = y if y.is_floating_point() else y.to(torch.get_default_dtype())
        scale = y.new_full((), math.sqrt(self.beta))  # made where the labels are
        return dist.Normal(y, scale, validate_args=False).to_event(support.event_dim)

    def expected_log_prob(self, p: Any, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> Tensor:
        base, ndims = resolved(p), 0
        while isinstance(base, torch.distributions.Independent):
            base, ndims = resolved(base.base_dist), ndims + base.reinterpreted_batch_ndims
        is_normal = type(form_or_none(base)) is NormalFamily
        if self.beta == 0 or self.fusion == "linear" or not is_normal:
            return super().expected_log_prob(p, y, partner_y, coefficient)
        # The same, several times faster than by a kernel: this is in every step of ProbMix.
        mean = _interpolate(y, partner_y, coefficient, ndims)
        squares = ((mean - base.loc).square() + self.beta) / base.scale.square()
        return sum_right(-0.5 * LOG_2PI - torch.add(base.scale.log(), squares, alpha=0.5), ndims)


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
        self.beta = check_number("beta", beta, "[0, inf)")
        self.num_classes = check_integer("num_classes", num_classes, 2)
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
        label_smoothing = check_number("label_smoothing", label_smoothing, "[0, 1)")
        num_classes = check_integer("num_classes", num_classes, 2)
        return cls(label_smoothing / (num_classes * (1 - label_smoothing)), num_classes)

    def probabilities(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, is_one_hot: bool = False) -> Tensor:
        """P(ỹ = k) of the vicinal density (eq. 14), of shape ``(..., B, C)``.

        Args:
            y: labels 0..C−1 of shape ``(B,)``, or one-hot vectors of shape ``(B, C)``.
            partner_y: the partners' labels, of the same shape.
            coefficient: λ, of shape ``(..., B)``.
            is_one_hot: which of the two the labels are.
        """
        ours, theirs = (self._vectors(label, is_one_hot).to(coefficient.dtype) for label in (y, partner_y))
        if self.fusion == "linear":
            mixed = _interpolate(ours, theirs, coefficient, 1)
            return (mixed + self.beta) / (1 + self.num_classes * self.beta)
        ours, theirs = ((label + self.beta).clamp(min=torch.finfo(label.dtype).tiny).log() for label in (ours, theirs))
        return _interpolate(ours, theirs, coefficient, 1).softmax(-1)

    def _vectors(self, label: Tensor, is_one_hot: bool) -> Tensor:
        """The probability of each class at a label; a binary one may be a probability itself."""
        if is_one_hot:
            return label
        if self.num_classes == 2 and label.is_floating_point():
            return torch.stack([1 - label, label], -1)
        return one_hot(label.long(), self.num_classes)

    def kernel(self, y: Tensor, support: Any = constraints.real) -> Any:
        dtype = y.dtype if y.is_floating_point() else torch.get_default_dtype()
        ones = torch.ones(y.shape[: y.dim() - support.event_dim], dtype=dtype, device=y.device)
        return self.fused(y, y, ones, support)

    def fused(self, y: Tensor, partner_y: Tensor, coefficient: Tensor, support: Any = constraints.real) -> Any:
        if supports.is_one_hot(support):
            probabilities = self.probabilities(y, partner_y, unsqueeze_right(coefficient, support.event_dim - 1), True)
            one = dist.OneHotCategorical(probabilities, validate_args=False)
            return one.to_event(support.event_dim - 1)
        probabilities = self.probabilities(y, partner_y, unsqueeze_right(coefficient, support.event_dim))
        return dist.Categorical(probabilities, validate_args=False).to_event(support.event_dim)

    def expected_log_prob(self, p: Any, y: Tensor, partner_y: Tensor, coefficient: Tensor) -> Tensor:
        r"""The soft-label cross-entropy :math:`\sum_k P(\tilde y = k) \log p(k)`, exact for any p with these labels."""
        p = resolved(p)
        if isinstance(p, torch.distributions.Independent):
            ndims = p.reinterpreted_batch_ndims
            inner = self.expected_log_prob(p.base_dist, y, partner_y, unsqueeze_right(coefficient, ndims))
            return inner.flatten(-ndims).sum(-1)
        is_one_hot = supports.is_one_hot(p.support)
        if p.support.event_dim > is_one_hot:
            raise ValueError(
                f'labels: expected "sample" for {_name(p)} of event shape {tuple(p.event_shape)}, whose labels are '
                "vectors of classes that are not independent"
            )
        if isinstance(p, (torch.distributions.Categorical, torch.distributions.OneHotCategorical)):
            log_p = p.logits
        elif isinstance(p, torch.distributions.Bernoulli):
            log_p = -softplus(torch.stack([p.logits, -p.logits], -1))
        else:
            log_p = p.log_prob(self._labels(p, is_one_hot, coefficient)).movedim(0, -1)
        self._check_classes(p)
        probabilities = self.probabilities(y, partner_y, coefficient, is_one_hot)
        return (probabilities * torch.where(probabilities == 0, 0, log_p)).sum(-1)

    def check(self, p: Any, labels: str = "exact") -> None:
        if not p.support.is_discrete or supports.is_counts(p.support):
            self._refuse(p, "are classes")
        self._check_classes(p)
        super().check(p, labels)

    def _labels(self, p: Any, is_one_hot: bool, like: Tensor) -> Tensor:
        """All labels, along a first dimension."""
        if is_one_hot:
            labels = torch.eye(self.num_classes, dtype=like.dtype, device=like.device)
        else:
            dtype = like.dtype if supports.is_binary(p.support) else torch.int64
            labels = torch.arange(self.num_classes, dtype=dtype, device=like.device)
        return labels.reshape(labels.shape[:1] + (1,) * len(p.batch_shape) + labels.shape[1:])

    def _check_classes(self, p: Any) -> None:
        classes = num_classes(p)
        if classes not in (None, self.num_classes):
            raise ValueError(f"num_classes: expected the likelihood's {classes} classes, got {self.num_classes}")


def default_vicinity(p: Any) -> Vicinity:
    """The vicinity of labels that ``p`` scores, where none is given.

    The label is interpolated (eq. 9) where what lies between two labels is a label and near both; for classes, counts,
    angles, directions and correlations it is either one of the pair's, λ being its probability (Assumption 4.2).

    Args:
        p: a distribution, or what has its ``support`` and ``event_shape``.

    Example:
        >>> default_vicinity(dist.Normal(0.0, 1.0)), default_vicinity(dist.Poisson(1.0))
        (DiracVicinity(fusion="log-linear"), DiracVicinity(fusion="linear"))
    """
    classes = num_classes(p)
    if classes is not None and classes > 1:  # the same law as a soft-label cross-entropy
        return LabelVicinity(0.0, classes)
    return DiracVicinity("log-linear" if is_convex(p) else "linear")


def _name(p: Any) -> str:
    return type(unwrapped(p)).__name__


def _interpolate(y: Tensor, partner_y: Tensor, coefficient: Tensor, coefficient_dims: int) -> Tensor:
    """λ yᵢ + (1 − λ) yⱼ, λ being broadcast over that many dimensions on the right."""
    weight = unsqueeze_right(coefficient, coefficient_dims)
    return weight * y + (1 - weight) * partner_y
