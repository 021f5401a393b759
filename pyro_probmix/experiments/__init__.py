"""The paper's methods compared on data, under one protocol, and the paper's tables."""

from __future__ import annotations

from pyro_probmix.experiments.calibration import CALIBRATION, CalibrationTable, recalibrate
from pyro_probmix.experiments.compare import FIGURE, RESULTS, compare
from pyro_probmix.experiments.methods import METHODS, Method, select_methods
from pyro_probmix.experiments.paper.ablations import ABLATIONS, Ablation
from pyro_probmix.experiments.paper.protocols import paper_settings
from pyro_probmix.experiments.paper.reproduce import (
    PICTURES,
    TABLES,
    TUNED_TABLES,
    ablate,
    draw_picture,
    reproduce,
    select_datasets,
    select_table,
)
from pyro_probmix.experiments.paper.tables import PaperTable
from pyro_probmix.experiments.plugins import import_plugins
from pyro_probmix.experiments.results import Comparison
from pyro_probmix.experiments.settings import ExperimentSettings, settings_for

__all__ = [
    "ABLATIONS",
    "CALIBRATION",
    "FIGURE",
    "METHODS",
    "PICTURES",
    "RESULTS",
    "TABLES",
    "TUNED_TABLES",
    "Ablation",
    "CalibrationTable",
    "Comparison",
    "ExperimentSettings",
    "Method",
    "PaperTable",
    "ablate",
    "compare",
    "draw_picture",
    "import_plugins",
    "paper_settings",
    "recalibrate",
    "reproduce",
    "select_datasets",
    "select_methods",
    "select_table",
    "settings_for",
]
