"""The statements that a ready model is written in: Pyro's, and plain ones without Pyro."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix.mixing import PairBatch
from pyro_probmix.models.laws import LazyDistribution, Unscored, from_noise
from pyro_probmix.models.mix import MixMessenger
from pyro_probmix.models.mixing import Edges, Labels, Mixing
from pyro_probmix.models.names import COEFFICIENT_SITE, EMBEDDING_SITE, LABEL_SITE, PLATE
from pyro_probmix.models.priors import latents
from pyro_probmix.ops.autocast import without_autocast

__all__ = ["PlainStatements", "PyroStatements", "data_plate"]


@dataclass
class PlainStatements:
    """Mixes and draws as Pyro's statements would, and keeps the log-probability of what is observed."""

    mixing: Mixing
    batch: PairBatch
    edges: Edges
    labels: Labels | None
    noise: Tensor | None
    label: Tensor | None
    log_prob: Any = None

    def deterministic(self, name: str, value: Tensor, event_dim: int) -> Tensor:
        if self.mixing.at != name:
            return value
        return self.mixing.interpolate(value, self.batch.partner, self.edges.coefficient, -1 - event_dim)

    def sample(self, name: str, p: Any, obs: Tensor | None = None) -> Tensor:
        coefficient, shape = self.edges.coefficient, self.edges.shape
        p, value = self.mixing.statement(name, p, obs, self.batch, coefficient, labels=self.labels, label=self.label)
        if value is None:  # of the embedding
            p = p if p.batch_shape == shape else p.expand(shape)
            return p.rsample() if self.noise is None else from_noise(p.force(), self.noise)
        # torch.compile cannot follow Pyro's Categorical, which asks whether the value is one it has enumerated.
        cls = torch.distributions.Categorical if type(p) is dist.Categorical else type(p)
        with without_autocast(value):
            self.log_prob = cls.log_prob(p, value)
        return value


class PyroStatements:
    """Pyro's statements inside the data plate, which the networks between them stay outside of.

    The embedding is not scored where model and guide draw it alike, for the two terms cancel; nor is it computed where
    the guide's draw is all that is asked for.
    """

    def __init__(self, messenger: MixMessenger, num_rows: int | None) -> None:
        self.plate = data_plate(len(messenger.batch), num_rows)
        with self.plate:
            messenger.draw()
        self.unscored, self.computed = messenger.latent_only, True
        if messenger.replay is not None:
            drawn = messenger.drawn
            embedding, label = drawn.get(EMBEDDING_SITE), drawn.get(LABEL_SITE)
            messenger.label = None if label is None else label["value"]
            self.unscored = embedding is None or getattr(embedding.get("fn"), "_mask", None) is False
            # The networks' own statements are scored if they are run.
            others = latents(drawn).keys() - {COEFFICIENT_SITE, EMBEDDING_SITE, *messenger.seen}
            self.computed = not self.unscored or embedding is None or bool(others)

    def sample(self, name: str, p: Any, obs: Tensor | None = None) -> Tensor:
        if isinstance(p, LazyDistribution):
            if self.computed:
                p.force()
            if self.unscored:
                p = Unscored(p)
        with self.plate:
            return pyro.sample(name, p, obs=obs)

    def deterministic(self, name: str, value: Tensor, event_dim: int) -> Tensor:
        with self.plate:
            return pyro.deterministic(name, value, event_dim=event_dim)


def data_plate(size: int, num_rows: int | None) -> pyro.plate:
    """The plate of a batch of ``size`` nodes, which stands for ``num_rows`` rows, by default for itself."""
    if num_rows is None:
        return pyro.plate(PLATE, size, dim=-1)
    if num_rows < size:
        raise ValueError(f"num_rows: expected at least {size}, the number of nodes in the batch, got {num_rows}")
    return pyro.plate(PLATE, num_rows, subsample=range(size), dim=-1)  # type: ignore[arg-type]
