"""Reports: one page of HTML that shows data, settings, scores and predictions, and needs nothing beside it."""

from __future__ import annotations

from pyro_probmix.reports.comparison import comparison_report
from pyro_probmix.reports.estimator import estimator_report
from pyro_probmix.reports.evaluation import evaluation_report
from pyro_probmix.reports.page import REPORT, Table
from pyro_probmix.reports.predictions import Predictions
from pyro_probmix.reports.sections import count_kinds

__all__ = [
    "REPORT",
    "Predictions",
    "Table",
    "comparison_report",
    "count_kinds",
    "estimator_report",
    "evaluation_report",
]
