"""Embedding densities: networks whose output is a distribution over an embedding z."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_probmix._checks import as_module, as_size, check_integer, check_number
from pyro_probmix.distributions.families.multivariate import LowRankMultivariateNormal
from pyro_probmix.nn.likelihoods import DistributionLikelihood
from pyro_probmix.ops.autocast import full_precision, without_autocast

__all__ = ["DistributionEmbedding", "Embedding", "LowRankNormalEmbedding", "NormalEmbedding"]


class Embedding(nn.Module):
    """An embedding density q(z|x), eq. 19-22: called on x, it gives a Pyro distribution over z.

    A subclass fills :meth:`distribution`.

    Args:
        encoder: Network from x to features of shape (..., *event_shape).
        event_shape: Shape of one z.
    """

    event_shape: torch.Size

    def __init__(self, encoder: nn.Module, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.event_shape = self._feature_shape = as_size("event_shape", event_shape)
        self.encoder = as_module("encoder", encoder)

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Return q(z|x), with one batch element for each feature vector of the encoder.

        Raises:
            ValueError: if the encoder's output does not end in the shape of the features.
        """
        features = full_precision(self.encoder(x))
        if features.shape[features.dim() - len(self._feature_shape) :] != self._feature_shape:
            expected = ", ".join(["...", *map(str, self._feature_shape)])
            raise ValueError(f"encoder: expected an output of shape ({expected}), got {tuple(features.shape)}")
        return self.distribution(x, features)

    def distribution(self, x: Tensor, features: Tensor) -> dist.TorchDistribution:
        """What a subclass fills: q(z | x), ``features`` being the encoder's output at x."""
        raise NotImplementedError


