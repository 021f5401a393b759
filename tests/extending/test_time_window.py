"""The law of the partners in a time window."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from scipy import stats

import pyro_probmix as pm

SIZE, WIDTH = 10, 3


@pytest.mark.parametrize("source", [0, 1, 5, SIZE - 1])
def test_each_row_of_the_window_is_as_likely_and_no_other_is_drawn(source: int, extensions: SimpleNamespace) -> None:
    graph = extensions.time_window.TimeWindowGraph(SIZE, WIDTH)
    generator = torch.Generator().manual_seed(source)
    partners = graph.sample_partners(torch.full((20_000,), source), generator)
    counts = torch.bincount(partners, minlength=SIZE)
    window = [row for row in range(SIZE) if 0 < abs(row - source) <= WIDTH]
    assert counts.nonzero().squeeze(1).tolist() == window
    assert stats.chisquare(counts[window]).pvalue > 1e-3


def test_batches_have_pairs_of_the_window_alone(extensions: SimpleNamespace) -> None:
    graph, x = extensions.time_window.TimeWindowGraph(SIZE, WIDTH), torch.arange(SIZE).unsqueeze(-1).float()
    batches = [graph.pair_batch(x, x[:, 0]), *pm.PairLoader(x, x[:, 0], graph, batch_size=4)]
    assert len(batches) == 4
    for batch in batches:
        distances = (batch.x[:, 0] - batch.x[batch.partner, 0]).abs()
        assert bool(((distances > 0) & (distances <= WIDTH)).all())
