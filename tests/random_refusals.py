"""Invalid inputs at random: each is refused by an error that begins with the argument, and nothing has changed."""

from __future__ import annotations

import math
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from tests.random_models import RandomModel, random_model

__all__ = ["REFUSALS", "failures"]

NAN, INF = math.nan, math.inf


@dataclass
class Attempt:
    """A call that is to be refused with an error that begins with one of the names.

    A call that draws, as a model does, may have moved the random state before it is refused.
    """

    names: str | tuple[str, ...]
    call: Callable[[], Any]
    draws: bool = False


Make = Callable[[random.Random, RandomModel], Attempt]
REFUSALS: dict[str, Make] = {}


def refusal(make: Make) -> Make:
    """Keep it under its name."""
    REFUSALS[make.__name__] = make
    return make


def table(prefix: str, names: str, call: Callable[[Any], Any], **bad: Any) -> None:
    """A refusal for each bad value; a function is called for its value with the random numbers and the model."""
    for what, value in bad.items():

        def make(rng: random.Random, case: RandomModel, value: Any = value) -> Attempt:
            given = value(rng, case) if isinstance(value, FunctionType) else value
            return Attempt(names, lambda: call(given))

        REFUSALS[f"{prefix}: {names} {what.replace('_', ' ')}"] = make


def spoilt(tensor: Tensor, rng: random.Random, value: float) -> Tensor:
    """A copy with one value in it replaced."""
    copied = tensor.clone() if tensor.is_floating_point() else tensor.float()
    copied.view(-1)[rng.randrange(copied.numel())] = value
    return copied


def any_bad(rng: random.Random) -> float:
    return rng.choice([NAN, INF, -INF])


SIZE = 6


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(SIZE, 3), torch.randn(SIZE)


def pair_batch(**changed: Any) -> pm.PairBatch:
    x, y = data()
    return pm.PairBatch(**{"x": x, "y": y, "partner": torch.randperm(SIZE), **changed})


def loader(**changed: Any) -> pm.PairLoader:
    x, y = data()
    return pm.PairLoader(**{"x": x, "y": y, "graph": pm.CompleteGraph(SIZE), **changed})


def small(method: Any = pm.ProbMix, **arguments: Any) -> Any:
    likelihood = arguments.pop("likelihood", None) or pm.nn.NormalLikelihood()
    if method is pm.ManifoldProbMix:
        embedding = arguments.pop("embedding", None) or pm.nn.NormalEmbedding(nn.Linear(3, 2), 2)
        return method(embedding, nn.Linear(2, likelihood.num_outputs), likelihood, **arguments)
    if method is pm.ManifoldMixup:
        encoder = arguments.pop("encoder", None) or nn.Linear(3, 2)
        return method(encoder, nn.Linear(2, likelihood.num_outputs), likelihood, **arguments)
    return method(nn.Linear(3, getattr(likelihood, "num_outputs", 2)), likelihood, **arguments)


# Batches and loaders.

for name, bad in {
    "x": {
        "of_no_tensor": [1.0], "a_scalar": torch.tensor(1.0), "empty": torch.zeros(0, 3), "elsewhere": torch.zeros(SIZE, device="meta"),
    },
    "y": {
        "too_long": lambda rng, case: torch.zeros(SIZE + rng.randint(1, 9)), "a_scalar": torch.tensor(0.0),
        "of_no_tensor": [0.0] * SIZE, "elsewhere": torch.zeros(SIZE, device="meta"),
    },
    "partner": {
        "none": None, "of_floats": torch.zeros(SIZE), "of_int32": torch.zeros(SIZE).int(),
        "of_bools": torch.zeros(SIZE).bool(), "too_short": torch.arange(SIZE - 1), "a_table": torch.zeros(SIZE, 1).long(),
    },
    "weight": {
        "of_no_tensor": [1.0] * SIZE, "of_another_length": lambda rng, case: torch.ones(SIZE + rng.randint(1, 9)),
        "a_table": torch.ones(SIZE, 1),
    },
    "mask": {
        "of_floats": torch.ones(SIZE), "of_integers": torch.ones(SIZE).long(), "of_another_length": torch.ones(SIZE + 1).bool(),
        "a_table": torch.ones(SIZE, 2).bool(),
    },
}.items():  # fmt: skip
    if name == "x":
        table("PairBatch", "(x|y)", lambda value: pair_batch(x=value), **bad)
    else:
        table("PairBatch", name, lambda value, name=name: pair_batch(**{name: value}), **bad)

