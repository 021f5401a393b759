"""Networks whose output or gradient is not finite now and then."""

from __future__ import annotations

import math
from collections.abc import Container

import torch
from torch import Tensor, nn

__all__ = ["FailingAt", "FailingBeyond"]


class FailingAt(nn.Module):
    """A linear network with a running mean that fails at some steps, counted from 0."""

    def __init__(self, steps: Container[int], where: str = "output") -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.steps, self.where, self.step = steps, where, -1

    def forward(self, x: Tensor) -> Tensor:
        self.step += self.training
        failing = self.training and self.step in self.steps
        if failing and self.where == "output":
            x = x * math.nan  # the running mean becomes NaN, too
        output = self.norm(self.linear(x))
        # √0 is 0, its derivative infinite.
        return output + (0 * output).sqrt() if failing and self.where == "gradient" else output


class FailingBeyond(nn.Module):
    """A linear network that fails once its bias has moved far enough."""

    def __init__(self, limit: float, where: str) -> None:
        super().__init__()
        self.linear, self.where = nn.Linear(3, 1).double(), where
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("limit", torch.tensor(limit))

    def forward(self, x: Tensor) -> Tensor:
        beyond = self.linear.bias.detach().abs() > self.limit
        output = self.linear(x)
        if self.where == "output":
            return output * torch.where(beyond, math.nan, 1.0)
        return output + torch.where(beyond, 0 * output, 1 + output.square()).sqrt() * torch.where(beyond, 1.0, 0.0)
