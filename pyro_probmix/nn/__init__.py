"""Networks without sites: backbones, likelihoods and embedding densities."""

from pyro_probmix.nn.backbones import MLP
from pyro_probmix.nn.embeddings import DistributionEmbedding, Embedding, LowRankNormalEmbedding, NormalEmbedding
from pyro_probmix.nn.likelihoods import (
    CategoricalLikelihood,
    DistributionLikelihood,
    Likelihood,
    NormalLikelihood,
)
from pyro_probmix.nn.rescaled import RescaledNetwork

__all__ = [
    "MLP",
    "CategoricalLikelihood",
    "DistributionEmbedding",
    "DistributionLikelihood",
    "Embedding",
    "Likelihood",
    "LowRankNormalEmbedding",
    "NormalEmbedding",
    "NormalLikelihood",
    "RescaledNetwork",
]
