"""What pools have in common, and those of distributions of any families."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyro_probmix.distributions.classes import class_log_probabilities
from pyro_probmix.distributions.components import Components, Weights, components_of, expanded_shape, split_weights
from pyro_probmix.distributions.exponential_family import validates
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.missing import check_present, present
from pyro_probmix.distributions.selection import Change, map_batch, rows
from pyro_probmix.distributions.supports import is_binary

__all__ = ["Pool", "WeightedPool", "asked"]


def asked(p: Any, name: str, *arguments: Any, **named: Any) -> Any:
    """What an attribute of a law is, or its method returns; where it has none, ``NotImplementedError`` says so."""
    try:
        found = getattr(p, name)
        return found(*arguments, **named) if callable(found) else found
    except NotImplementedError as error:
        reason = str(error) or f"p: expected a law whose {name} is known, got {type(p).__name__}"
        raise NotImplementedError(reason) from None


class Pool(TorchDistribution):
    """A distribution made of others: of no parameters of its own, whose draws have a gradient if theirs allow it."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    _chosen: bool | None = None

    @abstractmethod
    def can_rsample(self) -> bool:
        """Whether draws can have a gradient."""

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws have a gradient: where they can, unless Pyro's ``has_rsample_`` has said otherwise."""
        return self.can_rsample() if self._chosen is None else self._chosen

    @has_rsample.setter
    def has_rsample(self, value: bool) -> None:
        self._chosen = value

    @property
    def probs(self) -> Tensor:
        """Probabilities of the classes, or of a one where values are 0 and 1, as PyTorch's distributions have them."""
        probs = self._log_probabilities("probs").exp()
        return probs[..., 1] if is_binary(self.support) else probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms, or the log-odds of a one where values are 0 and 1."""
        logs = self._log_probabilities("logits")
        return logs[..., 1] - logs[..., 0] if is_binary(self.support) else logs

    def _log_probabilities(self, name: str) -> Tensor:
        try:
            return class_log_probabilities(self)
        except TypeError as error:
            raise AttributeError(f"{type(self).__name__} has no {name}: {error}") from None

    @abstractmethod
    def map_batch(self, function: Change) -> Any:
        """The pool with its batch changed, as :func:`~pyro_probmix.distributions.selection.map_batch` does."""

    def __getitem__(self, index: Any) -> Any:
        """The pool of the members of the batch that ``index`` takes, as :func:`~pyro_probmix.rows` does."""
        return rows(self, index)

    def __iter__(self) -> Iterator[Any]:
        """The members along the first dimension of the batch, as those of a tensor."""
        if not self.batch_shape:
            raise TypeError(f"{type(self).__name__}: expected a batch to iterate over, got batch shape ()")
        return (self[i] for i in range(self.batch_shape[0]))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Refused: there are values without number, or of components apart."""
        raise NotImplementedError(f"{type(self).__name__}: expected a law that lists its values, got one that does not")

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same law with this larger batch shape."""
        new = self._get_checked_instance(type(self), _instance)
        vars(new).update(vars(self))
        super(Pool, new).__init__(expanded_shape(self, batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new


class WeightedPool(Pool):
    """A pool that keeps its components, of any families, or one distribution whose last batch dimension counts them."""

    def __init__(
        self,
        components: Components,
        weights: Weights | None,
        simplex: bool,
        validate_args: bool | None,
        own_shape: torch.Size = torch.Size(),
    ) -> None:
        self._batched = isinstance(components, Distribution)
        self._given, size, batch_shape = components_of(components)
        if validate_args is None:
            validate_args = any(map(validates, self._given))
        self._reference = reference_tensor(self._given)
        split = split_weights(weights, size, batch_shape, self._reference, validate_args, simplex)
        self._weights = torch.stack(torch.broadcast_tensors(*split), -1)
        each = [self._weights] if self._batched else split
        if weights is not None:
            self._given = tuple(present(self._given, each))
        if validate_args:
            check_present(self._given, each)
        batch_shape = torch.broadcast_shapes(own_shape, batch_shape, self._weights.shape[:-1])
        super().__init__(batch_shape, self._given[0].event_shape, validate_args=False)
        self._validate_args = validate_args

    @property
    def components(self) -> Components:
        """The components as they were given, but for what is not finite and has no weight."""
        return self._given[0] if self._batched else self._given

    @property
    def weights(self) -> Tensor:
        """Weights, of shape ``batch_shape + (number of components,)``."""
        return self._weights.expand(self.batch_shape + self._weights.shape[-1:])

    def map_batch(self, function: Change) -> Any:
        new = copy.copy(self)
        new._given = tuple(map_batch(member, function, int(self._batched)) for member in self._given)
        new._weights = function(self._weights, 1)
        new._batch_shape = new._weights.shape[:-1]
        return new

    def _stacked(self, results: list[Tensor], dim: int = -1) -> Tensor:
        """Results of the components, along that dimension."""
        return results[0] if self._batched else torch.stack(torch.broadcast_tensors(*results), dim)

    def __repr__(self) -> str:
        shape, size = tuple(self.batch_shape), self._weights.shape[-1]
        return f"{type(self).__name__}(batch_shape: {shape}, components: {size})"
