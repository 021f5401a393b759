"""What recalibrations have in common: rows they are fitted on, and what they refuse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix._imports import imported
from pyro_probmix.distributions.supports import is_circular
from pyro_probmix.evaluation.labels import as_labels, has_classes, unmasked
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["Calibration", "of_output"]


class Calibration(ABC):
    """Something fitted on held-out rows that makes another density, or an interval, of a density.

    A subclass says which targets it takes by ``takes``, and fills :meth:`_fit` and :meth:`_apply`.

    Attributes:
        num_rows: number of rows that it was fitted on, masked ones aside; 0 before.
    """

    takes: ClassVar[str]
    """Of ``"classes"``, ``"counts"`` and ``"numbers"`` those it takes."""
    instead: ClassVar[str]
    """What an error about others says."""
    num_rows = 0

    def fit(self, p: Any, y: Any) -> Any:
        """Fits it to labels that the predicting model was not trained on.

        Args:
            p: predictive density of these rows, of batch shape ``(N,)``.
            y: their labels, of shape ``(N,) + p.event_shape``, in a tensor or an array. Those that ``p`` masks do not
                count.

        Returns:
            Itself, fitted.

        Raises:
            TypeError: if ``p`` is no distribution, or of targets that it does not take.
            ValueError: if shapes do not match, a label is NaN or outside the support of ``p``, or there is none.
        """
        self._check(p)
        y, seen = as_labels(p, y)
        self._fit(unmasked(p), y, seen)
        self._fitted_on = self._targets(p)
        self.num_rows = int(seen.reshape(len(seen), -1).any(-1).sum()) if seen.dim() else 1
        return self

    def __call__(self, p: Any) -> Any:
        """The density ``p`` of other rows, recalibrated, with its masks.

        Args:
            p: predictive density of any batch shape, of as many outputs or classes as in ``fit``.

        Raises:
            NotFittedError: before ``fit``.
            TypeError: if ``p`` is no distribution, or of targets that it does not take.
            ValueError: if ``p`` has other outputs or classes than in ``fit``.
        """
        if not self.num_rows:
            missing = f"{type(self).__name__}: expected to be fitted before it is called; call fit(p, y)"
            raise imported("sklearn.exceptions").NotFittedError(missing)
        self._check(p)
        targets = self._targets(p)
        if targets != self._fitted_on:
            raise ValueError(f"p: expected {self._fitted_on}, as in fit, got {targets}")
        if isinstance(p, MaskedDistribution):
            return self._masked(self(p.base_dist), p._mask)
        return self._apply(unmasked(p))

    @abstractmethod
    def _fit(self, p: Any, y: Tensor, seen: Tensor) -> None:
        """Fits it to labels, of which ``seen`` tells those that count, as :func:`seen_labels` does."""

    @abstractmethod
    def _apply(self, p: Any) -> Any:
        """What it makes of a density without masks."""

    def _masked(self, result: Any, mask: Any) -> Any:
        return MaskedDistribution(result, mask)

    def _check(self, p: Any) -> None:
        if not isinstance(p, Distribution):
            raise TypeError(f"p: expected a distribution, got {type(p).__name__}")
        if is_circular(p):
            kind = "angles"
        elif has_classes(p):
            kind = "classes"
        else:
            support: Any = p.support
            kind = "counts" if support.is_discrete else "numbers"
        if kind not in self.takes:
            raise TypeError(f"p: expected a law of {self.takes}, got {type(p).__name__}, of {kind}; {self.instead}")

    def _targets(self, p: Any) -> str:
        """Which outputs it is fitted to, for errors."""
        return f"outputs of shape {tuple(p.event_shape)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({f'fitted on {self.num_rows} rows' if self.num_rows else ''})"


def of_output(values: Tensor, seen: Tensor, event_shape: torch.Size) -> list[Tensor]:
    """The values of each output that are seen: a list of one-dimensional tensors, in the order of the outputs."""
    seen = unsqueeze_right(seen, values.dim() - seen.dim()).to(values.device).expand(values.shape)
    columns = [t.reshape(-1, event_shape.numel()).unbind(1) for t in (values, seen)]
    found = [value[kept] for value, kept in zip(*columns, strict=True)]
    if not all(map(len, found)):
        raise ValueError("y: expected a label of each output, got none of some that is not masked")
    return found
