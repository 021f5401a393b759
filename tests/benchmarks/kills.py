"""Kills trainings at random moments, some of them while a checkpoint is written, and resumes them.

Each process is killed with SIGKILL. After each kill the checkpoint must be readable and no older than the last that
the training knew to be written; a training that was killed any number of times must end bitwise as one that was
left alone.

    python tests/benchmarks/kills.py [--kills 200] [--epochs 100]
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import pyro_probmix as pm  # noqa: E402
from pyro_probmix.training import load_checkpoint, loop, save_checkpoint  # noqa: E402

WIDTH = 128


def train(folder: Path, epochs: int, written: mmap.mmap | None = None) -> dict[str, Any]:
    """A training that notes, after each checkpoint, that it has been written; its parameters and losses."""

    def note(path: Path, checkpoint: Any) -> None:
        assert written is not None
        written[8:16] = struct.pack("q", 1)
        save_checkpoint(path, checkpoint)
        written[:16] = struct.pack("qq", checkpoint.epoch, 0)

    if written is not None:
        loop.save_checkpoint = note
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    likelihood = pm.nn.NormalLikelihood()
    model = pm.ProbMix(pm.nn.MLP(3, [WIDTH, WIDTH], likelihood.num_outputs), likelihood)
    history = pm.fit(
        model,
        (x, x.sum(1)),
        validation=(x, x.sum(1)),
        epochs=epochs,
        batch_size=16,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10),
        checkpoint_dir=folder,
        checkpoint_every=1,
        resume=True,
        progress=False,
    )
    return {"history": history, "model": model.state_dict()}


def fork(folder: Path, epochs: int, written: mmap.mmap) -> int:
    process = os.fork()
    if process == 0:
        train(folder, epochs, written)
        os._exit(0)
    return process


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    tensors = all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    return tensors and one["history"] == other["history"]


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    moments = random.Random(arguments.seed)
    report = dict.fromkeys(("kills", "resumes", "while writing", "lost epochs", "trainings", "different endings"), 0)
    written = mmap.mmap(-1, 16)
    with tempfile.TemporaryDirectory() as root:
        start = time.perf_counter()
        alone = train(Path(root) / "alone", arguments.epochs)
        duration = time.perf_counter() - start
        while report["kills"] < arguments.kills:
            folder = Path(root) / str(report["trainings"])
            written[:16] = bytes(16)
            running = True
            while running:
                process = fork(folder, arguments.epochs, written)
                if report["kills"] < arguments.kills:
                    time.sleep(moments.uniform(0, duration / 4))
                    os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
                running = os.WIFSIGNALED(status)
                if running:
                    report["kills"] += 1
                    epoch, writing = struct.unpack("qq", written[:16])
                    report["while writing"] += writing
                    file = folder / "checkpoint.pt"
                    found = load_checkpoint(file).epoch if file.exists() else 0
                    report["lost epochs"] += max(0, epoch - found)
                    report["resumes"] += 1
                elif status:
                    raise SystemExit(f"a resumed training failed with status {status}")
            report["trainings"] += 1
            report["different endings"] += not same(train(folder, arguments.epochs), alone)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
