"""Methods and ensembles before and after recalibration: what is computed, and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyro_probmix.experiments.calibration.figure import draw_calibration
from pyro_probmix.experiments.calibration.table import CALIBRATION, CalibrationTable
from pyro_probmix.experiments.computing import compute_cells
from pyro_probmix.experiments.methods import select
from pyro_probmix.experiments.runner import Runner
from pyro_probmix.experiments.store import Cells

__all__ = ["recalibrate"]


def recalibrate(
    data_dir: str | Path | None = None,
    *,
    out: str | Path,
    datasets: Sequence[str] = CALIBRATION.rows,
    methods: Sequence[str] = CALIBRATION.columns,
    seed: int = 0,
    device: str = "cpu",
    jobs: int = 1,
    compile: bool = False,
    report: Callable[[str], None] | None = None,
    progress: bool = True,
    **changes: Any,
) -> tuple[CalibrationTable, Cells]:
    """Compute scores and calibration errors of methods and ensembles, before and after recalibration.

    Cells are kept as by :func:`~pyro_probmix.experiments.reproduce`, whose arguments these are too. Writes
    ``calibration.json``, ``calibration.md`` and ``calibration.png``.

    Returns:
        The table and all finished cells in the folder.

    Raises:
        ValueError: as by ``reproduce``, or if no rows are to be set aside for recalibration.
        FileNotFoundError: as by ``reproduce``.
    """
    if changes.get("calibration_fraction") == 0:
        raise ValueError("calibration_fraction: expected a number in (0, 1), got 0")
    shown = select("datasets", ",".join(datasets), CALIBRATION.rows)
    columns = select("methods", ",".join(methods), CALIBRATION.columns)
    runner = Runner(device, jobs, compile, progress)
    cells = compute_cells(
        CALIBRATION, draw_calibration, Path(out), shown, columns, runner, seed, report, changes, data_dir
    )
    return CALIBRATION, cells
