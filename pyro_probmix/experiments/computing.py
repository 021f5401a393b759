"""The cells of a table: those that are missing are computed, and all are shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from pyro_probmix._checks import check_integer
from pyro_probmix._files import check_writable, write_bytes
from pyro_probmix.experiments.methods import ENSEMBLES, METHODS
from pyro_probmix.experiments.runner import Cell, Runner
from pyro_probmix.experiments.store import Cells, CellStore

__all__ = ["compute_cells"]


def compute_cells(
    table: Any,
    draw: Callable[[Any, Cells, Path], None],
    out: Path,
    shown: Sequence[str],
    methods: Sequence[str],
    runner: Runner,
    seed: int,
    report: Callable[[str], None] | None,
    changes: Mapping[str, Any],
    data_dir: str | Path | None = None,
) -> Cells:
    """Compute what is not there yet, and write the page and the figure of a table or an ablation.

    Args:
        table: what the cells are shown in; it says its ``name``, ``results``, ``rows``, ``protocol`` and ``markdown``.
        draw: writes its figure.
        out: output folder.
        shown: which rows to compute.
        methods: which columns.
        runner: what trains them.
        seed: seed of everything random.
        report: called with a line on each cell.
        changes: settings that differ from the protocol.
        data_dir: local data folder.

    Returns:
        All finished cells in the folder.
    """
    check_integer("seed", seed, minimum=0)
    protocol = table.protocol
    settings = {row: replace(protocol.settings(row), **changes) for row in table.rows}
    data = {row: protocol.load(row, data_dir) for row in shown}
    sources = {row: protocol.data(row) for row in table.rows}
    run = {"device": runner.device, "compile": runner.compile}
    store = CellStore(out, table.results, protocol.name, tuple(protocol.labels), settings, sources, seed, run)

    def tell(row: str, method: str, metrics: dict[str, list[float]], how: str) -> None:
        figures = {metric: values for metric, values in metrics.items() if isinstance(values[0], float)}
        means = ", ".join(f"{metric} {np.mean(values):.3f}" for metric, values in figures.items())
        if report is not None:
            with tqdm.external_write_mode(file=sys.stderr):
                report(f"{row}, {protocol.labels[method]}: {means} ({how})")

    finished = store.load()
    check_writable(out)
    missing = []
    for row in shown:
        for method in methods:
            if method in finished.get(row, {}):
                tell(row, method, finished[row][method], "kept")
            else:
                missing.append((row, method))
    # An ensemble has what is chosen for its single model, which is trained first.
    for wave in ([key for key in missing if key[1] not in ENSEMBLES], [key for key in missing if key[1] in ENSEMBLES]):
        finished, cells = store.load(), []
        for row, method in wave:
            base = ENSEMBLES.get(method, method)
            chosen = finished.get(row, {}).get(base, {}).get("candidate")
            if base != method and not settings[row].candidates:
                chosen = [0] * settings[row].splits  # of one candidate there is no choice
            elif base != method and chosen is None:
                raise ValueError(f"methods: expected {base} with or before {method}, got none of it on {row}")
            cells.append(Cell(row, method, data[row], METHODS[base], settings[row], seed, chosen))
        with closing(runner.run(cells)) as results:
            for cell, result in results:
                store.save(cell.row, cell.column, result.metrics, result.seconds)
                tell(cell.row, cell.column, result.metrics, f"{result.seconds:.0f} s")
    out.mkdir(parents=True, exist_ok=True)
    differs = {**changes, "seed": seed} if seed else changes
    changed = ", ".join(f"{setting} = {value}" for setting, value in differs.items())
    notes = f"{protocol.notes} This run differs: {changed}." if changed else protocol.notes

    def write(cells: Cells) -> None:
        write_bytes(out / f"{table.name}.md", table.markdown(cells, notes).encode())
        draw(table, cells, out / f"{table.name}.png")

    return store.collect(write)
