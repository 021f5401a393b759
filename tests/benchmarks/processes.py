"""Seconds an epoch of data-parallel training with Lightning takes, by one process and by two.

``python tests/benchmarks/processes.py`` trains a ProbMix model on made data over gloo, each process with its own
rows and one thread, and prints the speed-up. Needs the extra ``lightning``.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from lightning import Callback, Trainer

import pyro_probmix as pm
from pyro_probmix.training.lightning import PairDataModule, ProbMixModule


class Clock(Callback):
    """Seconds of each epoch but the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        torch.set_num_threads(1)
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)
        if len(self.seconds) == EPOCHS and _[0].global_rank == 0:
            print(f"{_[0].world_size} processes: {min(self.seconds[1:]):.3f} s an epoch", flush=True)


EPOCHS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch-size", type=int, default=8192, help="of all processes together")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(arguments.rows, 16)
    y = x[:, 0] + x[:, 1].sin()
    for size in arguments.processes:
        model = pm.ProbMix(pm.nn.MLP(16, [256, 256], 2), pm.nn.NormalLikelihood(), vicinity=pm.NormalVicinity(0.01))
        trainer = Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            devices=size,
            strategy="ddp_spawn" if size > 1 else "auto",
            callbacks=[Clock()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(ProbMixModule(model), PairDataModule(x, y, batch_size=arguments.batch_size // size))


if __name__ == "__main__":
    main()
