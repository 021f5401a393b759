"""Batches: their shape checks never wait for a device; an epoch is an unbiased draw of the graph's edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_probmix._checks import check_finite, check_integer
from pyro_probmix.mixing.batches import PairBatch
from pyro_probmix.mixing.graphs import CompleteGraph, NearestNeighborGraph, SamplingGraph
from pyro_probmix.mixing.loaders import PairLoader

NAN, INF = float("nan"), float("inf")


def line_graph(n: int) -> NearestNeighborGraph:
    """Points on a line with growing gaps and two neighbours each: the last is a neighbour of none."""
    return NearestNeighborGraph(2.0 ** torch.arange(n).unsqueeze(1), num_neighbors=2)


GRAPHS: dict[str, Callable[[int], SamplingGraph]] = {"complete": CompleteGraph, "neighbours": line_graph}


@pytest.fixture(params=GRAPHS)
def make_graph(request: pytest.FixtureRequest) -> Callable[[int], SamplingGraph]:
    return GRAPHS[request.param]


# check_finite


@pytest.mark.faults("NaN in the data")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_check_finite_names_argument_and_rows(dtype: torch.dtype, bad: float) -> None:
    data = torch.zeros(6, 2, 3, dtype=dtype)
    check_finite("y", data)
    data[1, 1, 0] = data[4, 0, 2] = bad
    with pytest.raises(ValueError, match=r"^y: expected finite values, got NaN or inf in 2 of 6 rows \(rows 1, 4\)$"):
        check_finite("y", data)


def test_check_finite_names_the_first_rows_of_many() -> None:
    with pytest.raises(ValueError, match=r"9 of 9 rows \(rows 0, 1, 2, 3, 4, \.\.\.\)"):
        check_finite("x", torch.full((9,), NAN))


def test_check_finite_of_a_scalar_and_of_integers() -> None:
    with pytest.raises(ValueError, match=r"^beta: expected a finite value, got nan$"):
        check_finite("beta", torch.tensor(NAN))
    check_finite("y", torch.arange(3))
    check_finite("y", torch.zeros(0, 2))


@pytest.mark.parametrize("value", [1.0, "1", None, True])
def test_positive_integer_refuses_other_types(value: object) -> None:
    with pytest.raises(TypeError, match=r"^k: expected an integer >= 1, got"):
        check_integer("k", value)  # type: ignore[arg-type]


# PairBatch


def batch_arguments(**changed: object) -> dict[str, object]:
    return {"x": torch.zeros(4, 2), "y": torch.zeros(4), "partner": torch.arange(4), **changed}


BAD_BATCHES = {
    "x is no tensor": ({"x": [1.0]}, TypeError, "x: expected a tensor, got list"),
    "x is a scalar": ({"x": torch.tensor(1.0)}, ValueError, r"x: .*B >= 1, got \(\)"),
    "empty": ({"x": torch.zeros(0, 2)}, ValueError, r"x: .*B >= 1, got \(0, 2\)"),
    "y is no tensor": ({"y": 1.0}, TypeError, "y: expected a tensor, got float"),
    "y is longer": ({"y": torch.zeros(5)}, ValueError, r"y: expected shape \(4, \.\.\.\), .*got \(5,\)"),
    "y is a scalar": ({"y": torch.tensor(0.0)}, ValueError, r"y: expected shape \(4, \.\.\.\), .*got \(\)"),
    "partner is None": ({"partner": None}, TypeError, "partner: expected a tensor, got NoneType"),
    "partner of floats": (
        {"partner": torch.zeros(4)},
        TypeError,
        "partner: .*torch.int64, got torch.float32",
    ),
    "partner of int32": (
        {"partner": torch.zeros(4).int()},
        TypeError,
        "partner: .*torch.int64, got torch.int32",
    ),
    "partner of bools": (
        {"partner": torch.zeros(4).bool()},
        TypeError,
        "partner: .*torch.int64, got torch.bool",
    ),
    "partner is shorter": (
        {"partner": torch.arange(3)},
        ValueError,
        r"partner: expected shape \(4,\), .*got \(3,\)",
    ),
    "partner of two dims": ({"partner": torch.zeros(4, 1).long()}, ValueError, r"partner: .*got \(4, 1\)"),
    "y elsewhere": (
        {"y": torch.zeros(4, device="meta")},
        ValueError,
        "y: expected the device of x, cpu, got meta",
    ),
    "partner elsewhere": (
        {"partner": torch.arange(4, device="meta")},
        ValueError,
        "partner: expected the device",
    ),
}


@pytest.mark.faults("odd batches")
@pytest.mark.faults("tensors on another device")
@pytest.mark.parametrize("case", BAD_BATCHES)
def test_bad_batch_is_refused(case: str) -> None:
    changed, error, message = BAD_BATCHES[case]
    PairBatch(**batch_arguments())  # type: ignore[arg-type]
    with pytest.raises(error, match=f"^{message}"):
        PairBatch(**batch_arguments(**changed))  # type: ignore[arg-type]


def test_batch_is_a_typed_container() -> None:
    batch = PairBatch(torch.zeros(1, 2), None, torch.zeros(1, dtype=torch.int64))
    assert len(batch) == 1
    assert batch.y is None
    assert not isinstance(batch, tuple)


@pytest.mark.faults("tensors on another device")
@pytest.mark.parametrize("y", [None, torch.zeros(4)])
def test_batch_moves_whole_and_needs_no_values(y: Tensor | None) -> None:
    # The meta device holds no values: a check that looked at one would fail.
    batch = PairBatch(torch.zeros(4, 2), y, torch.arange(4)).to("meta")
    assert {t.device.type for t in (batch.x, batch.y, batch.partner) if t is not None} == {"meta"}
    assert (batch.y is None) == (y is None)


# PairLoader: sizes


@pytest.mark.faults("odd batches")
@pytest.mark.parametrize(("n", "batch_size", "drop_last"), [
    (12, None, False), (12, None, True), (12, 12, False), (12, 12, True), (12, 50, False),
    (12, 1, False), (12, 4, False), (12, 4, True), (12, 5, False), (12, 5, True),
    (11, 3, False), (13, 4, False), (13, 4, True),
])  # fmt: skip
def test_sizes(make_graph: Callable[[int], SamplingGraph], n: int, batch_size: int | None, drop_last: bool) -> None:
    x, y = torch.randn(n, 3), torch.randn(n, 2)
    loader = PairLoader(x, y, make_graph(n), batch_size, drop_last=drop_last)
    asked = [min(batch_size or n, n - start) for start in range(0, n, batch_size or n)]
    if drop_last:
        asked = [size for size in asked if size == (batch_size or n)]
    if isinstance(loader.graph, NearestNeighborGraph) and len(asked) > 1:
        expected = [2 * math.ceil(size / 2) for size in asked]
    else:
        expected = [2 if size == 1 else size for size in asked]  # a node alone brings its partner
    assert len(loader) == len(expected)
    for _ in range(3):
        batches = list(loader)
        assert [len(batch) for batch in batches] == expected
        assert all((batch.partner >= 0).all() and (batch.partner < len(batch)).all() for batch in batches)


@pytest.mark.faults("odd batches")
def test_single_point() -> None:
    (batch,) = PairLoader(torch.zeros(1, 2), torch.zeros(1), CompleteGraph(1), batch_size=1)
    assert batch.partner.tolist() == [0]


@pytest.mark.parametrize("batch_size", [3, 4, 6])
def test_complete_graph_visits_every_node_once(batch_size: int) -> None:
    x = torch.arange(12.0)
    loader = PairLoader(x, None, CompleteGraph(12), batch_size)
    nodes = torch.cat([batch.x for batch in loader])
    assert nodes.sort().values.tolist() == x.tolist()
    for batch in loader:
        assert sorted(batch.partner.tolist()) == list(range(batch_size))


def test_neighbour_batches_swap_halves() -> None:
    graph = line_graph(9)
    for batch in PairLoader(torch.arange(9), None, graph, batch_size=5):
        half = len(batch) // 2
        assert batch.partner.tolist() == [*range(half, 2 * half), *range(half)]
        for source, neighbor in zip(batch.x[:half].tolist(), batch.x[half:].tolist(), strict=True):
            assert neighbor in graph.neighbors[source].tolist()


def test_sources_of_an_epoch_differ() -> None:
    sources = torch.cat([b.x[: len(b) // 2] for b in PairLoader(torch.arange(9), None, line_graph(9), 3)])
    assert len(sources.unique()) == len(sources)


def test_rows_of_x_and_y_stay_together(make_graph: Callable[[int], SamplingGraph]) -> None:
    x = torch.randn(10, 3, 2)
    y = x.sum((1, 2))
    for batch_size in (None, 4):
        for batch in PairLoader(x, y, make_graph(10), batch_size):
            assert batch.y is not None
            torch.testing.assert_close(batch.x.sum((1, 2)), batch.y, rtol=0, atol=0)


def test_full_batch_does_not_copy(make_graph: Callable[[int], SamplingGraph]) -> None:
    x, y = torch.randn(10, 3), torch.arange(10)
    (batch,) = PairLoader(x, y, make_graph(10))
    assert batch.x is x
    assert batch.y is y


# PairLoader: law


def edge_frequencies(loader: PairLoader, n: int) -> Tensor:
    """Weight of each edge in the mean over one epoch's batches of the batch mean."""
    frequencies = torch.zeros(n, n, dtype=torch.float64)
    for batch in loader:
        edges = batch.x * n + batch.x[batch.partner]
        frequencies += torch.bincount(edges, minlength=n * n).reshape(n, n) / len(batch)
    return frequencies / len(loader)


