"""The paper's tables, ablations and figures: what is computed, and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pyro_probmix._checks import check_choice
from pyro_probmix._files import check_writable
from pyro_probmix.datasets import load
from pyro_probmix.experiments.compare import compare
from pyro_probmix.experiments.computing import compute_cells
from pyro_probmix.experiments.figures import draw, draw_densities
from pyro_probmix.experiments.methods import select, select_methods
from pyro_probmix.experiments.paper.ablations import ABLATION_SETTINGS, ABLATIONS, COLUMNS, Ablation
from pyro_probmix.experiments.paper.figures import draw_ablation, draw_table
from pyro_probmix.experiments.paper.tables import PaperTable, TunedTable
from pyro_probmix.experiments.results import Comparison
from pyro_probmix.experiments.runner import Runner
from pyro_probmix.experiments.settings import Candidate
from pyro_probmix.experiments.store import Cells

__all__ = [
    "PICTURES",
    "TABLES",
    "TUNED_TABLES",
    "ablate",
    "draw_picture",
    "reproduce",
    "select_datasets",
    "select_table",
]

_SCALES = {"kin8nm": 100.0, "naval-propulsion-plant": 100.0}

TABLES = {
    "table1": PaperTable("table1", "Table 1: test NLL in nats", "uci_paper", "table1_uci_nll", "nll"),
    "table2": PaperTable("table2", "Table 2: test NLL in nats", "stocks", "table2_stocks_nll", "nll", comparable=False),
    "table3": PaperTable(
        "table3", "Table 3: test RMSE in units of the target", "uci_paper", "table3_uci_rmse", "rmse", _SCALES
    ),
    "table4": PaperTable(
        "table4", "Table 4: test RMSE in dollars", "stocks", "table4_stocks_rmse", "rmse", comparable=False
    ),
}
"""What :func:`reproduce` reproduces, by name."""

_TUNED_RMSE = "Test RMSE in units of the target, protocol tuned"
TUNED_TABLES = {
    "table1": TunedTable("table1-tuned", "Test NLL in nats, protocol tuned", "uci_tuned", "table1_uci_nll", "nll"),
    "table3": TunedTable("table3-tuned", _TUNED_RMSE, "uci_tuned", "table3_uci_rmse", "rmse", _SCALES),
}
"""What is there in protocol *tuned*, by name."""


PICTURES: dict[str, tuple[str, Callable[[Comparison, Path], None]]] = {
    "figure2": ("toy-regression", draw),
    "figure3": ("toy-regression", draw_densities),
    "figure14": ("toy-classification", draw),
}
"""The figures of one draw of a toy problem by name, with how they are drawn."""


def select_table(name: str, protocol: str = "paper") -> PaperTable:
    """A table by its name and protocol.

    Raises:
        ValueError: if there is none.

    >>> select_table("table1", "tuned").results
    'uci_tuned'
    """
    check_choice("protocol", protocol, ("paper", "tuned"))
    check_choice("name", name, TABLES)
    if protocol == "tuned" and name not in TUNED_TABLES:
        raise ValueError(
            f"protocol: expected paper for {name}, got tuned, which is for {' and '.join(TUNED_TABLES)} alone"
        )
    return TABLES[name] if protocol == "paper" else TUNED_TABLES[name]


def select_datasets(names: str, table: str = "table1") -> tuple[str, ...]:
    """The rows of a table in a comma-separated list, in the order of the paper.

    Raises:
        ValueError: if a name is unknown or the list is empty.

    >>> select_datasets("yacht, bostonHousing"), select_datasets("lstm GOOG", "table2")
    (('bostonHousing', 'yacht'), ('lstm GOOG',))
    """
    return select("datasets", names, TABLES[table].paper)


def reproduce(
    name: str,
    data_dir: str | Path | None = None,
    *,
    protocol: str = "paper",
    out: str | Path,
    datasets: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    jobs: int = 1,
    compile: bool = False,
    report: Callable[[str], None] | None = None,
    progress: bool = True,
    **changes: Any,
) -> tuple[PaperTable, Cells]:
    """Compute a table of the paper, the splits or seeds of each cell as one vectorised training.

    A cell that is finished is kept in ``OUT/cells`` and not computed again: what a stopped run has finished is not
    lost, and runs over different data sets may share a folder. Other settings, seeds or data need another folder.
    Writes all cells as ``uci_paper.json``, ``uci_tuned.json`` or ``stocks.json``, and the table as Markdown and as a
    figure.

    Args:
        name: one of :data:`TABLES`; ``table1`` and ``table3`` share their cells, and ``table2`` and ``table4``.
        data_dir: local data folder, see :func:`~pyro_probmix.datasets.load_uci`.
        protocol: ``"paper"``, or ``"tuned"`` for what is in :data:`TUNED_TABLES`.
        out: output folder.
        datasets: which rows of the table to compute; by default all.
        methods: which columns; by default all.
        seed: seed of everything random.
        device: where the models are trained, such as ``"cuda"``; other devices draw other random numbers.
        jobs: processes that share the cells or, where these are few, the replicas of each; 1 trains in this one.
        compile: whether steps are compiled, as by :func:`~pyro_probmix.fit_replicas`: faster, equal up to rounding.
        report: called with a line on each cell.
        progress: show progress bars.
        **changes: fields of :class:`~pyro_probmix.experiments.ExperimentSettings` that differ from the protocol.

    Returns:
        The table and all finished cells in the folder.

    Raises:
        ValueError: if a name or the protocol is unknown, a setting is out of range, the folder has cells of other
            settings, or a training fails (the split is named).
        RuntimeError: if a process ends by itself (the cells that were in work are named).
        FileNotFoundError: if the data folder lacks a file; nothing has been trained then.
    """
    table = select_table(name, protocol)
    chosen_by_split = sorted(changes.keys() & {f.name for f in fields(Candidate)})
    if protocol == "tuned" and chosen_by_split:
        raise ValueError(f"{chosen_by_split[0]}: expected no change in protocol tuned, which chooses it; got one")
    shown = select_datasets(",".join(table.paper if datasets is None else datasets), name)
    columns = select_methods(",".join(table.columns if methods is None else methods), table.columns)
    runner = Runner(device, jobs, compile, progress)
    return table, compute_cells(table, draw_table, Path(out), shown, columns, runner, seed, report, changes, data_dir)


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
    check_choice("name", name, PICTURES)
    toy, write = PICTURES[name]
    data, path = load(toy), Path(out) / f"{name}.png"
    settings = replace(ABLATION_SETTINGS["alpha=0.1, beta=0.01"], **{"splits": 1, **changes})
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

    Cells are kept as by :func:`reproduce`, whose arguments these are too. Writes ``NAME.json``, ``NAME.md`` and
    ``NAME.png``.

    Args:
        name: one of :data:`ABLATIONS`.

    Returns:
        The ablation and all finished cells in the folder.

    Raises:
        ValueError: as by :func:`reproduce`.
    """
    check_choice("name", name, ABLATIONS)
    ablation, columns = ABLATIONS[name], select_methods(",".join(methods), COLUMNS)
    runner = Runner(device, jobs, compile, progress)
    return ablation, compute_cells(
        ablation, draw_ablation, Path(out), ablation.rows, columns, runner, seed, report, changes
    )
