"""Kernel graphs: C-Mixup's sampling law as published, the default bandwidth, the cut, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.spatial.distance import pdist
from sklearn.neighbors import KernelDensity

from pyro_probmix.mixing.graphs import KernelGraph


def test_partners_have_the_law_of_c_mixup() -> None:
    # Yao et al. (2022) draw the partner of i with probability proportional to exp(-d(i, j) / (2 σ²)), d the squared
    # distance of the labels; their program takes it from scikit-learn's Gaussian kernel density around y_i.
    y = torch.randn(12, 2, dtype=torch.float64)
    graph = KernelGraph(y=y, bandwidth_y=0.9)
    for node in (0, 7):
        rates = np.exp(KernelDensity(kernel="gaussian", bandwidth=0.9).fit(y[node : node + 1]).score_samples(y))
        partners = graph.sample_partners(torch.full((20_000,), node), torch.Generator().manual_seed(0))
        expected = 20_000 * rates / rates.sum()
        assert scipy.stats.chisquare(torch.bincount(partners, minlength=12), expected).pvalue > 1e-6
        kernel = graph.kernel(torch.tensor([node])).squeeze(0)
        np.testing.assert_allclose(kernel / kernel.sum(), rates / rates.sum(), rtol=1e-12)


def test_rows_in_parts_are_rows_at_once() -> None:
    graph, nodes = KernelGraph(torch.randn(2500, 3)), torch.arange(2500)
    _, partner = graph.sample_batch(None, torch.Generator().manual_seed(0))  # six million numbers, in parts of four
    cumulative = graph.kernel(nodes).cumsum(1)
    places = 1 - torch.rand(2500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.searchsorted(cumulative, (places * cumulative[:, -1]).unsqueeze(1)).squeeze(1)
    assert torch.equal(partner, expected)


def test_wide_and_narrow_bandwidths() -> None:
    x = torch.randn(6, 2, dtype=torch.float64)
    assert KernelGraph(x, bandwidth_x=1e-9).sample_batch()[1].tolist() == list(range(6))
    partners = KernelGraph(x, bandwidth_x=1e9).sample_partners(torch.zeros(6000).long())
    assert scipy.stats.chisquare(torch.bincount(partners, minlength=6)).pvalue > 1e-6


@pytest.mark.faults("distances far from the origin")
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_near_points_far_from_the_origin(offset: float) -> None:
    y = offset + torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    row = KernelGraph(y=y, bandwidth_y=1.0).kernel(torch.tensor([0]))
    assert torch.allclose(row, torch.tensor([0.0, -0.5, -2.0]).double().exp(), rtol=1e-12)


def test_default_bandwidth_is_the_median_of_positive_distances() -> None:
    x = torch.randn(101, 3, dtype=torch.float64)
    graph = KernelGraph(x, x[:, 0])
    assert graph.bandwidth_x is not None
    assert graph.bandwidth_y is not None
    assert math.isclose(graph.bandwidth_x, np.sort(pdist(x.numpy()))[(101 * 100 // 2 - 1) // 2])
    zeros_and_ones = torch.tensor([0.0] * 9 + [1.0])
    assert KernelGraph(zeros_and_ones).bandwidth_x == 1.0
    many = torch.randn(2500, dtype=torch.float64)
    assert math.isclose(KernelGraph(many).bandwidth_x or 0.0, np.median(pdist(many[::3, None].numpy())), rel_tol=1e-4)


@pytest.mark.faults("a node its own neighbour")
@pytest.mark.parametrize("num_neighbors", [None, 2])
def test_all_points_equal(num_neighbors: int | None) -> None:
    graph = KernelGraph(torch.full((5, 2), 3.0), num_neighbors=num_neighbors)
    assert graph.bandwidth_x == 1.0
    assert len(graph.sample_partners(torch.zeros(200).long()).unique()) == (5 if num_neighbors is None else 3)


def test_one_point() -> None:
    assert KernelGraph(torch.zeros(1)).sample_batch()[1].tolist() == [0]


def test_a_cut_of_all_others_cuts_nothing() -> None:
    x, y = torch.randn(8, 2), torch.randn(8)
    whole, cut = KernelGraph(x, y), KernelGraph(x, y, num_neighbors=7)
    nodes = torch.arange(8)
    torch.testing.assert_close(whole.kernel(nodes), cut.kernel(nodes), rtol=1e-12, atol=1e-12)


BAD_KERNELS = {
    "nothing": ({}, ValueError, "x: expected x, y or both, got None for both"),
    "lengths": ({"x": torch.zeros(3), "y": torch.zeros(4)}, ValueError, "y: expected as many rows as x, 3, got 4"),
    "x is a list": ({"x": [1.0]}, TypeError, "x: expected a real tensor, got list"),
    "NaN in y": ({"y": torch.tensor([0.0, float("nan")])}, ValueError, r"y: expected finite values.*\(row 1\)"),
    "zero": ({"x": torch.zeros(3), "bandwidth_x": 0.0}, ValueError, "bandwidth_x: expected a number in .*got 0.0"),
    "inf": ({"y": torch.zeros(3), "bandwidth_y": math.inf}, ValueError, "bandwidth_y: expected a number in .*got inf"),
    "NaN": ({"y": torch.zeros(3), "bandwidth_y": math.nan}, ValueError, "bandwidth_y: expected a number in .*got nan"),
    "no y": ({"x": torch.zeros(3), "bandwidth_y": 1.0}, ValueError, "bandwidth_y: expected None without y, got 1.0"),
    "too narrow": (
        {"x": torch.tensor([0.0, 1e9]), "bandwidth_x": 1e-300},
        ValueError,
        "x / bandwidth_x: expected finite values",
    ),
    "k = n": ({"x": torch.zeros(3), "num_neighbors": 3}, ValueError, "num_neighbors: expected fewer than the 3 nodes"),
    "k = 0": ({"x": torch.zeros(3), "num_neighbors": 0}, ValueError, "num_neighbors: expected an integer >= 1, got 0"),
    "approximate": ({"x": torch.zeros(3), "approximate": True}, ValueError, "approximate: expected num_neighbors"),
}


@pytest.mark.parametrize("case", BAD_KERNELS)
def test_bad_kernels_are_refused(case: str) -> None:
    arguments, error, message = BAD_KERNELS[case]
    with pytest.raises(error, match=f"^{message}"):
        KernelGraph(**arguments)  # type: ignore[arg-type]
