"""What is asked of a model at random, or of one under the handler, and refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_probmix as pm
from tests.random_models import RandomModel
from tests.refusals.models import BAD_COEFFICIENTS
from tests.refusals.registry import NAN, REFUSALS, Attempt, pair_batch, spoilt, table

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
            name,
            f"{what} in the risk",
            lambda rng, case, name=name, value=value: case.model.risk(case.batch, **{**case.risk, name: value}),
        )


def with_batch(case: RandomModel, **changed: Any) -> pm.PairBatch:
    given = {f.name: getattr(case.batch, f.name) for f in fields(case.batch)}
    return pm.PairBatch(**{**given, **changed})


def through(rng: random.Random, case: RandomModel, batch: Any) -> Any:
    """The risk, or the same by Pyro."""
    if rng.random() < 0.5:
        return case.model.risk(batch, **case.risk)
    return pyro.infer.Trace_ELBO().loss(case.model, case.model.guide, batch)


def beyond(rng: random.Random) -> float:
    return rng.choice([-0.1, 1.1, 1e6, NAN])


on_a_random_model("batch", "without labels", lambda rng, case: case.model.risk(with_batch(case, y=None, mask=None)))
on_a_random_model("batch", "a tuple", lambda rng, case: through(rng, case, (case.batch.x, case.batch.y)))
on_a_random_model("batch", "a tensor", lambda rng, case: through(rng, case, case.batch.x))
on_a_random_model(
    "y",
    "with a column more",
    lambda rng, case: through(rng, case, with_batch(case, y=case.batch.y.unsqueeze(-1), mask=None)),
)
on_a_random_model(
    "y",
    "with a dimension more",
    lambda rng, case: through(
        rng, case, with_batch(case, y=torch.stack([case.batch.y] * rng.randint(2, 4), 1), mask=None)
    ),
)
on_a_random_model(
    "y",
    "not a number",
    lambda rng, case: through(rng, case, with_batch(case, y=spoilt(case.batch.y, rng, NAN), mask=None)),
)
on_a_random_model(
    "partner",
    "beyond the batch",
    lambda rng, case: through(rng, case, with_batch(case, partner=case.batch.partner + rng.choice([-99, 99]))),
)
on_a_random_model(
    "weight",
    "of the risk of another length",
    lambda rng, case: case.model.risk(case.batch, weight=torch.ones(len(case.batch) + 1)),
)
on_a_random_model(
    "num_samples",
    "zero in the predictive",
    lambda rng, case: case.model.predictive(case.batch.x, num_samples=-rng.randint(0, 5)),
)
on_a_random_model(
    "coefficient",
    "of another shape",
    lambda rng, case: case.model.risk(
        case.batch, **case.risk, coefficient=torch.rand(len(case.batch) + 1 + rng.randint(0, 3))
    ),
)
on_a_random_model(
    "coefficient",
    "outside [0, 1]",
    lambda rng, case: case.model.risk(
        case.batch,
        **case.risk,
        coefficient=spoilt(torch.rand(len(case.batch)), rng, NAN if case.model.mixing.extrapolates else beyond(rng)),
    ),
)
on_a_random_model(
    "noise",
    "of no embedding or another shape",
    lambda rng, case: case.model.risk(case.batch, **case.risk, noise=torch.zeros(len(case.batch) + 1, 7)),
)


def my_model(x: Tensor, y: Tensor | None = None) -> Any:
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x.sum(-1), 1.0), obs=y)


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
        "mix",
        "(at|plate)",
        lambda value, name=name: mixed(**{name: value})(pair_batch()),
        draws=True,
        **{f"{name}_unknown_{k}": value for k, value in enumerate(bad)},
    )
table(
    "mix",
    "batch",
    lambda value: mixed()(value),
    a_tensor=torch.zeros(6, 3),
    a_tuple=(torch.zeros(6, 3), torch.zeros(6)),
)
table(
    "mix",
    "y",
    lambda value: mixed()(pair_batch(y=value)),
    draws=True,
    a_column=torch.zeros(6, 1),
    rows_of_rows=torch.zeros(6, 6),
)
