"""The mixing coefficient integrated instead of drawn: a Beta on the nodes of its Gauss quadrature."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix._checks import check_integer, check_number

__all__ = ["GaussJacobi"]


class GaussJacobi(TorchDistribution):
    r"""Beta(a₁, a₀) on the nodes of its Gauss–Jacobi quadrature, :math:`P(\lambda = \lambda_q) = w_q`.

    .. math:: \mathbb{E}_{\lambda \sim \mathrm{Beta}}[f(\lambda)] \approx \sum_{q=1}^Q w_q f(\lambda_q),

    exact for polynomials f of degree 2Q − 1, and with an error that falls geometrically for analytic ones. As the
    coefficient of a method it makes :meth:`risk` integrate λ out: every node is evaluated with every edge. Under
    ``TraceEnum_ELBO(max_plate_nesting=1)`` the same sum is taken; under ``Trace_ELBO`` a node is drawn.

    Args:
        concentration1: a₁ > 0.
        concentration0: a₀ > 0; default: a₁.
        num_nodes: Q, from 2.

    Attributes:
        nodes: λ_q, increasing, shape ``(Q,)``, in double precision.
        weights: w_q, shape ``(Q,)``, which sum to one.

    Raises:
        TypeError: if ``num_nodes`` is no integer.
        ValueError: if it is less than 2, or a concentration is not positive and finite.

    Source: Golub and Welsch, "Calculation of Gauss quadrature rules" (1969).

    Example:
        >>> law = GaussJacobi(0.2, num_nodes=4)
        >>> law.mean, law.variance  # those of Beta(0.2, 0.2)
        (tensor(0.5000), tensor(0.1786))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.unit_interval
    has_enumerate_support = True

    def __init__(self, concentration1: float, concentration0: float | None = None, num_nodes: int = 8) -> None:
        num_nodes = check_integer("num_nodes", num_nodes, 2)
        self.concentration1 = check_number("concentration1", concentration1)
        other = concentration1 if concentration0 is None else concentration0
        self.concentration0 = check_number("concentration0", other)
        self.nodes, self.weights = _nodes_and_weights(self.concentration1, self.concentration0, num_nodes)
        self._dtype = torch.get_default_dtype()
        super().__init__(torch.Size(), validate_args=False)

    def to(self, device: torch.device, dtype: torch.dtype) -> GaussJacobi:
        """The same law on a device, its draws in a dtype."""
        new = self.expand(self.batch_shape)
        new.nodes, new.weights, new._dtype = self.nodes.to(device), self.weights.to(device), dtype
        return new

    def expand(self, batch_shape: Any, _instance: Any = None) -> GaussJacobi:
        """The same law with this batch shape."""
        new = self._get_checked_instance(GaussJacobi, _instance)
        for name in ("concentration1", "concentration0", "nodes", "weights", "_dtype"):
            setattr(new, name, getattr(self, name))
        super(GaussJacobi, new).__init__(torch.Size(batch_shape), validate_args=False)
        return new

    @property
    def mean(self) -> Tensor:
        return (self.weights @ self.nodes).to(self._dtype).expand(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        mean = self.weights @ self.nodes
        return (self.weights @ (self.nodes - mean).square()).to(self._dtype).expand(self.batch_shape)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        drawn = torch.multinomial(self.weights, shape.numel(), replacement=True).reshape(shape)
        return self.nodes.to(self._dtype)[drawn]

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = self.nodes.to(self._dtype).reshape((-1,) + (1,) * len(self.batch_shape))
        return values.expand(values.shape[:1] + self.batch_shape) if expand else values

    def log_prob(self, value: Tensor) -> Tensor:
        """log w_q at a node, −∞ elsewhere."""
        nodes = self.nodes.to(value.dtype)
        distance = (value.unsqueeze(-1) - nodes).abs()
        log_weights = self.weights.log().to(value.dtype)[distance.argmin(-1)]
        log_prob = torch.where(distance.amin(-1) == 0, log_weights, -torch.inf)
        return log_prob.expand(torch.broadcast_shapes(self.batch_shape, value.shape))

    def __repr__(self) -> str:
        return f"GaussJacobi({self.concentration1}, {self.concentration0}, num_nodes={len(self.nodes)})"


def _nodes_and_weights(a1: float, a0: float, size: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues of the Jacobi matrix of the polynomials orthogonal under Beta, and their weights.

    SciPy's ``roots_jacobi`` divides zero by zero where a₁ + a₀ = 1.
    """
    from scipy.linalg import eigh_tridiagonal  # here, for it is slow to import

    total, k = a1 + a0, np.arange(1.0, size)
    diagonal = np.empty(size)
    diagonal[0] = a1 / total
    degree = 2 * k + total - 2
    diagonal[1:] = 0.5 + 0.5 * (a1 - a0) * (total - 2) / (degree * (degree + 2))
    squares = np.empty(size - 1)
    squares[0] = a1 * a0 / (total**2 * (total + 1))  # the variance; the general term is 0/0 at a₁ + a₀ = 1
    k, degree = k[1:], degree[1:]
    squares[1:] = k * (k + a1 - 1) * (k + a0 - 1) * (k + total - 2) / (degree**2 * (degree**2 - 1))
    nodes, vectors = eigh_tridiagonal(diagonal, np.sqrt(squares))
    return torch.from_numpy(nodes.clip(0, 1)), torch.from_numpy(np.square(vectors[0]))
