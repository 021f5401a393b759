"""What pooling costs beside a single log_prob: 10⁶ elements, forward and backward, side by side in one run.

Measured by ``pytest tests/benchmarks/test_pools.py --benchmark-enable``. What matters is a pool's time as a
multiple of that of ``single`` in its group; ``numerical`` evaluates both components and normalises their
weighted sum numerically, for a Normal on a grid of 16 points a member; ``members`` makes the components and uses
their parameters once, which no pool of them can do without. What is not closed is a NumericalPool of
10⁴ rows in float64 beside one log_prob of each of its components.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_probmix import log_linear_pool
from pyro_probmix.distributions import NumericalPool

SIZE = 1_000_000
CLASSES = 10
ROWS = 10_000  # of what is not closed


def _normal() -> dict[str, Callable[[], Tensor]]:
    locs = [torch.randn(SIZE, requires_grad=True) for _ in range(2)]
    scales = [(torch.rand(SIZE) + 0.5).requires_grad_() for _ in range(2)]
    y, weight = torch.randn(SIZE), torch.rand(SIZE)

    def members() -> list[dist.Normal]:
        return [dist.Normal(loc, scale) for loc, scale in zip(locs, scales, strict=True)]

    def numerical() -> Tensor:
        p, q = members()
        nodes, log_widths = torch.linspace(-8, 8, 16), torch.tensor(16 / 15).log()
        rest = torch.stack([weight * p.log_prob(t) + (1 - weight) * q.log_prob(t) for t in nodes], -1)
        return weight * p.log_prob(y) + (1 - weight) * q.log_prob(y) - rest.logsumexp(-1) - log_widths

    return {
        "single": lambda: members()[0].log_prob(y),
        "members": lambda: torch.cat([t for p in members() for t in (p.loc, p.scale)]),
        "pool": lambda: log_linear_pool(members(), [weight, 1 - weight]).log_prob(y),
        "numerical": numerical,
    }


def _categorical() -> dict[str, Callable[[], Tensor]]:
    rows = SIZE // CLASSES
    logits = [torch.randn(rows, CLASSES, requires_grad=True) for _ in range(2)]
    y, weight = torch.randint(CLASSES, (rows,)), torch.rand(rows)

    def numerical() -> Tensor:
        p, q = (dist.Categorical(logits=row) for row in logits)
        column = weight.unsqueeze(-1)
        log_z = (column * p.logits + (1 - column) * q.logits).logsumexp(-1)
        return weight * p.log_prob(y) + (1 - weight) * q.log_prob(y) - log_z

    return {
        "single": lambda: dist.Categorical(logits=logits[0]).log_prob(y),
        "members": lambda: torch.add(*[dist.Categorical(logits=row).logits for row in logits]),
        "pool": lambda: log_linear_pool(
            [dist.Categorical(logits=row) for row in logits], [weight, 1 - weight]
        ).log_prob(y),
        "numerical": numerical,
    }


@pytest.mark.parametrize("way", ["single", "members", "pool", "numerical"])
@pytest.mark.parametrize("family", [_normal, _categorical], ids=["Normal", "Categorical"])
def test_log_prob_forward_and_backward(benchmark, family: Callable, way: str) -> None:
    benchmark.group = f"log_prob of 10⁶ elements, {family.__name__.strip('_')}"
    log_prob = family()[way]
    with pyro.validation_enabled(False):
        benchmark(lambda: log_prob().sum().backward())
    assert log_prob().isfinite().all()


def _not_closed(first: Callable, second: Callable) -> dict[str, Callable[[], Tensor]]:
    locs = [torch.randn(ROWS, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    y, weight = torch.randn(ROWS, dtype=torch.float64), torch.rand(ROWS, dtype=torch.float64)

    def members() -> list[dist.TorchDistribution]:
        return [first(locs[0]), second(locs[1])]

    return {
        "components": lambda: sum((p.log_prob(y) for p in members()), torch.zeros(())),
        "pool": lambda: NumericalPool(members(), [weight, 1 - weight]).log_prob(y),
    }


NOT_CLOSED: dict[str, tuple[Callable, Callable]] = {
    "StudentT": (lambda loc: dist.StudentT(3.0, loc, 1.0), lambda loc: dist.StudentT(5.0, loc, 0.5)),
    "Laplace": (lambda loc: dist.Laplace(loc, 1.0), lambda loc: dist.Laplace(loc, 0.5)),
    "Normal with Laplace": (lambda loc: dist.Normal(loc, 1.0), lambda loc: dist.Laplace(loc, 0.5)),
}


@pytest.mark.parametrize("way", ["components", "pool"])
@pytest.mark.parametrize("name", NOT_CLOSED)
def test_numerical_pool_forward_and_backward(
    benchmark, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, name: str, way: str
) -> None:
    if not request.config.getoption("benchmark_enable"):
        monkeypatch.setitem(globals(), "ROWS", 100)
    benchmark.group = f"NumericalPool of {ROWS} rows, {name}"
    log_prob = _not_closed(*NOT_CLOSED[name])[way]
    with pyro.validation_enabled(False):
        benchmark.pedantic(lambda: log_prob().sum().backward(), rounds=3, warmup_rounds=1)
