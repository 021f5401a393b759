"""The paper's toy problems: every method under ten settings of α and β, and pictures of one draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from pyro_probmix.datasets import TOYS, load
from pyro_probmix.evaluation import METRICS
from pyro_probmix.experiments.compare import compare
from pyro_probmix.experiments.figures import draw, draw_ablation, draw_densities
from pyro_probmix.experiments.files import check_writable, write_text
from pyro_probmix.experiments.methods import METHODS, select_methods
from pyro_probmix.experiments.paper import Cells, Claim, claim
from pyro_probmix.experiments.protocol import settings_for
from pyro_probmix.experiments.results import Comparison
from pyro_probmix.experiments.store import CellStore, Compute, PaperSettings, with_changes

__all__ = ["ABLATIONS", "COLUMNS", "PICTURES", "Ablation", "ablate", "ablation_settings", "draw_picture"]

ALPHAS, BETAS = (0.01, 0.05, 0.1, 0.5, 1.0), (0.0, 0.01)
COLUMNS = tuple(name for name in METHODS if not METHODS[name].separate_variance)
"""The methods of the paper's ablations."""

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

    def means(self, cells: Cells, setting: str, metric: str) -> dict[str, float]:
        """The mean of a metric for each method that has been run."""
        found = cells.get(setting, {})
        return {method: float(np.mean(found[method][metric])) for method in COLUMNS if method in found}

    def claims(self, cells: Cells) -> list[Claim]:
        """On how many settings that have been run whole a method that the paper names is better than the others."""
        claims = []
        names, others = (" or ".join(METHODS[method].label for method in group) for group in (self.best, self.others))
        whole = len(self.best) + len(self.others) == len(COLUMNS)
        for metric in self.metrics:
            means = {setting: self.means(cells, setting, metric) for setting in ablation_settings(self.toy)}
            verdicts = {}
            for setting, found in means.items():
                if len(found) == len(COLUMNS):
                    compared = {method: found[method] for method in (*self.best, *self.others)}
                    verdicts[setting] = _best(compared, metric) in self.best
            what = f"the best mean {metric}" if whole else f"a better mean {metric} than {others}"
            claims.append(claim(f"settings where {names} has {what}", verdicts))
        return claims

    def markdown(self, cells: Cells, notes: str) -> str:
        """A table a metric, with notes and claims below."""
        labels = [METHODS[method].label for method in COLUMNS]
        lines = [f"# Ablation of α and β on {self.toy}: test set"]
        for metric in self.metrics:
            lines += ["", f"| {metric} | {' | '.join(labels)} |", "|---|" + "--:|" * len(labels)]
            for setting, texts in self._rows(cells, metric, "**"):
                lines.append(f"| {setting} | {' | '.join(texts)} |")
        lines += ["", "The best mean of a row is bold.", "", notes, "", "What holds:", ""]
        return "\n".join([*lines, *(f"- {found}" for found in self.claims(cells))]) + "\n"

    def terminal(self, cells: Cells) -> list[Table]:
        """The means for a terminal, a table a metric."""
        tables = []
        for metric in self.metrics:
            title = f"{self.toy}: mean test {metric}"
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0))
            table.add_column("α, β", no_wrap=True)
            for method in COLUMNS:
                table.add_column(METHODS[method].label, justify="right")
            for setting in ablation_settings(self.toy):
                means = self.means(cells, setting, metric)
                texts = [f"{means[method]:.3g}" if method in means else "-" for method in COLUMNS]
                best = _best(means, metric) if means else ""
                table.add_row(
                    setting.replace("alpha=", "").replace("beta=", ""),
                    *(f"[bold]{t}[/bold]" if m == best else t for m, t in zip(COLUMNS, texts, strict=True)),
                )
            tables.append(table)
        return tables

    def _rows(self, cells: Cells, metric: str, mark: str) -> list[tuple[str, list[str]]]:
        rows = []
        for setting in ablation_settings(self.toy):
            means, texts = self.means(cells, setting, metric), []
            for method in COLUMNS:
                if method not in means:
                    texts.append("not run")
                    continue
                values = cells[setting][method][metric]
                text = f"{means[method]:.3g} ± {np.std(values, ddof=min(1, len(values) - 1)):.2g}"
                texts.append(f"{mark}{text}{mark}" if method == _best(means, metric) else text)
            rows.append((setting, texts))
        return rows


ABLATIONS = {
    "ablation-regression": Ablation("toy-regression", ("mse", "nll"), _MANIFOLD, _REST, "4-13"),
    "ablation-classification": Ablation("toy-classification", ("accuracy", "nll"), _PLAIN, _MANIFOLD, "15-24"),
}
"""The ablations by name."""


