"""The paper's printed figures, and ours beside them and beside what others have published."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as TerminalTable

from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.paired import PAIRED, Pair, pair_table, pair_with_best
from pyro_probmix.experiments.paper.protocols import PROTOCOLS, TUNED, Protocol
from pyro_probmix.experiments.store import Cells
from pyro_probmix.experiments.table import Table, best, bold, deviation, heavy_tailed, mean_texts, page

__all__ = ["Claim", "PaperTable", "TunedTable"]

_PROBMIX = tuple(name for name in METHODS if "probmix" in name)
_MANIFOLD_PROBMIX = tuple(name for name in _PROBMIX if "manifold" in name)
_SINGLE = ("manifold_probmix", "local_manifold_probmix")
_PUBLISHED = {
    "deep_ensembles": "Deep ensembles",
    "mc_dropout": "MC dropout",
    "wgboost_evidential": "WGBoost evidential",
    "ngboost": "NGBoost",
    "deep_evidential": "Deep evidential",
}


@functools.cache
def _printed(name: str) -> Any:
    return json.loads(files("pyro_probmix.experiments.paper").joinpath(f"{name}.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Claim:
    """A statement about a table, and for which cells or data sets it holds and for which it fails."""

    text: str
    verdicts: Mapping[str, bool]

    @property
    def holds(self) -> tuple[str, ...]:
        return tuple(name for name, verdict in self.verdicts.items() if verdict)

    @property
    def fails(self) -> tuple[str, ...]:
        return tuple(name for name, verdict in self.verdicts.items() if not verdict)

    def __str__(self) -> str:
        missed = f"; not {', '.join(self.fails)}" if self.fails and len(self.fails) <= 8 else ""
        return f"{self.text}: {len(self.holds)} of {len(self.verdicts)}{missed}"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with a metric, lower being better, for data sets by methods.

    Args:
        name: of its files, without suffix.
        title: heading, with the unit.
        results: name of the file of the cells, without its suffix.
        key: its key in ``paper_tables.json``.
        metric: name of the metric.
        scale: factor by which the paper multiplied the metric, by data set; 1 where not given.
        comparable: whether the unit of the paper's figures is known, so that they can be set against ours.
    """

    name: str
    title: str
    results: str
    key: str
    metric: str
    scale: dict[str, float] = field(default_factory=dict)
    comparable: bool = True
    _whose: ClassVar[str] = "The"

    @property
    def protocol(self) -> Protocol:
        """How the rows are trained."""
        return PROTOCOLS[self.results]

    @property
    def paper(self) -> dict[str, dict[str, tuple[float, float]]]:
        """The printed mean and standard deviation, by data set and method; the network goes before a stock's name."""
        printed = _printed("paper_tables")[self.key]
        if self.comparable:
            return printed
        return {f"{network} {name}": row for network, rows in printed.items() for name, row in rows.items()}

    @property
    def rows(self) -> tuple[str, ...]:
        """The data sets."""
        return tuple(self.paper)

    @property
    def labels(self) -> Mapping[str, str]:
        """The methods in the table, and how they are shown."""
        row = next(iter(self.paper.values()))
        return {name: method.label for name, method in METHODS.items() if name in row}

    @property
    def columns(self) -> tuple[str, ...]:
        """The methods in the table."""
        return tuple(self.labels)

    def values(self, cells: Cells, dataset: str, method: str) -> NDArray[np.float64] | None:
        """Our numbers, in the paper's unit; ``None`` where there are none."""
        found = cells.get(dataset, {}).get(method)
        return None if found is None else np.array(found[self.metric]) * self.scale.get(dataset, 1.0)

    def means(self, cells: Cells, dataset: str) -> dict[str, float]:
        """Our mean for each method that has been run on a data set."""
        found = {method: self.values(cells, dataset, method) for method in self.columns}
        return {method: float(values.mean()) for method, values in found.items() if values is not None}

    def rival(self, dataset: str) -> float | None:
        """The lowest published mean of a method that is not in the table, if there is one."""
        return None

    def claims(self, cells: Cells) -> list[Claim]:
        """Which of the paper's claims hold, on the data sets whose every column has been run, and how we compare.

        Ours and the paper's are compared as printed, to two decimals; ours with each other as they are. A
        column is within one standard error of the best if the means are no further apart than the standard error of
        the best column's mean.
        """
        means = {name: self.means(cells, name) for name in self.paper}
        full = {name: found for name, found in means.items() if len(found) == len(self.columns)}
        below = {f"{METHODS[key].label} on {name}": round(value, 2) <= self.paper[name][key][0]
                 for name, found in means.items() for key, value in found.items()}  # fmt: skip
        first = {name: best(found, self.metric) for name, found in full.items()}
        near = {}
        for name, found in full.items():
            values = self.values(cells, name, first[name])
            assert values is not None
            near[name] = _lowest(found, _PROBMIX) <= found[first[name]] + deviation(values) / np.sqrt(len(values))
        metric = self.metric.upper()
        claims = [
            Claim(f"cells whose mean {metric} is at or below the paper's", below),
            Claim(f"data sets where the best column is a ProbMix variant ({metric})", {
                name: key in _PROBMIX for name, key in first.items()}),
            Claim("data sets where a ProbMix variant is the best column or within one standard error of it", near),
            Claim("data sets where the best Manifold ProbMix variant is better than both ProbMix columns", {
                name: _lowest(found, _MANIFOLD_PROBMIX) < _lowest(found, ("probmix", "local_probmix"))
                for name, found in full.items()}),
        ]  # fmt: skip
        return claims if self.comparable else claims[1:]

    def markdown(self, cells: Cells, notes: str) -> str:
        """A page of Markdown: the table, with notes and claims below."""
        tables = [self.table(cells)]
        legend = f"{self._whose} best mean of a row is bold."
        if any(self._heavy_tailed(cells, name) for name in self.paper):
            legend += " Where few numbers decide the means, medians are below them."
        pairs = pair_table({self.row_name(name): pair for name, pair in self.pairs(cells).items()}, "data set")
        told = [pairs.markdown(), PAIRED] if pairs else []
        return page(self.title, tables, legend, *told, notes, claims=self.claims(cells))

    def pairs(self, cells: Cells) -> dict[str, Pair | None]:
        """The main method against the best of the others, by data set; None where they have not been run."""
        pairs = {}
        for name in self.paper:
            values = {key: self.values(cells, name, key) for key in self.columns if key in METHODS}
            found = {key: own for key, own in values.items() if own is not None}
            pairs[name] = pair_with_best(found, self.metric, self.protocol.splitting)
        return pairs

    def terminal(self, cells: Cells) -> list[TerminalTable]:
        """Our means, or medians, for a terminal, of what has been run, beside the paper's means."""
        names = [name for name in self.paper if name in cells]
        medians = {name: self._heavy_tailed(cells, name) for name in names}
        headings = ["method", *(_short(name) + ", median" * medians[name] for name in names)]
        columns = [self._column(cells, name, medians[name]) for name in names]
        shown = Table(headings, list(zip(self._methods, *columns, strict=True)), self._terminal_title)
        pairs = pair_table({_short(name): pair for name, pair in self.pairs(cells).items()}, "data set")
        return [panel for table in (shown, pairs) if table is not None for panel in table.terminal()]

    def table(self, cells: Cells) -> Table:
        """The table as in the paper, ours above the paper's."""
        rows = []
        for name, printed in self.paper.items():
            lowest = min(mean for mean, _ in printed.values())
            theirs = [bold("{:.2f} ± {:.2f}".format(*printed[key]), printed[key][0] == lowest) for key in self.columns]
            rows.append([self.row_name(name), "ours", *self._ours(cells, name, ".2f")])
            if self._heavy_tailed(cells, name):
                rows.append(["", "ours, median", *self._ours(cells, name, median=True)])
            rows.append(["", "paper", *theirs])
        return Table(["data set", "", *self.labels.values()], rows, num_names=2)

    @property
    def _terminal_title(self) -> str:
        return f"{self.title} (the paper's)"

    @property
    def _methods(self) -> list[str]:
        """The rows of the table for a terminal."""
        return [*self.labels.values()]

    def _column(self, cells: Cells, name: str, median: bool) -> list[str]:
        """A data set in the table for a terminal."""
        theirs = [f"({self.paper[name][key][0]:.2f})" for key in self.columns]
        return [f"{a} {b:>7}" for a, b in zip(self._ours(cells, name, median=median), theirs, strict=True)]

    def _ours(self, cells: Cells, dataset: str, spread: str | None = None, median: bool = False) -> list[str]:
        values = [self.values(cells, dataset, key) for key in self.columns]
        return mean_texts(values, self.metric, spread=spread, median=median)

    def _heavy_tailed(self, cells: Cells, dataset: str) -> bool:
        return heavy_tailed(self.values(cells, dataset, key) for key in self.columns)

    def row_name(self, dataset: str) -> str:
        """A data set, with the factor of its numbers."""
        return f"{dataset} (× {self.scale[dataset]:.0f})" if dataset in self.scale else dataset


