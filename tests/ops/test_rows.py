"""Rows by their numbers: what ``torch.index_select`` gives, with its derivatives, under every kind of ``vmap``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from pyro_probmix.ops import rows
from pyro_probmix.ops.rows import take

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)  # forward mode's own

SIZES = (2, 3, 2, 4)  # of the dimension mapped over, and of one tensor
INDEX = torch.tensor([[3, 3, 0, 1, 2, 2, 1], [0, 2, 3, 1, 1, 3, 3]])
dims = pytest.mark.parametrize("dim", [-1, -2, -3])


@pytest.fixture(params=[0, 100], ids=["rows", "elements"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole rows, and the elements of rows narrower than ``NARROW``."""
    monkeypatch.setattr(rows, "NARROW", request.param)


def make(*sizes: int) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def index(dim: int) -> Tensor:
    return INDEX % SIZES[dim]


@dims
@pytest.mark.parametrize("front", range(4))
@pytest.mark.parametrize("mapped", [(True, True), (True, False), (False, True)], ids=["both", "tensor", "index"])
def test_vmap_is_a_loop(dim: int, front: int, mapped: tuple[bool, bool]) -> None:
    tensor, number = make(*SIZES), index(dim)
    in_dims = [front if mapped[0] else None, 0 if mapped[1] else None]
    given = tensor.movedim(0, front) if mapped[0] else tensor[0], number if mapped[1] else number[0]
    given[0].requires_grad_()
    ours = vmap(lambda t, i: take(t, dim, i), in_dims=tuple(in_dims))(*given)
    theirs = torch.stack(
        [
            (given[0].select(front, r) if mapped[0] else given[0]).index_select(
                dim, number[r] if mapped[1] else given[1]
            )
            for r in range(2)
        ]
    )
    assert torch.equal(ours, theirs)
    weight = make(*ours.shape)
    slopes = [torch.autograd.grad((weight * result).sum(), given[0])[0] for result in (ours, theirs)]
    torch.testing.assert_close(*slopes, rtol=1e-14, atol=1e-14)


@dims
def test_derivatives_inside_and_outside_of_vmap(dim: int) -> None:
    tensor, number = make(*SIZES), index(dim)

    def loss(t: Tensor, i: Tensor) -> Tensor:
        return take(t, dim, i).pow(3).sum()

    def by_loop(t: Tensor, i: Tensor) -> Tensor:
        return torch.stack([own.index_select(dim, number).pow(3).sum() for own, number in zip(t, i, strict=True)])

    expected = grad(lambda t: by_loop(t, number).sum())(tensor)
    inside = vmap(grad(loss))(tensor, number)
    outside = grad(lambda t: vmap(loss)(t, number).sum())(tensor)
    forward, second = (f(make(*SIZES).exp()) for f in (_forward(loss, tensor, number), _second(loss, tensor, number)))
    torch.testing.assert_close(inside, expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(outside, expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(forward, jvp(lambda t: by_loop(t, number), (tensor,), (make(*SIZES).exp(),))[1])
    curvature = torch.autograd.functional.vhp(lambda t: by_loop(t, number).sum(), tensor, make(*SIZES).exp())[1]
    torch.testing.assert_close(second, curvature)


def _forward(loss: Any, tensor: Tensor, number: Tensor) -> Any:
    return lambda tangent: jvp(lambda t: vmap(loss)(t, number), (tensor,), (tangent,))[1]


def _second(loss: Any, tensor: Tensor, number: Tensor) -> Any:
    return lambda v: grad(lambda t: (vmap(grad(loss))(t, number) * v).sum())(tensor)


@dims
def test_nested_vmap(dim: int) -> None:
    tensor, number = make(3, *SIZES), torch.stack([index(dim), index(dim).flip(0), index(dim).flip(1)])
    ours = vmap(vmap(lambda t, i: take(t, dim, i)))(tensor, number)
    for a in range(3):
        for b in range(2):
            assert torch.equal(ours[a, b], tensor[a, b].index_select(dim, number[a, b]))


def test_gradcheck() -> None:
    tensor, number = make(*SIZES).requires_grad_(), index(-2)
    mapped = vmap(lambda t, i: take(t, -2, i))
    assert torch.autograd.gradcheck(lambda t: mapped(t, number), tensor, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda t: mapped(t, number), tensor)
