"""Training of models."""

from pyro_probmix.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from pyro_probmix.training.fit import fit
from pyro_probmix.training.history import History
from pyro_probmix.training.rates import OneCycle
from pyro_probmix.training.replicas import Replicas, fit_replicas

__all__ = ["Checkpoint", "History", "OneCycle", "Replicas", "fit", "fit_replicas", "load_checkpoint", "save_checkpoint"]
