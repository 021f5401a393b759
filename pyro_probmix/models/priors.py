"""Networks whose weights have priors: which, under which names, with which values; and the guide that draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
from pyro.nn import PyroModule, PyroSample
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import get_plates
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from pyro_probmix.mixing import PairBatch
from pyro_probmix.models.names import COEFFICIENT_SITE, EMBEDDING_SITE, UniquelyNamed

__all__ = [
    "AttributeNames",
    "FixedWeights",
    "Guide",
    "WeightsAlone",
    "draw_weights",
    "has_priors",
    "latents",
    "refuse_priors",
    "trained",
    "trained_weights",
]


def has_priors(module: nn.Module) -> bool:
    """Whether a weight of ``module`` has a prior, being a ``PyroSample``."""
    return bool(_priors(module))


def refuse_priors(model: nn.Module, doing: str) -> None:
    """Refuse a model whose networks have priors, of which ``doing`` knows nothing."""
    priors = _priors(model)
    if priors:
        names = {id(module): name for name, module in model.named_modules()}
        found = [".".join(filter(None, (names[id(module)], name))) for module, name in priors]
        raise ValueError(
            f"model: expected networks without priors in {doing}, got priors of {', '.join(found[:3])}"
            f"{', …' if len(found) > 3 else ''}; train them by guide = model.guide_for(AutoNormal), "
            "SVI(model, guide, optim, Trace_ELBO()), and predict by model.predictive(x, guide=guide)"
        )


def draw_weights(model: PyroModule, drawn: Mapping[str, Any] | None) -> None:
    """Draws every weight that has a prior: once, before any network runs, for all rows.

    ``drawn`` are the sites of the guide that is replayed, None where there is none. Refused are plates, such as that of
    vectorised particles, which networks know nothing of, and a guide that leaves a weight as its prior is.
    """
    plates = [frame.name for frame in get_plates() if frame.vectorized]
    if plates:
        raise ValueError(
            f"vectorize_particles: expected False for networks with priors, got them in plate {plates[0]!r}; "
            "Trace_ELBO(num_particles=…) and Predictive take one set of weights at a time without it"
        )
    with pyro.poutine.trace() as weights:
        for module, name in _priors(model):
            if module._pyro_context is model._pyro_context:  # else its own call draws it
                getattr(module, name)
    missing = [] if drawn is None else [name for name in latents(weights.trace.nodes) if name not in drawn]
    if missing:
        raise ValueError(
            f"guide: expected one that draws {', '.join(missing)}, such as model.guide_for(AutoNormal), got one that "
            "leaves them to their priors"
        )


def latents(nodes: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a guide has drawn for a model: not what is observed, of a plate, or auxiliary."""
    return {
        name: site["value"]
        for name, site in nodes.items()
        if site["type"] == "sample"
        and not (site["is_observed"] or site_is_subsample(site) or site["infer"].get("is_auxiliary"))
    }


class AttributeNames(Messenger):
    """Names the weights of a model as its attributes are, ``decoder.0.weight``, the same in every copy of it."""

    def __init__(self, model: PyroModule) -> None:
        super().__init__()
        self.prefix = f"{model._pyro_name}."

    def _pyro_sample(self, msg: Any) -> None:
        msg["name"] = msg["name"].removeprefix(self.prefix)

    def _pyro_post_sample(self, msg: Any) -> None:
        if not (msg["cond_indep_stack"] or site_is_subsample(msg)):
            # Pyro's Predictive gives the draws of a guide the dimensions of the plates in it.
            shape = msg["fn"].batch_shape + msg["fn"].event_shape
            if msg["value"].shape != shape and msg["value"].numel() == shape.numel():
                msg["value"] = msg["value"].reshape(shape)


class FixedWeights(Messenger):
    """Gives weights their values, without a statement that anything outside could see.

    Args:
        values: site → value, of all sites outside the data plate but that of λ.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.values:
            msg["value"], msg["stop"] = self.values[name], True
        elif not (msg["is_observed"] or msg["cond_indep_stack"] or name == COEFFICIENT_SITE or site_is_subsample(msg)):
            raise ValueError(f"guide: expected one that draws {name}, got one that draws {', '.join(self.values)}")


class WeightsAlone(BlockMessenger):
    """Hides what a model draws of the batch, λ included: an autoguide made of ``WeightsAlone()(model)`` meets none."""

    def __init__(self) -> None:
        super().__init__(hide_fn=_is_of_batch)


def _is_of_batch(msg: Any) -> bool:
    latent = msg["type"] == "sample" and not msg["is_observed"]
    return latent and (msg["name"] in (COEFFICIENT_SITE, EMBEDDING_SITE, "y") or site_is_subsample(msg))


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
    drawn = pyro.poutine.block(pyro.poutine.trace(trained(guide)).get_trace)(batch)
    return {name: value.detach() for name, value in latents(drawn.nodes).items()}


def trained(guide: Any) -> Any:
    """The guide that draws the weights, where it is part of another's; refused if it has not been trained."""
    if isinstance(guide, Guide):
        if guide.weights is None:
            raise ValueError(
                "guide: expected that of weights with priors, model.guide_for(AutoNormal), got model.guide"
            )
        guide = guide.weights
    if getattr(guide, "prototype_trace", guide) is None:  # of an autoguide, which would learn of rows without labels
        raise ValueError(f"guide: expected one that has been trained, got {type(guide).__name__}, not yet called")
    return guide


def _priors(module: nn.Module) -> list[tuple[PyroModule, str]]:
    """Each module and its attribute that has a prior."""
    found = []
    if isinstance(module, PyroModule):
        names = dict.fromkeys((*module.__dict__["_pyro_samples"], *_declared(type(module))))
        found = [(module, name) for name in names]
    for child in module._modules.values():
        if child is not None:
            found += _priors(child)
    return found


_DECLARED: dict[type, list[str]] = {}  # torch.compile warns of functools.cache


def _declared(cls: type) -> list[str]:
    """The attributes that a class has declared with the decorator ``PyroSample``."""
    if cls not in _DECLARED:
        _DECLARED[cls] = [k for base in cls.__mro__ for k, value in vars(base).items() if isinstance(value, PyroSample)]
    return _DECLARED[cls]