for name, bad in {
    "x": {
        "spoilt": lambda rng, case: spoilt(torch.randn(SIZE, 3), rng, any_bad(rng)), "of_no_tensor": [0.0] * SIZE,
        "too_short": torch.zeros(SIZE - 1, 3), "a_scalar": torch.tensor(0.0), "none": None,
    },
    "y": {
        "spoilt": lambda rng, case: spoilt(torch.randn(SIZE), rng, any_bad(rng)), "of_no_tensor": [0.0] * SIZE,
        "too_long": torch.zeros(SIZE + 1),
    },
    "graph": {"a_word": "complete", "none": None, "a_number": 3},
    "batch_size": {"zero": 0, "negative": lambda rng, case: -rng.randint(1, 9), "a_float": 2.0, "a_bool": True, "a_word": "2"},
    "weight": {
        "negative": lambda rng, case: spoilt(torch.ones(SIZE), rng, -rng.random() - 1e-6),
        "spoilt": lambda rng, case: spoilt(torch.ones(SIZE), rng, any_bad(rng)), "zeros": torch.zeros(SIZE),
        "of_no_tensor": [1.0] * SIZE, "of_another_length": torch.ones(SIZE + 1),
    },
    "mask": {
        "of_floats": torch.ones(SIZE), "nothing": torch.zeros(SIZE).bool(), "of_another_length": torch.ones(SIZE - 1).bool(),
        "of_no_tensor": [True] * SIZE,
    },
}.items():  # fmt: skip
    table("PairLoader", name, lambda value, name=name: loader(**{name: value}), **bad)


# Graphs.

table("CompleteGraph", "num_nodes", pm.CompleteGraph, zero=0, negative=-3, a_float=2.5, a_word="3")
table(
    "NearestNeighborGraph", "x", lambda value: pm.NearestNeighborGraph(value, 2),
    spoilt=lambda rng, case: spoilt(torch.randn(SIZE, 3), rng, any_bad(rng)), of_no_tensor=[[1.0]] * SIZE,
    empty=torch.zeros(0, 3), without_columns=torch.zeros(SIZE, 0), a_scalar=torch.tensor(1.0),
    complex=torch.zeros(SIZE, 2, dtype=torch.complex64), too_far_apart=torch.tensor([[-1e200], [1e200], [0]]).double(),
)  # fmt: skip
table(
    "NearestNeighborGraph", "num_neighbors", lambda value: pm.NearestNeighborGraph(torch.randn(SIZE, 2), value),
    zero=0, negative=-1, too_many=lambda rng, case: SIZE + rng.randint(0, 9), a_float=2.0, a_word="2",
)  # fmt: skip
table(
    "NearestNeighborGraph", "metric", lambda value: pm.NearestNeighborGraph(torch.randn(SIZE, 2), 2, metric=value),
    unknown="euclid", a_number=3,
)  # fmt: skip
table(
    "KernelGraph", "bandwidth_x", lambda value: pm.KernelGraph(torch.randn(SIZE, 2), bandwidth_x=value),
    zero=0.0, negative=-1.0, nan=NAN,
)  # fmt: skip
table("KernelGraph", "x", lambda value: pm.KernelGraph(value), none=None, of_no_tensor=[1.0], empty=torch.zeros(0, 1))
table("KernelGraph", "y", lambda value: pm.KernelGraph(torch.randn(SIZE, 1), value), too_long=torch.zeros(SIZE + 1))
EDGES = torch.tensor([[0, 1], [1, 2], [2, 0]])
table(
    "WeightedGraph", "edges", lambda value: pm.WeightedGraph(value, torch.ones(len(value)), 3),
    of_floats=EDGES.float(), of_bools=EDGES.bool(), triples=torch.zeros(3, 3).long(), none_at_all=EDGES[:0],
    beyond=lambda rng, case: EDGES + rng.randint(1, 9), negative=EDGES - 1, of_no_tensor=[[0, 1]],
)  # fmt: skip
table(
    "WeightedGraph", "weights", lambda value: pm.WeightedGraph(EDGES, value, 3),
    negative=lambda rng, case: spoilt(torch.ones(3), rng, -rng.random() - 1e-6), zeros=torch.zeros(3),
    spoilt=lambda rng, case: spoilt(torch.ones(3), rng, any_bad(rng)), too_few=torch.ones(2), of_no_tensor=[1.0] * 3,
    complex=torch.ones(3, dtype=torch.complex64),
)  # fmt: skip
table("WeightedGraph", "num_nodes", lambda value: pm.WeightedGraph(EDGES, torch.ones(3), value), zero=0, a_float=3.0)
table(
    "LabelGraph", "y", pm.LabelGraph, of_no_tensor=[0, 1], empty=torch.zeros(0), a_scalar=torch.tensor(1),
    spoilt=lambda rng, case: spoilt(torch.arange(6) % 2, rng, NAN),
)  # fmt: skip
table("LabelGraph", "kind", lambda value: pm.LabelGraph(torch.arange(4) % 2, kind=value), unknown="others")
table(
    "LabelGraph", "uniform_over", lambda value: pm.LabelGraph(torch.arange(4) % 2, uniform_over=value), unknown="edges"
)
for kind in (pm.CompleteGraph(SIZE), pm.NearestNeighborGraph(torch.arange(6.0).unsqueeze(1), 2)):
    table(
        f"{type(kind).__name__}.pair_batch", "x", lambda value, kind=kind: kind.pair_batch(value, torch.zeros(SIZE)),
        spoilt=lambda rng, case: spoilt(torch.randn(SIZE, 3), rng, any_bad(rng)), of_another_length=torch.zeros(SIZE + 1),
        of_no_tensor=[0.0] * SIZE,
    )  # fmt: skip
    table(
        f"{type(kind).__name__}.pair_batch", "y", lambda value, kind=kind: kind.pair_batch(torch.zeros(SIZE, 1), value),
        spoilt=lambda rng, case: spoilt(torch.randn(SIZE), rng, any_bad(rng)), of_another_length=torch.zeros(SIZE - 1),
    )  # fmt: skip