def ablation_settings(toy: str) -> dict[str, PaperSettings]:
    """The ten settings of an ablation by name.

    Source: El-Laham et al. (2025), sections 6.1 and E.1.

    >>> list(ablation_settings("toy-regression"))[:2]
    ['alpha=0.01, beta=0', 'alpha=0.05, beta=0']
    """
    base = settings_for(load(toy))
    return {
        f"alpha={alpha:g}, beta={beta:g}": PaperSettings(
            hidden_features=base.hidden_features,
            splits=10,
            epochs=base.epochs,
            learning_rate=base.learning_rate,
            alpha=alpha,
            beta=beta,
            validation_fraction=base.validation_fraction,
            standardise=base.standardise,
        )
        for beta in BETAS
        for alpha in ALPHAS
    }


PICTURES: dict[str, tuple[str, Callable[[Comparison, Path], None]]] = {
    "figure2": ("toy-regression", draw),
    "figure3": ("toy-regression", draw_densities),
    "figure14": ("toy-classification", draw),
}
"""The figures of one draw of a toy problem by name, with how they are drawn."""


def draw_picture(name: str, *, out: str | Path, seed: int = 0, progress: bool = True, **changes: Any) -> Path:
    """Draw a figure of the paper, of all methods on one draw of a toy problem, into ``OUT/NAME.png``.

    The protocol is that of :func:`ablate`; α and β, which the paper does not state here, are 0.1 and 0.01.

    Args:
        name: one of :data:`PICTURES`.
        out: output folder.
        seed: seed of everything random.
        progress: show a progress bar.
        **changes: fields of :class:`~pyro_probmix.experiments.ExperimentSettings` that differ.

    Returns:
        Path of the figure.

    Raises:
        ValueError: if the name is unknown or a setting is out of range.
    """
    if name not in PICTURES:
        raise ValueError(f"unknown figure {name!r}; expected one of {', '.join(PICTURES)}")
    toy, write = PICTURES[name]
    data, path = load(toy), Path(out) / f"{name}.png"
    settings = replace(ablation_settings(toy)["alpha=0.1, beta=0.01"], **{"splits": 1, **changes})
    check_writable(path.parent)
    comparison = compare(data, COLUMNS, settings, seed=seed, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(comparison, path)
    return path


def ablate(
    name: str,
    *,
    out: str | Path,
    methods: Sequence[str] = COLUMNS,
    seed: int = 0,
    device: str = "cpu",
    jobs: int = 1,
    compile: bool = False,
    report: Callable[[str], None] | None = None,
    progress: bool = True,
    **changes: Any,
) -> tuple[Ablation, Cells]:
    """Compute an ablation of the paper, the draws of each cell as one vectorised training.

    Cells are kept as by :func:`~pyro_probmix.experiments.reproduce`. Writes ``NAME.json``, ``NAME.md`` and
    ``NAME.png``.

    Args:
        name: one of :data:`ABLATIONS`.
        out: output folder.
        methods: which columns, of :data:`COLUMNS`.
        seed: seed of everything random.
        device: where the models are trained, such as ``"cuda"``; other devices draw other random numbers.
        jobs: processes that share the replicas of a cell, on a CPU; 1 trains in this one.
        compile: whether steps are compiled, as by :func:`~pyro_probmix.fit_replicas`: faster, equal up to rounding.
        report: called with a line on each cell.
        progress: show a progress bar for each cell.
        **changes: fields of :class:`~pyro_probmix.experiments.store.PaperSettings` that differ from the protocol.

    Returns:
        The ablation and all finished cells in the folder.

    Raises:
        ValueError: if a name is unknown, a setting is out of range, or a training fails (the draw is named).
    """
    if name not in ABLATIONS:
        raise ValueError(f"unknown ablation {name!r}; expected one of {', '.join(ABLATIONS)}")
    if seed < 0:
        raise ValueError(f"seed must not be negative; got {seed}")
    ablation, folder, compute = ABLATIONS[name], Path(out), Compute(device, jobs, compile)
    methods = select_methods(",".join(methods), COLUMNS)
    settings = {key: replace(value, **changes) for key, value in ablation_settings(ablation.toy).items()}
    data = TOYS[ablation.toy]()
    store = CellStore(folder, name, settings, dict.fromkeys(settings, ablation.toy), seed, compute)
    cells = store.fill(dict.fromkeys(settings, data), methods, report, progress)
    title = f"{ablation.toy}, as Figures {ablation.figures}"

    def write(cells: Cells) -> None:
        write_text(folder / f"{name}.md", ablation.markdown(cells, with_changes(_NOTES, changes, seed)))
        draw_ablation(cells, ablation.metrics, title, folder / f"{name}.png")

    return ablation, store.publish(cells, write)


def _best(means: dict[str, float], metric: str) -> str:
    sign = 1.0 if METRICS[metric].lower_is_better else -1.0
    return min(means, key=lambda method: sign * means[method])
