"""The toy, bundled, UCI and user's own data sets."""

from __future__ import annotations

from pyro_probmix.datasets.bundled import BUNDLED, load_bundled
from pyro_probmix.datasets.catalog import NAMES, TOYS, is_table, load
from pyro_probmix.datasets.dataset import Dataset, Splitting, Task
from pyro_probmix.datasets.published import DATA_VARIABLE
from pyro_probmix.datasets.stocks import HORIZON, STOCKS, WINDOW, load_stock, stock_split
from pyro_probmix.datasets.table import MAX_CLASSES, Table, load_table
from pyro_probmix.datasets.toy import TOY_RADII, TOY_REGIONS, toy_classification, toy_regression
from pyro_probmix.datasets.uci import UCI, load_uci, uci_splits, uci_url

__all__ = [
    "BUNDLED",
    "DATA_VARIABLE",
    "HORIZON",
    "MAX_CLASSES",
    "NAMES",
    "STOCKS",
    "TOYS",
    "TOY_RADII",
    "TOY_REGIONS",
    "UCI",
    "WINDOW",
    "Dataset",
    "Splitting",
    "Table",
    "Task",
    "is_table",
    "load",
    "load_bundled",
    "load_stock",
    "load_table",
    "load_uci",
    "stock_split",
    "toy_classification",
    "toy_regression",
    "uci_splits",
    "uci_url",
]