# Laws of λ, vicinities, likelihoods, embeddings, methods.

UNCHECKED = {"validate_args": False}
BAD_COEFFICIENTS = {
    "a_number": 0.2,
    "a_tensor": torch.tensor(0.2),
    "none_of_zero": dist.Beta(0.0, 1.0, **UNCHECKED),
    "none_of_a_negative": lambda rng, case: dist.Beta(1.0, -(10 ** rng.uniform(-3, 3)), **UNCHECKED),
    "none_of_nan": dist.Beta(NAN, 1.0, **UNCHECKED),
    "none_of_infinity": dist.Beta(1.0, INF, **UNCHECKED),
    "Normal": dist.Normal(0.5, 0.1),
    "Gamma": dist.Gamma(1.0, 1.0),
    "wider_Uniform": dist.Uniform(0.0, 2.0),
    "point_beyond": lambda rng, case: dist.Delta(torch.tensor(1 + 10 ** rng.uniform(-3, 3))),
    "point_below": lambda rng, case: dist.Delta(torch.tensor(-(10 ** rng.uniform(-3, 3)))),
    "vector": dist.Dirichlet(torch.ones(2)),
}
for method in (pm.Mixup, pm.ManifoldMixup, pm.ProbMix, pm.ManifoldProbMix):
    table(
        method.__name__,
        "coefficient",
        lambda value, method=method: small(method, coefficient=value),
        **BAD_COEFFICIENTS,
    )
    table(
        method.__name__, "labels", lambda value, method=method: small(method, labels=value), unknown="mean", none=None
    )
    table(method.__name__, "per", lambda value, method=method: small(method, per=value), unknown="epoch", none=None)
    table(
        method.__name__, "vicinity", lambda value, method=method: small(method, vicinity=value), a_word="normal", a_number=0.1,
        a_class=lambda rng, case: pm.NormalVicinity,
    )  # fmt: skip
    table(
        method.__name__, "likelihood", lambda value, method=method: method(*[nn.Linear(3, 2)] * (1 + (method is pm.ManifoldMixup)), value)
        if method is not pm.ManifoldProbMix else method(pm.nn.NormalEmbedding(nn.Linear(3, 2), 2), nn.Linear(2, 2), value),
        a_network=lambda rng, case: nn.Linear(2, 2), a_class=lambda rng, case: pm.nn.NormalLikelihood, a_word="normal", none=None,
    )  # fmt: skip
    table(
        method.__name__, "vicinity", lambda value, method=method: small(
            method, likelihood=pm.nn.DistributionLikelihood(dist.Poisson), vicinity=value
        ), between_counts=pm.DiracVicinity(), off_the_counts=pm.NormalVicinity(0.1),
    )  # fmt: skip
    table(
        method.__name__, "num_classes", lambda value, method=method: small(
            method, likelihood=pm.nn.CategoricalLikelihood(3), vicinity=pm.LabelVicinity(0.1, value)
        ), others=lambda rng, case: rng.choice([2, 4, 5, 9]),
    )  # fmt: skip
for method in (pm.ProbMix, pm.ManifoldProbMix):
    table(
        method.__name__,
        "fusion",
        lambda value, method=method: small(method, fusion=value),
        unknown="geometric",
        none=None,
    )
    table(
        method.__name__, "coefficient", lambda value, method=method: small(method, coefficient=value, fusion="linear"),
        extrapolates=pm.ExpandedBeta.variance_preserving(1.0),
    )  # fmt: skip
table(
    "ManifoldProbMix", "propagate", lambda value: small(pm.ManifoldProbMix, propagate=value), unknown="draw", none=None
)
table(
    "ManifoldProbMix",
    "embedding",
    lambda value: small(pm.ManifoldProbMix, embedding=value),
    a_network=lambda rng, case: nn.Linear(3, 2),
)
table(
    "ManifoldMixup",
    "encoder",
    lambda value: small(pm.ManifoldMixup, encoder=value),
    a_density=lambda rng, case: pm.nn.NormalEmbedding(nn.Linear(3, 2), 2),
)

BAD_BETAS = {"negative": lambda rng, case: -(10 ** rng.uniform(-3, 3)), "nan": NAN, "infinite": INF}
table("NormalVicinity", "beta", pm.NormalVicinity, **BAD_BETAS)
table("LabelVicinity", "beta", lambda value: pm.LabelVicinity(value, 3), **BAD_BETAS)
table("LabelVicinity", "beta", lambda value: pm.LabelVicinity(value, 3, "log-linear"), zero=0.0)
table(
    "LabelVicinity", "num_classes", lambda value: pm.LabelVicinity(0.1, value), one=1, zero=0, negative=-2, a_float=3.0
)
table(
    "LabelVicinity",
    "label_smoothing",
    lambda value: pm.LabelVicinity.smoothing(value, 3),
    one=1.0,
    negative=-0.1,
    nan=NAN,
    more=2.0,
)
for make in (pm.DiracVicinity, lambda f: pm.NormalVicinity(0.1, f), lambda f: pm.LabelVicinity(0.1, 3, f)):
    table(f"vicinity {len(REFUSALS)}", "fusion", make, unknown="loglinear", none=None, a_number=1)
