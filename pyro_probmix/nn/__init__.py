"""Networks without sites: backbones, likelihoods and embedding densities."""

from pyro_probmix.nn.backbones import MLP, RescaledNetwork
from pyro_probmix.nn.embeddings import DistributionEmbedding, Embedding, LowRankNormalEmbedding, NormalEmbedding
from pyro_probmix.nn.likelihoods import CategoricalLikelihood, DistributionLikelihood, Likelihood, NormalLikelihood
from pyro_probmix.nn.sequences import LSTMBackbone, TransformerBackbone
from pyro_probmix.nn.splitting import split

__all__ = [
    "MLP",
    "CategoricalLikelihood",
    "DistributionEmbedding",
    "DistributionLikelihood",
    "Embedding",
    "LSTMBackbone",
    "Likelihood",
    "LowRankNormalEmbedding",
    "NormalEmbedding",
    "NormalLikelihood",
    "RescaledNetwork",
    "TransformerBackbone",
    "split",
]
