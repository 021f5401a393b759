"""Adam on the rows of a matrix: torch's steps for each row that moves, and none for one that waits."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_probmix.training.stacking import Adam


def step(adam: Adam, rows: Tensor, gradient: Tensor, moving: Tensor) -> None:
    adam.change(rows, adam.begin(moving), gradient, moving)


def test_adam_in_single_precision() -> None:
    """Bias corrections have no cancellation: the rows are torch's to a few units in the last place."""
    rows, gradients = torch.randn(2, 50), torch.randn(30, 2, 50)
    expected = rows.double().requires_grad_()
    ours, optimizer = rows.clone(), torch.optim.Adam([expected], lr=0.01)
    adam = Adam(ours, torch.full((2, 1), 0.01))
    for gradient in gradients:
        step(adam, ours, gradient, torch.ones(2, 1, dtype=torch.bool))
        expected.grad = gradient.double()
        optimizer.step()
    torch.testing.assert_close(ours, expected.detach().float(), rtol=1e-6, atol=1e-6)


def test_adam_in_half_precision() -> None:
    """One over a small step size and the square of a gradient are beyond half precision; the first step is that size,
    whatever the gradient."""
    rows = torch.zeros(1, 4, dtype=torch.float16)
    gradient = torch.tensor([[0.5, -8.0, 1e-4, 6e4]], dtype=torch.float16)
    step(Adam(rows, torch.tensor([[1e-5]])), rows, gradient, torch.tensor([[True]]))
    torch.testing.assert_close(rows.float(), 1e-5 * torch.tensor([[-1.0, 1.0, -1.0, -1.0]]), rtol=0.01, atol=0)


def test_adam_leaves_rows_that_wait() -> None:
    """Parameters, moments and step count: a row that waits goes on as if it had not."""
    rows, gradients = torch.randn(1, 8).double(), torch.randn(6, 1, 8).double()
    one, other = rows.clone(), rows.clone()
    steadily, waiting = Adam(one, torch.tensor([[0.01]]).double()), Adam(other, torch.tensor([[0.01]]).double())
    gradients[2, 0, 3] = 1e200  # whose square overflows
    moves, waits = torch.tensor([[True]]), torch.tensor([[False]])
    for gradient in gradients:
        step(steadily, one, gradient, moves)
        step(waiting, other, gradient, moves)
        before = other.clone()
        step(waiting, other, gradient * torch.nan, waits)
        assert torch.equal(other, before)
    assert torch.equal(one, other)