BAD_CONCENTRATIONS = {"zero": 0.0, "negative": lambda rng, case: -(10 ** rng.uniform(-3, 3)), "nan": NAN}
table("GaussJacobi", "concentration1", pm.GaussJacobi, infinite=INF, **BAD_CONCENTRATIONS)
table("GaussJacobi", "num_nodes", lambda value: pm.GaussJacobi(0.3, num_nodes=value), one=1, zero=0, a_float=3.0)
table("ExpandedBeta", "concentration1", lambda value: pm.ExpandedBeta(value, 1.0, 0.0, 1.0), **BAD_CONCENTRATIONS)
table(
    "ExpandedBeta",
    "low",
    lambda value: pm.ExpandedBeta(1.0, 1.0, value, 1.0),
    high=lambda rng, case: 1 + rng.random(),
    equal=1.0,
)

table("NormalLikelihood", "event_shape", pm.nn.NormalLikelihood, negative=-1, a_float=2.0, zero=0)
for scale in ("scale", "min_scale"):
    table(
        "NormalLikelihood", scale, lambda value, scale=scale: pm.nn.NormalLikelihood(**{scale: value}), zero=0.0, nan=NAN,
        negative=lambda rng, case: -(10 ** rng.uniform(-3, 3)), infinite=INF, a_word="1",
    )  # fmt: skip
table("NormalLikelihood", "scale", lambda value: pm.nn.NormalLikelihood(homoscedastic=True, scale=value), both=1.0)
table(
    "CategoricalLikelihood",
    "num_classes",
    pm.nn.CategoricalLikelihood,
    one=1,
    zero=0,
    negative=-3,
    a_float=3.0,
    a_word="3",
)
table(
    "DistributionLikelihood",
    "distribution_class",
    pm.nn.DistributionLikelihood,
    a_word="Normal",
    a_member=dist.Normal(0.0, 1.0),
)
table(
    "DistributionLikelihood",
    "(df|StudentT)",
    lambda value: pm.nn.DistributionLikelihood(dist.StudentT, df=value),
    zero=0.0,
    negative=-1.0,
    nan=NAN,
)
table(
    "DistributionLikelihood",
    "floor",
    lambda value: pm.nn.DistributionLikelihood(dist.Gamma, floor=value),
    zero=0.0,
    negative=-1.0,
)
for likelihood in (pm.nn.NormalLikelihood(), pm.nn.CategoricalLikelihood(2), pm.nn.DistributionLikelihood(dist.Gamma)):
    table(
        type(likelihood).__name__, "raw", likelihood, wider=lambda rng, case: torch.zeros(4, 2 + rng.randint(1, 5)),
        narrower=torch.zeros(4, 1), a_scalar=torch.tensor(0.0),
    )  # fmt: skip
table(
    "NormalEmbedding",
    "encoder",
    lambda value: pm.nn.NormalEmbedding(value, 2),
    a_function=lambda rng, case: torch.tanh,
    none=None,
)
table(
    "NormalEmbedding",
    "embedding_dim",
    lambda value: pm.nn.NormalEmbedding(nn.Linear(3, 2), value),
    zero=0,
    negative=-1,
    a_float=2.0,
    none_at_all=(),
)
table(
    "NormalEmbedding",
    "initial_scale",
    lambda value: pm.nn.NormalEmbedding(nn.Linear(3, 2), 2, initial_scale=value),
    zero=0.0,
    negative=-1.0,
    nan=NAN,
)
table(
    "NormalEmbedding",
    "scale",
    lambda value: pm.nn.NormalEmbedding(nn.Linear(3, 2), 2, scale=value),
    zero=0.0,
    negative=-1.0,
)
table(
    "LowRankNormalEmbedding",
    "rank",
    lambda value: pm.nn.LowRankNormalEmbedding(nn.Linear(3, 2), 2, value),
    too_high=3,
    zero=0,
    a_float=1.0,
)
table(
    "DistributionEmbedding",
    "distribution_class",
    lambda value: pm.nn.DistributionEmbedding(nn.Linear(3, 2), value, 2),
    counts=dist.Poisson,
)
table(
    "NormalEmbedding",
    "encoder",
    lambda value: pm.nn.NormalEmbedding(nn.Linear(3, value), 2)(torch.zeros(4, 3)),
    of_another_width=lambda rng, case: rng.choice([1, 3, 4]),
)
table(
    "MLP", "in_features", lambda value: pm.nn.MLP(value, [3], 1), zero=0, negative=-1, a_float=2.0
)  # fmt: skip


# Risks, predictives, the handler: of a model at random.

BAD_RISKS: dict[str, dict[str, Any]] = {
    "num_samples": {"zero": 0, "negative": -2},
    "labels": {"unknown": "foo"},
    "objective": {"unknown": "log-mean", "none": None},
}


