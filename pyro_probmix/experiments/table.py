"""One table of texts, with a face for a terminal and one for Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.markup import escape
from rich.table import Table as TerminalTable

from pyro_probmix.evaluation import METRICS
from pyro_probmix.reports import Table as ReportTable

__all__ = ["Table", "best", "bold", "centre", "deviation", "heavy_tailed", "mean_texts", "page"]

_BOLD = r"\*\*(.+?)\*\*"


@dataclass(frozen=True)
class Table:
    """Rows of texts under headings; what :func:`bold` has marked is bold.

    >>> print(Table(["method", "NLL"], [["ERM", bold("0.1")], ["Mixup", "0.2"]]).markdown())
    | method | NLL |
    |---|--:|
    | ERM | **0.1** |
    | Mixup | 0.2 |
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    num_names: int = 1
    """Columns that name a row, and are set to the left; the others hold numbers."""

    def markdown(self) -> str:
        """The table in Markdown, without its title."""
        rule = "|" + "---|" * self.num_names + "--:|" * (len(self.headings) - self.num_names)
        lines = ("".join(f"| {text} " if text else "| " for text in row) + "|" for row in (self.headings, *self.rows))
        heading, *rows = lines
        return "\n".join([heading, rule, *rows])

    def report(self, caption: str) -> ReportTable:
        """The table for a report."""
        rows = [[re.sub(_BOLD, r"\1", text) for text in row] for row in self.rows]
        marked = [(i, j) for i, row in enumerate(self.rows) for j, text in enumerate(row) if re.search(_BOLD, text)]
        return ReportTable(caption, self.headings, rows, frozenset(marked), frozenset(range(self.num_names)))

    def terminal(self, width: int = 80) -> list[TerminalTable]:
        """The table for a terminal, as several side by side under the same names where it is wider."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.headings)
        headings, sizes = [*self.headings], []
        for place, texts in enumerate(columns):
            below = max(map(len, [re.sub(_BOLD, r"\1", text) for text in texts]), default=0)
            if place >= self.num_names:  # in lines that are no longer than the texts below, or than the longest word
                longest = max(below, *map(len, headings[place].split()))
                headings[place] = textwrap.fill(headings[place], longest, break_on_hyphens=False)
            sizes.append(max(below, *map(len, headings[place].splitlines() or [""])) + 3)
        names, numbers = range(self.num_names), range(self.num_names, len(headings))
        panels = [[*names, *numbers]]
        for parts in range(1, len(numbers) + 1):
            panels = [[*names, *part] for part in np.array_split(numbers, parts)]
            if all(sum(sizes[place] for place in panel) < width for panel in panels):
                break
        tables: list[TerminalTable] = []
        for panel in panels:
            table = TerminalTable(
                title=None if tables else escape(self.title), title_justify="left", box=box.SIMPLE_HEAD
            )
            for place in panel:
                table.add_column(headings[place], justify="left" if place in names else "right", no_wrap=True)
            for row in self.rows:
                table.add_row(*(re.sub(_BOLD, r"[b]\1[/b]", escape(row[place])) for place in panel))
            tables.append(table)
        return tables


def page(title: str, tables: Sequence[Table], *paragraphs: str, claims: Iterable[object]) -> str:
    """A page of Markdown: tables, what is to be known of them, and what they show."""
    shown = "\n".join(f"- {claim}" for claim in claims)
    parts = [f"# {title}", *(table.markdown() for table in tables), *paragraphs, "What holds:", shown]
    return "\n\n".join(parts) + "\n"


def bold(text: str, marked: bool = True) -> str:
    """The text, marked as Markdown does if it is to be bold."""
    return f"**{text}**" if marked else text


def best(means: Mapping[str, float], metric: str) -> str:
    """The name of the best value of a metric, the first of equal ones; an empty text of none."""
    if METRICS[metric].lower_is_better is None:
        return ""
    sign = 1.0 if METRICS[metric].lower_is_better else -1.0
    return min(means, key=lambda name: sign * means[name], default="")


def deviation(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The sample standard deviation; zero of one number."""
    return float(np.std(values, ddof=min(1, len(values) - 1)))


def heavy_tailed(values: Iterable[NDArray[np.float64] | None]) -> bool:
    """Whether few numbers decide the means of a column of a table, so that its medians tell more.

    That is so if the mean distance of its numbers from the median of their method is more than three times the median
    distance. (Of Normal numbers it is 1.2 times.)

    >>> heavy_tailed([np.array([1.0, 2.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0, 5.0])])
    False
    >>> heavy_tailed([np.array([1.0, 2.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0, 500.0])])
    True
    """
    distances = [np.abs(found - np.median(found)) for found in values if found is not None]
    apart = np.concatenate([[0.0], *distances])
    apart = apart[apart > 0]  # not those of the medians themselves, which are a third of three numbers
    return bool(apart.size and apart.mean() > 3 * np.median(apart))


def centre(values: NDArray[np.float64], median: bool) -> float:
    """The mean, or the median."""
    return float(np.median(values) if median else values.mean())


def mean_texts(
    values: Sequence[NDArray[np.float64] | None],
    metric: str,
    mean: str = ".2f",
    spread: str | None = None,
    missing: str = "not run",
    median: bool = False,
) -> list[str]:
    """The means of a metric in a format, the best in bold; behind them the standard deviations, if they have one.

    With ``median`` the medians, and behind them the quartiles.
    """
    means = {str(place): centre(found, median) for place, found in enumerate(values) if found is not None}
    first, texts = best(means, metric), []
    for place, found in enumerate(values):
        if found is None:
            texts.append(missing)
            continue
        text = f"{centre(found, median):{mean}}"
        if spread is not None and median:
            text += " [{:{form}}, {:{form}}]".format(*np.quantile(found, [0.25, 0.75]), form=spread)
        elif spread is not None:
            text += f" ± {deviation(found):{spread}}"
        texts.append(bold(text, str(place) == first))
    return texts