class NormalEmbedding(Embedding):
    r"""Normal embedding density with diagonal covariance, eq. 24.

    .. math:: q(z|x) = N(z \mid h(x), \mathrm{diag}\,\sigma^2(x))

    The standard deviations come from one of three places.

    * By default they share parameters with the mean, M-ProbMix of Section 5:
      :math:`\sigma(x) = \mathrm{softplus}(W h(x) + b) + \mathtt{min\_scale}`.
    * With a ``variance_network`` v they do not, M-ProbMix* of Table 1:
      :math:`\sigma(x) = \mathrm{softplus}(v(x) + c) + \mathtt{min\_scale}`. The first is the second with
      v(x) = W h(x) + b - c.
    * With a ``scale`` they are that constant, the homoscedastic embedding of Theorem 4.7.

    W starts at zero, and b and c at the value that makes ``initial_scale``; c stays there.

    Args:
        encoder: h, network from x to (..., embedding_dim).
        embedding_dim: Number of coordinates of z, D; or the shape of z, such as (T, D) for a sequence, in which
            the shared head maps each vector of D alone.
        variance_network: v, network from x to the shape of h(x), unbounded.
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
        embedding_dim: int | Sequence[int],
        variance_network: nn.Module | None = None,
        *,
        initial_scale: float = 0.7,
        scale: float | None = None,
        min_scale: float = 1e-6,
    ) -> None:
        super().__init__(encoder, _as_dimensions(embedding_dim))
        self.embedding_dim = self.event_shape[-1]
        self.min_scale = check_number("min_scale", min_scale)
        self.scale = None if scale is None else check_number("scale", scale)
        self.initial_scale = initial_scale
        if scale is not None and variance_network is not None:
            raise ValueError("scale: expected None beside a variance_network, got a fixed scale")
        raw_start = 0.0 if scale is not None else _raw_scale("initial_scale", initial_scale, self.min_scale)
        self.variance_network = None if variance_network is None else as_module("variance_network", variance_network)
        if variance_network is not None:
            self._raw_offset = raw_start
        elif scale is None:
            self.variance_head = _constant_head(self.embedding_dim, torch.full((self.embedding_dim,), raw_start))

    def distribution(self, x: Tensor, features: Tensor) -> dist.TorchDistribution:
        return dist.Normal(features, self._scale(x, features)).to_event(len(self.event_shape))

    def _scale(self, x: Tensor, features: Tensor) -> Tensor:
        if self.scale is not None:
            return features.new_full((), self.scale)
        if self.variance_network is None:
            return F.softplus(full_precision(self.variance_head(features))) + self.min_scale
        raw_scale = full_precision(self.variance_network(x))
        if raw_scale.shape != features.shape:
            raise ValueError(
                f"variance_network: expected an output of shape {tuple(features.shape)}, as the encoder's, "
                f"got {tuple(raw_scale.shape)}"
            )
        return F.softplus(raw_scale + self._raw_offset) + self.min_scale


def _as_dimensions(embedding_dim: int | Sequence[int]) -> torch.Size:
    size = as_size("embedding_dim", embedding_dim)
    if not size:
        raise ValueError("embedding_dim: expected at least one dimension, got ()")
    return size


class LowRankNormalEmbedding(Embedding):
    r"""Normal embedding density with a covariance of low rank plus a diagonal.

    .. math:: q(z|x) = N(z \mid h(x), W(x) W(x)^\top + \mathrm{diag}\,\sigma^2(x))

    W(x), of shape (D, rank), and the raw σ(x) are linear in h(x). Before training they are constant: each coordinate
    of z has the standard deviation ``initial_scale``, half of its variance from W. The fusion of a pair
    (eq. 22) has twice the rank, and never forms a D × D matrix.

    Args:
        encoder: h, network from x to (..., embedding_dim).
        embedding_dim: Number of coordinates of z, D; or the shape of z, such as (T, D) for a sequence of independent
            vectors of D.
        rank: Columns of W, from 1 to D.
        initial_scale: Standard deviation of each coordinate before training.
        min_scale: Lower bound of σ(x); far below the columns of W, float32 no longer tells the two apart.

    Raises:
        ValueError: if a number is out of range, or, when called, the encoder's output does not end in
            embedding_dim.

    Example:
        >>> from pyro_probmix.nn import MLP
        >>> q = LowRankNormalEmbedding(MLP(13, [], 128, output_activation=nn.ReLU), 128, rank=4)(torch.zeros(364, 13))
        >>> q.batch_shape, q.event_shape, q.cov_factor.shape
        (torch.Size([364]), torch.Size([128]), torch.Size([364, 128, 4]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int | Sequence[int],
        rank: int,
        *,
        initial_scale: float = 0.7,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__(encoder, _as_dimensions(embedding_dim))
        self.embedding_dim = self.event_shape[-1]
        self.rank = check_integer("rank", rank)
        if self.rank > self.embedding_dim:
            raise ValueError(f"rank: expected at most embedding_dim = {self.embedding_dim}, got {rank}")
        self.min_scale = check_number("min_scale", min_scale)
        self.initial_scale = initial_scale
        root = math.sqrt(0.5) * check_number("initial_scale", initial_scale)
        raw_start = _raw_scale("initial_scale / sqrt(2)", root, self.min_scale)
        factor = root * F.normalize(torch.randn(self.embedding_dim, self.rank), dim=-1)
        self.factor_head = _constant_head(self.embedding_dim, factor.flatten())
        self.variance_head = _constant_head(self.embedding_dim, torch.full((self.embedding_dim,), raw_start))

    def distribution(self, x: Tensor, features: Tensor) -> dist.TorchDistribution:
        factor = full_precision(self.factor_head(features)).unflatten(-1, (self.embedding_dim, self.rank))
        scale = F.softplus(full_precision(self.variance_head(features))) + self.min_scale
        with without_autocast(features):
            q = LowRankMultivariateNormal(features, factor, scale.square())
        return q.to_event(len(self.event_shape) - 1) if len(self.event_shape) > 1 else q


class DistributionEmbedding(Embedding):
    r"""Embedding density of any family that is drawn differentiably: Gamma, Beta, Dirichlet, VonMises, ...

    .. math:: q(z|x) = p(z \mid \mathrm{raw} = h(x))

    The encoder's outputs are the raw parameters, mapped into their domains as
    :class:`~pyro_probmix.nn.DistributionLikelihood` does; it also tells how many there are. Fused embeddings
    (eq. 22) need a family that is closed under pooling.

    Args:
        encoder: h, network from x to (..., num_outputs).
        distribution_class: A Pyro distribution class, or the torch class of the same name.
        event_shape: Shape of one z, an integer or a tuple, such as (T, D) for a sequence.
        parameters: Names of the parameters to predict, as for ``DistributionLikelihood``.
        floor: Distance kept from the lower bound of a parameter.
        **fixed: The distribution's other arguments.

    Raises:
        ValueError: if the family has no differentiable draws (no ``rsample``), its parameters cannot be predicted, or,
            when called, the encoder's output does not end in num_outputs.
        TypeError: if ``distribution_class`` is not a distribution class.

    Example:
        >>> from pyro_probmix.nn import MLP
        >>> num_outputs = DistributionLikelihood(dist.Gamma, 16).num_outputs
        >>> q = DistributionEmbedding(MLP(13, [64], num_outputs), dist.Gamma, 16)(torch.zeros(364, 13))
        >>> q.batch_shape, q.event_shape
        (torch.Size([364]), torch.Size([16]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        distribution_class: type[torch.distributions.Distribution],
        event_shape: int | Sequence[int],
        *,
        parameters: Sequence[str] | None = None,
        floor: float = 1e-6,
        **fixed: Any,
    ) -> None:
        super().__init__(encoder, event_shape)
        self.family = DistributionLikelihood(
            distribution_class, event_shape, parameters=parameters, floor=floor, **fixed
        )
        self.num_outputs = self.family.num_outputs
        self._feature_shape = torch.Size([self.num_outputs])
        device = next((buffer.device for buffer in self.family.buffers()), torch.device("cpu"))
        q = self.family(torch.zeros(self.num_outputs, device=device))
        # Pyro's VonMises has none, but the models draw it with one.
        if not (q.has_rsample or self.family.distribution_class is dist.VonMises):
            raise ValueError(
                "distribution_class: expected a family with differentiable draws (rsample), "
                f"got {self.family.distribution_class.__name__}"
            )

    def distribution(self, x: Tensor, features: Tensor) -> dist.TorchDistribution:
        return self.family(features)


def _raw_scale(name: str, scale: float, min_scale: float) -> float:
    """The raw output for which softplus(raw) + min_scale is ``scale``."""
    start = check_number(name, scale) - min_scale
    if start <= 0:
        raise ValueError(f"{name}: expected a number > min_scale = {min_scale}, got {scale}")
    return start + math.log(-math.expm1(-start))


def _constant_head(in_features: int, start: Tensor) -> nn.Linear:
    """A linear map that starts as the constant ``start``."""
    head = nn.Linear(in_features, len(start))
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(start)
    return head