def on_a_random_model(names: str, what: str, call: Callable[[random.Random, RandomModel], Any]) -> None:
    def make(rng: random.Random, case: RandomModel) -> Attempt:
        return Attempt(names, lambda: call(rng, case), draws=True)

    REFUSALS[f"random model: {names} {what}"] = make


for name, bad in BAD_RISKS.items():
    for what, value in bad.items():
        on_a_random_model(
            name, f"{what} in the risk",
            lambda rng, case, name=name, value=value: case.model.risk(case.batch, **{**case.risk, name: value}),
        )  # fmt: skip


def with_batch(case: RandomModel, **changed: Any) -> pm.PairBatch:
    given = {f.name: getattr(case.batch, f.name) for f in fields(case.batch)}
    return pm.PairBatch(**{**given, **changed})


def through(rng: random.Random, case: RandomModel, batch: Any) -> Any:
    """The risk, or the same by Pyro."""
    if rng.random() < 0.5:
        return case.model.risk(batch, **case.risk)
    return pyro.infer.Trace_ELBO().loss(case.model, case.model.guide, batch)


on_a_random_model("batch", "without labels", lambda rng, case: case.model.risk(with_batch(case, y=None, mask=None)))
on_a_random_model("batch", "a tuple", lambda rng, case: through(rng, case, (case.batch.x, case.batch.y)))
on_a_random_model("batch", "a tensor", lambda rng, case: through(rng, case, case.batch.x))
on_a_random_model(
    "y", "with a column more", lambda rng, case: through(rng, case, with_batch(case, y=case.batch.y.unsqueeze(-1), mask=None))
)  # fmt: skip
on_a_random_model(
    "y", "with a dimension more", lambda rng, case: through(
        rng, case, with_batch(case, y=torch.stack([case.batch.y] * rng.randint(2, 4), 1), mask=None)
    )
)  # fmt: skip
on_a_random_model(
    "y",
    "not a number",
    lambda rng, case: through(rng, case, with_batch(case, y=spoilt(case.batch.y, rng, NAN), mask=None)),
)
on_a_random_model(
    "partner", "beyond the batch", lambda rng, case: through(
        rng, case, with_batch(case, partner=case.batch.partner + len(case.batch) + rng.randint(0, 5))
    ) if case.model.coefficient is not None and case.model.mixing.at else _refuse("partner")
)  # fmt: skip
on_a_random_model(
    "weight",
    "of the risk of another length",
    lambda rng, case: case.model.risk(case.batch, weight=torch.ones(len(case.batch) + 1)),
)
on_a_random_model(
    "num_samples", "zero in the predictive",
    lambda rng, case: case.model.predictive(case.batch.x, num_samples=-rng.randint(0, 5)),
)  # fmt: skip
on_a_random_model(
    "coefficient", "of another shape", lambda rng, case: case.model.risk(
        case.batch, **case.risk, coefficient=torch.rand(len(case.batch) + 1 + rng.randint(0, 3))
    )
)  # fmt: skip
on_a_random_model(
    "coefficient", "outside [0, 1]", lambda rng, case: case.model.risk(
        case.batch, **case.risk, coefficient=spoilt(torch.rand(len(case.batch)), rng, rng.choice([-0.1, 1.1, 1e6, NAN]))
    )
)  # fmt: skip
on_a_random_model(
    "noise", "of no embedding or another shape",
    lambda rng, case: case.model.risk(case.batch, **case.risk, noise=torch.zeros(len(case.batch) + 1, 7)),
)  # fmt: skip


def _refuse(name: str) -> None:
    raise ValueError(f"{name}: a model that mixes nothing has no use for it")


def my_model(x: Tensor, y: Tensor | None = None) -> Any:
    weight = pyro.param("weight", lambda: torch.zeros(3))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ weight, 1.0), obs=y)


def mixed(**changed: Any) -> Any:
    return pm.mix(**{"fn": my_model, "at": "y", "coefficient": dist.Beta(1.0, 1.0), **changed})


table("mix", "fn", lambda value: mixed(fn=value), a_word="model", none=None)
table("mix", "coefficient", lambda value: mixed(coefficient=value), none=None, **BAD_COEFFICIENTS)
table("mix", "labels", lambda value: mixed(labels=value), unknown="mean")
table("mix", "fusion", lambda value: mixed(fusion=value), unknown="mean")
table("mix", "per", lambda value: mixed(per=value), unknown="epoch")
table("mix", "vicinity", lambda value: mixed(vicinity=value), a_word="normal", a_number=0.1)
for name, bad in {"at": ["Y", "weights", ""], "plate": ["rows", ""]}.items():
    table(
        "mix", "(at|plate)", lambda value, name=name: mixed(**{name: value})(pair_batch()),
        **{f"{name}_unknown_{k}": value for k, value in enumerate(bad)},
    )  # fmt: skip
table(
    "mix",
    "batch",
    lambda value: mixed()(value),
    a_tensor=torch.zeros(6, 3),
    a_tuple=(torch.zeros(6, 3), torch.zeros(6)),
)
table(
    "mix", "y", lambda value: mixed()(pair_batch(y=value)), a_column=torch.zeros(6, 1), rows_of_rows=torch.zeros(6, 6)
)


# Training.


