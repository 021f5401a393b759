"""How good a predictive density is."""

from pyro_probmix.evaluation.inference_data import to_inference_data
from pyro_probmix.evaluation.metrics import evaluate

__all__ = ["evaluate", "to_inference_data"]
