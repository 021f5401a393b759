"""Training of models."""

from pyro_probmix.training.fit import History, fit
from pyro_probmix.training.replicas import Replicas, fit_replicas

__all__ = ["History", "Replicas", "fit", "fit_replicas"]