def fitted(method: Any = pm.ProbMix, **changed: Any) -> Any:
    x, y = changed.pop("x", None), changed.pop("y", None)
    own_x, own_y = data()
    model = changed.pop("model", None) or small(method)
    options = {"epochs": 1, "progress": False, **changed}
    return pm.fit(model, (own_x if x is None else x, own_y if y is None else y), **options)


BAD_DATA: dict[str, dict[str, Any]] = {
    "x": {
        "spoilt": lambda rng, case: spoilt(torch.randn(SIZE, 3), rng, any_bad(rng)), "of_another_width": torch.randn(SIZE, 4),
        "of_no_tensor": [[0.0] * 3] * SIZE, "empty": torch.zeros(0, 3),
    },
    "y": {
        "spoilt": lambda rng, case: spoilt(torch.randn(SIZE), rng, any_bad(rng)), "a_column": torch.zeros(SIZE, 1),
        "too_long": torch.zeros(SIZE + 1), "of_no_tensor": [0.0] * SIZE,
    },
}  # fmt: skip
BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "epochs": {"zero": 0, "negative": -1, "a_float": 2.5, "a_word": "9"},
    "batch_size": {"zero": 0, "negative": -1, "a_float": 2.5},
    "num_samples": {"zero": 0, "a_float": 2.0},
    "learning_rate": {"zero": 0.0, "negative": lambda rng, case: -rng.random() - 1e-9, "nan": NAN, "infinite": INF, "a_word": "fast"},
    "ema_decay": {"zero": 0.0, "one": 1.0, "more": 1.5, "nan": NAN, "negative": -0.5, "a_word": "slow"},
}  # fmt: skip
FIT_OPTIONS: dict[str, dict[str, Any]] = {
    "weight": {
        "negative": lambda rng, case: spoilt(torch.ones(SIZE), rng, -rng.random() - 1e-6), "zeros": torch.zeros(SIZE),
        "spoilt": lambda rng, case: spoilt(torch.ones(SIZE), rng, any_bad(rng)), "of_another_length": torch.ones(SIZE + 2),
        "of_no_tensor": [1.0] * SIZE,
    },
    "mask": {
        "of_floats": torch.ones(SIZE), "nothing": torch.zeros(SIZE).bool(), "of_another_length": torch.ones(SIZE - 1).bool(),
    },
    "objective": {"unknown": "elbo", "none": None},
    "non_finite": {"unknown": "ignore", "none": None},
    "precision": {"double": torch.float64, "a_word": "half"},
    "max_grad_norm": {"zero": 0.0, "negative": -1.0, "nan": NAN},
    "max_skipped": {"negative": -1, "a_float": 1.5},
    "checkpoint_every": {"zero": 0, "a_float": 2.5},
    "checkpoint_dir": {},
    "optimizer": {"a_word": lambda rng, case: lambda parameters: "adam", "LBFGS": lambda rng, case: torch.optim.LBFGS},
    "graph": {"of_other_nodes": pm.CompleteGraph(SIZE + 1), "a_word": "complete"},
    "coefficient": {"a_law_of_the_line": lambda rng, case: lambda epoch: dist.Normal(0.0, 1.0)},
    "validation": {
        "of_other_lengths": (torch.zeros(4, 3), torch.zeros(5)), "spoilt": lambda rng, case: (torch.zeros(4, 3), spoilt(torch.zeros(4), rng, NAN)),
        "a_column": (torch.zeros(4, 3), torch.zeros(4, 1)), "empty": (torch.zeros(0, 3), torch.zeros(0)),
        "of_another_width": (torch.zeros(4, 2), torch.zeros(4)), "of_no_tensors": ([0.0], [0.0]),
    },
    "model": {"a_network": lambda rng, case: nn.Linear(3, 2), "none": None},
}  # fmt: skip

for name, bad in {**BAD_OPTIONS, **FIT_OPTIONS}.items():
    names = "(graph|x)" if name == "graph" else name
    if name != "model":
        table("fit", names, lambda value, name=name: fitted(**{name: value}), **bad)
    else:
        table("fit", names, lambda value: pm.fit(value, data(), epochs=1, progress=False), **bad)
for name, bad in BAD_DATA.items():
    table("fit", f"({name}|x)" if name == "y" else name, lambda value, name=name: fitted(**{name: value}), **bad)
table("fit", "checkpoint_dir", lambda value: fitted(resume=value), none_to_resume_from=True)
table(
    "fit", "y", lambda value: fitted(model=small(likelihood=pm.nn.DistributionLikelihood(value)), y=torch.full((SIZE,), -1.5)),
    beyond_the_support=lambda rng, case: rng.choice([dist.Poisson, dist.Gamma, dist.Beta, dist.Bernoulli, dist.Exponential]),
)  # fmt: skip
table(
    "fit",
    "data",
    lambda value: pm.fit(small(), value, epochs=1, progress=False),
    a_tensor=torch.zeros(2, 3),
    of_three=data() + (1,),
)


def replicas(**changed: Any) -> Any:
    options = {"make_model": lambda r: small(), "data": [data(), data()], "epochs": 1, "progress": False, **changed}
    return pm.fit_replicas(options.pop("make_model"), options.pop("data"), **options)


