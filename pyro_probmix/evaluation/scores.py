"""Scores of single rows: of the density, and of its mean."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_probmix.evaluation.labels import check_numbers

__all__ = ["squared_error", "surprise"]


def surprise(p: Any, y: Tensor) -> Tensor:
    """−log p(y), in nats."""
    return -p.log_prob(y)


def squared_error(p: Any, y: Tensor) -> Tensor:
    """The squared distance from the mean."""
    check_numbers(p)
    return (y.cpu().double() - p.mean.cpu().double()).square()
