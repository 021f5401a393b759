"""Draws of a posterior, by MCMC or a guide, and what the rows are worth under them, for ArviZ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.infer import MCMC
from torch import Tensor

from pyro_probmix._random import seeded
from pyro_probmix.evaluation.inference_data.arrays import ROW, Coords, Groups, as_input, exported, table
from pyro_probmix.evaluation.inference_data.given_draws import GivenDraws
from pyro_probmix.evaluation.inference_data.replay import Values, draws_of
from pyro_probmix.mixing import PairBatch
from pyro_probmix.models import DensityModel
from pyro_probmix.models.mix import MixedModel
from pyro_probmix.models.priors import Guide, trained

__all__ = ["of_guide", "of_mcmc"]

Arguments = Sequence[Any] | None
Keywords = Mapping[str, Any] | None


def of_mcmc(mcmc: MCMC, args: Arguments, kwargs: Keywords, seed: int, num_embeddings: int) -> tuple[Groups, Coords]:
    """The groups of a run of MCMC, called with other arguments where these are given."""
    model, ran_with = mcmc.kernel.model, (mcmc._args, mcmc._kwargs)
    diagnostics: list[Any] = mcmc._diagnostics
    if model is None or mcmc._samples is None:
        got = "that of a potential function" if model is None else "one that has not"
        raise ValueError(f"model: expected the MCMC of a model that has run, got {got}")
    call = _Call.of(model, *(ran_with if args is None else (args, kwargs)))
    chains = mcmc.get_samples(group_by_chain=True)
    draws = {name: value.detach().flatten(0, 1) for name, value in chains.items()}
    shape = next(iter(chains.values())).shape[:2]
    with seeded(seed, call.device):
        groups, coords = _groups(call, draws, shape, num_embeddings, "mcmc")
    divergences = [own["divergences"] for own in diagnostics if own and "divergences" in own]
    if len(divergences) == len(diagnostics):
        diverging = np.zeros(shape, dtype=bool)
        for chain, found in enumerate(divergences):
            diverging[chain, found] = True
        groups["sample_stats"] = {"diverging": (["chain", "draw"], diverging)}
    return groups, coords


def of_guide(
    model: Any,
    guide: Callable[..., Any],
    args: Arguments,
    kwargs: Keywords,
    num_samples: int,
    seed: int,
    num_embeddings: int,
) -> tuple[Groups, Coords]:
    """The groups of so many draws of a guide."""
    if args is None:
        raise ValueError("args: expected what model and guide are called with, such as (x, y), got None")
    call = _Call.of(model, args, kwargs)
    with seeded(seed, call.device):
        draws: Values = {}
        if not (isinstance(guide, Guide) and guide.weights is None):  # which draws embeddings alone
            draws = draws_of(trained(guide), call.args, call.kwargs, num_samples)
        return _groups(call, draws, torch.Size([1, num_samples]), num_embeddings, "guide")


class _Call(NamedTuple):
    """A model and what it is called with."""

    model: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    index: Any
    features: Any

    @staticmethod
    def of(model: Any, args: Any, kwargs: Any) -> _Call:
        """With a batch for a model that takes one, where the data are given."""
        if not isinstance(args, Sequence) or isinstance(args, str):
            raise TypeError(f"args: expected a sequence, such as (x, y), got {type(args).__name__}")
        args, kwargs = tuple(args), dict(kwargs or {})
        index = features = None
        if isinstance(model, (DensityModel, MixedModel)) and len(args) > 1 and not isinstance(args[0], PairBatch):
            _, index, features = table("x", args[0])
            x, y = (as_input(name, value, model) for name, value in zip("xy", args))
            args = (PairBatch(x, y, torch.arange(len(x), device=x.device)), *args[2:])
        return _Call(model, args, kwargs, index, features)

    @property
    def batch(self) -> PairBatch | None:
        return next((value for value in self.args if isinstance(value, PairBatch)), None)

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        tensors = [self.batch.x] if self.batch else [*self.args, *self.kwargs.values()]
        return next((value.device for value in tensors if isinstance(value, Tensor)), torch.device("cpu"))


def _groups(call: _Call, draws: Values, shape: torch.Size, num_embeddings: int, source: str) -> tuple[Groups, Coords]:
    """Draws of the latents, and of the rows given them, and the log-densities of both."""
    given = GivenDraws(call.model, call.args, call.kwargs, draws, num_embeddings, source)
    chains, groups = ["chain", "draw"], Groups()
    for group, sites in (("posterior", given.posterior()), ("posterior_predictive", given.predictive())):
        groups[group] = {
            name: ([*chains, *dims], exported(own.unflatten(0, shape), given.is_discrete(name)))
            for name, (dims, own) in sites.items()
        }
    for group, terms in (("log_likelihood", given.log_likelihood()), ("log_prior", given.log_prior())):
        groups[group] = {
            name: ([*chains, *dims], exported(own.double().unflatten(0, shape))) for name, (dims, own) in terms.items()
        }
    groups["observed_data"] = {
        name: (dims, exported(own, given.is_discrete(name))) for name, (dims, own) in given.observed().items()
    }
    rows = given.rows
    if rows is not None and call.batch is not None:
        x = call.batch.x[rows]
        names = ["feature"] if x.dim() == 2 else [f"x_dim_{d}" for d in range(x.dim() - 1)]
        groups["constant_data"] = {"x": ([ROW, *names], exported(x))}
    index = rows if rows is None or call.index is None else call.index[exported(rows)]
    return groups, {ROW: exported(index) if isinstance(index, Tensor) else index, "feature": call.features}