for name, bad in BAD_OPTIONS.items():
    table("fit_replicas", name, lambda value, name=name: replicas(**{name: value}), **bad)
for name, bad in BAD_DATA.items():
    position = "xy".index(name)
    table(
        "fit_replicas", f"({name}|x|data)", lambda value, position=position: replicas(
            data=[data(), tuple(value if k == position else t for k, t in enumerate(data()))]
        ), **bad,
    )  # fmt: skip
table("fit_replicas", "data", lambda value: replicas(data=value), none=(), tensors=[torch.zeros(6, 3), torch.zeros(6)])
table(
    "fit_replicas", "make_model", lambda value: replicas(make_model=lambda r: value),
    a_network=lambda rng, case: nn.Linear(3, 2), shared=lambda rng, case: small(),
)  # fmt: skip
table("fit_replicas", "validation", lambda value: replicas(validation=value), for_one=lambda rng, case: [data()])
table("fit_replicas", "patience", lambda value: replicas(patience=value), without_validation=3, zero=0)
table("fit_replicas", "chunk_size", lambda value: replicas(chunk_size=value), zero=0, a_float=1.5)
table("fit_replicas", "num_workers", lambda value: replicas(num_workers=value), negative=-1, a_float=1.5)
table(
    "fit_replicas",
    "graph",
    lambda value: replicas(graph=value),
    for_three=lambda rng, case: [pm.CompleteGraph(SIZE)] * 3,
)
table("fit_replicas", "learning_rate", lambda value: replicas(learning_rate=value), for_three=[0.1, 0.1, 0.1])


# Evaluation and estimators.

P = dist.Normal(torch.zeros(SIZE), 1.0)
table(
    "evaluate",
    "p",
    lambda value: pm.evaluate(value, torch.zeros(SIZE)),
    a_model=lambda rng, case: small(),
    a_tensor=torch.zeros(SIZE),
    none=None,
)
table(
    "evaluate", "y", lambda value: pm.evaluate(P, value), a_column=torch.zeros(SIZE, 1), too_long=torch.zeros(SIZE + 1),
    of_no_tensor=[0.0] * SIZE, spoilt=lambda rng, case: spoilt(torch.zeros(SIZE), rng, NAN), a_scalar=torch.tensor(0.0),
)  # fmt: skip
table("evaluate", "y", lambda value: pm.evaluate(dist.Normal(torch.zeros(0), 1.0), value), none=torch.zeros(0))
table(
    "evaluate",
    "y",
    lambda value: pm.evaluate(dist.Poisson(torch.ones(SIZE)), value),
    between_counts=torch.full((SIZE,), 0.5),
)
table(
    "to_inference_data",
    "x",
    lambda value: pm.to_inference_data(small(), value, torch.zeros(SIZE)),
    of_no_tensor=[[0.0] * 3] * SIZE,
)
table(
    "to_inference_data",
    "y",
    lambda value: pm.to_inference_data(small(), torch.zeros(SIZE, 3), value),
    a_column=torch.zeros(SIZE, 1),
    too_long=torch.zeros(SIZE + 1),
)


def estimated(estimator: Any = pm.ProbMixRegressor, X: Any = None, y: Any = None, **options: Any) -> Any:
    X = np.random.RandomState(0).randn(8, 2) if X is None else X
    y = np.arange(8) % 2 if y is None else y
    return estimator(**{"epochs": 1, "hidden_features": [2], **options}).fit(X, y)


def with_one(value: float) -> Callable[[random.Random, Any], Any]:
    def make(rng: random.Random, case: Any) -> Any:
        X = np.ones((8, 2))
        X[rng.randrange(8), rng.randrange(2)] = value
        return X

    return make


for estimator in (pm.ProbMixRegressor, pm.ProbMixClassifier):
    for name, bad in {
        "alpha": {"zero": 0.0, "negative": -0.1, "nan": NAN, "a_word": "0.2"},
        "validation_fraction": {"one": 1.0, "negative": -0.1, "nan": NAN, "nearly_one": 0.99},
        "num_members": {"zero": 0, "a_float": 1.5},
        "num_samples": {"zero": 0},
        "device": {"unknown": "tpu9", "none_such": "cuda:77"},
        "epochs": {"zero": 0},
        "learning_rate": {"zero": 0.0, "negative": -1.0},
        "method": {"unknown": "mixmix"},
        "batch_size": {"zero": 0},
        "num_neighbors": {"zero": 0, "negative": -3},
        "beta": {"negative": -0.1},
    }.items():
        names = "(num_members|num_samples|" + name + ")"
        more = {"method": "local_probmix"} if name == "num_neighbors" else {}
        table(
            estimator.__name__, names, lambda value, name=name, estimator=estimator, more=more: estimated(
                estimator, **{name: value}, **more
            ), **bad,
        )  # fmt: skip
    table(
        estimator.__name__, "(Input )?X", lambda value, estimator=estimator: estimated(estimator, X=value),
        nan=with_one(NAN), infinite=with_one(INF),
    )  # fmt: skip
