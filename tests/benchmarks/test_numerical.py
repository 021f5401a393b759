"""What fusing by quadrature costs: a log-density of 2,000 edges, and a step of training.

Measured by ``pytest tests/benchmarks/test_numerical.py --benchmark-enable``, which prints the ratios of one run. The
adaptive rule and the fixed one of 751 nodes stand beside SciPy's ``quad``, edge by edge, and a rule of 201 points of a
grid between the locations, which neither adapts nor tells its error; a step by ``fusion="numerical"`` beside the
closed form of Normals.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.distributions import NumericalPool
from pyro_probmix.distributions.numerical import NUM_NODES

ROUNDS = 3


def seconds(function: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> int:
    return 2000 if request.config.getoption("benchmark_enable") else 20


def student(loc: Tensor, scale: Tensor) -> dist.StudentT:
    return dist.StudentT(4.0, loc, scale)


def by_grid(members: list[dist.StudentT], weight: Tensor, y: Tensor) -> Tensor:
    low, high = (torch.stack([m.loc + sign * 40 * m.scale for m in members]) for sign in (-1, 1))
    nodes = torch.linspace(0, 1, 201, dtype=y.dtype).unsqueeze(-1)
    nodes = low.amin(0) + nodes * (high.amax(0) - low.amin(0))

    def log_f(value: Tensor) -> Tensor:
        return weight * members[0].log_prob(value) + (1 - weight) * members[1].log_prob(value)

    return log_f(y) - log_f(nodes).logsumexp(0) - (nodes[1] - nodes[0]).log()


def by_scipy(locs: Tensor, scales: Tensor, weight: Tensor, y: Tensor) -> Tensor:
    result = []
    columns = [t.tolist() for t in (weight, y, *locs, *scales)]
    constant = float(scipy.stats.t.logpdf(0, 4))
    for w, at, a, b, s, r in zip(*columns, strict=True):

        def log_f(v: float, w: float = w, a: float = a, b: float = b, s: float = s, r: float = r) -> float:
            ours = constant - 2.5 * math.log1p(((v - a) / s) ** 2 / 4) - math.log(s)
            return w * ours + (1 - w) * (constant - 2.5 * math.log1p(((v - b) / r) ** 2 / 4) - math.log(r))

        def f(v: float, log_f: Callable[[float], float] = log_f) -> float:
            return math.exp(log_f(v))

        edges = [-math.inf, *sorted([a, b]), math.inf]
        pieces = [scipy.integrate.quad(f, low, high, epsrel=1e-6)[0] for low, high in itertools.pairwise(edges)]
        result.append(log_f(at) - math.log(sum(pieces)))
    return torch.tensor(result, dtype=torch.float64)


def test_log_density_of_edges(rows: int, reported: Callable[[str, str], None]) -> None:
    torch.manual_seed(0)
    locs, y = torch.randn(2, rows, dtype=torch.float64), torch.randn(rows, dtype=torch.float64)
    scales, weight = 0.2 + torch.rand(2, rows, dtype=torch.float64), torch.rand(rows, dtype=torch.float64)

    def pool(num_nodes: int | None) -> Tensor:
        members = [student(locs[k], scales[k]) for k in range(2)]
        accuracy = 1e-6 if num_nodes is None else None
        return NumericalPool(members, [weight, 1 - weight], accuracy=accuracy, num_nodes=num_nodes).log_prob(y)

    members = [student(locs[k], scales[k]) for k in range(2)]
    with pyro.validation_enabled(False):
        ways = {
            "adaptive": lambda: pool(None),
            f"fixed, {NUM_NODES} nodes": lambda: pool(NUM_NODES),
            "a grid of 201 points": lambda: by_grid(members, weight, y),
        }
        start = time.process_time()
        exact = by_scipy(locs, scales, weight, y)
        scipy_seconds = time.process_time() - start
        for name, way in ways.items():
            error = (way() - exact).abs().max().item()
            ratio = scipy_seconds / seconds(way)
            reported(
                f"log-density of {rows} pools of two StudentT",
                f"{name}: SciPy's quad takes {ratio:.3g} times as long; largest error {error:.1e}",
            )
            assert error < 1e-6 or name.startswith("a grid")


@pytest.mark.parametrize("replicas", [None, 4])
def test_a_step_beside_the_closed_form(
    replicas: int | None, rows: int, reported: Callable[[str, str], None], request: pytest.FixtureRequest
) -> None:
    """The same model and the same risk, by the closed form and by quadrature."""
    size = max(20, rows // 8)
    torch.manual_seed(0)
    x = torch.randn(size, 8)
    y = x[:, 0] + 0.3 * torch.randn(size)
    times = {}
    for fusion in ("log-linear", "numerical"):

        def make(r: int, fusion: str = fusion) -> pm.ProbMix:
            return pm.ProbMix(pm.nn.MLP(8, [32], 2), pm.nn.NormalLikelihood(), fusion=fusion)

        def train(epochs: int, make: Callable[[int], pm.ProbMix] = make) -> None:
            if replicas is None:
                torch.manual_seed(0)
                pm.fit(make(0), (x, y), epochs=epochs, progress=False)
            else:
                pm.fit_replicas(make, [(x, y)] * replicas, epochs=epochs, progress=False)

        train(1)
        times[fusion] = (seconds(lambda: train(6)) - seconds(lambda: train(1))) / 5
    ways = "one model, adaptive" if replicas is None else f"{replicas} replicas, fixed"
    reported(
        f'a step of fusion="numerical", {size} nodes, over one of "log-linear"',
        f"{ways}: {times['numerical'] / max(times['log-linear'], 1e-9):.3g}",
    )
    assert all(math.isfinite(t) for t in times.values())
