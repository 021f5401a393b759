"""The paper's tables on its data, trained cell by cell: a cell is a method on all splits of a data set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from pyro_probmix.datasets import STOCKS, UCI, WINDOW, Dataset, load_stock, load_uci
from pyro_probmix.experiments.figures import draw_table
from pyro_probmix.experiments.files import write_text
from pyro_probmix.experiments.frontier import TunedTable
from pyro_probmix.experiments.methods import select_methods
from pyro_probmix.experiments.paper import Cells, PaperTable
from pyro_probmix.experiments.protocol import LARGE
from pyro_probmix.experiments.store import CellStore, Compute, PaperSettings, with_changes
from pyro_probmix.experiments.tuned import Candidate, TunedStore, tuned_settings
from pyro_probmix.nn import MLP, LSTMBackbone, TransformerBackbone

__all__ = [
    "TABLES",
    "TUNED_TABLES",
    "StockSettings",
    "paper_settings",
    "reproduce",
    "select_datasets",
    "select_table",
    "stock_settings",
]

_UCI, _STOCKS, _TUNED = "uci_paper", "stocks", "uci_tuned"
_SCALES = {"kin8nm": 100.0, "naval-propulsion-plant": 100.0}

TABLES = {
    "table1": PaperTable("table1", "table1_uci_nll", "nll", "Table 1: test NLL in nats", _UCI),
    "table2": PaperTable("table2", "table2_stocks_nll", "nll", "Table 2: test NLL", _STOCKS, comparable=False),
    "table3": PaperTable(
        "table3", "table3_uci_rmse", "rmse", "Table 3: test RMSE in units of the target", _UCI, _SCALES
    ),
    "table4": PaperTable("table4", "table4_stocks_rmse", "rmse", "Table 4: test RMSE", _STOCKS, comparable=False),
}
"""What :func:`reproduce` reproduces, by name."""

TUNED_TABLES = {
    "table1": TunedTable("table1-tuned", "table1_uci_nll", "nll", "Test NLL in nats, protocol tuned", _TUNED),
    "table3": TunedTable(
        "table3-tuned", "table3_uci_rmse", "rmse", "Test RMSE in units of the target, protocol tuned", _TUNED, _SCALES
    ),
}
"""What is there in protocol *tuned*, by name."""

_ALPHA, _BETA, _EVERY, _PATIENCE, _STOCK_PATIENCE = 0.1, 1e-5, 5, 300, 150
_LARGE_EPOCHS = 200
_SMALL, _BIG = tuned_settings("yacht"), tuned_settings("kin8nm")
_LONG = tuned_settings("energy")
_OF_ERM = len({(candidate.learning_rate, candidate.batch_size) for candidate in _SMALL.candidates})

_NOTES = {
    _UCI: f"""\
Protocol *paper*. Stated by the paper: 20 splits of 90 % and 10 %, a fifth of the training rows held back to choose the
epoch, an MLP of widths 128 and 32 (64 and 32 beside a variance layer of width 64 in the columns with a star), its first
layer as the embedding, Adam with learning rate 0.005, 1000 epochs, 5 neighbours. Chosen where the paper is silent, once
for all methods and without test rows: steps of 64 rows, λ from Beta({_ALPHA}, {_ALPHA}), β = {_BETA} in
standardised units, exact label expectations, a validation every {_EVERY} epochs, 100 embedding samples a prediction.
A Manifold ProbMix without a star has a layer of 128 by 128 more than the other columns, for the standard deviations of
its embedding: 3 to 5 times as many parameters. Departures, to save time: the splits of a cell stop early where the
validation loss of each has not improved for {_PATIENCE} epochs; sets beyond {LARGE} rows, whose epochs have more steps,
are trained for {_LARGE_EPOCHS} epochs, with a validation after each. Features and targets are standardised by the
training rows; figures are in the units of the data, mean ± standard deviation over the splits.""",
    _TUNED: f"""\
