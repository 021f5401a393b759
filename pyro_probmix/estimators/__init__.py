"""The methods as scikit-learn estimators."""

from pyro_probmix.estimators.classifier import ProbMixClassifier
from pyro_probmix.estimators.likelihoods import (
    CountLikelihood,
    NormalMixtureLikelihood,
    OrdinalLikelihood,
    ShapeLikelihood,
    StudentTLikelihood,
)
from pyro_probmix.estimators.regressor import ProbMixRegressor
from pyro_probmix.estimators.scoring import log_likelihood_scorer
from pyro_probmix.estimators.targets import LIKELIHOODS

__all__ = [
    "LIKELIHOODS",
    "CountLikelihood",
    "NormalMixtureLikelihood",
    "OrdinalLikelihood",
    "ProbMixClassifier",
    "ProbMixRegressor",
    "ShapeLikelihood",
    "StudentTLikelihood",
    "log_likelihood_scorer",
]
