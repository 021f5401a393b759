"""Laws, vicinities, likelihoods, embeddings, methods and what is asked of a model, refused."""

from __future__ import annotations

import pyro.distributions as dist
import torch

import pyro_probmix as pm
from tests.refusals.registry import INF, NAN, REFUSALS, linear, normal_embedding, small, table

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
        method.__name__,
        "vicinity",
        lambda value, method=method: small(method, vicinity=value),
        a_word="normal",
        a_number=0.1,
        a_class=lambda rng, case: pm.NormalVicinity,
    )
    table(
        method.__name__,
        "likelihood",
        lambda value, method=method: (
            method(*[linear(3, 2)] * (1 + (method is pm.ManifoldMixup)), value)
            if method is not pm.ManifoldProbMix
            else method(normal_embedding(), linear(2, 2), value)
        ),
        a_network=lambda rng, case: linear(2, 2),
        a_class=lambda rng, case: pm.nn.NormalLikelihood,
        a_word="normal",
        none=None,
    )
    table(
        method.__name__,
        "vicinity",
        lambda value, method=method: small(
            method, likelihood=pm.nn.DistributionLikelihood(dist.Poisson), vicinity=value
        ),
        between_counts=pm.DiracVicinity(),
        off_the_counts=pm.NormalVicinity(0.1),
    )
    table(
        method.__name__,
        "num_classes",
        lambda value, method=method: small(
            method, likelihood=pm.nn.CategoricalLikelihood(3), vicinity=pm.LabelVicinity(0.1, value)
        ),
        others=lambda rng, case: rng.choice([2, 4, 5, 9]),
    )
for method in (pm.ProbMix, pm.ManifoldProbMix):
    table(
        method.__name__,
        "fusion",
        lambda value, method=method: small(method, fusion=value),
        unknown="geometric",
        none=None,
    )
    table(
        method.__name__,
        "coefficient",
        lambda value, method=method: small(method, coefficient=value, fusion="linear"),
        extrapolates=pm.ExpandedBeta.variance_preserving(1.0),
    )
table(
    "ManifoldProbMix", "propagate", lambda value: small(pm.ManifoldProbMix, propagate=value), unknown="draw", none=None
)
table(
    "ManifoldProbMix",
    "embedding",
    lambda value: small(pm.ManifoldProbMix, embedding=value),
    a_network=lambda rng, case: linear(3, 2),
)
table(
    "ManifoldMixup",
    "encoder",
    lambda value: small(pm.ManifoldMixup, encoder=value),
    a_density=lambda rng, case: normal_embedding(),
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
        "NormalLikelihood",
        scale,
        lambda value, scale=scale: pm.nn.NormalLikelihood(**{scale: value}),
        zero=0.0,
        nan=NAN,
        negative=lambda rng, case: -(10 ** rng.uniform(-3, 3)),
        infinite=INF,
        a_word="1",
    )
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
        type(likelihood).__name__,
        "raw",
        likelihood,
        wider=lambda rng, case: torch.zeros(4, 2 + rng.randint(1, 5)),
        narrower=torch.zeros(4, 1),
        a_scalar=torch.tensor(0.0),
    )
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
    lambda value: pm.nn.NormalEmbedding(linear(3, 2), value),
    zero=0,
    negative=-1,
    a_float=2.0,
    none_at_all=(),
)
table(
    "NormalEmbedding",
    "initial_scale",
    lambda value: pm.nn.NormalEmbedding(linear(3, 2), 2, initial_scale=value),
    zero=0.0,
    negative=-1.0,
    nan=NAN,
)
table(
    "NormalEmbedding",
    "scale",
    lambda value: pm.nn.NormalEmbedding(linear(3, 2), 2, scale=value),
    zero=0.0,
    negative=-1.0,
)
table(
    "LowRankNormalEmbedding",
    "rank",
    lambda value: pm.nn.LowRankNormalEmbedding(linear(3, 2), 2, value),
    too_high=3,
    zero=0,
    a_float=1.0,
)
table(
    "DistributionEmbedding",
    "distribution_class",
    lambda value: pm.nn.DistributionEmbedding(linear(3, 2), value, 2),
    counts=dist.Poisson,
)
table(
    "NormalEmbedding",
    "encoder",
    lambda value: pm.nn.NormalEmbedding(linear(3, value), 2)(torch.zeros(4, 3)),
    draws=True,
    of_another_width=lambda rng, case: rng.choice([1, 3, 4]),
)
table("MLP", "in_features", lambda value: pm.nn.MLP(value, [3], 1), zero=0, negative=-1, a_float=2.0)
