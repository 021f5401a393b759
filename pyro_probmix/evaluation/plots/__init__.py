"""Plots of densities, scores, trainings and sampling graphs: each draws on Axes, or makes them, and returns them."""

from pyro_probmix.evaluation.plots.bands import density_bands
from pyro_probmix.evaluation.plots.boxes import box_plots
from pyro_probmix.evaluation.plots.curves import training_curves
from pyro_probmix.evaluation.plots.planes import class_probabilities, sampling_graph

__all__ = [
    "box_plots",
    "class_probabilities",
    "density_bands",
    "sampling_graph",
    "training_curves",
]
