"""Models and estimators as folders that run no code when they are loaded."""

from pyro_probmix.persistence.folder import FORMAT, SETTINGS, WEIGHTS, check_destination, read_settings
from pyro_probmix.persistence.saving import load, save

__all__ = ["FORMAT", "SETTINGS", "WEIGHTS", "check_destination", "load", "read_settings", "save"]