Protocol *tuned*. Splits, network, neighbours and scaling are those of protocol *paper*. For every split and method
α, β, the learning rate, the rows of a step (of the same {len(_SMALL.candidates)} settings for every method, of which
{_OF_ERM} differ for ERM, without α and β) and the epoch are chosen by the validation loss on a fifth of the training
rows; test rows are looked at once, by what was chosen. At most {_SMALL.epochs} epochs are trained ({_BIG.epochs} beyond
{LARGE} rows), fewer where the validation loss has not improved for {_SMALL.patience} ({_BIG.patience}). An ensemble is
the equal mixture of {_SMALL.members} networks with the settings chosen for the single model, each holding back another
fifth of the training rows. Ours are mean ± standard deviation over the splits; the figures of other methods are as
published, and their splits may differ. Three rows are of later searches, for what training rows alone had shown. On
naval-propulsion-plant 75 of 80 choices had been the smallest learning rate, beside which four settings of smaller
learning rates and β were tried. On energy longer training of one setting was better on a fifth of the training rows of
six splits, so that at most {_LONG.epochs} epochs, with twice the patience, were trained of the five settings that any
method had chosen more than once. On energy and wine-quality-red the exponential moving average of the parameters (decay
{_LONG.ema_decay}) is validated and kept, and what has been chosen is trained anew on all training rows, a member for as
many epochs as its own fifth chose: on a fifth of the training rows of four to eight splits, with one setting each,
Manifold ProbMix was better so on energy, wine-quality-red and concrete (by 0.17, 0.02 and 0.11; ensembles by 0.05, 0.01
and 0.05); for the other sets there was no time. The test rows of the three sets had been looked at before, by what
earlier searches had chosen.""",
    _STOCKS: f"""\
