"""Batches, loaders and graphs that are refused."""

from __future__ import annotations

import torch

import pyro_probmix as pm
from tests.refusals.registry import NAN, SIZE, any_bad, loader, numbers, pair_batch, spoilt, table

for name, bad in {
    "x": {
        "of_no_tensor": [1.0],
        "a_scalar": torch.tensor(1.0),
        "empty": torch.zeros(0, 3),
        "elsewhere": torch.zeros(SIZE, device="meta"),
    },
    "y": {
        "too_long": lambda rng, case: torch.zeros(SIZE + rng.randint(1, 9)),
        "a_scalar": torch.tensor(0.0),
        "of_no_tensor": [0.0] * SIZE,
        "elsewhere": torch.zeros(SIZE, device="meta"),
    },
    "partner": {
        "none": None,
        "of_floats": torch.zeros(SIZE),
        "of_int32": torch.zeros(SIZE).int(),
        "of_bools": torch.zeros(SIZE).bool(),
        "too_short": torch.arange(SIZE - 1),
        "a_table": torch.zeros(SIZE, 1).long(),
    },
    "weight": {
        "of_no_tensor": [1.0] * SIZE,
        "of_another_length": lambda rng, case: torch.ones(SIZE + rng.randint(1, 9)),
        "a_table": torch.ones(SIZE, 1),
    },
    "mask": {
        "of_floats": torch.ones(SIZE),
        "of_integers": torch.ones(SIZE).long(),
        "of_another_length": torch.ones(SIZE + 1).bool(),
        "a_table": torch.ones(SIZE, 2).bool(),
    },
}.items():
    if name == "x":
        table("PairBatch", "(x|y)", lambda value: pair_batch(x=value), **bad)
    else:
        table("PairBatch", name, lambda value, name=name: pair_batch(**{name: value}), **bad)

for name, bad in {
    "x": {
        "spoilt": lambda rng, case: spoilt(numbers(SIZE, 3), rng, any_bad(rng)),
        "of_no_tensor": [0.0] * SIZE,
        "too_short": torch.zeros(SIZE - 1, 3),
        "a_scalar": torch.tensor(0.0),
        "none": None,
    },
    "y": {
        "spoilt": lambda rng, case: spoilt(numbers(SIZE), rng, any_bad(rng)),
        "of_no_tensor": [0.0] * SIZE,
        "too_long": torch.zeros(SIZE + 1),
    },
    "graph": {"a_word": "complete", "none": None, "a_number": 3},
    "batch_size": {
        "zero": 0,
        "negative": lambda rng, case: -rng.randint(1, 9),
        "a_float": 2.0,
        "a_bool": True,
        "a_word": "2",
    },
    "weight": {
        "negative": lambda rng, case: spoilt(torch.ones(SIZE), rng, -rng.random() - 1e-6),
        "spoilt": lambda rng, case: spoilt(torch.ones(SIZE), rng, any_bad(rng)),
        "zeros": torch.zeros(SIZE),
        "of_no_tensor": [1.0] * SIZE,
        "of_another_length": torch.ones(SIZE + 1),
    },
    "mask": {
        "of_floats": torch.ones(SIZE),
        "nothing": torch.zeros(SIZE).bool(),
        "of_another_length": torch.ones(SIZE - 1).bool(),
        "of_no_tensor": [True] * SIZE,
    },
}.items():
    table("PairLoader", name, lambda value, name=name: loader(**{name: value}), **bad)


# Graphs.

