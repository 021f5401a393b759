"""Edge lists and labels: what is refused, and what counts as an edge."""

from __future__ import annotations

import pytest
import torch

from pyro_probmix.mixing.graphs import LabelGraph, WeightedGraph

NAN = float("nan")
EDGES = torch.tensor([[2, 0], [0, 1], [1, 2]])
WEIGHTS = torch.tensor([1.0, 2.0, 3.0])

BAD_EDGES = {
    "edges is a list": ([[0, 1]], WEIGHTS, 3, TypeError, "edges: expected a tensor, got list"),
    "edges of floats": (EDGES.float(), WEIGHTS, 3, TypeError, "edges: expected integers, got torch.float32"),
    "edges of bools": (EDGES.bool(), WEIGHTS, 3, TypeError, "edges: expected integers, got torch.bool"),
    "edges in columns": (EDGES.T.repeat(1, 2), WEIGHTS, 3, ValueError, r"edges: expected shape \(E, 2\).*got \(2, 6\)"),
    "no edges": (EDGES[:0], WEIGHTS[:0], 3, ValueError, r"edges: expected shape \(E, 2\) with E >= 1, got \(0, 2\)"),
    "weights is a list": (EDGES, [1.0, 2.0, 3.0], 3, TypeError, "weights: expected a tensor, got list"),
    "weights too short": (EDGES, WEIGHTS[:2], 3, ValueError, r"weights: expected shape \(3,\).*got \(2,\)"),
    "weights of two dims": (EDGES, WEIGHTS.unsqueeze(1), 3, ValueError, r"weights: expected shape .*got \(3, 1\)"),
    "complex weights": (EDGES, WEIGHTS.cfloat(), 3, TypeError, "weights: expected real numbers, got torch.complex64"),
    "NaN": (EDGES, WEIGHTS.clone().fill_(NAN), 3, ValueError, "weights: .*NaN or inf in 3 of 3 rows"),
    "inf": (EDGES, torch.tensor([1.0, float("inf"), 1.0]), 3, ValueError, r"weights: .*1 of 3 rows \(row 1\)"),
    "negative": (EDGES, torch.tensor([1.0, 2.0, -1.0]), 3, ValueError, r"weights: .*negative.* 1 of 3 rows \(row 2\)"),
    "all zero": (EDGES, torch.zeros(3), 3, ValueError, "weights: expected a positive one, got zeros only"),
    "node N": (EDGES, WEIGHTS, 2, ValueError, r"edges: expected nodes from 0 to 1, .*2 of 3 rows \(rows 0, 2\)"),
    "node -1": (EDGES - 1, WEIGHTS, 3, ValueError, r"edges: expected nodes from 0 to 2, .*\(rows 0, 1\)"),
    "no nodes": (EDGES, WEIGHTS, 0, ValueError, "num_nodes: expected an integer >= 1, got 0"),
    "num_nodes is a float": (EDGES, WEIGHTS, 3.0, TypeError, "num_nodes: expected an integer >= 1, got 3.0"),
}


@pytest.mark.parametrize("case", BAD_EDGES)
def test_bad_edges_are_refused(case: str) -> None:
    edges, weights, num_nodes, error, message = BAD_EDGES[case]
    with pytest.raises(error, match=f"^{message}"):
        WeightedGraph(edges, weights, num_nodes)  # type: ignore[arg-type]


BAD_LABELS = {
    "y is a list": (([0, 1],), TypeError, "y: expected a tensor, got list"),
    "empty": ((torch.zeros(0),), ValueError, r"y: expected shape .*got \(0,\)"),
    "scalar": ((torch.tensor(1),), ValueError, r"y: expected shape .*got \(\)"),
    "NaN": ((torch.tensor([0.0, NAN]),), ValueError, r"y: expected finite values.*\(row 1\)"),
    "kind": ((torch.zeros(2), "other"), ValueError, 'kind: expected one of "same", "cross", got "other"'),
    "uniform_over": (
        (torch.zeros(2), "same", "edges"),
        ValueError,
        'uniform_over: expected one of "pairs", "nodes", got',
    ),
    "alone": (
        (torch.tensor([3, 1, 1, 2]),),
        ValueError,
        r"y: expected another node of the same label for every node, got none for 2 of 4 rows \(rows 0, 3\)$",
    ),
    "one label": (
        (torch.ones(3), "cross"),
        ValueError,
        r"y: expected a node of another label for every node, got none for 3 of 3 rows \(rows 0, 1, 2\)$",
    ),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_are_refused(case: str) -> None:
    arguments, error, message = BAD_LABELS[case]
    with pytest.raises(error, match=f"^{message}"):
        LabelGraph(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "y",
    [
        torch.tensor([1, 0, 1, 0]),
        torch.tensor([True, False, True, False]),
        torch.tensor([0.0, 2.5, -0.0, 2.5]),
        torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0]]),
    ],
    ids=["integers", "bools", "floats", "one-hot rows"],
)
def test_labels_of_any_type(y: torch.Tensor) -> None:
    assert LabelGraph(y).sample_batch()[1].tolist() == [2, 3, 0, 1]


def test_an_edge_of_weight_zero_is_none() -> None:
    graph = WeightedGraph(EDGES, torch.tensor([0.0, 1.0, 1.0]), 4)
    assert graph.edges.tolist() == [[0, 1], [1, 2]]
    assert repr(graph) == "WeightedGraph(num_nodes=4, num_edges=2)"


def test_edges_and_labels_are_left_as_they_were() -> None:
    edges, weights, y = EDGES.int(), WEIGHTS.half().requires_grad_(), torch.tensor([1, 0, 1, 0])
    copies = edges.clone(), weights.clone(), y.clone()
    WeightedGraph(edges, weights, 3).sample_batch()
    LabelGraph(y).sample_batch()
    assert all(torch.equal(a, b) for a, b in zip((edges, weights, y), copies, strict=True))


@pytest.mark.faults("random state disturbed")
def test_building_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    WeightedGraph(EDGES, WEIGHTS, 3)
    LabelGraph(torch.tensor([1, 0, 1, 0]))
    assert torch.equal(torch.get_rng_state(), before)
