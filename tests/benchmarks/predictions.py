"""What predictions of many rows cost, beside a plain loop over tiles of rows, and how much memory they take.

``python tests/benchmarks/predictions.py [--rows 20000] [--rounds 5]`` predicts by 100 embedding samples of 128
coordinates in double precision, under one Normal and under a mixture of three. By hand is: encode, add scale · noise,
decode, and the moments or the logarithm of the mean density, in tiles of 10 to 40 rows, the fastest of which counts.
The matrix products of the decoder alone are the floor. Ways take turns; the clock is the process's own, of one thread.
Memory is the growth of the peak of a new process.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import pyro_probmix as pm

FEATURES, SAMPLES, LIKELIHOODS = 10, 100, ("normal", "mixture")
TILES = (10, 20, 40)


def load_problem(likelihood: str, rows: int) -> tuple[Any, Any, Any]:
    """A regressor of default size, hardly trained, and rows to predict."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, FEATURES))
    y = X[:, 0] * np.sin(3 * X[:, 1]) + X[:, 2] + np.exp(X[:, 3] / 2) * rng.normal(size=rows)
    model = pm.ProbMixRegressor(likelihood=likelihood, num_samples=SAMPLES, epochs=1, random_state=0)
    return model.fit(X[:512], y[:512]), X, y


@torch.no_grad()
def by_hand(estimator: Any, X: Any, y: Any, rows: int, moments: bool) -> tuple[Tensor, ...]:
    """Mean and standard deviation, or the log-density at y, in so many rows at a time."""
    model = estimator.models_[0]
    x = torch.as_tensor(estimator.preparation_.transform(X))
    noise = model.draw_noise(x[:1], (SAMPLES, 1), torch.Generator().manual_seed(0))[:, 0]
    shift, scale = model.likelihood.y_shift, model.likelihood.y_scale
    found = []
    for tile, labels in zip(x.split(rows), torch.as_tensor(y).split(rows), strict=True):
        h = model.encoder.encoder(tile)
        sigma = F.softplus(model.encoder.variance_head(h)) + model.encoder.min_scale
        z = h.unsqueeze(1) + sigma.unsqueeze(1) * noise
        raw = model.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        if raw.shape[-1] == 2:
            logs, loc, raw_scale = torch.zeros(()), *raw.split(1, -1)
        else:
            logits, loc, raw_scale = raw.chunk(3, -1)
            logs, loc = logits.log_softmax(-1), loc + model.likelihood.likelihood.offsets
        loc, std = shift + scale * loc, scale * (F.softplus(raw_scale) + 1e-4)
        if moments:
            mean, second = ((logs.exp() * t).sum(-1).mean(-1) for t in (loc, loc.square() + std.square()))
            found.append((mean, (second - mean.square()).sqrt()))
        else:
            each = logs - 0.5 * ((labels[:, None, None] - loc) / std).square() - std.log()
            found.append((each.flatten(1).logsumexp(-1) - math.log(SAMPLES) - 0.5 * math.log(2 * math.pi),))
    return tuple(map(torch.cat, zip(*found, strict=True)))


@torch.no_grad()
def matrix_products(estimator: Any, rows: int) -> None:
    """Those of the decoder, of numbers that stay in the cache."""
    for layer in estimator.models_[0].decoder:
        if isinstance(layer, torch.nn.Linear):
            tile = torch.ones(TILES[1] * SAMPLES, layer.in_features, dtype=torch.float64)
            for _ in range(rows // TILES[1]):
                layer(tile)


def seconds(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least of so many rounds, the first of which is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            found[name].append(time.process_time() - start)
    return {name: min(times[1:]) for name, times in found.items()}


def compare(likelihood: str, rows: int, rounds: int) -> None:
    model, X, y = load_problem(likelihood, rows)
    for ours, theirs in zip(model.predict(X, return_std=True), by_hand(model, X, y, 20, True), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    assert math.isclose(model.log_likelihood(X, y), float(by_hand(model, X, y, 20, False)[0].mean()), rel_tol=1e-9)
    ways: dict[str, Callable[[], Any]] = {"matrix products": lambda: matrix_products(model, rows)}
    for size in TILES:
        ways[f"moments by hand, {size}"] = lambda size=size: by_hand(model, X, y, size, True)
        ways[f"log-density by hand, {size}"] = lambda size=size: by_hand(model, X, y, size, False)
    ways["predict"] = lambda: model.predict(X, return_std=True)
    ways["log_likelihood"] = lambda: model.log_likelihood(X, y)
    ways["predict_distribution"] = lambda: model.predict_distribution(X)
    ways["predict_quantiles"] = lambda: model.predict_quantiles(X)
    ways["predict_interval"] = lambda: model.predict_interval(X)
    found = seconds(ways, rounds)
    hand = {what: min(found[f"{what} by hand, {size}"] for size in TILES) for what in ("moments", "log-density")}
    floor = found["matrix products"]
    print(f"{likelihood}: floor {floor:.2f} s; by hand over it {hand['moments'] / floor:.2f}")
    for name, what, target in (
        ("predict", "moments", "at most 1.3"),
        ("log_likelihood", "log-density", "at most 1.3"),
        ("predict_distribution", "moments", ""),
        ("predict_quantiles", "moments", ""),
        ("predict_interval", "moments", ""),
    ):
        print(f"  {name} over {what} by hand: {found[name] / hand[what]:.2f} ({found[name]:.2f} s) {target}")


MEMORY = {
    "predict": lambda model, X, y: model.predict(X, return_std=True),
    "log_likelihood": lambda model, X, y: model.log_likelihood(X, y),
    "predict_distribution": lambda model, X, y: model.predict_distribution(X),
    "predict_quantiles": lambda model, X, y: model.predict_quantiles(X),
}


def peak() -> float:
    """The most that this process has had, in GB; its parent's does not count."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1e6 if found else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        likelihood, name = arguments.memory
        problem = load_problem(likelihood, arguments.rows)
        before = peak()
        MEMORY[name](*problem)
        print(f"  {name}: {peak() - before:.2f} GB, at most 0.5")
        return
    for likelihood in LIKELIHOODS:
        compare(likelihood, arguments.rows, arguments.rounds)
        for name in MEMORY:
            own = [sys.executable, __file__, "--rows", str(arguments.rows), "--memory", likelihood, name]
            print(subprocess.run(own, capture_output=True, text=True, check=True).stdout, end="")


if __name__ == "__main__":
    main()
