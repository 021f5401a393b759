"""Rows of a batch, of every family and wrapper, as a tensor of the batch shape takes an index."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions.transforms import (
    AffineTransform,
    CatTransform,
    ComposeTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    PowerTransform,
    StackTransform,
)

import pyro_probmix as pm
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.exponential_family import validates
from tests.cases import CASES, NAMES
from tests.distributions.test_selection import MEMBERS, positive, real

SHAPE = (3, 2)
INDICES: dict[str, Any] = {
    "an integer": 1,
    "the last": -1,
    "an integer of NumPy": np.int64(2),
    "an integer as a tensor": torch.tensor(1),
    "a slice": slice(0, 2),
    "every other": slice(None, None, 2),
    "backwards": slice(None, None, -1),
    "backwards by two": slice(2, None, -2),
    "backwards from beyond": slice(9, 0, -1),
    "backwards, last column": (slice(None, None, -1), -1),
    "a mask": torch.tensor([True, False, True]),
    "a mask as a list": [False, False, True],
    "a mask of both": torch.tensor([[True, False], [False, True], [True, True]]),
    "a list": [2, 0, 0],
    "an array": np.array([1, -1]),
    "a row of one": torch.tensor([2]),
    "a row of one, last column": (torch.tensor([2]), -1),
    "a table": torch.tensor([[0, 1], [2, 2]]),
    "pairs": ([0, 2], [1, 0]),
    "pairs that broadcast": (torch.tensor([[0], [2]]), torch.tensor([1, 0])),
    "a list, backwards": ([0, 2], slice(None, None, -1)),
    "an ellipsis": (..., 0),
    "an ellipsis first": (..., slice(None, None, -1)),
    "everything": ...,
    "a new dimension": (None, slice(1, 3)),
    "a list around a new dimension": ([0, 2], None, [1, 0]),
    "no dimension": (),
}


def taken(tensor: Tensor, index: Any) -> Tensor:
    """By NumPy, which knows steps backwards."""

    def plain(item: Any) -> Any:
        return item.numpy() if isinstance(item, Tensor) else item

    index = tuple(map(plain, index)) if isinstance(index, tuple) else plain(index)
    positions = np.arange(np.prod(SHAPE)).reshape(SHAPE)[index]
    return tensor.flatten(0, 1)[torch.from_numpy(np.array(positions))]


def check(p: Any, y: Tensor, log_prob: Tensor, index: Any, exact: bool) -> None:
    q = pm.rows(p, index)
    expected = taken(log_prob, index)
    assert (q.batch_shape, q.event_shape) == (expected.shape, p.event_shape)
    torch.testing.assert_close(q.log_prob(taken(y, index)), expected, **({"rtol": 0, "atol": 0} if exact else {}))
    assert validates(q) is validates(p)


@pytest.mark.faults("families that are not closed")
@pytest.mark.parametrize("name", [*NAMES, "Uniform"])
def test_every_family_of_the_registry(name: str) -> None:
    case = CASES[name]
    p = case.draw(SHAPE)
    y = p.sample()
    log_prob = corrected(p).log_prob(y)
    for index in INDICES.values():
        check(p, y, log_prob, index, case.exact and not case.precision)


@pytest.mark.parametrize("name", ["Delta", "LKJ", "VonMises3D"])
def test_families_that_cannot_be_drawn(name: str) -> None:
    case = CASES[name]
    p, values = case.draw(SHAPE), case.grid()[0]
    y = values[torch.arange(6).reshape(SHAPE) * len(values) // 6]
    for index in INDICES.values():
        check(p, y, p.log_prob(y), index, exact=False)


@pytest.mark.parametrize("name", MEMBERS)
def test_what_is_of_no_family(name: str) -> None:
    p = MEMBERS[name]()
    y = (p.expand(p.batch_shape) if isinstance(p, dist.MixtureSameFamily) else p).sample()
    with pyro.validation_enabled(False):
        log_prob = p.log_prob(y)
    for index in INDICES.values():
        check(p, y, log_prob, index, exact=False)


POOLS: dict[str, Callable[[], Any]] = {
    "linear": lambda: pm.LinearPool([dist.StudentT(4.0, real(3, 1), 1.0), dist.Normal(real(2), 1.0)], [0.3, 0.7]),
    "linear, expanded": lambda: pm.LinearPool([dist.Normal(real(2), 1.0), dist.Cauchy(0.0, 1.0)]).expand([3, 2]),
    "linear of a batch": lambda: pm.LinearPool(dist.Normal(real(2, 4), 1.0), real(3, 1, 4).softmax(-1)),
    "linear of vectors": lambda: pm.LinearPool(dist.Normal(real(3, 2, 4, 5), 1.0).to_event(1)),
    "log-linear": lambda: pm.LogLinearPool(
        [dist.Normal(real(3, 1), 1.0), dist.Normal(real(2), 2.0)], real(3, 2, 2).softmax(-1)
    ),
    "log-linear, expanded": lambda: pm.LogLinearPool([dist.Gamma(positive(2), 1.0)] * 2, [0.3, 0.7]).expand([3, 2]),
    "log-linear of a batch": lambda: pm.LogLinearPool(dist.Poisson(positive(3, 2, 4)), [0.1, 0.2, 0.3, 0.4]),
    "log-linear, masked": lambda: pm.LogLinearPool(
        [dist.Normal(real(3, 2), 1.0).mask(real(3, 2) > 0), dist.Normal(real(2), 1.0)], [0.5, 0.5]
    ),
    "log-linear of experts": lambda: pm.LogLinearPool([dist.Normal(real(3, 2), 1.0)] * 2, [1, 1], simplex=False),
    "numerical": lambda: pm.NumericalPool(
        [dist.Laplace(real(3, 1), 1.0), dist.Normal(real(2), 1.0)], real(3, 2, 2).softmax(-1)
    ),
    "numerical of a batch": lambda: pm.NumericalPool(dist.Laplace(real(3, 2, 2), positive(2)), [0.5, 0.5]),
    "numerical of counts": lambda: pm.NumericalPool([dist.Poisson(positive(3, 2)), dist.Geometric(0.3)], [0.5, 0.5]),
    "Hölder": lambda: pm.HolderPool([dist.Normal(real(3, 2), 1.0), dist.Normal(0.0, 1.0)], [0.5, 0.5], real(3, 2)),
    "Hölder of one exponent": lambda: pm.HolderPool([dist.Normal(real(3, 2), 1.0)] * 2, [0.5, 0.5], 0.5),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools_are_indexed_as_tensors_are(name: str) -> None:
    p = POOLS[name]()
    y = p.sample()
    log_prob = p.log_prob(y)
    for index in list(INDICES.values())[:: 5 if "umerical" in name or "lder" in name else 1]:
        check(p, y, log_prob, index, exact=False)
    q = p[1:, ::-1]
    assert type(q) is type(p)
    torch.testing.assert_close(q.weights, p.weights[1:].flip(1))
    torch.testing.assert_close(q.log_prob(y[1:].flip(1)), log_prob[1:].flip(1))
    if hasattr(p, "log_normalizer"):
        torch.testing.assert_close(q.log_normalizer, p.log_normalizer[1:].flip(1))
    assert isinstance(q.components, tuple) is isinstance(p.components, tuple)


def test_a_pool_is_iterated_over_as_a_tensor_is() -> None:
    p = POOLS["linear"]()
    y = p.sample()
    each = list(p)
    assert [q.batch_shape for q in each] == [(2,)] * 3
    torch.testing.assert_close(torch.stack([q.log_prob(v) for q, v in zip(each, y, strict=True)]), p.log_prob(y))
    assert p  # whatever its batch, it is something
    with pytest.raises(TypeError, match=r"LinearPool: expected a batch to iterate over, got batch shape \(\)"):
        iter(each[0][0])


def test_a_pool_and_its_rows_do_not_share_what_changes() -> None:
    p = POOLS["numerical"]()
    before = copy.deepcopy(p)
    p[1].log_prob(torch.zeros(2))
    y = torch.zeros(3, 2, dtype=torch.float64)
    assert torch.equal(p.log_prob(y), before.log_prob(y))


BASE = dist.Normal(real(3, 2), positive(3, 2))
VECTORS = dist.Normal(real(3, 2, 4), positive(4)).to_event(1)
TRANSFORMED: dict[str, Callable[[], Any]] = {
    "affine": lambda: dist.TransformedDistribution(BASE, [AffineTransform(real(3, 2), positive(3, 1))]),
    "affine of columns": lambda: dist.TransformedDistribution(BASE, [AffineTransform(real(2), 2.0)]),
    "inverse": lambda: dist.TransformedDistribution(BASE, [ExpTransform(), PowerTransform(positive(3, 1)).inv]),
    "a chain": lambda: dist.TransformedDistribution(
        BASE, [ComposeTransform([AffineTransform(real(3, 2), 1.0), ExpTransform()]), PowerTransform(positive(2))]
    ),
    "a chain backwards": lambda: dist.TransformedDistribution(
        BASE, [ComposeTransform([ExpTransform().inv, AffineTransform(real(3, 2), 1.0)]).inv]
    ),
    "outputs": lambda: dist.TransformedDistribution(
        VECTORS, [AffineTransform(real(3, 2, 4), positive(4), event_dim=1)]
    ),
    "outputs alike": lambda: dist.TransformedDistribution(VECTORS, [AffineTransform(real(3, 2, 1), 1.0)]),
    "outputs one by one": lambda: dist.TransformedDistribution(
        VECTORS, [IndependentTransform(AffineTransform(real(3, 2, 4), 1.0), 1)]
    ),
    "a transform some outputs": lambda: dist.TransformedDistribution(
        VECTORS, [CatTransform([AffineTransform(real(3, 1, 2), 1.0), ExpTransform()], dim=-1, lengths=[2, 2])]
    ),
    "one affine map for all": lambda: dist.TransformedDistribution(VECTORS, [AffineTransform(real(4), 2.0)]),
    "by a distribution function": lambda: dist.TransformedDistribution(
        dist.Cauchy(real(3, 2), 1.0), [CumulativeDistributionTransform(dist.Normal(real(3, 1), positive(2)))]
    ),
    "of a pool": lambda: dist.TransformedDistribution(
        pm.LinearPool(dist.Normal(real(3, 2, 4), 1.0)), [AffineTransform(real(3, 2), 2.0, cache_size=1)]
    ),
    "of no family": lambda: dist.TransformedDistribution(
        dist.Cauchy(real(2), 1.0), [AffineTransform(real(3, 1), positive(3, 2))]
    ),
    "PyTorch's": lambda: torch.distributions.TransformedDistribution(BASE, [AffineTransform(real(3, 2), 1.0)]),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_of_a_row_are_its_own(name: str) -> None:
    p = TRANSFORMED[name]()
    if name == "a chain":
        p = dist.TransformedDistribution(BASE, p.transforms)
    y = p.sample()
    log_prob = p.log_prob(y)
    for index in INDICES.values():
        check(p, y, log_prob, index, exact=False)


def test_stacked_transforms_of_a_row_are_its_own() -> None:
    stacked = StackTransform([AffineTransform(real(3, 2), 1.0), ExpTransform()] * 2, dim=-1)
    p, y = dist.TransformedDistribution(VECTORS, [stacked]), real(3, 2, 4)
    (own,) = pm.rows(p, (slice(None, None, -2), 1)).transforms
    assert torch.equal(own(y[[2, 0], 1]), stacked(y)[[2, 0], 1])


class Shift(dist.transforms.AffineTransform):
    """A transform of a class that is not known."""


def test_a_transform_of_unknown_layout_is_named() -> None:
    known = dist.TransformedDistribution(VECTORS, [Shift(real(4), 2.0)])
    assert pm.rows(known, (1, 0)).batch_shape == ()
    p = dist.TransformedDistribution(VECTORS, [Shift(real(3, 2, 4), 2.0)])
    with pytest.raises(ValueError, match=r"transforms: expected .* the whole batch in Shift, got .* \(3, 2, 4\)"):
        pm.rows(p, 0)
    along = StackTransform([AffineTransform(real(2), 1.0)] * 3, dim=0)
    with pytest.raises(ValueError, match="expected StackTransform along one of 0 event dimensions, got dim 0"):
        pm.rows(dist.TransformedDistribution(BASE, [along]), 0)


def test_a_gradient_reaches_the_rows_that_are_taken() -> None:
    loc, scale, shift = (t.requires_grad_() for t in (real(3, 2), positive(3, 2), real(3)))
    p = dist.TransformedDistribution(dist.Normal(loc, scale), [AffineTransform(shift.unsqueeze(-1), 2.0)])
    y = p.sample()
    own = torch.autograd.grad(pm.rows(p, [2, 0]).log_prob(y[[2, 0]]).sum(), [loc, scale, shift])
    expected = torch.autograd.grad(p.log_prob(y)[[2, 0]].sum(), [loc, scale, shift])
    torch.testing.assert_close(own, expected)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "beyond": (3, IndexError, r"index: expected positions from -3 to 2 along dimension 0 of .* \(3, 2\), got 3"),
    "before": ((0, -3), IndexError, r"index: expected positions from -2 to 1 along dimension 1 .*, got -3"),
    "a list beyond": ([0, 5], IndexError, r"index: expected positions from -3 to 2 .*, got 5"),
    "a tensor beyond": (torch.tensor([[0], [-4]]), IndexError, r"index: expected positions from -3 to 2 .*, got -4"),
    "too many": ((0, 0, 0), IndexError, r"index: expected at most 2 dimensions, of batch shape \(3, 2\), got 3"),
    "too many masks": (
        (slice(None), torch.ones(3, 2).bool()),
        IndexError,
        r"index: expected at most 2 dimensions, of batch shape \(3, 2\), got 3",
    ),
    "two ellipses": ((..., 0, ...), IndexError, "index: expected one ellipsis at most, got 2"),
    "a mask of another shape": (
        torch.ones(2).bool(),
        IndexError,
        r"index: expected a mask of shape \(3,\), got \(2,\)",
    ),
    "lists of unlike lengths": (
        ([0, 1, 2], [0, 1]),
        IndexError,
        r"index: expected one for batch shape \(3, 2\), got \(\[0, 1, 2\], \[0, 1\]\): shape mismatch",
    ),
    "a float": (1.0, TypeError, "index: expected integers, slices, masks or sequences of these, got float"),
    "floats": (torch.ones(2), TypeError, "index: expected integers, .* got Tensor of torch.float32"),
    "a word": ("first", TypeError, "index: expected integers, .* got 'first'"),
    "True": (True, TypeError, "index: expected integers, .* got True"),
    "a ragged list": ([[0, 1], [2]], TypeError, r"index: expected integers, .* got \[\[0, 1\], \[2\]\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_index_that_is_none_is_named(name: str) -> None:
    index, error, message = BAD[name]
    for p in (dist.Normal(real(3, 2), 1.0), POOLS["linear"]()):
        with pytest.raises(error, match=message):
            pm.rows(p, index)


def test_what_has_no_rows_is_named() -> None:
    with pytest.raises(TypeError, match="p: expected a distribution, got Tensor"):
        pm.rows(torch.ones(3), 0)
    with pytest.raises(IndexError, match=r"index: expected at most 0 dimensions, of batch shape \(\), got 1"):
        pm.rows(dist.Normal(0.0, 1.0), 0)
    with pytest.raises(IndexError, match=r"index: expected none, of an empty batch of batch shape \(0,\), got 0"):
        pm.rows(dist.Normal(torch.zeros(0), 1.0), 0)
    with pytest.raises(ValueError, match=r"index: expected one member at least, got batch shape \(0, 2\)"):
        pm.rows(POOLS["numerical"](), slice(0, 0))
    assert pm.rows(POOLS["linear"](), []).sample().shape == (0, 2)
