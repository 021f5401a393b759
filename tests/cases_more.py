"""Rows of the registry of families, continued."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import scipy.stats
import torch
from torch import Tensor

from tests.cases import (
    INF,
    TORCH,
    Case,
    Grid,
    counts,
    finite,
    line,
    plane,
    positive,
    simplex,
    squared,
    uniform,
    unit,
)

__all__ = ["CASES"]


def two_sided(loc: float) -> Callable[[], Grid]:
    """The line, cut where the density has a kink."""

    def grid() -> Grid:
        x, log_weights = positive()
        return torch.cat([loc - x.flip(0), loc + x]), torch.cat([log_weights.flip(0), log_weights])

    return grid


def above(scale: float) -> Callable[[], Grid]:
    """A half-line of a power law: exponential in an exponential."""

    def grid() -> Grid:
        x, log_step = line(-60, math.log(100), 2001)
        u = x.exp()
        return scale * u.exp(), math.log(scale) + u + x + log_step

    return grid


def circle(size: int = 800) -> Grid:
    x, log_step = line(-math.pi, math.pi, size + 1)
    return x[:-1], log_step[:-1]


def interval(low: float, width: float) -> Callable[[], Grid]:
    """An interval, but for the ends, where a density is computed of what rounding has made of the distance."""

    def grid() -> Grid:
        x, log_step = line(-23, 23, 2001)
        log_weights = torch.nn.functional.logsigmoid(torch.stack([x, -x])).sum(0) + log_step
        return low + width * x.sigmoid(), log_weights + math.log(width)

    return grid


def spd() -> Grid:
    """Positive definite 2 × 2 matrices by their Cholesky factors."""
    (a, log_step_a), (c, log_step_c) = line(-7, 2.1, 62), line(-7, 7, 36)
    x, z, y = torch.cartesian_prod(a, c, a).unbind(-1)
    factor = torch.stack([torch.stack([x.exp(), torch.zeros_like(x)], -1), torch.stack([z, y.exp()], -1)], -2)
    return factor @ factor.mT, 3 * x + 2 * y + math.log(4) + 2 * log_step_a[0] + log_step_c[0]


def correlation() -> Grid:
    """Cholesky factors of 3 × 3 correlation matrices."""
    (x, log_step), (z, _) = line(-8.7, 8.7, 59), line(-12.6, 12.6, 85)
    s, t, u = torch.cartesian_prod(x, x, z).unbind(-1)
    zero, one = torch.zeros_like(s), torch.ones_like(s)
    sech_s, sech_t, sech_u = (v.cosh().reciprocal() for v in (s, t, u))
    rows = [[one, zero, zero], [s.tanh(), sech_s, zero], [t.tanh(), sech_t * u.tanh(), sech_t * sech_u]]
    log_jacobian = 2 * sech_s.log() + 3 * sech_t.log() + 2 * sech_u.log()
    return torch.stack([torch.stack(row, -1) for row in rows], -2), log_jacobian + 3 * log_step[0]


def compositions(total: int, size: int) -> Callable[[], Grid]:
    rows = [row for row in itertools.product(range(total + 1), repeat=size) if sum(row) == total]
    return finite(torch.tensor(rows, dtype=torch.float64))


def low_rank_parameters(shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, ...]:
    loc, factor = uniform((-2, 2), (-1, 1))(shape + (2,), generator)
    return loc, factor.unsqueeze(-1), uniform((0.5, 2))(shape + (2,), generator)[0]


def wishart_parameters(shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, ...]:
    (df,), (diagonal,) = uniform((5, 7))(shape, generator), uniform((0.5, 0.9))(shape + (2,), generator)
    (below,) = uniform((-0.4, 0.4))(shape + (2, 2), generator)
    return df, below.tril(-1) + diagonal.diag_embed()


def continuous_bernoulli(p: Any, y: Any) -> float:
    rate = abs(float(p.logits))
    law = scipy.stats.truncexpon(rate, scale=1 / rate)
    return law.logpdf(y if p.logits < 0 else 1 - y)


def kumaraswamy(p: Any, y: Any) -> float:
    a = float(p.concentration1)
    return scipy.stats.beta(1, p.concentration0).logpdf(y**a) + math.log(a) + (a - 1) * math.log(y)


def zero_inflated(p: Any, y: Any, mass: Any) -> float:
    gate = float(p.gate)
    return math.log(gate * (float(y) == 0) + (1 - gate) * mass.pmf(float(y)))


CASES: dict[str, Case] = {
    "AffineBeta": Case(
        types=(dist.AffineBeta,),
        parameters=uniform((1.5, 5), (1.5, 5)),
        make=lambda a, b: dist.AffineBeta(a, b, -0.1, 3.3),
        grid=interval(-0.1, 3.3),
        scipy=lambda p, y: scipy.stats.beta(p.concentration1, p.concentration0, -0.1, 3.3).logpdf(y),
        awkward=[(1e-9, 1e-9), (1e9, 1e9)],
        half=False,  # a sample is held off the ends by less than half precision resolves
    ),
    "AsymmetricLaplace": Case(
        types=(dist.AsymmetricLaplace,),
        parameters=uniform((0.3, 2.5), (0.5, 2)),
        make=lambda scale, asymmetry: dist.AsymmetricLaplace(0.5, scale, asymmetry),
        grid=two_sided(0.5),
        scipy=lambda p, y: scipy.stats.laplace_asymmetric(p.asymmetry, p.loc, p.scale).logpdf(y),
        awkward=[(1e-30, 1.0), (1e30, 1.0), (1.0, 1e-15)],
    ),
    "Binomial": Case(
        types=(TORCH.Binomial,),
        parameters=uniform((-3, 3)),
        make=lambda logits: dist.Binomial(7, logits=logits),
        grid=counts(8),
        scipy=lambda p, y: scipy.stats.binom(7, p.probs.numpy()).logpmf(y.numpy()),
        awkward=[(INF,), (-INF,), (80.0,), (-80.0,)],
    ),
    "Chi2": Case(
        types=(TORCH.Chi2,),
        parameters=uniform((1, 9)),
        make=dist.Chi2,
        grid=positive,
        scipy=lambda p, y: scipy.stats.chi2(p.df).logpdf(y),
        awkward=[(1e-9,), (1e9,)],
    ),
    "ContinuousBernoulli": Case(
        types=(TORCH.ContinuousBernoulli,),
        parameters=uniform((-4, 4)),
        make=lambda logits: dist.ContinuousBernoulli(logits=logits),
        grid=unit,
        scipy=continuous_bernoulli,
        awkward=[(80.0,), (-80.0,), (0.0,), (1e-30,)],
    ),
    "ExtendedBinomial": Case(
        types=(dist.ExtendedBinomial,),
        parameters=uniform((-3, 3)),
        make=lambda logits: dist.ExtendedBinomial(7, logits=logits),
        grid=counts(8),
        scipy=lambda p, y: scipy.stats.binom(7, p.probs.numpy()).logpmf(y.numpy()),
        awkward=[(INF,), (-INF,), (80.0,), (-80.0,)],
    ),
    "GammaPoisson": Case(
        types=(dist.GammaPoisson,),
        parameters=uniform((0.3, 3)),
        make=lambda rate: dist.GammaPoisson(3.5, rate),
        grid=counts(300),
        scipy=lambda p, y: scipy.stats.nbinom(3.5, (p.rate / (1 + p.rate)).numpy()).logpmf(y.numpy()),
        awkward=[(1e-20,), (1e30,)],
    ),
    "Geometric": Case(
        types=(TORCH.Geometric,),
        parameters=uniform((-2, 2)),
        make=lambda logits: dist.Geometric(logits=logits),
        grid=counts(400),
        scipy=lambda p, y: scipy.stats.geom(p.probs.numpy(), loc=-1).logpmf(y.numpy()),
        awkward=[(INF,), (80.0,), (-80.0,)],
    ),
    "Gumbel": Case(
        types=(TORCH.Gumbel,),
        parameters=uniform((-1.5, 1.5)),
        make=lambda loc: dist.Gumbel(loc, 1.5),
        grid=lambda: line(-14, 60, 3001),
        scipy=lambda p, y: scipy.stats.gumbel_r(p.loc, p.scale).logpdf(y),
        awkward=[(1e30,), (-1e30,), (1e3,)],
    ),
    "HalfNormal": Case(
        types=(TORCH.HalfNormal,),
        parameters=uniform((0.6, 2.2)),
        make=dist.HalfNormal,
        grid=positive,
        scipy=lambda p, y: scipy.stats.halfnorm(0, p.scale).logpdf(y),
        awkward=[(1e-30,), (1e30,)],
    ),
    "InverseGamma": Case(
        types=(dist.InverseGamma, TORCH.InverseGamma),
        parameters=uniform((2.5, 6), (0.3, 4)),
        make=dist.InverseGamma,
        grid=positive,
        scipy=lambda p, y: scipy.stats.invgamma(p.concentration, scale=p.rate).logpdf(y),
        awkward=[(1e-9, 1.0), (1e9, 1e9), (2.0, 1e-30), (2.0, 1e30)],
    ),
    "Kumaraswamy": Case(
        types=(TORCH.Kumaraswamy,),
        parameters=uniform((1.5, 5)),
        make=lambda concentration0: dist.Kumaraswamy(1.5, concentration0),
        grid=interval(0, 1),
        scipy=kumaraswamy,
        awkward=[(1e-9,), (1e9,)],
    ),
    "LKJCholesky": Case(
        types=(TORCH.LKJCholesky,),
        parameters=uniform((1, 2)),
        make=lambda concentration: dist.LKJCholesky(3, concentration),
        grid=correlation,
        awkward=[(1e-3,), (1e9,)],
        half=False,
        precision=1e-9,  # of the grid
    ),
    "Laplace": Case(
        types=(TORCH.Laplace,),
        parameters=uniform((0.3, 2.5)),
        make=lambda scale: dist.Laplace(0.5, scale),
        grid=two_sided(0.5),
        scipy=lambda p, y: scipy.stats.laplace(p.loc, p.scale).logpdf(y),
        awkward=[(1e-30,), (1e30,)],
    ),
    "LogisticNormal": Case(
        types=(TORCH.LogisticNormal,),
        parameters=uniform((-1, 1), (0.4, 1.2), event=(2,)),
        make=dist.LogisticNormal,
        grid=simplex,
        awkward=[([0.0, 1.0], [1e-30, 1e30])],
    ),
    "LowRankMultivariateNormal": Case(
        types=(TORCH.LowRankMultivariateNormal,),
        parameters=low_rank_parameters,
        make=dist.LowRankMultivariateNormal,
        grid=plane,
        scipy=lambda p, y: scipy.stats.multivariate_normal(p.loc, p.covariance_matrix).logpdf(y),
        awkward=[
            ([1.0, -2.0], [[1e-15], [3e-16]], [1e-30, 1e-30]),
            ([1.0, -2.0], [[1e15], [3e14]], [1e30, 1e30]),
            ([1.0, -2.0], [[0.1], [0.2]], [1e-3, 1e3]),
        ],
        half=False,
    ),
    "Multinomial": Case(
        types=(TORCH.Multinomial,),
        parameters=uniform((-3, 3), event=(3,)),
        make=lambda logits: dist.Multinomial(4, logits=logits),
        grid=compositions(4, 3),
        scipy=lambda p, y: scipy.stats.multinomial(4, p.probs.numpy()).logpmf(y.numpy()),
        awkward=[([0.0, -INF, 1.0],), ([-INF, -INF, 0.0],)],
        vmap=False,  # its log_prob writes to where it counts none
    ),
    "NegativeBinomial": Case(
        types=(TORCH.NegativeBinomial,),
        parameters=uniform((-2, 1.5)),
        make=lambda logits: dist.NegativeBinomial(3.5, logits=logits),
        grid=counts(400),
        scipy=lambda p, y: scipy.stats.nbinom(3.5, (-p.logits).sigmoid().numpy()).logpmf(y.numpy()),
        awkward=[(-INF,), (-80.0,), (80.0,)],
    ),
    "OneHotCategoricalStraightThrough": Case(
        types=(TORCH.OneHotCategoricalStraightThrough,),
        parameters=uniform((-3, 3), event=(3,)),
        make=lambda logits: dist.OneHotCategoricalStraightThrough(logits=logits),
        grid=finite(torch.eye(3, dtype=torch.float64)),
        awkward=[([0.0, -INF, 1.0],), ([-INF, -INF, 0.0],)],
    ),
    "Pareto": Case(
        types=(TORCH.Pareto,),
        parameters=uniform((2.5, 6)),
        make=lambda alpha: dist.Pareto(1.5, alpha),
        grid=above(1.5),
        scipy=lambda p, y: scipy.stats.pareto(p.alpha, scale=p.scale).logpdf(y),
        awkward=[(1e-30,), (1e30,)],
    ),
    "SineBivariateVonMises": Case(
        types=(dist.SineBivariateVonMises,),
        parameters=uniform((1.5, 3), (1.5, 3), (-1.4, 1.4)),
        make=lambda phi, psi, correlation: dist.SineBivariateVonMises(0.5, -1.0, phi, psi, correlation),
        grid=squared(lambda: circle(100)),
        awkward=[(1e4, 1e4, 10.0), (1e-9, 1e-9, 0.0), (1.0, 4.0, -1.99)],
        half=False,
        vmap=False,  # its constructor looks at the values of the concentrations
        moments=False,  # they are circular
        precision=1e-6,
    ),
    "VonMises": Case(
        types=(TORCH.VonMises,),
        parameters=uniform((-3, 3), (0.5, 5)),
        make=dist.VonMises,
        grid=circle,
        scipy=lambda p, y: scipy.stats.vonmises(p.concentration, p.loc).logpdf(y),
        awkward=[(1.0, 1e30), (1.0, 1e-9), (7.0, 1.0)],
        half=False,
        moments=False,  # they are circular
        precision=1e-6,
    ),
    "Weibull": Case(
        types=(TORCH.Weibull,),
        parameters=uniform((0.8, 3)),
        make=lambda scale: dist.Weibull(scale, 1.7),
        grid=positive,
        scipy=lambda p, y: scipy.stats.weibull_min(1.7, scale=p.scale).logpdf(y),
        awkward=[(1e-15,), (1e15,)],
    ),
    "Wishart": Case(
        types=(TORCH.Wishart,),
        parameters=wishart_parameters,
        make=lambda df, scale_tril: dist.Wishart(df, scale_tril=scale_tril.tril()),
        grid=spd,
        scipy=lambda p, y: scipy.stats.wishart(float(p.df), p.covariance_matrix.numpy()).logpdf(y.numpy()),
        awkward=[
            (3.0, [[1e-12, 0.0], [3e-13, 1e-12]]),
            (1e9, [[1.0, 0.0], [0.5, 1.0]]),
        ],
        half=False,
        vmap=False,  # its constructor looks at the values of df
        rsample=False,  # its sampler overwrites what it needs for the gradient
    ),
    "ZeroInflatedDistribution": Case(
        types=(dist.ZeroInflatedDistribution,),
        parameters=uniform((-1, 2), (-2, 2)),
        make=lambda logits, gate: dist.ZeroInflatedDistribution(dist.Geometric(logits=logits), gate_logits=gate),
        grid=counts(400),
        scipy=lambda p, y: zero_inflated(p, y, scipy.stats.geom(float(p.base_dist.probs), loc=-1)),
        awkward=[(80.0, 0.0), (0.0, 80.0), (0.0, -80.0)],
        exact=False,  # Pyro's log_prob is computed from what happens to be cached
    ),
    "ZeroInflatedNegativeBinomial": Case(
        types=(dist.ZeroInflatedDistribution,),
        parameters=uniform((-2, 1.5), (-2, 2)),
        make=lambda logits, gate: dist.ZeroInflatedNegativeBinomial(3.5, logits=logits, gate_logits=gate),
        grid=counts(400),
        scipy=lambda p, y: zero_inflated(p, y, scipy.stats.nbinom(3.5, 1 - float(p.probs))),
        awkward=[(-80.0, 0.0), (0.0, 80.0), (0.0, -80.0)],
        exact=False,  # Pyro's log_prob is computed from what happens to be cached
    ),
    "ZeroInflatedPoisson": Case(
        types=(dist.ZeroInflatedDistribution,),
        parameters=uniform((0.3, 8), (-2, 2)),
        make=lambda rate, gate: dist.ZeroInflatedPoisson(rate, gate_logits=gate),
        grid=counts(100),
        scipy=lambda p, y: zero_inflated(p, y, scipy.stats.poisson(float(p.rate))),
        awkward=[(1e-30, 0.0), (1e30, 0.0), (3.0, 80.0), (3.0, -80.0)],
        exact=False,  # Pyro's log_prob is computed from what happens to be cached
    ),
}
