"""A mini-batch step on a nearest-neighbour graph beside one on the complete graph, drawing the pairs included.

Measured by ``pytest tests/benchmarks/test_loaders.py --benchmark-enable``, which prints the ratio.
"""

from __future__ import annotations

import time

import pyro
import pytest
import torch

import pyro_probmix as pm

ROWS, FEATURES, BATCH_SIZE = 4096, 13, 256
GRAPHS = {"complete": lambda x: pm.CompleteGraph(len(x)), "neighbors": lambda x: pm.NearestNeighborGraph(x, 5)}
SECONDS: dict[str, float] = {}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.benchmark(timer=time.process_time, warmup=True, warmup_iterations=2)
def test_epoch_of_mini_batches(graph, benchmark, reported):
    torch.manual_seed(0)
    x, y = torch.randn(ROWS, FEATURES), torch.randn(ROWS)
    likelihood = pm.nn.NormalLikelihood()
    model = pm.ProbMix(pm.nn.MLP(FEATURES, [128, 32], 2), likelihood, vicinity=pm.NormalVicinity(0.01))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loader = pm.PairLoader(x, y, GRAPHS[graph](x), BATCH_SIZE)

    def epoch():
        for batch in loader:
            optimizer.zero_grad()
            loss = model.risk(batch)
            loss.backward()
            optimizer.step()
        return loss

    benchmark.group = f"an epoch of {ROWS // BATCH_SIZE} mini-batches of {BATCH_SIZE}"
    with pyro.validation_enabled(False):
        assert benchmark(epoch).isfinite()
    if benchmark.enabled:
        SECONDS[graph] = benchmark.stats.stats.min
        if len(SECONDS) == len(GRAPHS):
            ratio = SECONDS["neighbors"] / SECONDS["complete"]
            reported(benchmark.group, f"neighbours over complete graph: {ratio:.2f}")
