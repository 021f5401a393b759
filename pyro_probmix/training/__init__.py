"""Training of models."""

from pyro_probmix.training.fit import History, fit

__all__ = ["History", "fit"]
