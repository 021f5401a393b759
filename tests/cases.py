"""The registry of families under test: one row a family or wrapper, from which every family test is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import scipy.stats
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import transforms

__all__ = ["CASES", "NAMES", "Case", "Grid", "simplex_weights"]

Grid = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        types: the registered types that the row covers.
        parameters: draws parameters, from a batch shape and a generator; all float64.
        make: the distribution with these parameters.
        grid: points over the whole support, of shape (M,) + event shape, and logarithms of their weights.
        scipy: log-density of one member at one point by SciPy; None where SciPy has no counterpart.
        awkward: legal parameters at the edge of what the family allows, of batch shape ().
        half: whether PyTorch's own distribution works in half precision on the CPU.
        vmap: whether PyTorch's own distribution works under vmap.
        rsample: whether draws have a gradient where has_rsample says so.
        moments: whether mean and variance are those of the value.
        exact: whether log_prob depends on the parameters alone, to the last bit.
        precision: how far PyTorch's own log_prob is from normalised, in double precision.
        generated: whether the generated tests apply to the row at all.
    """

    types: tuple[type, ...]
    parameters: Callable[[torch.Size, torch.Generator], tuple[Tensor, ...]]
    make: Callable[..., Any]
    grid: Callable[[], Grid]
    scipy: Callable[[Any, Any], float] | None = None
    awkward: Sequence[tuple[Any, ...]] = ()
    half: bool = True
    vmap: bool = True
    rsample: bool = True
    moments: bool = True
    exact: bool = True
    precision: float = 0.0
    generated: bool = True

    def draw(self, batch_shape: Sequence[int] = (), seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
        """A member with random parameters of that batch shape."""
        generator = torch.Generator().manual_seed(seed)
        parameters = self.parameters(torch.Size(batch_shape), generator)
        return self.make(*[t.to(dtype) for t in parameters])

    def edges(self, dtype: torch.dtype = torch.float64) -> list[Any]:
        """The awkward members, of batch shape ()."""
        return [self.make(*[torch.tensor(v, dtype=dtype) for v in values]) for values in self.awkward]

    def log_integral(self, log_density: Callable[[Tensor], Tensor], batch_dim: int = 0) -> Tensor:
        """log ∫ exp(log_density(y)) dy for each member of a batch."""
        y, log_weights = self.grid()
        y = y.reshape(y.shape[:1] + (1,) * batch_dim + y.shape[1:])
        log_weights = log_weights.reshape(log_weights.shape + (1,) * batch_dim)
        return (log_density(y) + log_weights).logsumexp(0)

    def expectation(self, p: Any, function: Callable[[Tensor], Tensor], event_dim: int = 0) -> Tensor:
        """E_p[function(y)] for each member of a batch, for a function with that many event dimensions."""
        y, log_weights = self.grid()
        batch_dim = len(p.batch_shape)
        y = y.reshape(y.shape[:1] + (1,) * batch_dim + y.shape[1:])
        mass = (unmasked(p).log_prob(y) + log_weights.reshape(log_weights.shape + (1,) * batch_dim)).exp()
        mass = mass.reshape(mass.shape + (1,) * event_dim)
        return (mass * torch.where(mass > 0, function(y), 0)).sum(0)


def unmasked(p: Any) -> Any:
    """The law of ``p``, whichever of its values are counted."""
    return p.base_dist if isinstance(p, dist.MaskedDistribution) else p


def simplex_weights(batch_shape: Sequence[int], size: int, seed: int = 0) -> Tensor:
    """Weights of shape batch_shape + (size,); along the batch's left, row 1 has a zero and row 2 a one."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(*batch_shape, size, generator=generator, dtype=torch.float64) + 0.1
    if size > 1 and batch_shape and batch_shape[0] > 1:
        weights[1, ..., 0] = 0
    if batch_shape and batch_shape[0] > 2:
        weights[2] = torch.eye(size, dtype=torch.float64)[-1]
    return weights / weights.sum(-1, keepdim=True)


# How to integrate: the trapezoidal rule after a substitution that makes it converge exponentially.


def line(low: float, high: float, size: int) -> Grid:
    x = torch.linspace(low, high, size, dtype=torch.float64)
    return x, torch.full_like(x, math.log((high - low) / (size - 1)))


def real() -> Grid:
    x, log_step = line(-12, 12, 4001)
    return x.sinh(), x.cosh().log() + log_step


def positive() -> Grid:
    x, log_step = line(-120, 120, 8001)
    return x.exp(), x + log_step


def unit() -> Grid:
    x, log_step = line(-120, 35, 4001)
    return x.sigmoid(), log_sigmoid(x) + log_sigmoid(-x) + log_step


def simplex() -> Grid:
    x, log_step = line(-45, 30, 301)
    s, t = torch.cartesian_prod(x, x).unbind(-1)
    y = torch.stack([s.sigmoid(), (-s).sigmoid() * t.sigmoid(), (-s).sigmoid() * (-t).sigmoid()], -1)
    log_jacobian = log_sigmoid(s) + 2 * log_sigmoid(-s) + log_sigmoid(t) + log_sigmoid(-t)
    return y, log_jacobian + 2 * log_step[0]


def finite(values: Tensor) -> Callable[[], Grid]:
    return lambda: (values, torch.zeros(len(values), dtype=torch.float64))


def squared(grid: Callable[[], Grid]) -> Callable[[], Grid]:
    """The product of a grid of scalars with itself: event shape (2,)."""

    def product() -> Grid:
        y, log_weights = grid()
        return torch.cartesian_prod(y, y), torch.cartesian_prod(log_weights, log_weights).sum(-1)

    return product


def plane() -> Grid:
    return squared(lambda: line(-20, 20, 321))()


def counts(size: int) -> Callable[[], Grid]:
    return finite(torch.arange(size, dtype=torch.float64))


def log_sigmoid(x: Tensor) -> Tensor:
    return torch.nn.functional.logsigmoid(x)


# How to draw parameters.


def uniform(*bounds: tuple[float, float], event: tuple[int, ...] = ()) -> Any:
    """Draws one tensor of shape batch + event for each pair of bounds."""

    def draw(shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(
            low + (high - low) * torch.rand(shape + event, generator=generator, dtype=torch.float64)
            for low, high in bounds
        )

    return draw


def normal_parameters(shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, ...]:
    loc, triangle = (
        uniform((-2, 2))(shape + (2,), generator)[0],
        uniform((-0.7, 0.7))(shape + (2, 2), generator)[0],
    )
    diagonal = uniform((0.5, 1.6))(shape + (2,), generator)[0]
    return loc, triangle.tril(-1) + torch.diag_embed(diagonal)


def ones_for(shape: torch.Size) -> torch.Size:
    return torch.Size([1] * len(shape))


LOGIT_NORMAL = [transforms.AffineTransform(0.5, 2.0), transforms.SigmoidTransform()]
AFFINE = [transforms.AffineTransform(torch.tensor([1.0, -1.0]), 0.5, event_dim=1)]
RECIPROCAL = [transforms.PowerTransform(torch.tensor(-1.0))]
COLUMN = [transforms.AffineTransform(0.5, 0.5), transforms.ReshapeTransform((2,), (2, 1))]
TORCH = torch.distributions
INF = math.inf

CASES: dict[str, Case] = {
    "Normal": Case(
        types=(TORCH.Normal,),
        parameters=uniform((-2, 2), (0.3, 2.5)),
        make=dist.Normal,
        grid=real,
        scipy=lambda p, y: scipy.stats.norm(p.loc, p.scale).logpdf(y),
        awkward=[(3.0, 1e-30), (-3.0, 1e30), (1e30, 1.0), (0.0, 1e-9)],
    ),
    "LogNormal": Case(
        types=(TORCH.LogNormal,),
        parameters=uniform((-1, 1), (0.3, 1.5)),
        make=dist.LogNormal,
        grid=positive,
        scipy=lambda p, y: scipy.stats.lognorm(p.scale, scale=p.loc.exp()).logpdf(y),
        awkward=[(3.0, 1e-30), (-3.0, 1e30)],
    ),
    "MultivariateNormal": Case(
        types=(TORCH.MultivariateNormal,),
        parameters=normal_parameters,
        make=lambda loc, scale_tril: dist.MultivariateNormal(loc, scale_tril=scale_tril.tril()),
        grid=plane,
        scipy=lambda p, y: scipy.stats.multivariate_normal(p.loc, p.covariance_matrix).logpdf(y),
        awkward=[
            ([1.0, -2.0], [[1e-30, 0.0], [3e-31, 1e-30]]),
            ([1.0, -2.0], [[1e30, 0.0], [3e29, 1e30]]),
            ([1.0, -2.0], [[1.0, 0.0], [1.0, 1e-5]]),
        ],
        half=False,
    ),
    "Bernoulli": Case(
        types=(TORCH.Bernoulli,),
        parameters=uniform((-3, 3)),
        make=lambda logits: dist.Bernoulli(logits=logits),
        grid=finite(torch.tensor([0.0, 1.0], dtype=torch.float64)),
        scipy=lambda p, y: scipy.stats.bernoulli(p.probs.numpy()).logpmf(y.numpy()),
        awkward=[(INF,), (-INF,), (80.0,), (-80.0,)],
    ),
    "Categorical": Case(
        types=(TORCH.Categorical,),
        parameters=uniform((-3, 3), event=(4,)),
        make=lambda logits: dist.Categorical(logits=logits),
        grid=finite(torch.arange(4)),
        scipy=lambda p, y: scipy.stats.rv_discrete(values=(range(4), p.probs.numpy())).logpmf(y),
        awkward=[([0.0, -INF, 1.0, -INF],), ([-INF, -INF, 0.0, -INF],), ([0.0, 500.0, -500.0, 1.0],)],
    ),
    "OneHotCategorical": Case(
        types=(TORCH.OneHotCategorical,),
        parameters=uniform((-3, 3), event=(3,)),
        make=lambda logits: dist.OneHotCategorical(logits=logits),
        grid=finite(torch.eye(3, dtype=torch.float64)),
        scipy=lambda p, y: scipy.stats.multinomial(1, p.probs.numpy()).logpmf(y.numpy()),
        awkward=[([0.0, -INF, 1.0],), ([-INF, -INF, 0.0],)],
    ),
    "Poisson": Case(
        types=(TORCH.Poisson,),
        parameters=uniform((0.3, 12)),
        make=dist.Poisson,
        grid=counts(120),
        scipy=lambda p, y: scipy.stats.poisson(p.rate).logpmf(y),
        awkward=[(0.0,), (1e-30,), (1e30,)],
    ),
    "Exponential": Case(
        types=(TORCH.Exponential,),
        parameters=uniform((0.2, 5)),
        make=dist.Exponential,
        grid=positive,
        scipy=lambda p, y: scipy.stats.expon(scale=1 / p.rate).logpdf(y),
        awkward=[(1e-30,), (1e30,)],
    ),
    "Gamma": Case(
        types=(TORCH.Gamma,),
        parameters=uniform((0.3, 6), (0.3, 4)),
        make=dist.Gamma,
        grid=positive,
        scipy=lambda p, y: scipy.stats.gamma(p.concentration, scale=1 / p.rate).logpdf(y),
        awkward=[(1e-9, 1.0), (1e9, 1e9), (2.0, 1e-30), (2.0, 1e30)],
    ),
    "Beta": Case(
        types=(TORCH.Beta,),
        parameters=uniform((0.3, 5), (0.8, 5)),
        make=dist.Beta,
        grid=unit,
        scipy=lambda p, y: scipy.stats.beta(p.concentration1, p.concentration0).logpdf(y),
        awkward=[(1e-9, 1e-9), (1e-9, 1e9), (1e9, 1e9)],
    ),
    "Dirichlet": Case(
        types=(TORCH.Dirichlet,),
        parameters=uniform((0.8, 4), event=(3,)),
        make=dist.Dirichlet,
        grid=simplex,
        scipy=lambda p, y: scipy.stats.dirichlet(p.concentration).logpdf(y),
        awkward=[([1e-9, 1e-9, 1e-9],), ([1e-9, 1.0, 1e9],)],
    ),
    "Independent Normal": Case(
        types=(TORCH.Independent,),
        parameters=uniform((-2, 2), (0.5, 2.0), event=(2,)),
        make=lambda loc, scale: dist.Normal(loc, scale).to_event(1),
        grid=plane,
        scipy=lambda p, y: scipy.stats.norm(p.base_dist.loc, p.base_dist.scale).logpdf(y).sum(),
        awkward=[([1.0, 2.0], [1e-30, 1e30])],
    ),
    "Independent Poisson": Case(
        types=(TORCH.Independent,),
        parameters=uniform((0.3, 6), event=(2,)),
        make=lambda rate: dist.Poisson(rate).to_event(1),
        grid=squared(counts(60)),
        awkward=[([0.0, 3.0],)],
    ),
    "Independent Categorical": Case(
        types=(TORCH.Independent,),
        parameters=uniform((-3, 3), event=(2, 3)),
        make=lambda logits: dist.Categorical(logits=logits).to_event(1),
        grid=finite(torch.cartesian_prod(torch.arange(3), torch.arange(3))),
        awkward=[([[0.0, -INF, 1.0], [-INF, 0.0, 0.0]],)],
    ),
    "expanded Gamma": Case(
        types=(),  # an expansion stands for what it expands
        parameters=lambda shape, generator: (
            *uniform((0.3, 6))(ones_for(shape), generator),
            torch.ones(shape, dtype=torch.float64),
        ),
        make=lambda rate, shape: ExpandedDistribution(dist.Gamma(rate, rate + 1), shape.shape),
        grid=positive,
    ),
    "masked Exponential": Case(
        types=(dist.MaskedDistribution,),
        parameters=uniform((0.2, 5)),
        make=lambda rate: dist.Exponential(rate).mask(torch.arange(rate.numel()).reshape(rate.shape) % 2 == 0),
        grid=positive,
    ),
    "logit-Normal": Case(
        types=(TORCH.TransformedDistribution, dist.TransformedDistribution),
        parameters=uniform((-1, 1), (0.2, 1.0)),
        make=lambda loc, scale: dist.TransformedDistribution(dist.Normal(loc, scale), LOGIT_NORMAL),
        grid=unit,
        awkward=[(0.0, 1e-30), (0.0, 1e30)],
    ),
    "inverse Gamma": Case(
        types=(dist.TransformedDistribution,),
        parameters=uniform((0.5, 6), (0.3, 4)),
        make=lambda concentration, rate: dist.TransformedDistribution(dist.Gamma(concentration, rate), RECIPROCAL),
        grid=positive,
        scipy=lambda p, y: scipy.stats.invgamma(p.base_dist.concentration, scale=p.base_dist.rate).logpdf(y),
    ),
    "affine Independent Normal": Case(
        types=(dist.TransformedDistribution, TORCH.Independent),
        parameters=uniform((-2, 2), (1.0, 2.0), event=(2,)),
        make=lambda loc, scale: dist.TransformedDistribution(dist.Normal(loc, scale).to_event(1), AFFINE),
        grid=plane,
        half=False,  # the location of the transform is float32
    ),
    "reshaped Normal": Case(
        types=(dist.TransformedDistribution,),
        parameters=uniform((-2, 2), (0.5, 2.0), event=(2,)),
        make=lambda loc, scale: dist.TransformedDistribution(dist.Normal(loc, scale).to_event(1), COLUMN),
        grid=lambda: (plane()[0].unsqueeze(-1), plane()[1]),
    ),
}

from tests import cases_apart, cases_more  # noqa: E402  (their rows are made of what is above)

CASES |= cases_more.CASES | cases_apart.CASES
NAMES = sorted(name for name, case in CASES.items() if case.generated)
