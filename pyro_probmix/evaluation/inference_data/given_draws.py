"""What a Pyro model says of its rows, given draws of what is latent outside of them."""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro.distributions import MaskedDistribution
from pyro.ops.contract import contract_to_tensor
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from pyro_probmix.evaluation.inference_data.arrays import ROW, is_discrete
from pyro_probmix.evaluation.inference_data.replay import Draw, Given, Values, apart, copies, each, is_statement, trace
from pyro_probmix.models.unmixed import Unmixed

__all__ = ["GivenDraws"]

_NUMBERS_AT_ONCE = 2**18
"""Log-densities that are computed at a time."""


class GivenDraws:
    r"""The plain model given S draws of its latents: what each row is worth, and rows drawn anew.

    A latent is of the rows if it is in all plates that the observed sites share, as an embedding is. It is integrated
    out, :math:`\log p(y_i|w_s) = \log \frac1K \sum_k p(y_i|z_{ik}, w_s)` with :math:`z_{ik} \sim p(z|x_i, w_s)`, or
    summed out exactly where it can be enumerated. A mixed model is unmixed.

    Args:
        model: any Pyro model, called with ``args`` and ``kwargs``.
        draws: site → its draws, of shape ``(S, ...)``; those of no site of the plain model are left out.
        num_embeddings: K ≥ 1.
        source: what an error calls that which the draws are of.

    Attributes:
        rows: positions of the rows that are observed, where rows have one dimension; else None.
    """

    def __init__(
        self, model: Any, args: Any, kwargs: Any, draws: Values, num_embeddings: int = 100, source: str = "guide"
    ) -> None:
        self._call = lambda: model(*args, **kwargs)
        self._num_embeddings, self._parameters = num_embeddings, pyro.get_param_store().get_state()
        given = Given({name: own[0] for name, own in draws.items()}, lambda p: p.sample())
        with apart(self._parameters), Unmixed() as plain:
            nodes = trace(self._call, given).nodes
        sites = {name: node for name, node in nodes.items() if is_statement(node)}
        self._sites = sites
        # What is observed without a batch, as what a user has conditioned on, has no rows.
        self._observed = [name for name, node in sites.items() if node["is_observed"] and node["fn"].batch_shape]
        _check_rows(nodes, self._observed, given.weighted)
        self._rows = _shared_plates([sites[name] for name in self._observed])
        latents = [name for name, node in sites.items() if not node["is_observed"]]
        of_rows = [name for name in latents if self._rows and _plates(sites[name]).items() >= self._rows.items()]
        missing = [name for name in latents if name not in draws and name not in of_rows]
        if missing:
            raise ValueError(f"{source}: expected draws of {', '.join(missing)}, got draws of {', '.join(draws)}")
        self._globals = {name: self._shaped(name, draws[name]) for name in latents if name not in of_rows}
        _check_posterior(source, self._globals, of_rows)
        self._enumerated = [name for name in of_rows if sites[name]["fn"].has_enumerate_support]
        self._embeddings = [name for name in of_rows if name not in self._enumerated]
        exported = [name for name in latents if name in draws and not (plain.mixed and name in of_rows)]
        self._posterior = {name: self._shaped(name, draws[name]) for name in exported}
        self.rows = None
        if len(self._rows) == 1:
            self.rows = _observed_rows([sites[name] for name in self._observed], *self._rows.values())

    def is_discrete(self, name: str) -> bool:
        """Whether values of a site are counts or classes."""
        return is_discrete(self._sites[name]["fn"])

    def posterior(self) -> dict[str, tuple[list[str], Tensor]]:
        """Site → names of its dimensions, after that of the draws, and its draws.

        Of a mixed model, latents of the rows are left out: their draws are of pairs.
        """
        return {name: (self._dims(name), value) for name, value in self._posterior.items()}

    def observed(self) -> dict[str, tuple[list[str], Tensor]]:
        """Site → names of its dimensions and its value."""
        return {name: (self._dims(name), self._kept(name, _value(self._sites[name]))) for name in self._observed}

    def predictive(self) -> dict[str, tuple[list[str], Tensor]]:
        """Observed sites, drawn anew given each draw, as are the latents of the rows."""

        def drawn(values: Values, draw: Draw) -> Values:
            nodes = self._run(Given(values, draw, anew=self._observed)).nodes
            return {name: _value(nodes[name]) for name in self._observed}

        return {name: (self._dims(name), self._kept(name, value)) for name, value in self._each(drawn).items()}

    def log_prior(self) -> dict[str, tuple[list[str], Tensor]]:
        """Of what is latent outside of the rows, in nats."""
        found = self._each(lambda values, draw: self._log_probs(values, draw, list(self._globals)))
        return {name: (self._dims(name, event=False), value) for name, value in found.items()}

    def log_likelihood(self) -> dict[str, tuple[list[str], Tensor]]:
        """Of each row, in nats; of several sites together, as ``"joint"``, where latents are integrated out."""
        if not (self._embeddings or self._enumerated):
            found = self._each(lambda values, draw: self._log_probs(values, draw, self._observed))
            return {name: (self._dims(name, event=False), self._kept(name, own, 0)) for name, own in found.items()}
        joint = self._each(self._integrated)["joint"]
        dims = [ROW] if self.rows is not None else list(self._rows)
        kept = joint if self.rows is None else joint.index_select(-1, self.rows)
        return {self._observed[0] if len(self._observed) == 1 else "joint": (dims, kept)}

    def _each(self, function: Any) -> Values:
        size = sum(_value(self._sites[name]).numel() for name in self._observed)
        size *= self._num_embeddings if self._embeddings else 1
        return each(function, self._globals, max(1, _NUMBERS_AT_ONCE // max(1, size)), self._parameters)

    def _run(self, given: Given) -> Any:
        with Unmixed():
            return trace(self._call, given)

    def _log_probs(self, values: Values, draw: Draw, names: list[str]) -> Values:
        found = self._run(Given(values, draw))
        found.compute_log_prob(lambda name, site: name in names)
        return {name: found.nodes[name]["log_prob"].expand(found.nodes[name]["fn"].batch_shape) for name in names}

    def _integrated(self, values: Values, draw: Draw) -> Values:
        if not self._embeddings:
            return {"joint": self._summed(values, draw)}
        terms = copies(lambda: self._summed(values, draw), self._num_embeddings, draw)
        return {"joint": terms.logsumexp(0) - math.log(self._num_embeddings)}

    def _summed(self, values: Values, draw: Draw) -> Tensor:
        """The log-density of each row given one draw of its embeddings, states that are enumerated summed out."""
        scored = {*self._observed, *self._enumerated}
        with self._enumeration():
            run = self._run(Given(values, draw, self._enumerated))
        run.compute_log_prob(lambda name, site: name in scored)
        run.pack_tensors()
        symbols: Any = run.plate_to_symbol
        terms: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
        for name, node in run.nodes.items():
            if name in scored:
                ordinal = frozenset(symbols[plate] for plate in _plates(node))
                terms.setdefault(ordinal, []).append(node["packed"]["log_prob"])
        rows = [symbols[plate] for plate in self._rows]
        states = set(run.symbol_to_dim) - set(symbols.values())
        found: Any = contract_to_tensor(terms, states, frozenset(rows))
        return found.permute([found._pyro_dims.index(symbol) for symbol in rows])

    def _enumeration(self) -> Any:
        if not self._enumerated:
            return nullcontext()  # vmap does not follow Pyro's
        return EnumMessenger(min(dim for node in self._sites.values() for dim in _plates(node).values()) - 1)

    def _shaped(self, name: str, draws: Tensor) -> Tensor:
        fn = self._sites[name]["fn"]
        shape = fn.batch_shape + fn.event_shape
        padded = draws.reshape(draws.shape[:1] + (1,) * (len(shape) + 1 - draws.dim()) + draws.shape[1:])
        return padded.expand(draws.shape[:1] + shape)

    def _dims(self, name: str, event: bool = True) -> list[str]:
        node = self._sites[name]
        plates = {dim: plate for plate, dim in _plates(node).items()}
        if self.rows is not None:
            plates[next(iter(self._rows.values()))] = ROW
        batch, size = len(node["fn"].batch_shape), len(node["fn"].event_shape) if event else 0
        unnamed = iter(f"{name}_dim_{d}" for d in range(batch + size))
        return [plates.get(d) or next(unnamed) for d in range(-batch, 0)] + [next(unnamed) for _ in range(size)]

    def _kept(self, name: str, value: Tensor, event_dim: int | None = None) -> Tensor:
        """Without the rows of which nothing is observed."""
        if self.rows is None:
            return value
        event_dim = len(self._sites[name]["fn"].event_shape) if event_dim is None else event_dim
        return value.index_select(next(iter(self._rows.values())) - event_dim, self.rows)


def _plates(node: Any) -> dict[str, int]:
    """The vectorised plates around a site, by name, and their dimensions."""
    frames = [frame for frame in node["cond_indep_stack"] if frame.vectorized]
    return {frame.name: frame.dim for frame in sorted(frames, key=lambda frame: frame.dim)}


def _shared_plates(observed: list[Any]) -> dict[str, int]:
    """The plates that all observed sites are in, which count the rows."""
    first, *others = map(_plates, observed)
    return {plate: dim for plate, dim in first.items() if all(plate in other for other in others)}


def _value(node: Any) -> Tensor:
    fn = node["fn"]
    return node["value"].expand(fn.batch_shape + fn.event_shape)  # type: ignore[no-any-return]


def _check_rows(nodes: Any, observed: list[str], weighted: list[str]) -> None:
    """Refuses a model of which no row could be left out."""
    if not observed:
        sites = {name: node for name, node in nodes.items() if is_statement(node) and node["is_observed"]}
        got = ", ".join(f"{name} of batch shape {tuple(node['fn'].batch_shape)}" for name, node in sites.items())
        raise ValueError(f"model: expected an observed site in a vectorized plate of the rows, got {got or 'none'}")
    for name, node in nodes.items():
        size = getattr(node.get("fn"), "subsample_size", None)
        if size is not None and 0 <= size < node["fn"].size:
            raise ValueError(
                f"model: expected all rows in plate {name!r}, got a random subsample of {size} of {node['fn'].size}; "
                "call it without subsample_size"
            )
    if set(weighted) & set(observed):
        raise ValueError(
            f"model: expected rows of weight one, got weights at {', '.join(sorted(set(weighted) & set(observed)))}; "
            "repeat rows instead, or leave the weights out"
        )


def _check_posterior(source: str, draws: Values, of_rows: list[str]) -> None:
    if not draws:
        raise ValueError(
            f"{source}: expected draws of weights or of another latent outside of the data plate, got draws of "
            f"{', '.join(of_rows) or 'nothing'}: an embedding is drawn from q(z|x), its prior, so that there is no "
            "posterior, and leave-one-out means nothing; export to_inference_data(model, x, y), and compare models by "
            "pm.compare_scores on held-out rows"
        )
    if len(next(iter(draws.values()))) > 1 and all(bool((own == own[:1]).all()) for own in draws.values()):
        raise ValueError(
            f"{source}: expected draws that differ, got the same {', '.join(draws)} in each: a point is no posterior; "
            "compare models by pm.compare_scores on held-out rows"
        )


def _observed_rows(observed: list[Any], dim: int) -> Tensor:
    """Positions of the rows of which something is observed."""
    kept: Any = None
    for node in observed:
        shape, p = node["fn"].batch_shape, node["fn"]
        mask = torch.ones(shape, dtype=torch.bool, device=_value(node).device)
        masks = [node["mask"]]
        while isinstance(p, MaskedDistribution):
            masks, p = [*masks, p._mask], p.base_dist
        if isinstance(p, torch.distributions.Independent) and isinstance(p.base_dist, MaskedDistribution):
            raise ValueError(f"mask: expected one of rows, got one of single outputs at {node['name']!r}")
        for own in masks:
            mask = mask if own is None else mask & own
        mask = mask.movedim(dim, 0).flatten(1).any(1) if len(shape) > 1 else mask
        if kept is not None and not torch.equal(kept, mask):
            raise ValueError(f"mask: expected the same rows at each site, got others at {node['name']!r}")
        kept = mask
    return kept.nonzero().squeeze(-1)  # type: ignore[no-any-return]
