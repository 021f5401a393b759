"""The Hölder family of pools, between the linear and the log-linear one and beyond."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from pyro_probmix.distributions.components import Components, Weights
from pyro_probmix.distributions.numerical import NumericalDistribution

__all__ = ["HolderPool"]

SERIES_BELOW = 1e-3


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
        super().__init__(components, weights, True, accuracy, validate_args, batch_shape=self.exponent.shape)
        self.exponent = self.exponent.to(self._reference.device)

    def _at_rows(self, rows: Tensor) -> HolderPool:
        new, batch = super()._at_rows(rows), self._measure.low.shape
        assert isinstance(new, HolderPool)
        new.exponent = self.exponent.expand(batch).reshape(-1)[rows]
        return new

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

    def combined_bounds(self, low: Tensor, high: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        counts, some = weights != 0, self.exponent > 0
        least, most = torch.where(counts, low, math.inf).amin(-1), torch.where(counts, high, -math.inf).amax(-1)
        inner = torch.where(counts, low, -math.inf).amax(-1), torch.where(counts, high, math.inf).amin(-1)
        return torch.where(some, least, inner[0]), torch.where(some, most, inner[1])
