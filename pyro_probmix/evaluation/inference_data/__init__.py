"""What ArviZ is handed: predictions, and posteriors with what each row is worth under them."""

from pyro_probmix.evaluation.inference_data.export import to_inference_data

__all__ = ["to_inference_data"]
