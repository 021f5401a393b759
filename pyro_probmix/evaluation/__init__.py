"""How good a predictive density is."""

from pyro_probmix.evaluation import plots
from pyro_probmix.evaluation.calibration import (
    ConformalInterval,
    IsotonicRecalibration,
    TemperatureScaling,
    VarianceScaling,
)
from pyro_probmix.evaluation.comparison import ScoreComparison, ScoreDifference, compare_scores
from pyro_probmix.evaluation.inference_data import to_inference_data
from pyro_probmix.evaluation.metrics import evaluate
from pyro_probmix.evaluation.out_of_distribution import ood_scores
from pyro_probmix.evaluation.probability_transform import pit
from pyro_probmix.evaluation.ranked_probability import crps
from pyro_probmix.evaluation.registry import METRICS, Metric, find_metric, register_metric

__all__ = [
    "METRICS",
    "ConformalInterval",
    "IsotonicRecalibration",
    "Metric",
    "ScoreComparison",
    "ScoreDifference",
    "TemperatureScaling",
    "VarianceScaling",
    "compare_scores",
    "crps",
    "evaluate",
    "find_metric",
    "ood_scores",
    "pit",
    "plots",
    "register_metric",
    "to_inference_data",
]
