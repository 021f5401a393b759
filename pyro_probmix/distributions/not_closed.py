"""Why the other families of PyTorch and Pyro have no log-linear pool in closed form."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch.distributions import Distribution

__all__ = ["NOT_CLOSED", "why_not_closed"]

_POLYNOMIAL = "its density is a power of a polynomial, and a product of two such powers is no third"
_TAILS = "its exponential tails meet in a shape that changes with location and scale"
_MIXTURE = "its density is a sum, and a power of a sum is no sum of powers"
_COMPOUND = "its density is an integral over a latent parameter, and a power of an integral is no integral of powers"
_RELAXED = "its density is a power of a sum over the categories, and a product of two such powers is no third"
_CHAIN = "it is a joint law over a latent chain, and a product of two needs a larger chain"
_BATCHLESS = "it has no batch; it is linear in its logits, which can be pooled themselves"
_SEQUENCE = "it is a law of times or atoms of its own, which two components seldom share"
_IMPROPER = "it is not normalised"

NOT_CLOSED: dict[type[Distribution], str] = {
    torch.distributions.Cauchy: _POLYNOMIAL,
    torch.distributions.FisherSnedecor: _POLYNOMIAL,
    torch.distributions.HalfCauchy: _POLYNOMIAL,
    torch.distributions.MixtureSameFamily: _MIXTURE,
    torch.distributions.RelaxedBernoulli: _RELAXED,
    torch.distributions.RelaxedOneHotCategorical: _RELAXED,
    torch.distributions.StudentT: _POLYNOMIAL,
    dist.BetaBinomial: _COMPOUND,
    dist.CoalescentTimes: _SEQUENCE,
    dist.CoalescentTimesWithRate: _SEQUENCE,
    dist.DirichletMultinomial: _COMPOUND,
    dist.DiscreteHMM: _CHAIN,
    dist.Empirical: _SEQUENCE,
    dist.FoldedDistribution: _MIXTURE,
    dist.GammaGaussianHMM: _CHAIN,
    dist.GaussianHMM: _CHAIN,
    dist.GaussianMRF: _CHAIN,
    dist.GaussianScaleMixture: _MIXTURE,
    dist.GroupedNormalNormal: _SEQUENCE,
    dist.ImproperUniform: _IMPROPER,
    dist.IndependentHMM: _CHAIN,
    dist.LinearHMM: _CHAIN,
    dist.LogNormalNegativeBinomial: _COMPOUND,
    dist.Logistic: _TAILS,
    dist.MaskedMixture: "it is made of two laws; pool each with its like",
    dist.MixtureOfDiagNormals: _MIXTURE,
    dist.MixtureOfDiagNormalsSharedCovariance: _MIXTURE,
    dist.MultivariateStudentT: _POLYNOMIAL,
    dist.NanMaskedMultivariateNormal: "a missing value changes its dimension; pool MultivariateNormals",
    dist.NanMaskedNormal: "a missing value changes its law; pool Normals and mask them",
    dist.OneOneMatching: _BATCHLESS,
    dist.OneTwoMatching: _BATCHLESS,
    dist.ProjectedNormal: "its density holds the normal distribution function of the direction",
    dist.Rejector: "its normaliser is known by its sampler alone",
    dist.SineSkewed: "a product of skewing factors 1 + sin is no such factor",
    dist.SkewLogistic: _TAILS,
    dist.SoftAsymmetricLaplace: _TAILS,
    dist.SoftLaplace: _TAILS,
    dist.Stable: "its density has no closed form",
    dist.TruncatedPolyaGamma: "it has no parameters, and its density is a truncated series",
    dist.Unit: _IMPROPER,
}
if hasattr(torch.distributions, "GeneralizedPareto"):  # not in every version
    NOT_CLOSED[torch.distributions.GeneralizedPareto] = _POLYNOMIAL


def why_not_closed(cls: type) -> str | None:
    """Why this type of distribution, or one it is derived from, has no pool in closed form."""
    return next((NOT_CLOSED[base] for base in cls.__mro__ if base in NOT_CLOSED), None)
