"""Recalibration after training: what is fitted on held-out rows, and makes other densities of densities."""

from pyro_probmix.evaluation.calibration.conformal import ConformalInterval
from pyro_probmix.evaluation.calibration.isotonic import IsotonicRecalibration
from pyro_probmix.evaluation.calibration.temperature import TemperatureScaling
from pyro_probmix.evaluation.calibration.variance import VarianceScaling

__all__ = ["ConformalInterval", "IsotonicRecalibration", "TemperatureScaling", "VarianceScaling"]
