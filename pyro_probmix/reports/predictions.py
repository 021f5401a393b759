"""What a report keeps of predictions: enough to draw, and no more however many rows there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributions import Distribution

from pyro_probmix.distributions import class_probabilities, marginals, quantile, rows
from pyro_probmix.evaluation import pit
from pyro_probmix.evaluation.labels import as_labels, check_numbers, has_classes

__all__ = ["LEVELS", "Predictions", "RowDensity"]

Array = NDArray[np.float64]

LEVELS = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)
"""Of the quantiles that are kept of a row."""

_PLACES = 161
_KEPT = 10_000
_NUMBERS = 200_000


@dataclass(frozen=True, eq=False)
class RowDensity:
    """The predictive density of one row, in the units of the label.

    Args:
        row: its position, counted from 0.
        label: what came.
        quantiles: of :data:`LEVELS`.
        places: where the density is known, ascending; whole numbers if there are no others between them.
        density: the density there, or the probability.
    """

    row: int
    label: float
    quantiles: Array
    places: Array
    density: Array


@dataclass(frozen=True, eq=False)
class Predictions:
    """What predictions of rows were worth, row by row, of as many rows as a picture needs.

    Args:
        size: rows that were predicted.
        labels: what came, of shape ``(n,)``, of at most 10,000 rows at even distances; classes as their positions.
        transforms: of numbers, their probability integral transforms, of shape ``(n,)`` or ``(n · outputs,)``.
        probabilities: of classes, theirs, of shape ``(n, C)``.
        densities: of numbers, those of a few rows; of several outputs, of the first.
        outputs: how many numbers a row has.
    """

    size: int
    labels: NDArray[Any]
    transforms: Array | None = None
    probabilities: Array | None = None
    densities: tuple[RowDensity, ...] = ()
    outputs: int = 1

    @classmethod
    def of(
        cls,
        p: Distribution | Iterable[Distribution],
        y: Any,
        *,
        shift: float = 0.0,
        scale: float = 1.0,
        num_densities: int = 6,
        seed: int = 0,
    ) -> Predictions:
        """What is kept of a predictive density and its labels.

        Args:
            p: predictive density of batch shape ``(N,)``; or those of slices of the rows, one after another, of which
                one is in memory at a time.
            y: labels of shape ``(N,)``, or ``(N, outputs)``; classes as their positions.
            shift: what p and y are off the units of the label, after scaling.
            scale: units of the label per unit of p and y.
            num_densities: rows whose densities are kept, at even distances.
            seed: of the transforms of counts; the global random state is left alone.

        Raises:
            TypeError: if ``p`` is no distribution, or ``y`` holds no numbers.
            ValueError: if ``p`` has other rows than ``y``, or a label is outside its support.

        Example:
            >>> kept = Predictions.of(dist.Normal(torch.zeros(100), 1.0), torch.zeros(100))
            >>> kept.size, kept.transforms[:2], [row.row for row in kept.densities]
            (100, array([0.5, 0.5]), [0, 20, 40, 59, 79, 99])
        """
        labels = y if isinstance(y, torch.Tensor) else np.asarray(y)
        size, first = len(labels), 0
        chosen = _spread(size, num_densities)
        parts, densities = [], []
        with torch.no_grad():
            for one in [p] if isinstance(p, Distribution) else p:
                last = first + int(one.batch_shape[0])
                if last > size:
                    break
                own = as_labels(one, labels[first:last])[0]  # on the device of p
                parts.append(_part(one, own, first, size, seed))
                here = chosen[(first <= chosen) & (chosen < last)]
                if parts[-1][1] is not None and len(here):
                    densities += _densities(one, own, here - first, first, shift, scale)
                first = last
        if first != size or size == 0:
            raise ValueError(f"y: expected a label for each of the rows of p, got {size}")
        kept, transforms, probabilities = (
            None if any(part is None for part in found) else np.concatenate(found)  # type: ignore[arg-type]
            for found in zip(*parts, strict=True)
        )
        outputs = int(np.prod(labels.shape[1:])) if probabilities is None else 1
        values = np.zeros(0) if kept is None else kept
        if transforms is not None:
            values = values * scale + shift
        return cls(size, values, transforms, probabilities, tuple(densities), outputs)


def _spread(size: int, number: int) -> NDArray[np.int64]:
    """Positions at even distances, the first and the last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, number)).round().astype(np.int64))


def _part(p: Any, y: torch.Tensor, first: int, size: int, seed: int) -> tuple[Any, Array | None, Array | None]:
    """Labels, transforms and probabilities of those rows of a slice that are kept."""
    every = np.arange(first, first + len(y))
    if has_classes(p):
        probabilities = class_probabilities(p)
        if y.dim() == 2 and y.shape == probabilities.shape:
            y = y.argmax(-1)
        if y.dim() > 1 or probabilities.dim() > 2:
            return None, None, None
        wanted = max(100, min(_KEPT, _NUMBERS // probabilities.shape[-1]))
        here = every[np.isin(every, _spread(size, wanted))] - first
        return y[here].cpu().numpy(), None, probabilities[here].cpu().double().numpy()
    try:
        check_numbers(p)
        transforms = pit(p, y, seed)
    except (TypeError, NotImplementedError):  # of angles, and of vectors whose marginals are not known
        return None, None, None
    here = every[np.isin(every, _spread(size, _KEPT))] - first
    found = transforms[here].flatten().cpu().double().numpy()
    return y[here].cpu().double().numpy(), found[~np.isnan(found)], None


def _densities(
    p: Any, y: torch.Tensor, here: NDArray[np.int64], first: int, shift: float, scale: float
) -> list[RowDensity]:
    few = marginals(rows(p, torch.as_tensor(here)))
    labels = y[here].reshape(len(here), -1)[:, 0].cpu().double().numpy()
    if len(few.batch_shape) > 1:
        few = rows(few, (slice(None), *[0] * (len(few.batch_shape) - 1)))
    ends = quantile(few, torch.tensor(LEVELS, dtype=torch.float64))
    found = []
    for place, (row, label, quantiles) in enumerate(zip(here, labels, ends.cpu().double().numpy().T, strict=True)):
        own = rows(few, place)
        places = np.linspace(quantiles[0], quantiles[-1], _PLACES)
        if own.support.is_discrete:
            places = np.unique(places.round())
        density = own.log_prob(torch.as_tensor(places).to(ends)).exp().cpu().double().numpy()
        if not own.support.is_discrete:
            density = density / scale
        found.append(
            RowDensity(
                first + int(row), shift + scale * label, shift + scale * quantiles, shift + scale * places, density
            )
        )
    return found
