"""Where functions are highest: of numbers, integers and vectors, against what is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_probmix.ops.maxima import climbed, highest_integer, highest_number


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_between_points_some_of_which_are_equal() -> None:
    top = doubles(0.37, -2.2, 8.0)
    points = torch.cat(
        [torch.zeros(50, 3), torch.ones(50, 3), torch.full((1, 3), -9.0), torch.full((1, 3), 9.0)]
    ).double()
    found = highest_number(lambda x: -(x - top).abs(), points)
    torch.testing.assert_close(found, top, atol=1e-7, rtol=0)


def test_the_higher_of_two_peaks_and_not_what_is_no_number() -> None:
    def two(x: Tensor) -> Tensor:
        value = (-8 * (x + 2).square()).exp() + 1.5 * (-9 * (x - 2).square()).exp()
        return torch.where(x.abs() < 0.5, math.nan, value)

    found = highest_number(two, torch.linspace(-5, 5, 101, dtype=torch.float64).unsqueeze(-1))
    torch.testing.assert_close(found, doubles(2.0), atol=1e-6, rtol=0)


def test_among_integers_few_or_many() -> None:
    top = doubles(3.0, 700.0, 1e7 + 1)
    low, high = torch.zeros(3, dtype=torch.float64), doubles(10.0, 900.0, 2e7)
    points = torch.stack([low, high, (0.5 * high).floor()])
    assert torch.equal(highest_integer(lambda x: -(x - top).square(), low, high, points), top)
    few = slice(0, 2)
    found = highest_integer(lambda x: -(x - top[few]).square(), low[few], high[few], points[:, few])
    assert torch.equal(found, top[few])


def test_a_bent_ridge_is_climbed_to_its_top() -> None:
    """Rosenbrock's function, from many starts at once, some of them at the top."""

    def height(x: Tensor) -> Tensor:
        return -(1 - x[..., 0]).square() - 100 * (x[..., 1] - x[..., 0].square()).square()

    start = torch.cat([torch.randn(3, 20, 2, dtype=torch.float64), torch.ones(3, 1, 2, dtype=torch.float64)], 1)
    assert (climbed(height, start) - 1).abs().max() < 1e-5
    assert torch.equal(climbed(height, torch.ones(1, 2, dtype=torch.float64)), torch.ones(1, 2, dtype=torch.float64))


def test_a_kink_ends_the_climb() -> None:
    found = climbed(lambda x: -(x - 1).abs().sum(-1) - 0.1 * x.square().sum(-1), torch.zeros(4, 2, dtype=torch.float64))
    assert (found - 1).abs().max() < 0.1