table("CompleteGraph", "num_nodes", pm.CompleteGraph, zero=0, negative=-3, a_float=2.5, a_word="3")
table(
    "NearestNeighborGraph",
    "x",
    lambda value: pm.NearestNeighborGraph(value, 2),
    spoilt=lambda rng, case: spoilt(numbers(SIZE, 3), rng, any_bad(rng)),
    of_no_tensor=[[1.0]] * SIZE,
    empty=torch.zeros(0, 3),
    without_columns=torch.zeros(SIZE, 0),
    a_scalar=torch.tensor(1.0),
    complex=torch.zeros(SIZE, 2, dtype=torch.complex64),
    too_far_apart=torch.tensor([[-1e200], [1e200], [0]]).double(),
)
table(
    "NearestNeighborGraph",
    "num_neighbors",
    lambda value: pm.NearestNeighborGraph(numbers(SIZE, 2), value),
    zero=0,
    negative=-1,
    too_many=lambda rng, case: SIZE + rng.randint(0, 9),
    a_float=2.0,
    a_word="2",
)
table(
    "NearestNeighborGraph",
    "metric",
    lambda value: pm.NearestNeighborGraph(numbers(SIZE, 2), 2, metric=value),
    unknown="euclid",
    a_number=3,
)
table(
    "KernelGraph",
    "bandwidth_x",
    lambda value: pm.KernelGraph(numbers(SIZE, 2), bandwidth_x=value),
    zero=0.0,
    negative=-1.0,
    nan=NAN,
)
table("KernelGraph", "x", lambda value: pm.KernelGraph(value), none=None, of_no_tensor=[1.0], empty=torch.zeros(0, 1))
table("KernelGraph", "y", lambda value: pm.KernelGraph(numbers(SIZE, 1), value), too_long=torch.zeros(SIZE + 1))
EDGES = torch.tensor([[0, 1], [1, 2], [2, 0]])
table(
    "WeightedGraph",
    "edges",
    lambda value: pm.WeightedGraph(value, torch.ones(len(value)), 3),
    of_floats=EDGES.float(),
    of_bools=EDGES.bool(),
    triples=torch.zeros(3, 3).long(),
    none_at_all=EDGES[:0],
    beyond=lambda rng, case: EDGES + rng.randint(1, 9),
    negative=EDGES - 1,
    of_no_tensor=[[0, 1]],
)
table(
    "WeightedGraph",
    "weights",
    lambda value: pm.WeightedGraph(EDGES, value, 3),
    negative=lambda rng, case: spoilt(torch.ones(3), rng, -rng.random() - 1e-6),
    zeros=torch.zeros(3),
    spoilt=lambda rng, case: spoilt(torch.ones(3), rng, any_bad(rng)),
    too_few=torch.ones(2),
    of_no_tensor=[1.0] * 3,
    complex=torch.ones(3, dtype=torch.complex64),
)
table("WeightedGraph", "num_nodes", lambda value: pm.WeightedGraph(EDGES, torch.ones(3), value), zero=0, a_float=3.0)
table(
    "LabelGraph",
    "y",
    pm.LabelGraph,
    of_no_tensor=[0, 1],
    empty=torch.zeros(0),
    a_scalar=torch.tensor(1),
    spoilt=lambda rng, case: spoilt(torch.arange(6) % 2, rng, NAN),
)
table("LabelGraph", "kind", lambda value: pm.LabelGraph(torch.arange(4) % 2, kind=value), unknown="others")
table(
    "LabelGraph", "uniform_over", lambda value: pm.LabelGraph(torch.arange(4) % 2, uniform_over=value), unknown="edges"
)
for kind in (pm.CompleteGraph(SIZE), pm.NearestNeighborGraph(torch.arange(6.0).unsqueeze(1), 2)):
    table(
        f"{type(kind).__name__}.pair_batch",
        "x",
        lambda value, kind=kind: kind.pair_batch(value, torch.zeros(SIZE)),
        spoilt=lambda rng, case: spoilt(numbers(SIZE, 3), rng, any_bad(rng)),
        of_another_length=torch.zeros(SIZE + 1),
        of_no_tensor=[0.0] * SIZE,
    )
    table(
        f"{type(kind).__name__}.pair_batch",
        "y",
        lambda value, kind=kind: kind.pair_batch(torch.zeros(SIZE, 1), value),
        spoilt=lambda rng, case: spoilt(numbers(SIZE), rng, any_bad(rng)),
        of_another_length=torch.zeros(SIZE - 1),
    )
