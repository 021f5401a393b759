"""A method against the best of the others, repetition by repetition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyro_probmix.datasets import Splitting
from pyro_probmix.evaluation import ScoreDifference, compare_scores, find_metric
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.splits import REPETITIONS
from pyro_probmix.experiments.table import Table, best, centre, heavy_tailed

__all__ = ["MAIN", "PAIRED", "Pair", "pair_table", "pair_with_best"]

MAIN = "manifold_probmix"
"""The method that is set against the others, where it is among them."""

PAIRED = """\
The other method is the best that is no variant of it. Differences are paired: their mean ± its standard error,
corrected where splits share rows (Nadeau and Bengio, 2003), or, where few numbers decide the means, their median."""
"""What is to be known of a table of pairs."""


@dataclass(frozen=True)
class Pair:
    """A metric of a method less that of another, paired over splits, draws or seeds."""

    method: str
    other: str
    found: ScoreDifference
    repetitions: int
    unit: str
    """What they are: splits, draws or seeds."""
    median: bool
    """Whether the median is told, as few numbers decide the means."""

    @property
    def difference(self) -> str:
        """The mean difference and its standard error, or the median."""
        if self.median:
            value = self.found.median
            return f"median {value:+.0f}" if 1e3 <= abs(value) < 1e15 else f"median {value:+.3g}"
        mean, error = self.found.difference, self.found.std_error
        size = max(error, abs(mean) / 10)
        digits = max(0, 1 - math.floor(math.log10(size))) if size > 0 else 2
        return f"{mean:+.{digits}f} ± {error:.{digits}f}"

    @property
    def wins(self) -> str:
        """On how many repetitions the method is better."""
        return f"{self.found.wins} of {self.repetitions}" + (f", {self.found.ties} equal" if self.found.ties else "")


def pair_with_best(
    values: Mapping[str, NDArray[np.float64]], metric: str, splitting: Splitting, method: str = MAIN
) -> Pair | None:
    """A method against that one of the others which has the best mean, or median of a heavy-tailed column.

    Variants of one model are not set against each other, where there are other models.

    Args:
        values: a number for each repetition, by method.
        metric: name of the metric.
        splitting: how the data are split.
        method: what is set against the others.

    Returns:
        The pair, or None without the method, others, a second repetition, or a direction in which the metric is better.
    """
    alone = method not in values or len(values) < 2 or len(values[method]) < 2
    if alone or find_metric(metric).lower_is_better is None:
        return None
    median = heavy_tailed(values.values())
    centres = {name: centre(found, median) for name, found in values.items()}
    others = {name: value for name, value in centres.items() if name != method}
    models = {name: value for name, value in others.items() if METHODS[name].model is not METHODS[method].model}
    other, repeated = best(models or others, metric), REPETITIONS[splitting]
    scores = {method: values[method], other: values[other]}
    found = compare_scores(scores, metric, reference=other, test_fraction=repeated.test_fraction)
    return Pair(method, other, found.differences[method], found.size, repeated.unit, median)


def pair_table(pairs: Mapping[str, Pair | None], heading: str) -> Table | None:
    """A table of pairs of one method, by the name of their row; None if there are none."""
    found = {name: pair for name, pair in pairs.items() if pair is not None}
    if not found:
        return None
    first = next(iter(found.values()))
    rows = [[name, METHODS[pair.other].label, pair.difference, pair.wins] for name, pair in found.items()]
    headings = [heading, f"{METHODS[first.method].label} minus", "difference", f"{first.unit} won"]
    return Table(headings, rows, num_names=2)
