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
        return self._log_odds(*self.rsample_parts(sample_shape))

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw λ, of shape ``sample_shape + batch_shape`` and in the dtype of the concentrations."""
        return self.from_parts(*self.rsample_parts(sample_shape))

    def rsample_parts(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Draw what λ is made from: the random part of :meth:`rsample`, where many draws are to be made at once.

        Args:
            sample_shape: Shape in front of the batch shape.

        Returns:
            G(a₁), G(a₀) and two uniform numbers in [0, 1), each of shape ``sample_shape + batch_shape + (2,)``.

        Example:
            >>> beta = LogSpaceBeta(torch.tensor(0.2), torch.tensor(0.2))
            >>> parts = [beta.rsample_parts((3,)) for _ in range(5)]
            >>> beta.from_parts(*map(torch.stack, zip(*parts))).shape
            torch.Size([5, 3])
        """
        concentration = self._concentration.expand((*self._extended_shape(sample_shape), 2))
        return torch._standard_gamma(concentration + 1), torch.rand_like(concentration)

    def from_parts(self, gamma: Tensor, uniform: Tensor) -> Tensor:
        """The λ that :meth:`rsample` makes from these, by the formula of the class with E = -log(1 - U).

        Args:
            gamma: G(a₁) and G(a₀), of shape ``(..., 2)``, that broadcasts with the batch shape.
            uniform: Two numbers in [0, 1), likewise.

        Returns:
            λ of shape ``(...)``, in the dtype of the concentrations.

        Raises:
            ValueError: If the shapes are not these.

        Example:
            >>> beta = LogSpaceBeta(torch.tensor(0.2), torch.tensor(0.2))
            >>> beta.from_parts(torch.ones(2), torch.zeros(2))
            tensor(0.5000)
        """
        if gamma.shape[-1:] != (2,):
            raise ValueError(f"gamma: expected shape (..., 2), got {tuple(gamma.shape)}")
        if uniform.shape != gamma.shape:
            raise ValueError(f"uniform: expected the shape of gamma, {tuple(gamma.shape)}, got {tuple(uniform.shape)}")
        return self._log_odds(gamma, uniform).sigmoid().to(self._dirichlet.concentration.dtype)

    @property
    def _concentration(self) -> Tensor:
        """a₁ and a₀, of shape ``batch_shape + (2,)``, at least in single precision."""
        concentration = self._dirichlet.concentration
        return concentration.float() if concentration.dtype in (torch.float16, torch.bfloat16) else concentration

    def _log_odds(self, gamma: Tensor, uniform: Tensor) -> Tensor:
        gamma1, gamma0 = gamma.unbind(-1)
        # log1p(-u) is finite for u in [0, 1), where log(u) is not.
        boost1, boost0 = (torch.log1p(-uniform) / self._concentration).unbind(-1)
        return (gamma1 / gamma0).log() + (boost1 - boost0)
