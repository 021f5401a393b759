"""What pools of any kind have in common."""

from __future__ import annotations

from abc import abstractmethod

from pyro.distributions import TorchDistribution
from torch.distributions import constraints

__all__ = ["Pool"]


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
