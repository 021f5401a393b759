"""Model and guide pairs: a conditional density model, and the site of it that is fused."""

from pyro_probmix._random import seeded
from pyro_probmix.models.assembly import METHODS, RegisteredMethod, assemble, register_method
from pyro_probmix.models.density_model import DensityModel
from pyro_probmix.models.methods import ERM, ManifoldMixup, ManifoldProbMix, Mixup, ProbMix
from pyro_probmix.models.mix import MixedModel, MixMessenger, mix
from pyro_probmix.models.mixing import Mixing
from pyro_probmix.models.posterior import PosteriorGuide
from pyro_probmix.models.priors import Guide
from pyro_probmix.models.rescaling import rescaled

__all__ = [
    "ERM",
    "METHODS",
    "DensityModel",
    "Guide",
    "ManifoldMixup",
    "ManifoldProbMix",
    "MixMessenger",
    "MixedModel",
    "Mixing",
    "Mixup",
    "PosteriorGuide",
    "ProbMix",
    "RegisteredMethod",
    "assemble",
    "mix",
    "register_method",
    "rescaled",
    "seeded",
]
