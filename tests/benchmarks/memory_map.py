"""Batches of pairs from a file that is mapped into memory, beside a plain DataLoader of the same rows.

``python tests/benchmarks/memory_map.py --rows 10000000`` writes a file of that many rows of 16 single-precision
numbers, streams one epoch of batches from it, and prints rows per second of both loaders and the memory that the
process needs besides the file's pages.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import pyro_probmix as pm

FEATURES, CHUNK = 16, 100_000


def write(path: Path, rows: int) -> None:
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            generator.standard_normal((min(CHUNK, rows - start), FEATURES + 1), dtype=np.float32).tofile(file)


def own_memory() -> int:
    """Bytes that are the process's own, not pages of a file."""
    with Path("/proc/self/status").open() as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["RssAnon"].split()[0]) * 1024


def stream(loader, max_batches: int) -> tuple[int, float, int]:
    """Rows, seconds and the most own memory of at most so many batches."""
    rows, most, start = 0, 0, time.perf_counter()
    for count, batch in enumerate(loader):
        x = batch.x if isinstance(batch, pm.PairBatch) else batch[0]
        rows += len(x)
        if count % 50 == 0:
            most = max(most, own_memory())
        if count + 1 == max_batches:
            break
    return rows, time.perf_counter() - start, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--batches", type=int, default=10**9, help="stop after so many")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.bin"
        write(path, arguments.rows)
        data = torch.from_file(str(path), size=arguments.rows * (FEATURES + 1)).view(-1, FEATURES + 1)
        x, y = data[:, :FEATURES], data[:, FEATURES]
        size = arguments.batch_size
        before = own_memory()
        pairs = pm.PairLoader(x, y, pm.CompleteGraph(len(x)), batch_size=size)
        sampler = BatchSampler(RandomSampler(range(len(x))), size, drop_last=False)
        plain = DataLoader(TensorDataset(x, y), sampler=sampler, batch_size=None)
        for name, loader in (("PairLoader", pairs), ("DataLoader", plain)):
            rows, seconds, most = stream(loader, arguments.batches)
            print(f"{name}: {rows / seconds:,.0f} rows/s, {(most - before) / 2**20:.0f} MiB of its own at most")
    print(
        f"file {arguments.rows * (FEATURES + 1) * 4 / 2**20:.0f} MiB, peak of the process, file's pages included, "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB"
    )


if __name__ == "__main__":
    main()
