"""The guide of a ready model: its latent sites as the model draws them, and the posterior of its weights."""

from __future__ import annotations

from typing import Any

import pyro
from torch import Tensor

from pyro_probmix.mixing import PairBatch
from pyro_probmix.models.names import UniquelyNamed
from pyro_probmix.models.priors import FixedWeights, WeightsAlone, latents, refuse_priors

__all__ = ["Guide", "trained_weights"]


class Guide(UniquelyNamed):
    """Draws the latent sites of a :class:`DensityModel` as the model does.

    Args:
        model: whose guide this is.
        weights: guide of the weights that have priors, see :meth:`DensityModel.guide_for`; None where none has.
    """

    weights: Any

    def __init__(self, model: UniquelyNamed, weights: Any = None) -> None:
        super().__init__()
        self.__dict__["_model"] = model  # not a child: its parameters are the model's
        self.weights = weights

    def forward(self, batch: PairBatch, num_rows: int | None = None) -> None:
        """Draws the weights that have priors, ``mixing_coefficient`` and a stochastic ``embedding``."""
        if self.weights is None:
            refuse_priors(self._model, "model.guide")
            self._model(batch, num_rows, latent_only=True)
            return
        arguments = (batch,) if num_rows is None else (batch, num_rows)
        with pyro.poutine.block(hide_fn=lambda msg: msg["type"] == "sample" and msg["is_observed"]):
            values = self.draw(*arguments)
        with FixedWeights(values):
            self._model(*arguments, latent_only=True)

    def draw(self, *arguments: Any) -> dict[str, Tensor]:
        """The weights, by the name of their site."""
        if getattr(self.weights, "_model", self) is None:  # Pyro takes it from an autoguide that is copied
            self.weights._model = (WeightsAlone()(self._model),)
        values = latents(pyro.poutine.trace(self.weights).get_trace(*arguments).nodes)
        if not values:
            raise ValueError("model: expected networks with priors, such as PyroSample weights, got none")
        return values


def trained_weights(guide: Any, batch: PairBatch) -> dict[str, Tensor]:
    """A draw of the weights, by a guide that has been trained."""
    if isinstance(guide, Guide):
        if guide.weights is None:
            raise ValueError(
                "guide: expected that of weights with priors, model.guide_for(AutoNormal), got model.guide"
            )
        guide = guide.weights
    if getattr(guide, "prototype_trace", guide) is None:  # of an autoguide, which would learn of rows without labels
        raise ValueError(f"guide: expected one that has been trained, got {type(guide).__name__}, not yet called")
    drawn = pyro.poutine.block(pyro.poutine.trace(guide).get_trace)(batch)
    return {name: value.detach() for name, value in latents(drawn.nodes).items()}