Protocol *paper*, section 6.3. Stated by the paper: windows of 42 days of open, high, low and close in 2019 and 2020,
the close 21 days later as the target, an LSTM of two layers or a transformer of two layers and heads, 64 wide, its
flattened features compressed to an embedding of 64, Adam with learning rate 0.0005, 1500 epochs, 5 neighbours. Chosen
where the paper is silent: the last fifth of the windows is tested on, and no training target is later than the first of
them; of the other windows a random fifth chooses the epoch; a hidden layer of 64 behind the embedding; steps of 64
windows, λ from Beta({_ALPHA}, {_ALPHA}), β = {_BETA} in standardised units, a validation every {_EVERY} epochs,
3 seeds. Departure, to save time: the seeds of a cell stop early where the validation loss of each has not improved for
{_STOCK_PATIENCE} epochs. Figures are mean ± standard deviation over the seeds, in nats and dollars; the paper scales
its figures stock by stock, by factors it does not state, so that only the order of the methods compares.""",
}


def paper_settings(dataset: str) -> PaperSettings:
    """The settings of protocol *paper* for a UCI data set.

    Source: El-Laham et al. (2025), section 6.2.

    >>> paper_settings("yacht").epochs, paper_settings("kin8nm").epochs
    (1000, 200)
    """
    settings = PaperSettings(batch_size=64, alpha=_ALPHA, beta=_BETA, validation_every=_EVERY, patience=_PATIENCE)
    if UCI[dataset].rows > LARGE:
        return replace(settings, epochs=_LARGE_EPOCHS, validation_every=1)
    return settings


@dataclass(frozen=True)
class StockSettings(PaperSettings):
    """Settings of a cell of Tables 2 and 4, whose network begins with one over sequences.

    Args:
        network: ``"lstm"`` or ``"transformer"``.
    """

    network: str = "lstm"

    def make_network(self, num_features: int, num_outputs: int) -> nn.Sequential:
        """Network over windows flattened in the order of time."""
        prices = num_features // WINDOW
        width, hidden = self.hidden_features
        if self.network == "lstm":
            backbone: nn.Module = LSTMBackbone(prices, width, num_layers=2, sequence=True)
        else:
            backbone = TransformerBackbone(prices, width, num_heads=2, num_layers=2, sequence=True)
        steps = nn.Unflatten(-1, (WINDOW, prices))
        encoder = nn.Sequential(steps, backbone, nn.Flatten(-2), nn.Linear(WINDOW * width, width))
        return nn.Sequential(encoder, nn.ReLU(), *MLP(width, [hidden], num_outputs))


def stock_settings(network: str) -> StockSettings:
    """The settings of protocol *paper* for the stocks.

    Source: El-Laham et al. (2025), section 6.3.

    >>> stock_settings("transformer").epochs
    1500
    """
    return StockSettings(
        hidden_features=(64, 64),
        splits=3,
        epochs=1500,
        batch_size=64,
        learning_rate=5e-4,
        alpha=_ALPHA,
        beta=_BETA,
        validation_every=_EVERY,
        patience=_STOCK_PATIENCE,
        network=network,
    )


@dataclass(frozen=True)
class _Row:
    """Where the data of a row of a table come from, what identifies them, and how they are trained on."""

    load: Callable[[str | Path | None], Dataset]
    data: str
    settings: PaperSettings


def _rows(table: PaperTable) -> dict[str, _Row]:
    if table.results == _STOCKS:
        rows = {}
        for name in table.paper:
            network, ticker = name.split()
            load = functools.partial(load_stock, ticker)
            rows[name] = _Row(load, STOCKS[ticker].prices, stock_settings(network))
        return rows
    settings = tuned_settings if isinstance(table, TunedTable) else paper_settings
    return {name: _Row(functools.partial(load_uci, name), UCI[name].sha256, settings(name)) for name in table.paper}


def select_table(name: str, protocol: str = "paper") -> PaperTable:
    """A table by its name and protocol.

    Raises:
        ValueError: if there is none.

    >>> select_table("table1", "tuned").results
    'uci_tuned'
    """
    if name not in TABLES:
        raise ValueError(f"unknown reproduction {name!r}; expected one of {', '.join(TABLES)}")
    if protocol not in ("paper", "tuned"):
        raise ValueError(f"unknown protocol {protocol!r}; expected paper or tuned")
    if protocol == "tuned" and name not in TUNED_TABLES:
        raise ValueError(f"protocol tuned is there for {' and '.join(TUNED_TABLES)} alone; got {name}")
    return TABLES[name] if protocol == "paper" else TUNED_TABLES[name]


def select_datasets(names: str, table: str = "table1") -> tuple[str, ...]:
    """The rows of a table in a comma-separated list, in the order of the paper.

    Raises:
        ValueError: if a name is unknown or the list is empty.

    >>> select_datasets("yacht, bostonHousing"), select_datasets("lstm GOOG", "table2")
    (('bostonHousing', 'yacht'), ('lstm GOOG',))
    """
    rows = TABLES[table].paper
    chosen = {name.strip() for name in names.split(",")} - {""}
    unknown = sorted(chosen - rows.keys())
    if unknown or not chosen:
        raise ValueError(f"unknown data sets: {', '.join(unknown) or 'none'}; expected some of {', '.join(rows)}")
    return tuple(name for name in rows if name in chosen)


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
        data_dir: local data folder, see :func:`~pyro_probmix.datasets.uci.load_uci`.
        protocol: ``"paper"``, or ``"tuned"`` for what is in :data:`TUNED_TABLES`.
        out: output folder.
        datasets: which rows of the table to compute; by default all.
        methods: which columns; by default all.
        seed: seed of everything random.
        device: where the models are trained, such as ``"cuda"``; other devices draw other random numbers.
        jobs: processes that share the replicas of a cell, on a CPU; 1 trains in this one.
        compile: whether steps are compiled, as by :func:`~pyro_probmix.fit_replicas`: faster, equal up to rounding.
        report: called with a line on each cell.
        progress: show a progress bar for each cell.
        **changes: fields of :class:`~pyro_probmix.experiments.store.PaperSettings` that differ from the protocol.

    Returns:
        The table and all finished cells in the folder.

    Raises:
        ValueError: if a name or the protocol is unknown, a setting is out of range, the folder has cells of other
            settings, or a training fails (the split is named).
        FileNotFoundError: if the data folder lacks a file; nothing has been trained then.
    """
    table, folder, compute = select_table(name, protocol), Path(out), Compute(device, jobs, compile)
    if seed < 0:
        raise ValueError(f"seed must not be negative; got {seed}")
    rows = _rows(table)
    chosen = select_methods(",".join(table.columns if methods is None else methods), table.columns)
    shown = select_datasets(",".join(rows if datasets is None else datasets), name)
    loaded = {dataset: rows[dataset].load(data_dir) for dataset in shown}
    settings = {dataset: replace(row.settings, **changes) for dataset, row in rows.items()}
    chosen_by_split = sorted(changes.keys() & {f.name for f in fields(Candidate)})
    if isinstance(table, TunedTable) and chosen_by_split:
        raise ValueError(f"{chosen_by_split[0]}: expected no change in protocol tuned, which chooses it; got one")
    make_store = TunedStore if isinstance(table, TunedTable) else CellStore
    sources = {dataset: row.data for dataset, row in rows.items()}
    store = make_store(folder, table.results, settings, sources, seed, compute)
    cells = store.fill(loaded, chosen, report, progress)
    notes = with_changes(_NOTES[table.results], changes, seed)

    def write(cells: Cells) -> None:
        write_text(folder / f"{table.name}.md", table.markdown(cells, notes))
        draw_table(table, cells, folder / f"{table.name}.png")

    return table, store.publish(cells, write)
