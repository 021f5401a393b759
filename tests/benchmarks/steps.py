"""What one optimiser step costs: each method under SVI, through its risk, and by hand in plain torch.

The data are Boston's first split, 364 rows in one batch, and the network is 13-128-32-2. The steps take turns of
ten in a row, as in a training, so that a busy machine slows all of them alike; the first of a turn is not counted,
for the others have had the caches. On the CPU the clock is the process's own time.

    python tests/benchmarks/steps.py --data DIR [--device cuda] [--rounds 200]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.datasets import load_uci
from pyro_probmix.experiments.methods import METHODS
from pyro_probmix.experiments.settings import settings_for
from pyro_probmix.experiments.splits import make_split
from pyro_probmix.mixing import LogSpaceBeta

__all__ = ["COMPILED", "NAMES", "RATIOS", "STEPS", "Problem", "load_problem", "report"]

Step = Callable[[], Any]

STARRED = "manifold_probmix_separate_variance"  # of about as many parameters as the other methods
NAMES = ("erm", "mixup", "manifold_mixup", "probmix", "manifold_probmix", STARRED)
BETA = 0.01
IN_A_ROW = 10
LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)

# Numerator, denominator, and what it should be.
RATIOS = (
    ("probmix svi", "erm svi", "at most 1.6"),
    ("probmix svi", "probmix risk", "at least 1.7"),
    ("manifold_probmix svi", "manifold_probmix risk", ""),
    ("probmix svi", "probmix compiled", "at least 2.5"),
    ("manifold_probmix svi", "manifold_probmix compiled", "at least 2.5"),
    ("erm risk", "erm by hand", ""),
    ("probmix risk", "probmix by hand", "at most 1.1"),
    ("probmix compiled", "probmix by hand", ""),
    ("probmix risk", "erm risk", "at most 1.3"),
    ("probmix by hand", "erm by hand", ""),
    ("probmix compiled", "erm compiled", ""),
    ("manifold_probmix risk", "manifold_mixup risk", "at most 2"),
    (f"{STARRED} risk", "manifold_mixup risk", "at most 2"),
    ("manifold_probmix by hand", "manifold_mixup risk", ""),
    ("manifold_probmix risk", "manifold_probmix by hand", ""),
    ("erm by hand", "matrix products", ""),
    *(
        (f"{name} {way}", f"{name} {replicas}", "" if replicas == "replicas" else f"at least {target} on two cores")
        for name in ("erm", "probmix", "manifold_probmix")
        for way, target in (("by hand", 3), ("svi", 7))
        for replicas in ("replicas", "workers", "compiled workers")
    ),
)


@dataclass(frozen=True)
class Problem:
    """The training rows and what the methods are built from."""

    x: Tensor
    y: Tensor
    make_model: Callable[[str], Any]


def load_problem(data_dir: Path | None, device: str = "cpu") -> Problem:
    data = load_uci("bostonHousing", data_dir)
    settings = settings_for(data)
    x, y = make_split(data, 0, seed=0, validation_fraction=settings.validation_fraction).train

    def make_model(name: str) -> Any:
        torch.manual_seed(0)
        return METHODS[name].make_model(data, settings).to(device)

    return Problem(x.to(device), y.to(device), make_model)


def svi_step(problem: Problem, name: str) -> Step:
    model, graph = problem.make_model(name), pm.CompleteGraph(len(problem.x))
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 5e-3}), Trace_ELBO())
    return lambda: svi.step(graph.pair_batch(problem.x, problem.y)) / len(problem.x)


def risk_step(problem: Problem, name: str) -> Step:
    model, graph = problem.make_model(name), pm.CompleteGraph(len(problem.x))
    return torch_step(model, lambda: model.risk(graph.pair_batch(problem.x, problem.y)))


def compiled_step(problem: Problem, name: str) -> Step:
    """As ``pm.fit(..., compile=True)`` takes it: random numbers are drawn outside, values are not validated."""
    model, graph = problem.make_model(name), pm.CompleteGraph(len(problem.x))
    risk = torch.compile(model.risk)

    def loss() -> Tensor:
        with pyro.validation_enabled(False):
            batch = graph.pair_batch(problem.x, problem.y)
            return risk(batch, **model.draw(batch))

    return torch_step(model, loss)


def hand_written_step(problem: Problem, name: str) -> Step:
    model = problem.make_model(name)
    return torch_step(model, lambda: HAND_WRITTEN[name](model, problem.x, problem.y))


def torch_step(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return step


# The formulas, on tensors alone.


def erm_by_hand(model: Any, x: Tensor, y: Tensor) -> Tensor:
    loc, scale = _normal(model.decoder(x))
    return (0.5 * ((y - loc) / scale).square() + scale.log() + LOG_ROOT_TWO_PI).mean()


def probmix_by_hand(model: Any, x: Tensor, y: Tensor) -> Tensor:
    partner, weight = _edges(x)
    loc, scale = _normal(model.decoder(x))
    precision = scale.square().reciprocal()
    ours, theirs = weight * precision, (1 - weight) * precision[partner]
    total = ours + theirs
    mean = (ours * loc + theirs * loc[partner]) / total
    distance = (torch.lerp(y[partner], y, weight) - mean).square() + BETA
    return (0.5 * (total * distance - total.log()) + LOG_ROOT_TWO_PI).mean()


def manifold_probmix_by_hand(model: Any, x: Tensor, y: Tensor) -> Tensor:
    partner, weight = _edges(x)
    h = model.encoder.encoder(x)
    precision = (F.softplus(model.encoder.variance_head(h)) + 1e-6).square().reciprocal()
    ours = weight.unsqueeze(-1) * precision
    theirs = (1 - weight).unsqueeze(-1) * precision[partner]
    total = ours + theirs
    z = (ours * h + theirs * h[partner]) / total + torch.randn_like(h) * total.rsqrt()
    loc, scale = _normal(model.decoder(z))
    distance = (torch.lerp(y[partner], y, weight) - loc).square() + BETA
    return (0.5 * distance / scale.square() + scale.log() + LOG_ROOT_TWO_PI).mean()


HAND_WRITTEN = {"erm": erm_by_hand, "probmix": probmix_by_hand, "manifold_probmix": manifold_probmix_by_hand}


def _normal(raw: Tensor) -> tuple[Tensor, Tensor]:
    loc, raw_scale = raw.unbind(-1)
    return loc, F.softplus(raw_scale) + 1e-4


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """A partner and λ for each row."""
    return torch.randperm(len(x)).to(x.device), _law(x.device).sample((len(x),))


@cache
def _law(device: torch.device) -> LogSpaceBeta:
    concentration = torch.tensor(0.2, device=device)
    return LogSpaceBeta(concentration, concentration, validate_args=False)


# The arithmetic that no implementation can leave out.


def matrix_products(problem: Problem) -> Step:
    """The products of the network's forward and backward pass, nothing else."""
    shapes = _weight_shapes(problem)
    weights = [torch.randn(shape, device=problem.x.device) for shape in shapes]
    inputs = [torch.randn(len(problem.x), shape[1], device=problem.x.device) for shape in shapes]
    outputs = [torch.randn(len(problem.x), shape[0], device=problem.x.device) for shape in shapes]

    def step() -> None:
        for i, (weight, a, gradient) in enumerate(zip(weights, inputs, outputs, strict=True)):
            a @ weight.T
            gradient.T @ a
            if i:
                gradient @ weight

    return step


