"""Embedding densities: networks whose output is a distribution over an embedding z."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_probmix.nn._checks import as_module, as_size, positive_integer, positive_number
from pyro_probmix.nn._precision import full_precision

__all__ = ["Embedding", "NormalEmbedding"]


class Embedding(nn.Module):
    """An embedding density q(z|x), eq. 19-22: called on x, it gives a Pyro distribution over z.

    A subclass fills ``_distribution(x, features)``, where ``features`` is the encoder's output at x.

    Args:
        encoder: Network from x to features of shape (..., *event_shape).
        event_shape: Shape of one z.
    """

    event_shape: torch.Size

    def __init__(self, encoder: nn.Module, event_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = as_size("event_shape", event_shape)
        self.encoder = as_module("encoder", encoder)

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Return q(z|x), with one batch element for each feature vector of the encoder.

        Raises:
            ValueError: if the encoder's output does not end in ``event_shape``.
        """
        features = full_precision(self.encoder(x))
        if features.shape[-len(self.event_shape) :] != self.event_shape:
            expected = ", ".join(["...", *map(str, self.event_shape)])
            raise ValueError(f"encoder: expected an output of shape ({expected}), got {tuple(features.shape)}")
        return self._distribution(x, features)

    def _distribution(self, x: Tensor, features: Tensor) -> dist.TorchDistribution:
        raise NotImplementedError


class NormalEmbedding(Embedding):
    r"""Normal embedding density with diagonal covariance, eq. 24.

    .. math:: q(z|x) = N(z \mid h(x), \mathrm{diag}\,\sigma^2(x))

    The standard deviations come from one of three places.

    * By default they share parameters with the mean,
      :math:`\sigma(x) = \mathrm{softplus}(W h(x) + b) + \mathtt{min\_scale}`.
    * With a ``variance_network`` v they do not,
      :math:`\sigma(x) = \mathrm{softplus}(v(x) + c) + \mathtt{min\_scale}`.
    * With a ``scale`` they are that constant, the homoscedastic embedding of Theorem 4.7.

    W starts at zero, and b and c at the value that makes ``initial_scale``; c stays there.

    Args:
        encoder: h, network from x to (..., embedding_dim).
        embedding_dim: Number of coordinates of z.
        variance_network: v, network from x to (..., embedding_dim), unbounded.
        initial_scale: σ(x) before training: exactly that for the shared head, and where the variance network
            gives zero otherwise. Not used when ``scale`` is given.
        scale: Fixed standard deviation of every coordinate.
        min_scale: Lower bound of a learned σ(x).

    Raises:
        ValueError: if a number is out of range, ``scale`` and ``variance_network`` are both given, or, when
            called, a network's output does not end in embedding_dim.

    Example:
        >>> from pyro_probmix.nn import MLP
        >>> embedding = NormalEmbedding(MLP(13, [], 128, output_activation=nn.ReLU), 128)
        >>> q = embedding(torch.zeros(364, 13))
        >>> q.batch_shape, q.event_shape
        (torch.Size([364]), torch.Size([128]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int,
        variance_network: nn.Module | None = None,
        *,
        initial_scale: float = 0.7,
        scale: float | None = None,
        min_scale: float = 1e-6,
    ) -> None:
        super().__init__(encoder, positive_integer("embedding_dim", embedding_dim))
        self.embedding_dim = self.event_shape[0]
        self.min_scale = positive_number("min_scale", min_scale)
        self.scale = None if scale is None else positive_number("scale", scale)
        if scale is not None and variance_network is not None:
            raise ValueError("scale: expected None beside a variance_network, got a fixed scale")
        start = positive_number("initial_scale", initial_scale) - self.min_scale
        if start <= 0:
            raise ValueError(f"initial_scale: expected a number > min_scale = {min_scale}, got {initial_scale}")
        raw_start = start + math.log(-math.expm1(-start))  # inverse of softplus
        self.variance_network = None if variance_network is None else as_module("variance_network", variance_network)
        if variance_network is not None:
            self._raw_offset = raw_start
        elif scale is None:
            self.variance_head = nn.Linear(self.embedding_dim, self.embedding_dim)
            nn.init.zeros_(self.variance_head.weight)
            nn.init.constant_(self.variance_head.bias, raw_start)

    def _distribution(self, x: Tensor, features: Tensor) -> dist.TorchDistribution:
        return dist.Normal(features, self._scale(x, features)).to_event(1)

    def _scale(self, x: Tensor, features: Tensor) -> Tensor | float:
        if self.scale is not None:
            return self.scale
        if self.variance_network is None:
            return F.softplus(full_precision(self.variance_head(features))) + self.min_scale
        raw_scale = full_precision(self.variance_network(x))
        if raw_scale.shape != features.shape:
            raise ValueError(
                f"variance_network: expected an output of shape {tuple(features.shape)}, as the encoder's, "
                f"got {tuple(raw_scale.shape)}"
            )
        return F.softplus(raw_scale + self._raw_offset) + self.min_scale
