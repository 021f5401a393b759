"""Our tuned figures beside the best of the paper and what others have published on the same data."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rich import box
from rich.table import Table

from pyro_probmix.experiments.paper import Cells, Claim, PaperTable, claim
from pyro_probmix.experiments.tuned import TUNED

__all__ = ["TunedTable"]

_PUBLISHED = {
    "deep_ensembles": "Deep ensembles",
    "mc_dropout": "MC dropout",
    "wgboost_evidential": "WGBoost evidential",
    "ngboost": "NGBoost",
    "deep_evidential": "Deep evidential",
}
_SINGLE = ("manifold_probmix", "local_manifold_probmix")


@functools.cache
def _figures() -> Any:
    return json.loads(files("pyro_probmix.experiments").joinpath("published.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class TunedTable(PaperTable):
    """A table of protocol *tuned*: its columns, the paper's best column, and published figures of other methods."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The methods in the table."""
        return tuple(TUNED)

    @property
    def labels(self) -> Mapping[str, str]:
        """How the methods are shown."""
        return TUNED

    def published(self, dataset: str) -> dict[str, tuple[float, float]]:
        """Published mean and spread on a data set, by method; standard deviation or error, as its authors printed."""
        scale = self.scale.get(dataset, 1.0)
        return {
            method: (scale * row[dataset][0], scale * row[dataset][1])
            for method, row in _figures()[self.metric].items()
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
        single = {n: min(m[s] for s in _SINGLE) for n, m in means.items() if all(s in m for s in _SINGLE)}
        plain = {n: min(means[n][s] for s in ("erm", "mixup")) for n in single if {"erm", "mixup"} <= means[n].keys()}
        ensemble = {n: m["ensemble"] for n, m in means.items() if "ensemble" in m}
        metric = self.metric.upper()
        claims = [
            claim(f"data sets where the better Manifold ProbMix is at or below the paper's best column ({metric})", {
                n: round(value, 2) <= self.paper_best(n) for n, value in single.items()}),
            claim(f"data sets where the better Manifold ProbMix is below ERM and Mixup ({metric})", {
                n: single[n] < value for n, value in plain.items()}),
        ]  # fmt: skip
        rivals = {n: self.rival(n) for n in ensemble}
        if self.metric == "nll":  # published errors have too few digits
            claims.append(claim("data sets where the ensemble is below every published NLL", {
                n: rival is not None and round(ensemble[n], 2) < rival for n, rival in rivals.items()}))  # fmt: skip
        return claims

    def markdown(self, cells: Cells, notes: str) -> str:
        """The table, a data set a row, with notes and claims below."""
        others = [method for method in _PUBLISHED if method in _figures()[self.metric]]
        heads = [*self.labels.values(), "the paper's best", *(_PUBLISHED[method] for method in others)]
        lines = [f"# {self.title}", "", f"| data set | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
        for name in self.paper:
            texts = [self.text(cells, name, method, "**", deviation=True) for method in self.columns]
            published = self.published(name)
            digits = 0 if name in self.scale else 2  # as printed
            texts += [f"{self.paper_best(name):.2f}", *(f"{published[method][0]:.{digits}f}" for method in others)]
            scaled = f" (× {self.scale[name]:.0f})" if name in self.scale else ""
            lines.append(f"| {name}{scaled} | {' | '.join(texts)} |")
        lines += ["", "Our best mean of a row is bold.", "", notes, "", "What holds:", ""]
        return "\n".join([*lines, *(f"- {found}" for found in self.claims(cells))]) + "\n"

    def terminal(self, cells: Cells) -> list[Table]:
        """The means for a terminal, of the data sets that have been run, four a table."""
        tables = []
        for shown in self.panels(cells):
            table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
            table.add_column("method", no_wrap=True)
            for name in shown:
                table.add_column(name.partition("-")[0], justify="right", no_wrap=True)
            for method, label in self.labels.items():
                table.add_row(label, *(self.text(cells, name, method, "b") for name in shown))
            table.add_row("the paper's best", *(f"{self.paper_best(name):.2f}" for name in shown))
            rivals = [self.rival(name) for name in shown]
            table.add_row("best published", *("-" if rival is None else f"{rival:.2f}" for rival in rivals))
            tables.append(table)
        return tables
