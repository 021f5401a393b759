"""The ready methods and the likelihoods they are tested with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_probmix as pm

FEATURES, EMBEDDING, CLASSES = 3, 4, 3

METHODS = ("ERM", "Mixup", "ManifoldMixup", "ProbMix", "ManifoldProbMix")
MIXING_METHODS = METHODS[1:]

# name -> the likelihood, and labels for it of shape (size,) + event_shape
LIKELIHOODS: dict[str, tuple[Callable[[], Any], Callable[[int], Tensor]]] = {
    "normal": (pm.nn.NormalLikelihood, lambda size: torch.randn(size)),
    "normals": (lambda: pm.nn.NormalLikelihood(2), lambda size: torch.randn(size, 2)),
    "categorical": (
        lambda: pm.nn.CategoricalLikelihood(CLASSES),
        lambda size: torch.randint(CLASSES, (size,)),
    ),
    "one-hot": (
        lambda: pm.nn.DistributionLikelihood(dist.OneHotCategorical, CLASSES),
        lambda size: torch.eye(CLASSES)[torch.randint(CLASSES, (size,))],
    ),
    "bernoullis": (
        lambda: pm.nn.DistributionLikelihood(dist.Bernoulli, 2),
        lambda size: torch.randint(2, (size, 2)).float(),
    ),
    "gamma": (lambda: pm.nn.DistributionLikelihood(dist.Gamma), lambda size: torch.rand(size) + 0.1),
    "poisson": (
        lambda: pm.nn.DistributionLikelihood(dist.Poisson),
        lambda size: torch.randint(6, (size,)).float(),
    ),
}


def randomize(module: nn.Module) -> nn.Module:
    """Draw every parameter anew, so that none is at a special value such as zero."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def make_model(method: str, likelihood: str = "normal", dtype: torch.dtype = torch.float64, **arguments: Any) -> Any:
    """A small model with random parameters; arguments are the method's own, such as ``coefficient``."""
    head = LIKELIHOODS[likelihood][0]()
    if method.startswith("Manifold"):
        encoder: Any = pm.nn.MLP(FEATURES, [], EMBEDDING, output_activation=nn.Tanh)
        if method == "ManifoldProbMix":
            encoder = pm.nn.NormalEmbedding(encoder, EMBEDDING)
        networks: tuple[Any, ...] = (encoder, pm.nn.MLP(EMBEDDING, [5], head.num_outputs))
    else:
        networks = (pm.nn.MLP(FEATURES, [5], head.num_outputs),)
    model = getattr(pm, method)(*networks, head, **arguments)
    return randomize(model).to(dtype)


def make_data(likelihood: str = "normal", size: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    y = LIKELIHOODS[likelihood][1](size)
    return torch.randn(size, FEATURES, dtype=dtype), y.to(dtype) if y.is_floating_point() else y


def make_batch(
    likelihood: str = "normal", size: int = 6, dtype: torch.dtype = torch.float64, graph: str = "complete"
) -> pm.PairBatch:
    x, y = make_data(likelihood, size, dtype)
    if graph == "neighbors":
        return pm.NearestNeighborGraph(x, num_neighbors=2).pair_batch(x, y)
    return pm.CompleteGraph(size).pair_batch(x, y)


def gradients(loss: Tensor, parameters: Any) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(parameters)))


def particles(number: int) -> dict[str, Any]:
    """Arguments of an ELBO with so many particles."""
    return {"num_particles": number, "vectorize_particles": number > 1, "max_plate_nesting": 1}