@pytest.mark.faults("scale of a minibatch")
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 4])
def test_epoch_is_an_unbiased_draw_of_the_edges(
    make_graph: Callable[[int], SamplingGraph], batch_size: int | None, drop_last: bool
) -> None:
    n = 5
    graph = make_graph(n)
    if isinstance(graph, NearestNeighborGraph):
        weights = torch.zeros(n, n, dtype=torch.float64).scatter_(1, graph.neighbors, 1 / (2 * n))
        if batch_size is not None:
            weights = (weights + weights.T) / 2  # an edge is drawn in both directions at once
    else:
        weights = torch.full((n, n), 1 / n**2, dtype=torch.float64)
    loader = PairLoader(torch.arange(n), None, graph, batch_size, drop_last, torch.Generator().manual_seed(3))
    draws = torch.stack([edge_frequencies(loader, n) for _ in range(3000)])
    error = (draws.mean(0) - weights).abs()
    # 25 edges and a bound of 5.5 standard errors: a false alarm has p < 1e-6.
    assert (error <= 5.5 * draws.std(0) / len(draws) ** 0.5 + 1e-12).all(), error
    assert draws.mean(0)[weights == 0].sum() == 0


@pytest.mark.faults("workers that repeat draws")
def test_each_epoch_draws_anew(make_graph: Callable[[int], SamplingGraph]) -> None:
    for batch_size in (None, 10):
        loader = PairLoader(torch.arange(30), None, make_graph(30), batch_size)
        first, second = ([(batch.x.tolist(), batch.partner.tolist()) for batch in loader] for _ in range(2))
        assert first != second


