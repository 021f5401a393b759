"""Models at random, each of them valid: no loss and no gradient of theirs is NaN or infinite.

``python -m tests.random_models --number 10000`` tries as many valid models, and as many refusals of
``tests/random_refusals.py``; continuous integration tries a thousand of each.
"""

from __future__ import annotations

import argparse
import collections
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn

import pyro_probmix as pm

__all__ = ["LIKELIHOODS", "RandomModel", "failures", "random_model"]

METHODS = ("ERM", "Mixup", "ManifoldMixup", "ProbMix", "ManifoldProbMix")

# What lies between two labels is a label of the same kind ("convex"), a class, or neither ("either" one is taken).
Draw = Callable[[torch.Size], Tensor]


@dataclass(frozen=True)
class Kind:
    """A likelihood: how it is made for an event shape, and labels strictly inside its support.

    Raw outputs are within ``reach``: factors of covariances multiply.
    """

    make: Callable[[tuple[int, ...]], Any]
    labels: Draw
    between: str = "convex"
    shapes: Sequence[tuple[int, ...]] = ((), (2,), (1,), (2, 2))
    closed: bool = True
    reach: float = 30.0
    num_classes: int | None = None
    normal: bool = False
    independent: bool = True

    def is_fused(self, fusion: str | None) -> bool:
        """Whether likelihoods of this kind have such a pool."""
        if fusion == "numerical":
            return self.independent and self.between != "classes"
        return fusion == "linear" or self.closed


def family(distribution: Any, labels: Draw, between: str = "convex", *, fixed: Any = None, **arguments: Any) -> Kind:
    fixed = fixed or {}
    return Kind(lambda shape: pm.nn.DistributionLikelihood(distribution, shape, **fixed), labels, between, **arguments)


def real(shape: torch.Size) -> Tensor:
    return 2 * torch.randn(shape)


def positive(shape: torch.Size) -> Tensor:
    return torch.randn(shape).exp() + 1e-2


def unit(shape: torch.Size) -> Tensor:
    return 0.01 + 0.98 * torch.rand(shape)


def below(bound: int) -> Draw:
    return lambda shape: torch.randint(bound, shape).float()


def simplex(shape: torch.Size) -> Tensor:
    return (torch.randn(shape)).softmax(-1) * 0.97 + 0.03 / shape[-1]


def one_hot(shape: torch.Size) -> Tensor:
    return torch.eye(shape[-1])[torch.randint(shape[-1], shape[:-1])]


def compositions(shape: torch.Size) -> Tensor:
    return torch.distributions.Multinomial(5, torch.ones(shape[-1])).sample(shape[:-1])


VECTORS = ((2,), (3,))

LIKELIHOODS: dict[str, Kind] = {
    "Normal": Kind(pm.nn.NormalLikelihood, real, normal=True),
    "Normal, one scale": Kind(lambda shape: pm.nn.NormalLikelihood(shape, homoscedastic=True), real, normal=True),
    "Normal, known scale": Kind(lambda shape: pm.nn.NormalLikelihood(shape, scale=0.3), real, normal=True),
    "MultivariateNormal": family(
        dist.MultivariateNormal, real, shapes=VECTORS, normal=True, independent=False, reach=3.0
    ),
    "LogNormal": family(dist.LogNormal, positive),
    "HalfNormal": family(dist.HalfNormal, positive),
    "Exponential": family(dist.Exponential, positive),
    "Gamma": family(dist.Gamma, positive),
    "InverseGamma": family(dist.InverseGamma, positive),
    "Chi2": family(dist.Chi2, positive),
    "Beta": family(dist.Beta, unit),
    "ContinuousBernoulli": family(dist.ContinuousBernoulli, unit),
    "Dirichlet": family(dist.Dirichlet, simplex, shapes=VECTORS, independent=False),
    "Laplace": family(dist.Laplace, real, fixed={"loc": 0.5}),
    "Gumbel": family(dist.Gumbel, real, fixed={"scale": 1.5}),
    "Weibull": family(dist.Weibull, positive, fixed={"concentration": 1.5}),
    "Kumaraswamy": family(dist.Kumaraswamy, unit, fixed={"concentration1": 1.5}),
    "Pareto": family(dist.Pareto, lambda shape: 1.5 + positive(shape), fixed={"scale": 1.5}),
    "VonMises": family(dist.VonMises, lambda shape: 3 * (2 * torch.rand(shape) - 1), "either"),
    "Poisson": family(dist.Poisson, below(9), "either"),
    "Geometric": family(dist.Geometric, below(9), "either"),
    "Binomial": family(dist.Binomial, below(6), "either", fixed={"total_count": 5}),
    "NegativeBinomial": family(dist.NegativeBinomial, below(9), "either", fixed={"total_count": 3.5}),
    "GammaPoisson": family(dist.GammaPoisson, below(9), "either", fixed={"concentration": 3.5}),
    "Multinomial": family(
        dist.Multinomial, compositions, "either", shapes=VECTORS, fixed={"total_count": 5}, independent=False
    ),
    "Bernoulli": family(dist.Bernoulli, below(2), "classes", num_classes=2),
    "Categorical": Kind(
        lambda shape: pm.nn.CategoricalLikelihood(3),
        lambda shape: torch.randint(3, shape),
        "classes",
        shapes=((),),
        num_classes=3,
    ),
    "OneHotCategorical": family(
        dist.OneHotCategorical, one_hot, "classes", shapes=((2,), (3,), (2, 3)), independent=False
    ),
    "StudentT": family(dist.StudentT, real, closed=False),
    "Cauchy": family(dist.Cauchy, real, closed=False),
    "Logistic": family(dist.Logistic, real, closed=False),
    "Laplace, free": family(dist.Laplace, real, closed=False),
    "Gumbel, free": family(dist.Gumbel, real, closed=False, reach=1.0),
    "Weibull, free": family(dist.Weibull, positive, closed=False, reach=3.0),
    "Kumaraswamy, free": family(dist.Kumaraswamy, unit, closed=False),
    "NegativeBinomial, free": family(
        dist.NegativeBinomial, below(9), "either", fixed={"parameters": ("total_count", "logits")}, closed=False
    ),
    "GammaPoisson, free": family(dist.GammaPoisson, below(9), "either", closed=False),
}


