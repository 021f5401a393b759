"""Laws beside the same ones of SciPy, and the shares at which they are compared."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import scipy.stats as st
import torch
from torch import Tensor

SHARES = torch.tensor([1e-9, 1e-3, 0.05, 0.3, 0.5, 0.77, 0.95, 1 - 1e-6], dtype=torch.float64)


def t(*values: Any) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


FAMILIES: list[tuple[Any, Any]] = [
    (dist.Normal(*t(1.0, 2.0)), st.norm(1, 2)),
    (dist.Cauchy(*t(1.0, 2.0)), st.cauchy(1, 2)),
    (dist.Laplace(*t(1.0, 2.0)), st.laplace(1, 2)),
    (dist.AsymmetricLaplace(*t(1.0, 2.0, 0.6)), st.laplace_asymmetric(0.6, 1, 2)),
    (dist.Logistic(*t(1.0, 2.0)), st.logistic(1, 2)),
    (dist.SkewLogistic(*t(1.0, 2.0, 0.6)), st.genlogistic(0.6, 1, 2)),
    (dist.SoftLaplace(*t(1.0, 2.0)), st.hypsecant(1, 2)),
    (dist.Gumbel(*t(1.0, 2.0)), st.gumbel_r(1, 2)),
    (dist.Uniform(*t(1.0, 3.0)), st.uniform(1, 2)),
    (dist.Exponential(*t(2.0)), st.expon(scale=0.5)),
    (dist.Weibull(*t(2.0, 0.7)), st.weibull_min(0.7, scale=2)),
    (dist.Pareto(*t(2.0, 3.0)), st.pareto(3, scale=2)),
    (dist.HalfNormal(*t(2.0)), st.halfnorm(scale=2)),
    (dist.HalfCauchy(*t(2.0)), st.halfcauchy(scale=2)),
    (dist.LogNormal(*t(0.3, 0.8)), st.lognorm(0.8, scale=math.exp(0.3))),
    (dist.Gamma(*t(0.05, 2.0)), st.gamma(0.05, scale=0.5)),
    (dist.Gamma(*t(30.0, 2.0)), st.gamma(30, scale=0.5)),
    (dist.Chi2(*t(5.0)), st.chi2(5)),
    (dist.InverseGamma(*t(3.0, 2.0)), st.invgamma(3, scale=2)),
    (dist.Beta(*t(1.5, 3.0)), st.beta(1.5, 3)),
    (dist.AffineBeta(*t(2.0, 3.0, 1.0, 4.0)), st.beta(2, 3, 1, 4)),
    (dist.StudentT(*t(3.0, 1.0, 2.0)), st.t(3, 1, 2)),
    (dist.FisherSnedecor(*t(3.0, 7.0)), st.f(3, 7)),
    (dist.FoldedDistribution(dist.Normal(*t(1.0, 2.0))), st.foldnorm(0.5, scale=2)),
    (dist.Poisson(*t(3.7)), st.poisson(3.7)),
    (dist.Binomial(20, *t(0.3)), st.binom(20, 0.3)),
    (dist.NegativeBinomial(*t(3.5, 0.3)), st.nbinom(3.5, 0.7)),
    (dist.GammaPoisson(*t(2.0, 0.4)), st.nbinom(2, 0.4 / 1.4)),
    (dist.BetaBinomial(*t(2.0, 3.0), 15), st.betabinom(15, 2, 3)),
    (dist.Geometric(*t(0.2)), st.geom(0.2, loc=-1)),
    (dist.Bernoulli(*t(0.3)), st.bernoulli(0.3)),
]

NAMES = [f"{type(p).__name__}-{k}" for k, (p, _) in enumerate(FAMILIES)]
