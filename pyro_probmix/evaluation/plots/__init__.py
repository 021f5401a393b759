"""Plots of densities, scores, trainings and sampling graphs: each draws on Axes, or makes them, and returns them."""

from pyro_probmix.evaluation.plots.bands import density_bands
from pyro_probmix.evaluation.plots.boxes import box_plots
from pyro_probmix.evaluation.plots.calibration import (
    coverage,
    pit_histogram,
    quantile_calibration,
    reliability_diagram,
    sharpness,
)
from pyro_probmix.evaluation.plots.curves import training_curves
from pyro_probmix.evaluation.plots.planes import class_probabilities, sampling_graph

__all__ = [
    "box_plots",
    "class_probabilities",
    "coverage",
    "density_bands",
    "pit_histogram",
    "quantile_calibration",
    "reliability_diagram",
    "sampling_graph",
    "sharpness",
    "training_curves",
]
