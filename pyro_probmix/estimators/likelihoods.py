"""Likelihoods that the estimators know by name, of targets that have been scaled to be about one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_probmix._checks import as_size, check_choice, check_integer, check_number
from pyro_probmix.nn import Likelihood

__all__ = [
    "CountLikelihood",
    "NormalMixtureLikelihood",
    "OrdinalLikelihood",
    "ShapeLikelihood",
    "StudentTLikelihood",
]

_LEAST = 1e-6
"""Distance that is kept from where a parameter has no density."""


class _IndependentLikelihood(Likelihood):
    """Independent numbers of one family, each with so many raw outputs."""

    def __init__(self, num_parts: int, event_shape: int | Sequence[int], support: constraints.Constraint) -> None:
        size = as_size("event_shape", event_shape)
        whole = constraints.independent(support, len(size)) if size else support
        super().__init__(num_parts * size.numel(), size, whole)
        self.num_parts = num_parts

    def distribution(self, raw: Tensor) -> dist.TorchDistribution:
        parts = raw.unflatten(-1, (self.num_parts, *self.event_shape)).movedim(-1 - len(self.event_shape), 0)
        p = self._of_parts(parts)
        return p.to_event(len(self.event_shape)) if self.event_shape else p

    def _of_parts(self, parts: Tensor) -> Any:
        """The law of each number, given its raw outputs along the first dimension."""
        raise NotImplementedError


class StudentTLikelihood(_IndependentLikelihood):
    r"""Student's t with predicted location, scale and degrees of freedom, independent in each output.

    .. math:: \nu = 2 + \mathrm{softplus}(\cdot), \qquad \sigma = \mathrm{softplus}(\cdot) + \mathtt{min\_scale}

    Mean and variance exist, since ν > 2.

    Args:
        event_shape: shape of one y.
        min_scale: lower bound of the scale, in units of y.

    Raises:
        ValueError: if ``min_scale`` is not positive.

    Example:
        >>> StudentTLikelihood()(torch.zeros(5, 3)).variance.shape
        torch.Size([5])
    """

    def __init__(self, event_shape: int | Sequence[int] = (), min_scale: float = 1e-4) -> None:
        super().__init__(3, event_shape, constraints.real)
        self.min_scale = check_number("min_scale", min_scale)

    def _of_parts(self, parts: Tensor) -> Any:
        loc, scale, df = parts
        return dist.StudentT(2 + _LEAST + F.softplus(df), loc, F.softplus(scale) + self.min_scale)


class NormalMixtureLikelihood(_IndependentLikelihood):
    r"""A mixture of K Normals, independent in each output: a mixture density network.

    .. math:: p(y) = \sum_{k=1}^K \pi_k\, N(y \mid \mu_k, \sigma_k^2)

    Before training the means are spread over [-1, 1]. Mixtures are not closed under log-linear pooling.

    Args:
        num_components: K ≥ 1.
        event_shape: shape of one y.
        min_scale: lower bound of each standard deviation, in units of y.

    Raises:
        ValueError: if a number is out of range.

    Source: Bishop, "Mixture density networks" (1994).

    Example:
        >>> likelihood = NormalMixtureLikelihood(3)
        >>> likelihood(torch.zeros(5, likelihood.num_outputs)).mean.shape
        torch.Size([5])
    """

    offsets: Tensor

    def __init__(self, num_components: int = 3, event_shape: int | Sequence[int] = (), min_scale: float = 1e-4) -> None:
        components = check_integer("num_components", num_components)
        super().__init__(3 * components, event_shape, constraints.real)
        self.num_components, self.min_scale = components, check_number("min_scale", min_scale)
        offsets = torch.linspace(-1, 1, components) if components > 1 else torch.zeros(1)
        self.register_buffer("offsets", offsets)

    def _of_parts(self, parts: Tensor) -> Any:
        logits, loc, scale = parts.movedim(0, -1).chunk(3, -1)
        loc, scale = loc + self.offsets.to(loc.dtype), F.softplus(scale) + self.min_scale
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, scale))


class ShapeLikelihood(_IndependentLikelihood):
    r"""Gamma or Beta, of predicted mean and spread, independent in each output.

    With a spread :math:`\phi = \mathrm{softplus}(\cdot) + \mathtt{min\_spread}`, a Gamma has the mean μ > 0 and the
    concentration φ⁻², so that φ is its coefficient of variation; a Beta has the mean μ in (0, 1) and concentrations
    μ φ⁻² and (1 − μ) φ⁻².

    Args:
        family: ``"gamma"`` or ``"beta"``.
        event_shape: shape of one y.
        min_spread: lower bound of φ.

    Raises:
        ValueError: if the family is another, or ``min_spread`` is not positive.

    Example:
        >>> ShapeLikelihood("beta")(torch.zeros(5, 2)).mean[0]
        tensor(0.5000)
    """

    def __init__(self, family: str, event_shape: int | Sequence[int] = (), min_spread: float = 1e-3) -> None:
        check_choice("family", family, ("gamma", "beta"))
        super().__init__(2, event_shape, constraints.positive if family == "gamma" else constraints.unit_interval)
        self.family, self.min_spread = family, check_number("min_spread", min_spread)

    def _of_parts(self, parts: Tensor) -> Any:
        mean, spread = parts
        concentration = (F.softplus(spread) + self.min_spread).square().reciprocal()
        if self.family == "gamma":
            return dist.Gamma(concentration, concentration / (F.softplus(mean) + _LEAST))
        mean = _LEAST + (1 - 2 * _LEAST) * mean.sigmoid()
        return dist.Beta(mean * concentration, (1 - mean) * concentration)


_COUNTS: dict[str, tuple[int, Callable[..., Any]]] = {
    "poisson": (1, lambda mean: dist.Poisson(mean)),
    "negative_binomial": (2, lambda mean, total: _negative_binomial(mean, F.softplus(total) + _LEAST)),
    "zero_inflated_poisson": (2, lambda mean, gate: dist.ZeroInflatedPoisson(mean, gate_logits=gate)),
}


class CountLikelihood(_IndependentLikelihood):
    r"""Counts of predicted rate, independent in each output.

    The rate is :math:`u \cdot \mathrm{softplus}(\cdot)` for a unit u, about the mean count. A negative binomial also
    predicts its total count r, the variance being μ + μ²/r; a zero-inflated Poisson the probability of a zero beside
    those of the Poisson.

    Args:
        family: ``"poisson"``, ``"negative_binomial"`` or ``"zero_inflated_poisson"``.
        event_shape: shape of one y.
        unit: u, one for each output or one for all.

    Raises:
        ValueError: if the family is another, or the unit is not positive.

    Example:
        >>> CountLikelihood("poisson", unit=10.0)(torch.zeros(5, 1)).mean[0]
        tensor(6.9315)
    """

    unit: Tensor

    def __init__(
        self, family: str, event_shape: int | Sequence[int] = (), unit: float | Sequence[float] | Tensor = 1.0
    ) -> None:
        check_choice("family", family, list(_COUNTS))
        super().__init__(_COUNTS[family][0], event_shape, constraints.nonnegative_integer)
        self.family = family
        unit = torch.as_tensor(unit, dtype=torch.float64).expand(self.event_shape).clone()
        if not bool((unit > 0).all()):
            raise ValueError(f"unit: expected positive numbers, got {unit.tolist()}")
        self.register_buffer("unit", unit)

    def _of_parts(self, parts: Tensor) -> Any:
        mean = self.unit.to(parts.dtype) * (F.softplus(parts[0]) + _LEAST)
        return _COUNTS[self.family][1](mean, *parts[1:])


def _negative_binomial(mean: Tensor, total: Tensor) -> Any:
    return dist.NegativeBinomial(total, logits=mean.log() - total.log())


class OrdinalLikelihood(Likelihood):
    r"""Classes that have an order: where a predicted number plus logistic noise falls among learned cutpoints.

    .. math:: P(y \le k) = \mathrm{sigmoid}(c_k - f), \qquad c_0 < c_1 < \dots < c_{C-2}

    It is Pyro's ``OrderedLogistic`` as a Categorical, whose logarithms are exact where a probability underflows.

    Args:
        num_classes: C ≥ 2; y is in 0 .. C − 1.

    Raises:
        ValueError: if there are fewer than two classes.

    Example:
        >>> OrdinalLikelihood(3)(torch.zeros(5, 1)).probs[0].detach()
        tensor([0.3775, 0.2449, 0.3775])
    """

    def __init__(self, num_classes: int) -> None:
        classes = check_integer("num_classes", num_classes, minimum=2)
        super().__init__(1, torch.Size(), constraints.integer_interval(0, classes - 1))
        self.num_classes = classes
        self.first = nn.Parameter(torch.full((1,), -0.5 * (classes - 2)))
        # softplus of it is one
        self.gaps = nn.Parameter(torch.full((classes - 2,), 0.5413248546129181))

    @property
    def cutpoints(self) -> Tensor:
        """The C − 1 cutpoints, in increasing order."""
        return torch.cat([self.first, self.first + F.softplus(self.gaps).cumsum(0)])

    def distribution(self, raw: Tensor) -> dist.TorchDistribution:
        above = self.cutpoints.to(raw.dtype) - raw  # of each cutpoint over the predicted number
        gaps = F.softplus(self.gaps).to(raw.dtype)
        # log(s(b) − s(a)) = log s(b) + log s(−a) + log(1 − exp(a − b)) for the sigmoid s
        upper = F.pad(F.logsigmoid(above), (0, 1))
        lower = F.pad(F.logsigmoid(-above), (1, 0))
        between = F.pad(torch.log(-torch.expm1(-gaps)), (1, 1))
        return dist.Categorical(logits=upper + lower + between)
