"""The paper's tables on its data, trained cell by cell: a cell is a method on all splits of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyro_probmix.datasets import UCI, load_uci
from pyro_probmix.experiments.figures import draw_table
from pyro_probmix.experiments.files import write_text
from pyro_probmix.experiments.methods import METHODS, select_methods
from pyro_probmix.experiments.paper import Cells, PaperTable
from pyro_probmix.experiments.protocol import LARGE
from pyro_probmix.experiments.store import CellStore, PaperSettings

__all__ = ["PROTOCOL", "TABLES", "UCI_RESULTS", "paper_settings", "reproduce", "select_datasets"]

UCI_RESULTS = "uci_paper"
"""Name of the results of Tables 1 and 3."""

TABLES = {
    "table1": PaperTable("table1", "table1_uci_nll", "nll", "Table 1: test NLL in nats"),
    "table3": PaperTable(
        "table3",
        "table3_uci_rmse",
        "rmse",
        "Table 3: test RMSE in units of the target",
        {"kin8nm": 100.0, "naval-propulsion-plant": 100.0},
    ),
}
"""What :func:`reproduce` reproduces, by name."""

_ALPHA, _BETA, _EVERY, _PATIENCE = 0.1, 1e-5, 5, 100

PROTOCOL = f"""\
Protocol *paper*. Stated by the paper: 20 splits of 90 % and 10 %, a fifth of the training rows held back to choose the
epoch, an MLP of widths 128 and 32 (64 and 32 beside a variance layer of width 64 in the columns with a star), its first
layer as the embedding, Adam with learning rate 0.005, 1000 epochs, 5 neighbours. Chosen where the paper is silent, once
for all methods and on validation rows alone: steps of 64 rows, λ from Beta({_ALPHA}, {_ALPHA}), β = {_BETA} in
standardised units, exact label expectations, a validation every {_EVERY} epochs, 100 embedding samples a prediction.
Departures, to save time: the splits of a cell stop early where the validation loss of each has not improved for
{_PATIENCE} epochs; sets beyond {LARGE} rows take steps of 256 rows and at most 200 epochs. Features and targets are
standardised by the training rows; figures are in the units of the data, mean ± standard deviation over the splits."""
"""The protocol in words, as it stands below the tables."""


def paper_settings(dataset: str) -> PaperSettings:
    """The settings of protocol *paper* for a UCI data set; see :data:`PROTOCOL`.

    Source: El-Laham et al. (2025), section 6.2.

    >>> paper_settings("yacht").batch_size, paper_settings("kin8nm").batch_size
    (64, 256)
    """
    settings = PaperSettings(batch_size=64, alpha=_ALPHA, beta=_BETA, validation_every=_EVERY, patience=_PATIENCE)
    if UCI[dataset].rows > LARGE:
        return replace(settings, batch_size=256, epochs=200)
    return settings


def select_datasets(names: str) -> tuple[str, ...]:
    """The data sets of a comma-separated list, in the order of the paper's tables.

    Raises:
        ValueError: if a name is unknown or the list is empty.

    >>> select_datasets("yacht, bostonHousing")
    ('bostonHousing', 'yacht')
    """
    chosen = {name.strip() for name in names.split(",")} - {""}
    unknown = sorted(chosen - UCI.keys())
    if unknown or not chosen:
        raise ValueError(f"unknown data sets: {', '.join(unknown) or 'none'}; expected some of {', '.join(UCI)}")
    return tuple(name for name in TABLES["table1"].paper if name in chosen)


def reproduce(
    name: str,
    data_dir: str | Path | None = None,
    *,
    out: str | Path,
    datasets: Sequence[str] = tuple(TABLES["table1"].paper),
    methods: Sequence[str] = tuple(METHODS),
    seed: int = 0,
    report: Callable[[str], None] | None = None,
    progress: bool = True,
    **changes: Any,
) -> tuple[PaperTable, Cells]:
    """Compute a table of the paper, each cell's 20 splits as one vectorised training.

    A cell that is finished is kept in ``OUT/cells`` and computed again only if its settings, seed or data change;
    what a stopped run has finished is not lost, and runs over different data sets may share a folder.
    Writes ``uci_paper.json``, and the table as Markdown and as a figure.

    Args:
        name: one of :data:`TABLES`; ``table1`` and ``table3`` share their cells.
        data_dir: local data folder, see :func:`~pyro_probmix.datasets.uci.load_uci`.
        out: output folder.
        datasets: which rows of the table to compute.
        methods: which columns.
        seed: seed of everything random.
        report: called with a line on each cell.
        progress: show a progress bar for each cell.
        **changes: fields of :class:`~pyro_probmix.experiments.store.PaperSettings` that differ from the protocol.

    Returns:
        The table and all finished cells in the folder.

    Raises:
        ValueError: if a name is unknown, a setting is out of range, or a training fails (the split is named).
        FileNotFoundError: if the data folder lacks a file; nothing has been trained then.
    """
    if name not in TABLES:
        raise ValueError(f"unknown reproduction {name!r}; expected one of {', '.join(TABLES)}")
    if seed < 0:
        raise ValueError(f"seed must not be negative; got {seed}")
    table, folder = TABLES[name], Path(out)
    methods, datasets = select_methods(",".join(methods)), select_datasets(",".join(datasets))
    loaded = {dataset: load_uci(dataset, data_dir) for dataset in datasets}
    settings = {dataset: replace(paper_settings(dataset), **changes) for dataset in table.paper}
    store = CellStore(folder, UCI_RESULTS, settings, {dataset: UCI[dataset].sha256 for dataset in settings}, seed)
    cells = store.fill(loaded, methods, report, progress)
    write_text(folder / f"{name}.md", table.markdown(cells, _notes(changes)))
    draw_table(table, cells, folder / f"{name}.png")
    return table, cells


def _notes(changes: dict[str, Any]) -> str:
    changed = ", ".join(f"{name} = {value}" for name, value in changes.items())
    return f"{PROTOCOL} This run differs: {changed}." if changed else PROTOCOL
