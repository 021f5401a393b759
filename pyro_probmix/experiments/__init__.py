"""The paper's methods compared on data, under one protocol, and the paper's tables."""

from __future__ import annotations

from pyro_probmix.experiments.ablations import ABLATIONS, PICTURES, Ablation, ablate, draw_picture
from pyro_probmix.experiments.compare import FIGURE, RESULTS, compare
from pyro_probmix.experiments.methods import METHODS, Method, select_methods
from pyro_probmix.experiments.paper import PaperTable
from pyro_probmix.experiments.plugins import import_plugins
from pyro_probmix.experiments.protocol import ExperimentSettings, settings_for
from pyro_probmix.experiments.reproduce import (
    TABLES,
    TUNED_TABLES,
    paper_settings,
    reproduce,
    select_datasets,
    select_table,
)
from pyro_probmix.experiments.results import Comparison

__all__ = [
    "ABLATIONS",
    "FIGURE",
    "METHODS",
    "PICTURES",
    "RESULTS",
    "TABLES",
    "TUNED_TABLES",
    "Ablation",
    "Comparison",
    "ExperimentSettings",
    "Method",
    "PaperTable",
    "ablate",
    "compare",
    "draw_picture",
    "import_plugins",
    "paper_settings",
    "reproduce",
    "select_datasets",
    "select_methods",
    "select_table",
    "settings_for",
]