@dataclass
class RandomModel:
    """A model, a batch for it, how its risk is asked for, and what was chosen, by name."""

    model: Any
    batch: pm.PairBatch
    risk: dict[str, Any]
    chosen: dict[str, Any] = field(default_factory=dict)


class Bounded(nn.Module):
    """Outputs in (−reach, reach): what is far beyond has densities beyond single precision, such as e^(e^100)."""

    def __init__(self, reach: float) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        return self.reach * (x / self.reach).tanh()


def network(
    rng: random.Random, in_features: int, out_features: int, x_shape: tuple[int, ...], reach: float = 30.0
) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()] if len(x_shape) > 1 else []
    hidden = rng.choice([[], [4], [3, 5]])
    activation = rng.choice([nn.ReLU, nn.Tanh, nn.SiLU])
    made = nn.Sequential(*layers, pm.nn.MLP(in_features, hidden, out_features, activation), Bounded(reach))
    spread = rng.choice([0.1, 0.5, 1.0, 2.0])
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=spread)
    return made


def coefficient_law(rng: random.Random, may_extrapolate: bool) -> tuple[str, Any]:
    first, second = (10 ** rng.uniform(-3, 2) for _ in range(2))
    laws: dict[str, Callable[[], Any]] = {
        f"Beta({first:.2g}, {first:.2g})": lambda: dist.Beta(first, first),
        f"Beta({first:.2g}, {second:.2g})": lambda: dist.Beta(first, second),
        "Delta": lambda: dist.Delta(torch.tensor(rng.choice([0.0, 0.3, 0.5, 1.0]))),
        "Uniform": lambda: dist.Uniform(0.0, 1.0),
        "Kumaraswamy": lambda: dist.Kumaraswamy(torch.tensor(0.7), torch.tensor(2.0)),
        "GaussJacobi": lambda: pm.GaussJacobi(rng.uniform(0.1, 3), num_nodes=rng.randint(2, 5)),
    }
    if may_extrapolate:
        laws["ExpandedBeta"] = lambda: pm.ExpandedBeta.variance_preserving(rng.uniform(0.2, 5))
    name = rng.choice(list(laws))
    return name, laws[name]()


def vicinity_of(rng: random.Random, kind: Kind, likelihood: Any, labels: str, is_mixture: bool) -> tuple[str, Any]:
    """A kernel that the likelihood takes: its expectations are not known of a mixture, but of points and classes."""
    beta = 10 ** rng.uniform(-4, 1)
    legal: list[Any] = [None, pm.DiracVicinity("linear")]
    if kind.between == "convex":
        legal.append(pm.DiracVicinity())
    exact = labels == "exact"
    if (kind.normal and not (exact and is_mixture)) or (kind.labels is real and not exact):
        legal += [pm.NormalVicinity(b, f) for b in (0.0, beta) for f in ("linear", "log-linear")]
    if kind.between == "classes":
        size = kind.num_classes or int(likelihood.event_shape[-1])
        is_vector = len(likelihood.event_shape) > (kind.num_classes is None)
        if not (exact and is_mixture and is_vector):
            legal += [pm.LabelVicinity(b, size) for b in (0.0, beta)] + [pm.LabelVicinity(beta, size, "log-linear")]
            legal.append(pm.LabelVicinity.smoothing(rng.uniform(0, 0.9), size))
    chosen = rng.choice(legal)
    return repr(chosen), chosen


