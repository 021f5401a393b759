"""On tensors with values that say they are on a CUDA device: results are the CPU's, and no host waits in a step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.devices.on_mock_cuda import CASES

ROOT = Path(__file__).resolve().parents[2]
TORCH = Path(torch.__file__).parent
LIBRARIES = [TORCH / "lib" / name for name in ("libc10.so", "libtorch_cpu.so")]

# What stands in for the driver is there before PyTorch is, and only in that process.
PROGRAM = """
import ctypes, sys
*libraries, report = sys.argv[1:]
for library in libraries:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
from tests.devices.on_mock_cuda import main
main(report)
"""

pytestmark = pytest.mark.faults("tensors on another device")


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tracebacks of the cases, from one process for all workers of the session."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    missing = [str(path) for path in LIBRARIES if not path.exists()]
    if torch.backends.cuda.is_built():
        pytest.skip("needs PyTorch without CUDA, which has no driver of its own; test_real_cuda.py is for the other")
    if compiler is None:
        pytest.skip("needs a C++ compiler: no g++ on the path, nor another by CXX")
    if missing:
        pytest.skip(f"needs PyTorch's shared libraries, found no {', '.join(missing)}")
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    found = folder / "mock_cuda.json"
    with FileLock(folder / "mock_cuda.lock"):
        if not found.exists():
            guard = folder / "guard.so"
            include = [f"-I{TORCH / 'include'}", f"-I{TORCH / 'include/torch/csrc/api/include'}"]
            link = [f"-L{TORCH / 'lib'}", "-lc10", "-ltorch_cpu"]
            source = Path(__file__).with_name("guard.cpp")
            _run([compiler, "-std=c++20", "-O0", "-shared", "-fPIC", *include, str(source), "-o", str(guard), *link])
            _run([sys.executable, "-c", PROGRAM, *map(str, LIBRARIES), str(guard), str(found)])
    return json.loads(found.read_text())


def _run(command: list[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{command[0]} failed:\n{done.stderr[-4000:]}", pytrace=False)


@pytest.mark.parametrize("name", CASES)
def test_on_a_mock_device(name: str, report: dict[str, str]) -> None:
    if report[name]:
        pytest.fail(report[name], pytrace=False)