table(
    "ProbMixRegressor",
    "(Input )?y",
    lambda value: estimated(y=value),
    nan=np.array([NAN] + [0.0] * 7),
    none_at_all=None,
) if False else None
table("ProbMixRegressor", "(Input )?y", lambda value: estimated(y=value), nan=np.array([NAN] + [0.0] * 7))
table(
    "ProbMixClassifier", "y", lambda value: estimated(pm.ProbMixClassifier, y=value), one_class=np.zeros(8, dtype=int)
)


# Pools and divergences.

NORMALS = [dist.Normal(torch.zeros(3), 1.0), dist.Normal(torch.ones(3), 2.0)]
BAD_WEIGHTS = {
    "negative": lambda rng, case: (lambda w: [1 + w, -w])(rng.random() + 1e-3), "not_of_sum_one": lambda rng, case: [0.5, 0.5 + rng.uniform(0.01, 3)],
    "nan": [NAN, 1.0], "infinite": [INF, 0.0], "zeros": [0.0, 0.0], "too_few": [1.0], "too_many": [0.2, 0.3, 0.5],
    "a_number": 0.5, "words": ["a", "b"], "on_the_wrong_axis": torch.full((2, 3), 0.5), "of_another_batch": torch.full((4, 2), 0.5),
}  # fmt: skip
BAD_COMPONENTS = {
    "none": [], "a_number": 3.0, "numbers": [1.0, 2.0], "of_batches_that_differ": [NORMALS[0], dist.Normal(torch.zeros(2), 1.0)],
    "an_event_and_a_batch": [NORMALS[0], NORMALS[0].to_event(1)], "one_without_a_batch": dist.Normal(0.0, 1.0),
}  # fmt: skip
for pool in (pm.LogLinearPool, pm.log_linear_pool, pm.LinearPool, pm.linear_pool, pm.NumericalPool):
    table(pool.__name__, "weights", lambda value, pool=pool: pool(NORMALS, value), **BAD_WEIGHTS)
    table(
        pool.__name__, "components", lambda value, pool=pool: pool(value, [0.5, 0.5] if value else []), **BAD_COMPONENTS,
    )  # fmt: skip
for pool in (pm.LogLinearPool, pm.log_linear_pool):
    table(
        pool.__name__, "components", lambda value, pool=pool: pool(value, [0.5, 0.5]),
        of_two_families=[NORMALS[0], dist.LogNormal(torch.zeros(3), 1.0)], disjoint=[dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 3.0)],
        of_unequal_counts=[dist.Binomial(3, torch.tensor(0.5)), dist.Binomial(4, torch.tensor(0.5))],
    )  # fmt: skip
table("HolderPool", "exponent", lambda value: pm.HolderPool(NORMALS, [0.5, 0.5], value), nan=NAN, a_word="2")
table(
    "NumericalPool",
    "accuracy",
    lambda value: pm.NumericalPool(NORMALS, [0.5, 0.5], accuracy=value),
    zero=0.0,
    one=1.0,
    negative=-1.0,
)
table(
    "renyi_divergence",
    "alpha",
    lambda value: pm.renyi_divergence(*NORMALS, value),
    zero=0.0,
    negative=lambda rng, case: -rng.random() - 1e-6,
    nan=NAN,
)


# What is tried.


def frozen(case: RandomModel) -> dict[str, Any]:
    """What no refusal may change."""
    batch = {f.name: getattr(case.batch, f.name) for f in fields(case.batch)}
    return {
        "parameters": {k: v.clone() for k, v in case.model.state_dict().items()},
        "modes": [module.training for module in case.model.modules()],
        "batch": {k: v.clone() for k, v in batch.items() if v is not None},
        "store": sorted(pyro.get_param_store().keys()),
        "handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "settings": pyro.settings.get(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
    }


def random_state() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a.nan_to_num(), b.nan_to_num()) if isinstance(a, Tensor) else a == b


def fault_of(name: str, seed: int) -> str | None:
    """How the attempt is not refused as it should be; None if it is."""
    case, rng = random_model(seed), random.Random(seed + 1)
    attempt = REFUSALS[name](rng, case)
    random.seed(seed)
    before, state = frozen(case), random_state()
    try:
        attempt.call()
    except (ValueError, TypeError) as error:
        message = str(error)
    except Exception as error:  # noqa: BLE001  (which one is said)
        return f"{type(error).__name__}: {str(error)[:150]}"
    else:
        return "not refused"
    if not re.match(rf"(Expected parameter |validation )?{attempt.names}\b", message):
        return f"expected a message that begins with {attempt.names}, got {message[:150]!r}"
    after = frozen(case)
    changed = [key for key in before if key != "settings" and not same(before[key], after[key])]
    if before["settings"] != after["settings"]:
        changed.append("settings")
    return f"changed: {changed}" if changed else None


def failures(seeds: Sequence[int]) -> list[str]:
    """The attempts of these numbers that are not refused as they should be; a line each."""
    names, lines = list(REFUSALS), []
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            pyro.clear_param_store()
            name = names[seed % len(names)]
            fault = fault_of(name, seed)
            if fault is not None:
                lines.append(f"{seed}: {name}; {fault}")
            if any(Path(folder).iterdir()):
                lines.append(f"{seed}: {name}; files are left")
    assert Path.cwd() == here
    return lines