def graph_of(rng: random.Random, x: Tensor, y: Tensor) -> tuple[str, Any]:
    n = len(x)
    graphs: dict[str, Callable[[], Any]] = {"complete": lambda: pm.CompleteGraph(n)}
    if n > 1:
        k = rng.randint(1, n - 1)
        weights = torch.rand(2 * n) + 0.1
        weights[rng.randrange(n)] = 0
        edges = torch.stack([torch.arange(2 * n) % n, torch.randint(n, (2 * n,))], -1)
        graphs |= {
            f"{k} neighbours": lambda: pm.NearestNeighborGraph(x, num_neighbors=k),
            "kernel": lambda: pm.KernelGraph(x=x.double()),
            "weighted": lambda: pm.WeightedGraph(edges, weights, n),
            "labels": lambda: pm.LabelGraph(torch.arange(n) % max(1, n // 2)),
        }
    name = rng.choice(list(graphs))
    return name, graphs[name]()


def embedding_of(rng: random.Random, size: int, x_shape: tuple[int, ...]) -> tuple[str, Any, int]:
    features = math.prod(x_shape)
    name = rng.choice(["shared head", "separate network", "fixed scale", "low rank", "Gamma", "MultivariateNormal"])
    if name == "low rank":
        rank = rng.randint(1, size)
        return name, pm.nn.LowRankNormalEmbedding(network(rng, features, size, x_shape), size, rank), size
    if name in ("Gamma", "MultivariateNormal"):
        outputs = 2 * size if name == "Gamma" else size + size * (size + 1) // 2
        encoder = network(rng, features, outputs, x_shape, 30.0 if name == "Gamma" else 3.0)
        return name, pm.nn.DistributionEmbedding(encoder, getattr(dist, name), size), size
    encoder = network(rng, features, size, x_shape)
    variance = network(rng, features, size, x_shape) if name == "separate network" else None
    scale = rng.uniform(0.1, 2) if name == "fixed scale" else None
    return name, pm.nn.NormalEmbedding(encoder, size, variance, scale=scale), size


def random_model(seed: int) -> RandomModel:
    """The model of this number; draws from torch's global generator, which it seeds."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    method = rng.choice(METHODS)
    fuses_likelihood = method == "ProbMix"
    fusion = rng.choice(["log-linear", "log-linear", "linear"]) if "Prob" in method else None
    if fuses_likelihood and rng.random() < 0.1:
        fusion = "numerical"
    name = rng.choice([n for n, kind in LIKELIHOODS.items() if not fuses_likelihood or kind.is_fused(fusion)])
    kind = LIKELIHOODS[name]
    shape = rng.choice(kind.shapes)
    likelihood = kind.make(shape)
    objective = rng.choice(["expected-log", "expected-log", "expected-log", "log-expected", "log-expected-graph"])
    labels = "sample" if objective != "expected-log" else rng.choice(["exact", "sample"])
    vicinity_name, vicinity = vicinity_of(rng, kind, likelihood, labels, fuses_likelihood and fusion != "log-linear")
    extrapolates = kind.normal and method in ("Mixup", "ManifoldMixup") and vicinity is None
    law_name, law = coefficient_law(rng, extrapolates)
    num_nodes = rng.choice([1, 2, 3, 5, 8, 12])
    x_shape = rng.choice([(1,), (3,), (2, 2)])
    dtype = rng.choice([torch.float32, torch.float32, torch.float64])
    x = rng.choice([0.1, 1.0, 5.0]) * torch.randn(num_nodes, *x_shape, dtype=dtype) + rng.choice([0.0, 0.0, 20.0])
    y = kind.labels(torch.Size([num_nodes, *shape]))
    y = y.to(dtype) if y.is_floating_point() else y
    arguments: dict[str, Any] = {} if vicinity is None and method == "ERM" else {"labels": labels}
    arguments["vicinity"] = vicinity
    if method != "ERM":
        arguments |= {"coefficient": law, "per": rng.choice(["edge", "edge", "batch"])}
    if fusion is not None:
        arguments["fusion"] = fusion
    features, embedding_name = math.prod(x_shape), None
    # Mass nearer to an end than numbers are, or farther out than they reach, is refused by a quadrature.
    reach = min(kind.reach, 1.0) if fusion == "numerical" else kind.reach
    if method == "ManifoldProbMix":
        size = rng.choice([1, 2, 4])
        embedding_name, encoder, size = embedding_of(rng, size, x_shape)
        arguments["propagate"] = rng.choice(["sample", "sample", "mean"])
        parts = [encoder, network(rng, size, likelihood.num_outputs, (size,), reach)]
    elif method == "ManifoldMixup":
        parts = [network(rng, features, 4, x_shape), network(rng, 4, likelihood.num_outputs, (4,), reach)]
    else:
        parts = [network(rng, features, likelihood.num_outputs, x_shape, reach)]
    weight = torch.randint(4, (num_nodes,)).to(dtype) if rng.random() < 0.3 else None
    if weight is not None:
        weight[rng.randrange(num_nodes)] = 1.0
    mask_shape = rng.choice([None, None, (num_nodes,), (num_nodes, *shape)])
    if mask_shape is not None and len(mask_shape) > 1 and not (kind.independent and fusion != "linear"):
        mask_shape = (num_nodes,)
    mask = None if mask_shape is None else torch.rand(mask_shape) < 0.7
    if mask is not None:
        mask[rng.randrange(num_nodes)] = True
    batch_size = rng.choice([None, 1, 2, 3, num_nodes])
    graph_name, graph = graph_of(rng, x, y)
    chosen = {
        "method": method, "likelihood": name, "shape": shape, "vicinity": vicinity_name, "coefficient": law_name,
        "embedding": embedding_name, "graph": graph_name, "nodes": num_nodes, "batch_size": batch_size,
        "dtype": dtype, "weight": weight is not None, "mask": mask_shape, "objective": objective,
        **{k: v for k, v in arguments.items() if k in ("labels", "fusion", "per", "propagate")},
    }  # fmt: skip
    model = getattr(pm, method)(*parts, likelihood, **arguments).to(dtype)
    loader = pm.PairLoader(x, y, graph, batch_size, weight=weight, mask=mask)
    batch = next(iter(loader))
    risk = {"num_samples": rng.choice([1, 1, 2, 3]), "objective": objective}
    return RandomModel(model, batch, risk, chosen | risk)


def faults_of(case: RandomModel, through_pyro: bool) -> list[str]:
    """What is not finite in the loss and in the gradient."""
    trained = [p for p in case.model.parameters() if p.requires_grad]
    loss = case.model.risk(case.batch, **case.risk)
    found = [] if loss.isfinite() else [f"loss {loss.item()}"]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True) if loss.requires_grad else []
    bad = [tuple(g.shape) for g in gradients if g is not None and not g.isfinite().all()]
    found += [f"gradient of shapes {bad}"] if bad else []
    if through_pyro:
        model = case.model
        elbo = TraceEnum_ELBO if isinstance(model.coefficient, pm.GaussJacobi) else Trace_ELBO
        value = elbo(max_plate_nesting=1).differentiable_loss(model, model.guide, case.batch)
        found += [] if torch.as_tensor(value).isfinite().all() else [f"loss of Pyro {value}"]
        y = case.batch.y
        density = model.predictive(case.batch.x, num_samples=3).log_prob(y)
        found += [] if density.isfinite().all() else ["predictive density"]
    return found


def failures(seeds: Sequence[int], through_pyro: Callable[[int], bool] = lambda seed: seed % 4 == 0) -> list[str]:
    """The models of these numbers that are refused, or have what is not finite; a line each."""
    lines = []
    for seed in seeds:
        chosen: Any = "not made"
        pyro.clear_param_store()
        try:
            case = random_model(seed)
            chosen = case.chosen
            found = faults_of(case, through_pyro(seed))
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"]
        if found:
            lines.append(f"{seed}: {'; '.join(found)}; {chosen}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    from tests import random_refusals

    parser = argparse.ArgumentParser(prog="python -m tests.random_models", description=__doc__)
    parser.add_argument("--number", type=int, default=10_000, help="of models, and of refusals")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", choices=["models", "refusals"])
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.enable_validation(True)
    seeds = range(given.first, given.first + given.number)
    lines: list[str] = []
    for what, tries in (("models", failures), ("refusals", random_refusals.failures)):
        if given.only in (None, what):
            found = tries(seeds)
            print(f"{len(seeds)} {what}, {len(found)} failures", flush=True)
            lines += found
    for line in lines:
        print(line)
    causes = collections.Counter(line.split(": ", 1)[1].split(";")[0][:100] for line in lines)
    for cause, count in causes.most_common():
        print(f"{count:6} {cause}")
    return min(len(lines), 1)


if __name__ == "__main__":
    sys.exit(main())
