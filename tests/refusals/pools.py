"""Pools and divergences that are refused."""

from __future__ import annotations

import pyro.distributions as dist
import torch

import pyro_probmix as pm
from tests.refusals.registry import INF, NAN, table

NORMALS = [dist.Normal(torch.zeros(3), 1.0), dist.Normal(torch.ones(3), 2.0)]
BAD_WEIGHTS = {
    "negative": lambda rng, case: (lambda w: [1 + w, -w])(rng.random() + 1e-3),
    "not_of_sum_one": lambda rng, case: [0.5, 0.5 + rng.uniform(0.01, 3)],
    "nan": [NAN, 1.0],
    "infinite": [INF, 0.0],
    "zeros": [0.0, 0.0],
    "too_few": [1.0],
    "too_many": [0.2, 0.3, 0.5],
    "a_number": 0.5,
    "words": ["a", "b"],
    "on_the_wrong_axis": torch.full((2, 3), 0.5),
    "of_another_batch": torch.full((4, 2), 0.5),
}
BAD_COMPONENTS = {
    "none": [],
    "a_number": 3.0,
    "numbers": [1.0, 2.0],
    "of_batches_that_differ": [NORMALS[0], dist.Normal(torch.zeros(2), 1.0)],
    "an_event_and_a_batch": [NORMALS[0], NORMALS[0].to_event(1)],
    "one_without_a_batch": dist.Normal(0.0, 1.0),
}
for pool in (pm.LogLinearPool, pm.log_linear_pool, pm.LinearPool, pm.linear_pool, pm.NumericalPool):
    table(pool.__name__, "weights", lambda value, pool=pool: pool(NORMALS, value), **BAD_WEIGHTS)
    table(
        pool.__name__,
        "components",
        lambda value, pool=pool: pool(value, [0.5, 0.5] if value else []),
        **BAD_COMPONENTS,
    )
for pool in (pm.LogLinearPool, pm.log_linear_pool):
    table(
        pool.__name__,
        "components",
        lambda value, pool=pool: pool(value, [0.5, 0.5]),
        of_two_families=[NORMALS[0], dist.LogNormal(torch.zeros(3), 1.0)],
        disjoint=[dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 3.0)],
        of_unequal_counts=[dist.Binomial(3, torch.tensor(0.5)), dist.Binomial(4, torch.tensor(0.5))],
    )
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
BAD_SHARES = {"negative": -0.1, "above_one": 1.1, "nan": NAN, "a_word": "0.5", "nothing": None, "true": True}
UNORDERED = {
    "a_number": 3.0,
    "classes": dist.Categorical(torch.ones(3)),
    "unit_vectors": dist.OneHotCategorical(torch.ones(3)),
    "angles": dist.VonMises(0.0, 1.0),
    "no_known_marginals": dist.LKJCholesky(3),
    "no_density": dist.Stable(1.5, 0.0),
}
table("quantile", "q", lambda value: pm.quantile(NORMALS[0], value), **BAD_SHARES, one_is_nan=torch.tensor([0.5, NAN]))
table("interval", "level", lambda value: pm.interval(NORMALS[0], value), **BAD_SHARES, zero=0.0, one=1.0)
table("interval", "kind", lambda value: pm.interval(NORMALS[0], 0.5, value), a_word="shortest", nothing=None)
for name, function in {
    "quantile": lambda value: pm.quantile(value, 0.5),
    "median": pm.median,
    "interval": lambda value: pm.interval(value, 0.5, kind="hdi"),
    "cdf": lambda value: pm.distributions.cdf(value, 0.0),
}.items():
    table(name, "p", function, **UNORDERED)
table("marginals", "p", pm.distributions.marginals, a_number=3.0, no_known_ones=dist.LKJCholesky(3))
table(
    "cdf",
    "y",
    lambda value: pm.distributions.cdf(NORMALS[0], value),
    of_another_shape=torch.zeros(2),
    a_word="0",
)