@dataclass(frozen=True)
class TunedTable(PaperTable):
    """A table of protocol *tuned*: its columns, the paper's best column, and published figures of other methods."""

    _whose: ClassVar[str] = "Our"

    @property
    def labels(self) -> Mapping[str, str]:
        return TUNED

    def published(self, dataset: str) -> dict[str, tuple[float, float]]:
        """Published mean and spread on a data set, by method; standard deviation or error, as its authors printed."""
        scale = self.scale.get(dataset, 1.0)
        return {
            method: (scale * row[dataset][0], scale * row[dataset][1])
            for method, row in _printed("published")[self.metric].items()
            if dataset in row
        }

    def paper_best(self, dataset: str) -> float:
        """The mean of the paper's best column."""
        return min(mean for mean, _ in self.paper[dataset].values())

    def rival(self, dataset: str) -> float | None:
        """The lowest published mean of a method that is not in the table; none where too few digits are printed."""
        if dataset in self.scale:
            return None
        return min((mean for mean, _ in self.published(dataset).values()), default=None)

    def claims(self, cells: Cells) -> list[Claim]:
        """How ours compare, on the data sets where what is compared has been run; with others' as printed."""
        means = {name: self.means(cells, name) for name in self.paper}
        single = {n: _lowest(m, _SINGLE) for n, m in means.items() if all(s in m for s in _SINGLE)}
        plain = {n: _lowest(means[n], ("erm", "mixup")) for n in single if {"erm", "mixup"} <= means[n].keys()}
        ensemble = {n: m["ensemble"] for n, m in means.items() if "ensemble" in m}
        metric = self.metric.upper()
        claims = [
            Claim(f"data sets where the better Manifold ProbMix is at or below the paper's best column ({metric})", {
                n: round(value, 2) <= self.paper_best(n) for n, value in single.items()}),
            Claim(f"data sets where the better Manifold ProbMix is below ERM and Mixup ({metric})", {
                n: single[n] < value for n, value in plain.items()}),
        ]  # fmt: skip
        rivals = {n: self.rival(n) for n in ensemble}
        if self.metric == "nll":  # published errors have too few digits
            claims.append(Claim("data sets where the ensemble is below every published NLL", {
                n: rival is not None and round(ensemble[n], 2) < rival for n, rival in rivals.items()}))  # fmt: skip
        return claims

    def table(self, cells: Cells) -> Table:
        """A data set a row: ours, the paper's best, and what others have published."""
        others = [method for method in _PUBLISHED if method in _printed("published")[self.metric]]
        rows = []
        for name in self.paper:
            published, digits = self.published(name), 0 if name in self.scale else 2  # as printed
            theirs = [f"{self.paper_best(name):.2f}", *(f"{published[method][0]:.{digits}f}" for method in others)]
            rows.append([self.row_name(name), *self._ours(cells, name, ".2f"), *theirs])
            if self._heavy_tailed(cells, name):
                rows.append(["median", *self._ours(cells, name, median=True), *[""] * len(theirs)])
        headings = ["data set", *self.labels.values(), "the paper's best", *(_PUBLISHED[key] for key in others)]
        return Table(headings, rows)

    @property
    def _terminal_title(self) -> str:
        return self.title

    @property
    def _methods(self) -> list[str]:
        return [*self.labels.values(), "the paper's best", "best published"]

    def _column(self, cells: Cells, name: str, median: bool) -> list[str]:
        rival = self.rival(name)
        theirs = [f"{self.paper_best(name):.2f}", "-" if rival is None else f"{rival:.2f}"]
        return [*self._ours(cells, name, median=median), *theirs]


def _short(dataset: str) -> str:
    return dataset.partition("-")[0]


def _lowest(means: Mapping[str, float], methods: Sequence[str]) -> float:
    return min(means[method] for method in methods if method in means)
