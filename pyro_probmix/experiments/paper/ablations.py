"""The paper's toy problems: every method under ten settings of α and β."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as TerminalTable

from pyro_probmix.datasets import TOYS
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.paired import PAIRED, Pair, pair_table, pair_with_best
from pyro_probmix.experiments.paper.protocols import Protocol
from pyro_probmix.experiments.paper.tables import Claim
from pyro_probmix.experiments.settings import PAPER_TOY
from pyro_probmix.experiments.store import Cells
from pyro_probmix.experiments.table import Table, best, heavy_tailed, mean_texts, page

__all__ = ["ABLATIONS", "ABLATION_SETTINGS", "COLUMNS", "Ablation"]

ALPHAS, BETAS = (0.01, 0.05, 0.1, 0.5, 1.0), (0.0, 0.01)
ABLATION_SETTINGS = {
    f"alpha={alpha:g}, beta={beta:g}": replace(PAPER_TOY, splits=10, alpha=alpha, beta=beta)
    for beta in BETAS
    for alpha in ALPHAS
}
"""The ten settings of an ablation by name: El-Laham et al. (2025), sections 6.1 and E.1."""

COLUMNS = tuple(name for name in METHODS if not METHODS[name].separate_variance)
"""The methods of the paper's ablations."""

_LABELS = {name: METHODS[name].label for name in COLUMNS}
_MANIFOLD = ("manifold_probmix", "local_manifold_probmix")
_PLAIN = ("probmix", "local_probmix")
_REST = tuple(name for name in COLUMNS if name not in _MANIFOLD)

_NOTES = """\
Protocol *paper*, section 6.1. Stated by the paper: 100 training points, a fifth of them held back to choose the epoch,
an MLP of widths 128 and 64, its first layer as the embedding, all rows in a step, learning rate 0.01, 500 epochs,
5 neighbours, 10 draws of the data. Chosen where the paper is silent, once for all methods: data and β in their own
units, a validation after each epoch, 100 test points, exact label expectations, 100 embedding samples a prediction.
Departure: Adam, as in section 6.2, where the paper says gradient descent. Labels of classes that are not smoothed
(β = 0) are fused linearly. The layer that the Manifold ProbMix columns have for the standard deviations of their
embedding makes them 3 times as large as the others. Figures are mean ± standard deviation over the draws. The paper
shows box plots and prints no numbers."""


@dataclass(frozen=True)
class Ablation:
    """A toy problem under every pair of α and β.

    Args:
        toy: name of the toy problem.
        metrics: what the paper plots, the first being its first panel.
        best: the methods that are best in both metrics, as the paper says.
        others: those that it compares them with.
        figures: numbers of the paper's figures.
    """

    toy: str
    metrics: tuple[str, str]
    best: tuple[str, ...]
    others: tuple[str, ...]
    figures: str

    @property
    def name(self) -> str:
        """Name of its files, without suffix."""
        return self.toy.replace("toy", "ablation")

    results = name

    @property
    def rows(self) -> tuple[str, ...]:
        """The settings."""
        return tuple(ABLATION_SETTINGS)

    @property
    def protocol(self) -> Protocol:
        """How the rows are trained."""
        make, settings = TOYS[self.toy], ABLATION_SETTINGS.__getitem__
        return Protocol("paper", _LABELS, settings, lambda _: self.toy, lambda *_: make(), _NOTES, "drawn")

    def means(self, cells: Cells, setting: str, metric: str) -> dict[str, float]:
        """The mean of a metric for each method that has been run."""
        found = cells.get(setting, {})
        return {method: float(np.mean(found[method][metric])) for method in COLUMNS if method in found}

    def claims(self, cells: Cells) -> list[Claim]:
        """On how many settings that have been run whole a method that the paper names is better than the others."""
        claims = []
        names, others = (" or ".join(_LABELS[method] for method in group) for group in (self.best, self.others))
        whole = len(self.best) + len(self.others) == len(COLUMNS)
        for metric in self.metrics:
            means = {setting: self.means(cells, setting, metric) for setting in self.rows}
            verdicts = {
                setting: best({key: found[key] for key in (*self.best, *self.others)}, metric) in self.best
                for setting, found in means.items()
                if len(found) == len(COLUMNS)
            }
            what = f"the best mean {metric}" if whole else f"a better mean {metric} than {others}"
            claims.append(Claim(f"settings where {names} has {what}", verdicts))
        return claims

    def markdown(self, cells: Cells, notes: str) -> str:
        """A page of Markdown: a table a metric, with notes and claims below."""
        tables = []
        for metric in self.metrics:
            tables.append(Table([metric, *_LABELS.values()], self._rows(cells, metric, ".2g")))
            if self._heavy_tailed(cells, metric):
                tables.append(Table([f"{metric}, median", *_LABELS.values()], self._rows(cells, metric, median=True)))
        legend = "The best mean of a row is bold."
        if len(tables) > len(self.metrics):
            legend += " Where few draws decide the means, medians are below them."
        pairs = [pair_table(self.pairs(cells, metric), metric) for metric in self.metrics]
        told = [table.markdown() for table in pairs if table is not None]
        title = f"Ablation of α and β on {self.toy}: test set"
        return page(title, tables, legend, *told, *[PAIRED] * bool(told), notes, claims=self.claims(cells))

    def pairs(self, cells: Cells, metric: str) -> dict[str, Pair | None]:
        """The main method against the best of the others, by setting; None where they have not been run."""
        values = {
            setting: {key: np.array(found[metric]) for key, found in cells.get(setting, {}).items()}
            for setting in self.rows
        }
        return {setting: pair_with_best(found, metric, "drawn") for setting, found in values.items()}

    def terminal(self, cells: Cells) -> list[TerminalTable]:
        """The means, or medians, for a terminal, a table a metric, and the methods in pairs."""
        tables: list[Table | None] = []
        for metric in self.metrics:
            median = self._heavy_tailed(cells, metric)
            rows = [
                [_short(setting), *texts] for setting, *texts in self._rows(cells, metric, missing="-", median=median)
            ]
            title = f"{self.toy}: {'median' if median else 'mean'} test {metric}"
            pairs = {_short(setting): pair for setting, pair in self.pairs(cells, metric).items()}
            tables += [Table(["α, β", *_LABELS.values()], rows, title), pair_table(pairs, f"{metric}: α, β")]
        return [panel for table in tables if table is not None for panel in table.terminal()]

    def _rows(
        self, cells: Cells, metric: str, spread: str | None = None, missing: str = "not run", median: bool = False
    ) -> list[list[str]]:
        rows = []
        for setting in self.rows:
            values = self._values(cells, setting, metric)
            rows.append([setting, *mean_texts(values, metric, ".3g", spread, missing, median)])
        return rows

    def _heavy_tailed(self, cells: Cells, metric: str) -> bool:
        """Whether few draws decide the means of any row."""
        return any(heavy_tailed(self._values(cells, setting, metric)) for setting in self.rows)

    def _values(self, cells: Cells, setting: str, metric: str) -> list[NDArray[np.float64] | None]:
        found = cells.get(setting, {})
        return [np.array(found[method][metric]) if method in found else None for method in COLUMNS]


def _short(setting: str) -> str:
    return setting.replace("alpha=", "").replace("beta=", "")


ABLATIONS = {
    "ablation-regression": Ablation("toy-regression", ("mse", "nll"), _MANIFOLD, _REST, "4-13"),
    "ablation-classification": Ablation("toy-classification", ("accuracy", "nll"), _PLAIN, _MANIFOLD, "15-24"),
}
"""The ablations by name."""
