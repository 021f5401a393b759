"""The registry of invalid inputs, and what they are made of."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.models import seeded
from tests.random_models import RandomModel

__all__ = [
    "REFUSALS",
    "Attempt",
    "any_bad",
    "data",
    "linear",
    "loader",
    "normal_embedding",
    "numbers",
    "pair_batch",
    "small",
    "spoilt",
    "table",
]

NAN, INF = math.nan, math.inf
SIZE = 6


@dataclass
class Attempt:
    """A call that is to be refused with an error that begins with one of the names, a pattern.

    A call that draws, as a model does, may have moved the random state, and shown Pyro its parameters, before.
    """

    names: str
    call: Callable[[], Any]
    draws: bool = False


REFUSALS: dict[str, Callable[[random.Random, RandomModel], Attempt]] = {}


def table(prefix: str, names: str, call: Callable[[Any], Any], draws: bool = False, **bad: Any) -> None:
    """A refusal for each bad value; a function is called for its value with random numbers and a model."""
    for what, value in bad.items():

        def make(rng: random.Random, case: RandomModel, value: Any = value) -> Attempt:
            given = value(rng, case) if isinstance(value, FunctionType) else value
            return Attempt(names, lambda: call(given), draws)

        name = f"{prefix}: {names} {what.replace('_', ' ')}"
        assert name not in REFUSALS, name
        REFUSALS[name] = make


def spoilt(tensor: Tensor, rng: random.Random, value: float) -> Tensor:
    """A copy with one value in it replaced."""
    copied = tensor.clone() if tensor.is_floating_point() else tensor.float()
    copied.view(-1)[rng.randrange(copied.numel())] = value
    return copied


def any_bad(rng: random.Random) -> float:
    return rng.choice([NAN, INF, -INF])


def numbers(*shape: int) -> Tensor:
    """Some numbers, without a draw from the global generator."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def linear(in_features: int, out_features: int) -> nn.Module:
    with seeded(0, torch.device("cpu")):
        return nn.Linear(in_features, out_features)


def data() -> tuple[Tensor, Tensor]:
    return numbers(SIZE, 3), numbers(SIZE)


def pair_batch(**changed: Any) -> pm.PairBatch:
    x, y = data()
    return pm.PairBatch(**{"x": x, "y": y, "partner": torch.arange(SIZE).flip(0), **changed})


def loader(**changed: Any) -> pm.PairLoader:
    x, y = data()
    return pm.PairLoader(**{"x": x, "y": y, "graph": pm.CompleteGraph(SIZE), **changed})


def normal_embedding() -> nn.Module:
    with seeded(0, torch.device("cpu")):
        return pm.nn.NormalEmbedding(nn.Linear(3, 2), 2)


def small(method: Any = pm.ProbMix, **arguments: Any) -> Any:
    """A model of three features."""
    likelihood = arguments.pop("likelihood", pm.nn.NormalLikelihood())
    num_outputs = getattr(likelihood, "num_outputs", 2)
    if method is pm.ManifoldProbMix:
        embedding = arguments.pop("embedding", None) or normal_embedding()
        return method(embedding, linear(2, num_outputs), likelihood, **arguments)
    if method is pm.ManifoldMixup:
        encoder = arguments.pop("encoder", None) or linear(3, 2)
        return method(encoder, linear(2, num_outputs), likelihood, **arguments)
    return method(linear(3, num_outputs), likelihood, **arguments)
