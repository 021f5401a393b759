"""The Beta distribution with a sampler that has the right law at any concentration."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["LogSpaceBeta"]


class LogSpaceBeta(dist.Beta):
    """The Beta distribution, sampled in log space.

    With G(a) ~ Gamma(a + 1) and E ~ Exponential(1), log G(a) - E/a is the logarithm of a Gamma(a) draw, and

        log λ - log(1 - λ) = log G(a₁) - E₁/a₁ - log G(a₀) + E₀/a₀.

    Nothing underflows on the way, so the law is right for small concentrations too, where PyTorch's own
    sampler puts a quarter of Beta(0.001, 0.001) between 0.4 and 0.6 instead of 0.04 %. λ is exactly 0 or 1
    where its dtype holds nothing nearer. Draws are differentiable in the concentrations, have their dtype
    (float16 and bfloat16 are drawn in float32), and work under ``torch.compile`` and
    ``torch.func.vmap(..., randomness="different")``.

    Args:
        concentration1: a₁ > 0, any shape.
        concentration0: a₀ > 0, broadcasting with a₁.
        validate_args: Check arguments, as for every distribution.

    Raises:
        ValueError: If a concentration is not positive and arguments are validated.

    Source: Gamma(a) = Gamma(a + 1) U^(1/a) in law (Marsaglia and Tsang, 2000, section 6), in logarithms.

    Example:
        >>> draws = LogSpaceBeta(torch.tensor(1e-3), torch.tensor(1e-3)).sample((1000,))
        >>> bool(((draws > 0.4) & (draws < 0.6)).float().mean() < 0.01)
        True
    """

    def rsample_log_odds(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw log λ - log(1 - λ), which tells apart draws whose λ rounds to 0 or 1.

        Args:
            sample_shape: Shape in front of the batch shape.

        Returns:
            A tensor of shape ``sample_shape + batch_shape``, at least in single precision.
        """
        concentration = self._dirichlet.concentration
        if concentration.dtype in (torch.float16, torch.bfloat16):
            concentration = concentration.float()
        concentration = concentration.expand((*self._extended_shape(sample_shape), 2))
        gamma1, gamma0 = torch._standard_gamma(concentration + 1).unbind(-1)
        # log1p(-u) is finite for u in [0, 1), where log(u) is not.
        boost1, boost0 = (torch.log1p(-torch.rand_like(concentration)) / concentration).unbind(-1)
        return (gamma1 / gamma0).log() + (boost1 - boost0)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw λ, of shape ``sample_shape + batch_shape`` and in the dtype of the concentrations."""
        return self.rsample_log_odds(sample_shape).sigmoid().to(self._dirichlet.concentration.dtype)
