"""A Pyro program run again, many times: with values that are given, its other sites drawn anew."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor
from torch.func import vmap

from pyro_probmix.models.laws import rsample
from pyro_probmix.models.priors import latents

__all__ = ["Draw", "Given", "Values", "apart", "copies", "draws_of", "each", "is_statement", "trace"]

Values = dict[str, Tensor]
Draw = Callable[[Any], Tensor]
"""How a distribution is drawn from."""


def is_statement(site: Any) -> bool:
    """Whether a site of a trace is latent or observed: no plate, factor, parameter or value that is computed."""
    if site["type"] != "sample" or site_is_subsample(site) or site_is_factor(site):
        return False
    unscored = isinstance(site["fn"], MaskedDistribution) and site["fn"]._mask is False
    return not (site["infer"].get("_deterministic") or (site["is_observed"] and unscored))  # by a reparametrization


class Given(Messenger):
    """Gives sites their values, and draws the others; every term counts once.

    Args:
        values: site → value.
        draw: how others are drawn.
        enumerated: sites that an ``EnumMessenger`` around this enumerates instead.
        anew: observed sites that are drawn, too.

    Attributes:
        weighted: sites of which some rows would have counted more than others.
    """

    def __init__(
        self, values: Mapping[str, Tensor], draw: Draw, enumerated: Collection[str] = (), anew: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.values, self.draw, self.enumerated, self.anew = values, draw, enumerated, anew
        self.weighted: list[str] = []

    def _pyro_sample(self, msg: Any) -> None:
        if not is_statement(msg):
            return
        name, scale = msg["name"], msg["scale"]
        if isinstance(scale, Tensor) and scale.numel() > 1:
            self.weighted.append(name)
        msg["scale"] = 1.0
        if name in self.values:
            msg["value"], msg["done"] = self.values[name], True
        elif name in self.enumerated:
            msg["infer"] = {**msg["infer"], "enumerate": "parallel"}
        elif name in self.anew or not (msg["is_observed"] or msg["done"]):
            msg["value"], msg["done"] = self.draw(msg["fn"]), True


@contextmanager
def apart(parameters: Any) -> Iterator[None]:
    """What a program tells handlers around it stays in here; so does Pyro's store, which has these parameters."""
    with torch.no_grad(), pyro.get_param_store().scope(parameters), poutine.block():
        yield


def each(function: Callable[[Values, Draw], Values], values: Values, at_once: int, parameters: Any) -> Values:
    """``function`` of each of S values of all sites, of shape ``(S, ...)``: by vmap where that can follow it.

    Elsewhere, as where a model looks at a value, they are taken one by one. The parameters are all that it asks for.
    """
    with apart(parameters):
        try:
            with pyro.validation_enabled(False), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
                mapped = vmap(lambda own: function(own, _drawn_by_vmap), randomness="different", chunk_size=at_once)
                return mapped(values)
        except RuntimeError:
            size = len(next(iter(values.values())))
            found = [function({name: own[s] for name, own in values.items()}, _drawn) for s in range(size)]
    return {name: torch.stack([own[name] for own in found]) for name in found[0]}


def trace(call: Callable[[], Any], given: Given) -> Any:
    """The trace of a program with what it is given."""
    with poutine.trace() as sites, given:
        call()
    return sites.trace


def copies(function: Callable[[], Tensor], number: int, draw: Draw) -> Tensor:
    """So many runs of a function that draws, of shape ``(number, ...)``, inside that of :func:`each`."""
    if draw is _drawn:
        return torch.stack([function() for _ in range(number)])
    return vmap(lambda _: function(), randomness="different")(torch.arange(number))


def draws_of(guide: Callable[..., Any], args: Any, kwargs: Any, num_samples: int) -> Values:
    """So many draws of the latent sites of a guide."""

    def drawn(_: Values, draw: Draw) -> Values:
        return latents(trace(lambda: guide(*args, **kwargs), Given({}, draw)).nodes)

    parameters = pyro.get_param_store().get_state()
    with apart(parameters):
        drawn({}, _drawn)  # its parameters are made before vmap
    return each(drawn, {"": torch.arange(num_samples)}, num_samples, parameters)


def _drawn(p: Any) -> Tensor:
    return p.sample()  # type: ignore[no-any-return]


def _drawn_by_vmap(p: Any) -> Tensor:
    return rsample(p) if p.has_rsample else p.sample()
