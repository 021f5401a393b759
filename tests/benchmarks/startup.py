"""Processor time of a start, as a ratio to that of ``import pyro``.

``python tests/benchmarks/startup.py`` runs fresh processes in turn, so that a busy machine is as busy for each, and
prints the ratios of least and of median times. Modules are compiled by the first turn, which does not count.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

POOL = """
import pyro.distributions as dist, pyro_probmix as pm
pm.log_linear_pool([dist.Normal(0.0, 1.0), dist.Normal(3.0, 2.0)], [0.3, 0.7])
"""
COMMAND = "import sys; from pyro_probmix.cli import main; sys.argv[1:] = {}; main()"
COMMANDS = ("fit", "predict", "evaluate", "compare", "reproduce")
STARTS = {
    "import pyro": ("import pyro", 1.0),
    "import pyro_probmix": ("import pyro_probmix", 1.1),
    "a first pool": (POOL, 1.1),
    "--help": (COMMAND.format(["--help"]), 0.25),
    **{f"{name} --help": (COMMAND.format([name, "--help"]), 0.25) for name in COMMANDS},
    "a mistyped option": (COMMAND.format(["fit", "--tagret", "y"]), 0.25),
    "a mistyped command": (COMMAND.format(["ft"]), 0.25),
}
"""What is run, and the most it may take as a ratio."""


def seconds(code: str) -> float:
    """Processor time of a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2):  # 2 of what is mistyped
        raise RuntimeError(done.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    found = [{name: seconds(code) for name, (code, _) in STARTS.items()} for _ in range(turns + 1)][1:]
    of_pyro = [turn["import pyro"] for turn in found]
    print(f"import pyro: {min(of_pyro):.2f} s at least, {statistics.median(of_pyro):.2f} s in the median of {turns}")
    print(f"{'÷ import pyro':20}  least  median  at most")
    for name, (_, most) in STARTS.items():
        own = [turn[name] for turn in found]
        least, median = min(own) / min(of_pyro), statistics.median(own) / statistics.median(of_pyro)
        print(f"{name:20}  {least:5.2f}  {median:6.2f}  {most:7.2f}")


if __name__ == "__main__":
    main()