@pytest.mark.faults("random state disturbed")
@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_generator_decides_and_leaves_the_global_state(
    make_graph: Callable[[int], SamplingGraph], batch_size: int | None
) -> None:
    graph, x = make_graph(10), torch.arange(10)
    before = torch.get_rng_state()

    def epoch(generator: torch.Generator | None) -> list[tuple[list[int], list[int]]]:
        loader = PairLoader(x, None, graph, batch_size, generator=generator)
        return [(batch.x.tolist(), batch.partner.tolist()) for batch in loader]

    assert epoch(torch.Generator().manual_seed(1)) == epoch(torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert epoch(None) == epoch(torch.Generator().manual_seed(1))


# PairLoader: bad input

BAD_LOADERS = {
    "x too short": ({"x": torch.zeros(5, 2)}, ValueError, r"x: expected shape \(6, \.\.\.\).*got \(5, 2\)"),
    "y too long": ({"y": torch.zeros(7)}, ValueError, r"y: expected shape \(6, \.\.\.\).*got \(7,\)"),
    "x is a list": ({"x": [0.0] * 6}, TypeError, "x: expected a tensor, got list"),
    "y is a list": ({"y": [0.0] * 6}, TypeError, "y: expected a tensor, got list"),
    "NaN in x": ({"x": torch.full((6, 2), NAN)}, ValueError, "x: expected finite values"),
    "inf in y": ({"y": torch.full((6,), INF)}, ValueError, "y: expected finite values"),
    "batch_size 0": ({"batch_size": 0}, ValueError, "batch_size: expected an integer >= 1, got 0"),
    "batch_size -1": ({"batch_size": -1}, ValueError, "batch_size: expected an integer >= 1, got -1"),
    "batch_size 2.0": ({"batch_size": 2.0}, TypeError, "batch_size: expected an integer >= 1, got 2.0"),
    "batch_size True": ({"batch_size": True}, TypeError, "batch_size: expected an integer >= 1, got True"),
    "no batch left": (
        {"batch_size": 7, "drop_last": True},
        ValueError,
        "batch_size: expected at most 6.*got 7",
    ),
}


@pytest.mark.faults("NaN in the data")
@pytest.mark.parametrize("case", BAD_LOADERS)
def test_bad_loader_is_refused(case: str) -> None:
    changed, error, message = BAD_LOADERS[case]
    good = {"x": torch.zeros(6, 2), "y": torch.zeros(6), "graph": CompleteGraph(6)}
    PairLoader(**good)  # type: ignore[arg-type]
    with pytest.raises(error, match=f"^{message}"):
        PairLoader(**{**good, **changed})  # type: ignore[arg-type]


@pytest.mark.faults("tensors on another device")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_data_on_a_gpu(make_graph: Callable[[int], SamplingGraph]) -> None:
    x, graph = torch.arange(10), make_graph(10)
    for batch_size in (None, 1, 4):
        on_cpu, on_gpu = (
            list(PairLoader(x.to(device), x.to(device), graph, batch_size, generator=torch.Generator().manual_seed(0)))
            for device in ("cpu", "cuda")
        )
        for a, b in zip(on_cpu, on_gpu, strict=True):
            assert b.partner.is_cuda
            assert torch.equal(a.x, b.to("cpu").x)
            assert torch.equal(a.partner, b.to("cpu").partner)
