"""Methods and ensembles on real data, as they are and recalibrated."""

from pyro_probmix.experiments.calibration.recalibrate import recalibrate
from pyro_probmix.experiments.calibration.table import CALIBRATION, CalibrationTable

__all__ = ["CALIBRATION", "CalibrationTable", "recalibrate"]
