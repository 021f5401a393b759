"""The paper's printed figures, and ours beside them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from pyro_probmix.experiments.methods import METHODS

__all__ = ["Cells", "Claim", "PaperTable", "claim"]

Cells = dict[str, dict[str, dict[str, list[float]]]]
"""Numbers a split, by data set, method and metric."""

_PROBMIX = tuple(name for name in METHODS if "probmix" in name)
_MANIFOLD_PROBMIX = tuple(name for name in _PROBMIX if "manifold" in name)
_PANEL = 4


@functools.cache
def _printed() -> Any:
    return json.loads(files("pyro_probmix.experiments").joinpath("paper_tables.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Claim:
    """A statement about a table, and on how many of how many cells or data sets it holds.

    Args:
        text: the statement.
        holds: the names for which it holds.
        fails: the names for which it does not.
    """

    text: str
    holds: tuple[str, ...]
    fails: tuple[str, ...]

    def __str__(self) -> str:
        missed = f"; not {', '.join(self.fails)}" if self.fails and len(self.fails) <= 8 else ""
        return f"{self.text}: {len(self.holds)} of {len(self.holds) + len(self.fails)}{missed}"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with a metric, lower being better, for data sets by methods.

    Args:
        name: name of the reproduction.
        key: its key in ``paper_tables.json``.
        metric: name of the metric.
        title: heading, with the unit.
        results: name of the file of the cells, without its suffix.
        scale: factor by which the paper multiplied the metric, by data set; 1 where not given.
        comparable: whether the unit of the paper's figures is known, so that they can be set against ours.
    """

    name: str
    key: str
    metric: str
    title: str
    results: str
    scale: dict[str, float] = field(default_factory=dict)
    comparable: bool = True

    @property
    def paper(self) -> dict[str, dict[str, tuple[float, float]]]:
        """The printed mean and standard deviation, by data set and method; the network goes before a stock's name."""
        printed = _printed()[self.key]
        if self.comparable:
            return printed
        return {f"{network} {name}": row for network, rows in printed.items() for name, row in rows.items()}

    @property
    def labels(self) -> Mapping[str, str]:
        """How the methods are shown."""
        return {method: METHODS[method].label for method in self.columns}

    @property
    def columns(self) -> tuple[str, ...]:
        """The methods in the table."""
        row = next(iter(self.paper.values()))
        return tuple(method for method in METHODS if method in row)

    def rival(self, dataset: str) -> float | None:
        """The lowest published mean of a method that is not in the table, if there is one."""
        return None

    def values(self, cells: Cells, dataset: str, method: str) -> NDArray[np.float64] | None:
        """Our numbers, in the paper's unit; ``None`` where there are none."""
        found = cells.get(dataset, {}).get(method)
        return None if found is None else np.array(found[self.metric]) * self.scale.get(dataset, 1.0)

    def means(self, cells: Cells, dataset: str) -> dict[str, float]:
        """Our mean for each method that has been run on a data set."""
        found = {method: self.values(cells, dataset, method) for method in self.columns}
        return {method: float(values.mean()) for method, values in found.items() if values is not None}

    def claims(self, cells: Cells) -> list[Claim]:
        """Which of the paper's claims hold, on the data sets whose every column has been run, and how we compare.

        Ours and the paper's are compared as printed, to two decimals; ours with each other as they are. A
        column is within one standard error of the best if the means are no further apart than the standard error of
        the best column's mean.
        """
        means = {name: self.means(cells, name) for name in self.paper}
        full = {name: found for name, found in means.items() if len(found) == len(self.columns)}
        ours = {(name, key): value for name, found in means.items() for key, value in found.items()}
        below = {f"{METHODS[key].label} on {name}": round(value, 2) <= self.paper[name][key][0]
                 for (name, key), value in ours.items()}  # fmt: skip
        best = {name: min(found, key=found.__getitem__) for name, found in full.items()}
        near = {}
        for name, found in full.items():
            values = self.values(cells, name, best[name])
            assert values is not None
            margin = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
            near[name] = _lowest(found, _PROBMIX) <= found[best[name]] + margin
        metric = self.metric.upper()
        claims = [
            claim(f"cells whose mean {metric} is at or below the paper's", below),
            claim(f"data sets where the best column is a ProbMix variant ({metric})", {
                name: key in _PROBMIX for name, key in best.items()}),
            claim("data sets where a ProbMix variant is the best column or within one standard error of it", near),
            claim("data sets where the best Manifold ProbMix variant is better than both ProbMix columns", {
                name: _lowest(found, _MANIFOLD_PROBMIX) < _lowest(found, ("probmix", "local_probmix"))
                for name, found in full.items()}),
        ]  # fmt: skip
        return claims if self.comparable else claims[1:]

    def markdown(self, cells: Cells, notes: str) -> str:
        """The table as in the paper, ours above the paper's, with notes and claims below."""
        labels = self.labels.values()
        lines = [f"# {self.title}", "", f"| data set | | {' | '.join(labels)} |", "|---|---|" + "--:|" * len(labels)]
        for name, printed in self.paper.items():
            ours = [self.text(cells, name, method, "**", deviation=True) for method in self.columns]
            best = min(value for value, _ in printed.values())
            theirs = [_bold(_text(*printed[method]), printed[method][0] == best, "**") for method in self.columns]
            scaled = f" (× {self.scale[name]:.0f})" if name in self.scale else ""
            lines.append(f"| {name}{scaled} | ours | {' | '.join(ours)} |")
            lines.append(f"| | paper | {' | '.join(theirs)} |")
        lines += ["", "The best mean of a row is bold.", "", notes, "", "What holds:", ""]
        return "\n".join([*lines, *(f"- {claim}" for claim in self.claims(cells))]) + "\n"

    def terminal(self, cells: Cells) -> list[Table]:
        """The same for a terminal, the paper's mean in parentheses: data sets that have been run, four a table."""
        tables = []
        for shown in self.panels(cells):
            table = Table(title=f"{self.title} (the paper's)", title_justify="left", box=box.SIMPLE_HEAD)
            table.add_column("method", no_wrap=True)
            for name in shown:
                table.add_column(name.partition("-")[0], justify="right", no_wrap=True)
            for method in self.columns:
                texts = [f"{self.text(cells, n, method, 'b')} {f'({self.paper[n][method][0]:.2f})':>7}" for n in shown]
                table.add_row(self.labels[method], *texts)
            tables.append(table)
        return tables

    def panels(self, cells: Cells) -> list[list[str]]:
        """The data sets that have been run, four a panel."""
        names = [name for name in self.paper if self.means(cells, name)]
        return [names[start : start + _PANEL] for start in range(0, len(names), _PANEL)]

    def text(self, cells: Cells, dataset: str, method: str, mark: str, deviation: bool = False) -> str:
        """A mean as it is printed, marked if it is the best of its data set."""
        values, means = self.values(cells, dataset, method), self.means(cells, dataset)
        if values is None:
            return "not run"
        text = _text(values.mean(), values.std(ddof=min(1, len(values) - 1))) if deviation else f"{values.mean():.2f}"
        return _bold(text, method == min(means, key=means.__getitem__), mark)


def claim(text: str, verdicts: Mapping[str, bool]) -> Claim:
    """The claim with the names for which it holds, and does not."""
    holds = tuple(name for name, verdict in verdicts.items() if verdict)
    return Claim(text, holds, tuple(name for name, verdict in verdicts.items() if not verdict))


def _bold(text: str, best: bool, mark: str) -> str:
    """The text between marks, ``"**"`` of Markdown or ``"b"`` of a terminal, if it is the best."""
    if not best:
        return text
    return f"[b]{text}[/b]" if mark == "b" else f"{mark}{text}{mark}"


def _lowest(means: dict[str, float], methods: tuple[str, ...]) -> float:
    return min(means[method] for method in methods if method in means)


def _text(mean: float, deviation: float) -> str:
    return f"{mean:.2f} ± {deviation:.2f}"
