"""The table of scores and calibration errors before and after recalibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as TerminalTable
from scipy.stats import binom

from pyro_probmix.datasets import UCI, Dataset, load
from pyro_probmix.evaluation import find_metric
from pyro_probmix.experiments.calibration.scores import LEVEL, WAYS
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.paper.protocols import Protocol
from pyro_probmix.experiments.paper.tables import Claim
from pyro_probmix.experiments.settings import ExperimentSettings
from pyro_probmix.experiments.store import Cells
from pyro_probmix.experiments.table import Table, bold, page

__all__ = ["CALIBRATION", "LABELS", "CalibrationTable", "calibration_settings"]

TASKS = {
    "bostonHousing": "regression",
    "concrete": "regression",
    "breast-cancer": "classification",
    "digits": "classification",
}
LABELS = {
    **{name: METHODS[name].label for name in ("erm", "mixup", "probmix", "manifold_probmix")},
    "erm_ensemble": "ERM × 5",
    "ensemble": "Manifold ProbMix × 5",
}
HEADINGS = "NLL", "CRPS, Brier score", "RMSE, accuracy", "QCE, ECE", f"coverage at {LEVEL}"
_COVERAGE = f"coverage@{LEVEL}"
_COLUMNS = {
    "regression": ("nll", "crps", "rmse", "qce", _COVERAGE),
    "classification": ("nll", "brier", "accuracy", "ece"),
}
_DIGITS = {"nll": 3, "brier": 3, "accuracy": 3, "ece": 3, "qce": 3, "crps": 2, "rmse": 2, _COVERAGE: 2}
_ERROR = {"regression": "qce", "classification": "ece"}
_PROBMIX, _ENSEMBLES = ("probmix", "manifold_probmix", "ensemble"), ("erm_ensemble", "ensemble")
_NAMES = {
    "variance": "variance scaling",
    "isotonic": "isotonic recalibration",
    "temperature": "temperature scaling",
}


def calibration_settings(row: str) -> ExperimentSettings:
    """How the methods are trained on a data set.

    >>> calibration_settings("digits").calibration_fraction
    0.2
    """
    return ExperimentSettings(
        splits=10,
        epochs=200,
        batch_size=64,
        validation_every=5,
        patience=50,
        num_samples=50,
        calibration_fraction=0.2,
    )


def _by_chance(row: str) -> float:
    """The expected QCE of a density that is right, on as many rows as a split of a UCI set is tested on.

    >>> round(_by_chance("bostonHousing"), 3)
    0.046
    """
    levels, size = np.arange(1, 20) / 20, UCI[row].rows - round(0.9 * UCI[row].rows)
    counts = np.arange(size + 1)[:, None]
    return float((binom.pmf(counts, size, levels) * np.abs(counts / size - levels)).sum(0).mean())


_SETTINGS = calibration_settings("digits")
_NOTES = f"""\
{_SETTINGS.splits} splits of 90 % and 10 %. A fifth of the training rows is set aside for recalibration before anything
else, and of the others a fifth chooses the epoch. An MLP of widths 128 and 32, Adam with learning rate
{_SETTINGS.learning_rate}, steps of {_SETTINGS.batch_size} rows, at most {_SETTINGS.epochs} epochs, λ from
Beta({_SETTINGS.alpha}, {_SETTINGS.alpha}), β = {_SETTINGS.beta} in standardised units, any two rows mixed,
{_SETTINGS.num_samples} embedding samples a prediction. One choice for all methods and data sets, nothing is tuned.
Behind × {_SETTINGS.members} is the ensemble, the equal mixture of so many networks, each holding back another fifth;
the rows set aside are the same for all. NLL in nats, CRPS and RMSE in units of the target. QCE is the mean distance of
the share of labels below a quantile from its level, ECE that of the share of correct classes from the confidence, in 15
bins. Test rows are few: of a density that is right the QCE of a split is {_by_chance("bostonHousing"):.3f} on
bostonHousing and {_by_chance("concrete"):.3f} on concrete, by chance alone, and an ECE is not zero either: means near
that tell no methods apart. Figures are means over the splits, on test rows."""
_LEGEND = """\
Before → after recalibration; for numbers after variance scaling / isotonic recalibration of quantiles and, where it is
coverage, / conformal intervals; for classes after temperature scaling, which leaves the accuracy as it is. The best
mean of a data set is bold; the coverage that is nearest to the level."""


@dataclass(frozen=True)
class CalibrationTable:
    """Methods and ensembles on data sets, before and after recalibration.

    Args:
        tasks: the data sets, and what is predicted of them.
    """

    tasks: Mapping[str, str]

    name = results = "calibration"

    @property
    def rows(self) -> tuple[str, ...]:
        """The data sets."""
        return tuple(self.tasks)

    @property
    def columns(self) -> tuple[str, ...]:
        """The methods."""
        return tuple(LABELS)

    @property
    def protocol(self) -> Protocol:
        """How the rows are trained."""
        return Protocol("calibration", LABELS, calibration_settings, _source, _load, _NOTES)

    def values(self, cells: Cells, row: str, method: str, key: str) -> NDArray[np.float64] | None:
        """The numbers of a cell, one a split; None where there are none."""
        found = cells.get(row, {}).get(method, {}).get(key)
        return None if found is None else np.array(found)

    def mean(self, cells: Cells, row: str, method: str, key: str) -> float | None:
        """Their mean."""
        values = self.values(cells, row, method, key)
        return None if values is None else float(values.mean())

    def error(self, row: str) -> str:
        """The metric that is the calibration error on a data set."""
        return _ERROR[self.tasks[row]]

    def keys(self, row: str, metric: str) -> list[str]:
        """A metric of a data set before recalibration, and after each way that changes it."""
        task = self.tasks[row]
        ways = [] if metric == "accuracy" else [*WAYS[task], *(["conformal"] if metric == _COVERAGE else [])]
        return [metric, *(f"{metric} after {way}" for way in ways)]

    def claims(self, cells: Cells) -> list[Claim]:
        """What recalibration changes, and which methods need it least, on what has been run."""
        claims = []
        for task, ways in WAYS.items():
            for way in ways:
                for metric in (_ERROR[task], "nll"):
                    verdicts = self._by_cell(cells, task, metric, way, lambda before, after: after < before)
                    text = f"cells whose mean {metric.upper()} is lower after {_NAMES[way]}"
                    claims.append(Claim(text, verdicts))
        nearer = self._by_cell(
            cells, "regression", _COVERAGE, "conformal", lambda before, after: abs(after - LEVEL) <= abs(before - LEVEL)
        )
        claims.append(
            Claim(f"cells whose conformal intervals cover as near to {LEVEL} as their density or nearer", nearer)
        )
        whole = [row for row in self.rows if all(method in cells.get(row, {}) for method in LABELS)]
        for text, metric, after, chosen in (
            ("a ProbMix variant or its ensemble has the lowest calibration error before", "", False, _PROBMIX),
            ("a ProbMix variant or its ensemble has the lowest one after any recalibration", "", True, _PROBMIX),
            ("an ensemble has the lowest NLL before", "nll", False, _ENSEMBLES),
            ("an ensemble has the lowest NLL after any recalibration", "nll", True, _ENSEMBLES),
        ):
            best = {row: self._best(cells, row, metric or self.error(row), after) for row in whole}
            claims.append(Claim(f"data sets where {text}", {row: method in chosen for row, method in best.items()}))
        return claims

    def _by_cell(
        self, cells: Cells, task: str, metric: str, way: str, holds: Callable[[float, float], bool]
    ) -> dict[str, bool]:
        """Whether something holds of the means before and after a recalibration, by cell."""
        verdicts = {}
        for row in (row for row, other in self.tasks.items() if other == task):
            for method, label in LABELS.items():
                before, after = (self.mean(cells, row, method, key) for key in (metric, f"{metric} after {way}"))
                if before is not None and after is not None:
                    verdicts[f"{label} on {row}"] = holds(before, after)
        return verdicts

    def _best(self, cells: Cells, row: str, metric: str, after: bool) -> str:
        """The method with the lowest mean of a metric, before recalibration or after any."""
        keys = self.keys(row, metric)
        means = {method: min(self._means(cells, row, method, keys[1:] if after else keys[:1])) for method in LABELS}
        return min(means, key=lambda method: means[method])

    def _means(self, cells: Cells, row: str, method: str, keys: Sequence[str]) -> list[float]:
        found = (self.mean(cells, row, method, key) for key in keys)
        return [mean for mean in found if mean is not None]

    def markdown(self, cells: Cells, notes: str) -> str:
        """A page of Markdown: the table, with notes and claims below."""
        title = "Scores and calibration errors, before and after recalibration: test rows"
        return page(title, [self.table(cells)], _LEGEND, notes, claims=self.claims(cells))

    def terminal(self, cells: Cells) -> list[TerminalTable]:
        """The means for a terminal, a table a data set with a row a method and a way of recalibration."""
        panels: list[TerminalTable] = []
        for row in (row for row in self.rows if row in cells):
            metrics = _COLUMNS[self.tasks[row]]
            ways = dict.fromkeys(key.partition(" after ")[2] for metric in metrics for key in self.keys(row, metric))
            lines = []
            for method in cells[row]:
                texts: dict[str, str] = {}
                for metric in metrics:
                    texts |= self._texts(cells, row, method, metric)
                for way in ways:
                    own = [texts.get(f"{metric} after {way}" if way else metric, "") for metric in metrics]
                    lines.append(["" if way else LABELS[method], way or "none", *own])
            headings = ["method", "after", *(find_metric(metric.partition("@")[0]).label for metric in metrics)]
            panels += Table(headings, lines, f"{row}: means of test rows", num_names=2).terminal()
        return panels

    def table(self, cells: Cells) -> Table:
        """A data set and a method a row."""
        rows = []
        for row in self.rows:
            for place, method in enumerate(LABELS):
                texts = []
                for metric in _COLUMNS[self.tasks[row]] if method in cells.get(row, {}) else ():
                    before, *after = self._texts(cells, row, method, metric).values()
                    texts.append(f"{before} → {' / '.join(after)}" if after else before)
                texts += ["-" if texts else "not run"] * (len(HEADINGS) - len(texts))
                rows.append([row if place == 0 else "", LABELS[method], *texts])
        return Table(["data set", "method", *HEADINGS], rows, num_names=2)

    def _texts(self, cells: Cells, row: str, method: str, metric: str) -> dict[str, str]:
        """The means of a metric before recalibration and after each way, the best of the data set in bold."""
        keys = self.keys(row, metric)
        best, texts = self._best_mean(cells, row, metric, keys), {}
        for key in keys:
            mean = self.mean(cells, row, method, key)
            if mean is not None:
                texts[key] = bold(f"{mean:.{_DIGITS[metric]}f}", mean == best)
        return texts

    def _best_mean(self, cells: Cells, row: str, metric: str, keys: Sequence[str]) -> float:
        means = [mean for method in LABELS for mean in self._means(cells, row, method, keys)]
        if metric == _COVERAGE:
            return min(means, key=lambda mean: abs(mean - LEVEL))
        return min(means) if find_metric(metric).lower_is_better else max(means)


def _source(row: str) -> str:
    return UCI[row].sha256 if row in UCI else "scikit-learn"


def _load(row: str, data_dir: str | Path | None) -> Dataset:
    return load(row, data_dir) if row in UCI else load(row)


CALIBRATION = CalibrationTable(TASKS)
"""The table that ``pyro-probmix reproduce calibration`` computes."""