def arithmetic(problem: Problem) -> tuple[int, int]:
    """Floating-point operations and bytes that an ERM step cannot do without.

    Operations: 2·B·in·out a layer and pass; the passes are forward, weight gradient and, but for the first layer,
    input gradient. Bytes: parameter, gradient and Adam's two moments each read and written once; the outputs of
    each layer written forward, read and written as gradients backward.
    """
    shapes = _weight_shapes(problem)
    rows, itemsize = len(problem.x), problem.x.element_size()
    operations = sum(2 * rows * s.numel() * (3 if i else 2) for i, s in enumerate(shapes))
    parameters = sum(s.numel() + s[0] for s in shapes)
    return operations, itemsize * (8 * parameters + 3 * rows * sum(s[0] for s in shapes))


STEPS: dict[str, Callable[[Problem], Step]] = {
    **{f"{name} svi": partial(svi_step, name=name) for name in NAMES},
    **{f"{name} risk": partial(risk_step, name=name) for name in NAMES},
    **{f"{name} by hand": partial(hand_written_step, name=name) for name in HAND_WRITTEN},
    "matrix products": matrix_products,
}
"""Each makes a step with a model of its own; calling the step takes it and returns its loss."""

COMPILED: dict[str, Callable[[Problem], Step]] = {
    f"{name} compiled": partial(compiled_step, name=name) for name in ("erm", "probmix", "manifold_probmix")
}
"""The same, by ``torch.compile``, which takes a C++ compiler and its time."""


def report(seconds: dict[str, float]) -> Iterator[str]:
    """The ratios, one a line, of the steps that were measured."""
    for numerator, denominator, target in RATIOS:
        if numerator in seconds and denominator in seconds:
            ratio = seconds[numerator] / seconds[denominator]
            yield f"{numerator} / {denominator}: {ratio:.2f}" + (f" (target {target})" if target else "")


def _weight_shapes(problem: Problem) -> list[torch.Size]:
    return [layer.weight.shape for layer in problem.make_model("erm").decoder if hasattr(layer, "weight")]


# The script.


def _measure(problem: Problem, rounds: int) -> dict[str, float]:
    """Median seconds of each step, the steps taking turns."""
    cuda = problem.x.device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    steps = {name: make(problem) for name, make in (STEPS | COMPILED).items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-2, -(-rounds // (IN_A_ROW - 1))):
        for name, step in steps.items():
            for number in range(IN_A_ROW):
                start = clock()
                step()
                if cuda:
                    torch.cuda.synchronize()
                if turn >= 0 and number > 0:
                    times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--data", type=Path, help="folder of uci/; default: download")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problem = load_problem(arguments.data, arguments.device)
    columns = {}
    for validation in (False, True):
        pyro.clear_param_store()
        with pyro.validation_enabled(validation):
            columns[validation] = _measure(problem, arguments.rounds)
    print(f"{'one step, ms':40}{'validation off':>16}{'on':>8}")
    for name in STEPS | COMPILED:
        print(f"{name:40}{1e3 * columns[False][name]:16.3f}{1e3 * columns[True][name]:8.3f}")
    for validation, seconds in columns.items():
        print(f"\nvalidation {'on' if validation else 'off'}")
        print("\n".join(report(seconds)))
    operations, size = arithmetic(problem)
    rates = {name: operations / columns[False][name] / 1e9 for name in ("erm by hand", "matrix products")}
    print(
        f"\nerm at least: {operations / 1e6:.1f} MFLOP and {size / 1e6:.2f} MB; "
        + ", ".join(f"{name} {rate:.1f} GFLOP/s" for name, rate in rates.items())
    )


if __name__ == "__main__":
    main()
