"""Networks without sites: backbones, likelihoods and embedding densities."""

from pyro_probmix.nn.backbones import MLP
from pyro_probmix.nn.embeddings import Embedding, NormalEmbedding
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
    "DistributionLikelihood",
    "Embedding",
    "Likelihood",
    "NormalEmbedding",
    "NormalLikelihood",
    "RescaledNetwork",
]
