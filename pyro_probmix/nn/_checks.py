"""Checks of arguments shared by the networks."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import torch
from torch import nn

__all__ = ["as_module", "as_size", "positive_integer", "positive_number"]


def positive_integer(name: str, value: Any, minimum: int = 1) -> int:
    """Return ``value`` as an ``int`` that is at least ``minimum``, or raise naming ``name``."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name}: expected an integer >= {minimum}, got {value!r}")
    if number < minimum:
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {number}")
    return number


def positive_number(name: str, value: Any) -> float:
    """Return ``value`` as a finite ``float`` above zero, or raise naming ``name``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number > 0, got {value!r}")
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}: expected a finite number > 0, got {value!r}")
    return number


def as_size(name: str, value: Any) -> torch.Size:
    """Return an integer or a sequence of integers as a ``torch.Size`` without empty dimensions."""
    sizes = value if isinstance(value, (tuple, list)) else (value,)
    return torch.Size([positive_integer(name, size) for size in sizes])


def as_module(name: str, value: Any) -> nn.Module:
    """Return ``value`` if it is an ``nn.Module``, or raise naming ``name``."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name}: expected an nn.Module, got {value!r}")
    return value
