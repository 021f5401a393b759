"""Every tutorial runs, whole."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
SECONDS_PER_CELL = 300


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    # With no folder of kernel specifications to look in, the kernel is that of this very interpreter.
    specifications = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    # Sockets of files, not of ports: another process may ask for a port in between.
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=specifications, transport="ipc", ip=str(tmp_path / "kernel")
    )
    client = NotebookClient(notebook, km=manager, timeout=SECONDS_PER_CELL, allow_errors=False)
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    client.execute(cleanup_kc=True, cwd=str(tmp_path), env=environment)
    skipped = [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None
    ]
    assert not skipped
