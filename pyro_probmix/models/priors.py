"""Networks whose weights have priors: which weights, under which names, and with which values."""

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

from pyro_probmix.models.names import COEFFICIENT_SITE, EMBEDDING_SITE

__all__ = [
    "AttributeNames",
    "FixedWeights",
    "WeightsAlone",
    "draw_weights",
    "has_priors",
    "latents",
    "refuse_priors",
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
