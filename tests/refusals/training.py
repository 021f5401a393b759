"""Trainings, evaluations and estimators that are refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch

import pyro_probmix as pm
from tests.refusals.registry import INF, NAN, SIZE, any_bad, data, linear, numbers, small, spoilt, table


def fitted(method: Any = pm.ProbMix, **changed: Any) -> Any:
    x, y = changed.pop("x", None), changed.pop("y", None)
    own_x, own_y = data()
    model = changed.pop("model", None) or small(method)
    options = {"epochs": 1, "progress": False, **changed}
    return pm.fit(model, (own_x if x is None else x, own_y if y is None else y), **options)


BAD_DATA: dict[str, dict[str, Any]] = {
    "x": {
        "spoilt": lambda rng, case: spoilt(numbers(SIZE, 3), rng, any_bad(rng)),
        "of_another_width": numbers(SIZE, 4),
        "of_no_tensor": [[0.0] * 3] * SIZE,
        "empty": torch.zeros(0, 3),
    },
    "y": {
        "spoilt": lambda rng, case: spoilt(numbers(SIZE), rng, any_bad(rng)),
        "a_column": torch.zeros(SIZE, 1),
        "too_long": torch.zeros(SIZE + 1),
        "of_no_tensor": [0.0] * SIZE,
    },
}
BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "epochs": {"zero": 0, "negative": -1, "a_float": 2.5, "a_word": "9"},
    "batch_size": {"zero": 0, "negative": -1, "a_float": 2.5},
    "num_samples": {"zero": 0, "a_float": 2.0},
    "learning_rate": {
        "zero": 0.0,
        "negative": lambda rng, case: -rng.random() - 1e-9,
        "nan": NAN,
        "infinite": INF,
        "a_word": "fast",
    },
    "ema_decay": {"zero": 0.0, "one": 1.0, "more": 1.5, "nan": NAN, "negative": -0.5, "a_word": "slow"},
    "objective": {"unknown": "elbo", "none": None},
    "non_finite": {"unknown": "ignore", "none": None},
    "precision": {"double": torch.float64, "a_word": "half"},
    "max_grad_norm": {"zero": 0.0, "negative": -1.0, "nan": NAN, "a_word": "small"},
    "max_skipped": {"negative": -1, "a_float": 1.5},
    "checkpoint_every": {"zero": 0, "a_float": 2.5},
    "patience": {"without_validation": 3, "zero": 0, "a_float": 1.5},
    "validation_every": {"zero": 0, "a_float": 1.5},
    "coefficient": {"a_law_of_the_line": lambda rng, case: lambda epoch: dist.Normal(0.0, 1.0)},
}
FIT_OPTIONS: dict[str, dict[str, Any]] = {
    "weight": {
        "negative": lambda rng, case: spoilt(torch.ones(SIZE), rng, -rng.random() - 1e-6),
        "zeros": torch.zeros(SIZE),
        "spoilt": lambda rng, case: spoilt(torch.ones(SIZE), rng, any_bad(rng)),
        "of_another_length": torch.ones(SIZE + 2),
        "of_no_tensor": [1.0] * SIZE,
    },
    "mask": {
        "of_floats": torch.ones(SIZE),
        "nothing": torch.zeros(SIZE).bool(),
        "of_another_length": torch.ones(SIZE - 1).bool(),
    },
    "optimizer": {"a_word": lambda rng, case: lambda parameters: "adam", "LBFGS": lambda rng, case: torch.optim.LBFGS},
    "graph": {"of_other_nodes": pm.CompleteGraph(SIZE + 1), "a_word": "complete"},
    "validation": {
        "of_other_lengths": (torch.zeros(4, 3), torch.zeros(5)),
        "spoilt": lambda rng, case: (torch.zeros(4, 3), spoilt(torch.zeros(4), rng, NAN)),
        "a_column": (torch.zeros(4, 3), torch.zeros(4, 1)),
        "empty": (torch.zeros(0, 3), torch.zeros(0)),
        "of_another_width": (torch.zeros(4, 2), torch.zeros(4)),
        "of_no_tensors": ([0.0], [0.0]),
    },
    "model": {"a_network": lambda rng, case: linear(3, 2), "none": None},
}

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
    "fit",
    "y",
    lambda value: fitted(model=small(likelihood=pm.nn.DistributionLikelihood(value)), y=torch.full((SIZE,), -1.5)),
    beyond_the_support=lambda rng, case: rng.choice(
        [dist.Poisson, dist.Gamma, dist.Beta, dist.Bernoulli, dist.Exponential]
    ),
)
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
        "fit_replicas",
        f"({name}|x|data)",
        lambda value, position=position: replicas(
            data=[data(), tuple(value if k == position else t for k, t in enumerate(data()))]
        ),
        **bad,
    )
table("fit_replicas", "data", lambda value: replicas(data=value), none=(), tensors=[torch.zeros(6, 3), torch.zeros(6)])
table(
    "fit_replicas",
    "make_model",
    lambda value: replicas(make_model=lambda r: value),
    a_network=lambda rng, case: linear(3, 2),
    shared=lambda rng, case: small(),
)
table("fit_replicas", "validation", lambda value: replicas(validation=value), for_one=lambda rng, case: [data()])
table("fit_replicas", "checkpoint_dir", lambda value: replicas(resume=value), none_to_resume_from=True)
for name in ("weight", "mask"):
    table(
        "fit_replicas",
        name,
        lambda value, name=name: replicas(**{name: [None, value]}),
        **FIT_OPTIONS[name],
    )
    table("fit_replicas", name, lambda value, name=name: replicas(**{name: value}), for_one=[None])
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
    "evaluate",
    "y",
    lambda value: pm.evaluate(P, value),
    a_column=torch.zeros(SIZE, 1),
    too_long=torch.zeros(SIZE + 1),
    of_texts=["0"] * SIZE,
    spoilt=lambda rng, case: spoilt(torch.zeros(SIZE), rng, NAN),
    a_scalar=torch.tensor(0.0),
)
table("evaluate", "y", lambda value: pm.evaluate(dist.Normal(torch.zeros(0), 1.0), value), none=torch.zeros(0))
table(
    "evaluate",
    "y",
    lambda value: pm.evaluate(dist.Poisson(torch.ones(SIZE)), value),
    between_counts=torch.full((SIZE,), 0.5),
)
table(
    "evaluate",
    "metrics",
    lambda value: pm.evaluate(P, torch.zeros(SIZE), value),
    unknown="log-loss",
    of_classes=["nll", "accuracy"],
    of_vectors="energy_score",
    level_of_one="coverage@1",
    level_of_none="pinball@",
    level_of_what_has_none="nll@0.5",
    a_number=[3],
)
table(
    "evaluate",
    "metrics",
    lambda value: pm.evaluate(P, torch.zeros(SIZE), value, reduction="none"),
    of_no_row="qce",
    a_root="rmse",
)
table("evaluate", "reduction", lambda value: pm.evaluate(P, torch.zeros(SIZE), reduction=value), a_sum="sum", none=None)
for of_numbers in (pm.evaluation.crps, pm.evaluation.pit):
    table(
        of_numbers.__name__,
        "p",
        lambda value, score=of_numbers: score(value, torch.zeros(SIZE)),
        a_tensor=torch.zeros(SIZE),
        of_classes=dist.Categorical(torch.ones(SIZE, 3)),
        of_angles=dist.VonMises(torch.zeros(SIZE), 1.0),
    )
    table(
        of_numbers.__name__,
        "y",
        lambda value, score=of_numbers: score(P, value),
        a_column=torch.zeros(SIZE, 1),
        of_texts=["0"] * SIZE,
        spoilt=lambda rng, case: spoilt(torch.zeros(SIZE), rng, NAN),
    )
table("crps", "method", lambda value: pm.evaluation.crps(P, torch.zeros(SIZE), value), unknown="exact")
table("crps", "num_samples", lambda value: pm.evaluation.crps(P, torch.zeros(SIZE), "samples", value), one=1, half=0.5)
table("ood_scores", "p_in", lambda value: pm.ood_scores(value, P), a_tensor=torch.zeros(SIZE), masked=P.mask(False))
table("ood_scores", "p_out", lambda value: pm.ood_scores(P, value), none=None, of_classes=dist.Bernoulli(0.5))
table("ood_scores", "score", lambda value: pm.ood_scores(P, P, value), unknown="margin")
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

table(
    "to_inference_data", "model", lambda value: pm.to_inference_data(value, *data()), a_network=linear(3, 2), none=None
)
for name in ("num_samples", "num_embeddings"):
    table(
        "to_inference_data",
        name,
        lambda value, name=name: pm.to_inference_data(small(), *data(), **{name: value}),
        zero=0,
        a_float=2.5,
    )


def by_own_guide(method: Any) -> Any:
    model = small(method)
    return pm.to_inference_data(model, guide=model.guide, args=data(), num_samples=2)


table(
    "to_inference_data", "guide", by_own_guide, of_embeddings=pm.ManifoldProbMix, of_nothing=pm.ProbMix, of_less=pm.ERM
)
table(
    "to_inference_data",
    "args",
    lambda value: pm.to_inference_data(small(), guide=small().guide, args=value),
    a_tensor=torch.zeros(SIZE, 3),
    none=None,
)


def estimated(estimator: Any = pm.ProbMixRegressor, X: Any = None, y: Any = None, **options: Any) -> Any:
    X = np.random.RandomState(0).randn(8, 2) if X is None else X
    y = np.arange(8) % 2 if y is None else y
    return estimator(**{"epochs": 1, "hidden_features": [2], "random_state": 0, **options}).fit(X, y)


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
        "likelihood": {"unknown": "normall"},
        "ema_decay": {"one": 1.0, "negative": -0.5},
    }.items():
        table(
            estimator.__name__,
            name,
            lambda value, name=name, estimator=estimator: estimated(estimator, **{name: value}),
            **bad,
        )
    table(
        estimator.__name__,
        "(Input )?X",
        lambda value, estimator=estimator: estimated(estimator, X=value),
        infinite=with_one(INF),
        below_all_numbers=with_one(-INF),
    )
table("ProbMixRegressor", "(Input )?y", lambda value: estimated(y=value), nan=np.array([NAN] + [0.0] * 7))
table(
    "ProbMixClassifier", "y", lambda value: estimated(pm.ProbMixClassifier, y=value), one_class=np.zeros(8, dtype=int)
)
