"""Predictive densities over one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.distributions import Distribution

from pyro_probmix._drawing import BLUE, axes_or_new, describe, tint
from pyro_probmix.distributions import quantile
from pyro_probmix.evaluation.plots._inputs import as_rows, check_levels, density_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["density_bands"]

_PLACES = 200


def density_bands(
    model_or_p: Any, x: Any, y: Any = None, levels: Sequence[float] = (0.5, 0.9), ax: Axes | None = None
) -> Axes:
    r"""Draw the median and central bands of a predictive density over one input.

    The band of level :math:`\ell` reaches from the quantile :math:`\frac{1-\ell}2` to :math:`\frac{1+\ell}2` of
    :math:`p(y|x)`.

    Args:
        model_or_p: a ready model or a fitted estimator, which is asked at 200 places from the least to the greatest x;
            or a density of batch shape ``(N,)``, which belongs to the rows of x.
        x: inputs, of shape ``(N,)`` or ``(N, 1)``.
        y: their labels, of shape ``(N,)``, drawn as points; default: none are drawn.
        levels: probabilities of the bands, in (0, 1).
        ax: where to draw; default: new axes.

    Returns:
        The axes.

    Raises:
        TypeError: if ``model_or_p`` is of another kind, or values of the density are classes or angles.
        ValueError: if a level is not in (0, 1), a shape does not fit, or a value is not finite.

    Example:
        >>> x = torch.linspace(0.0, 1.0, 5)
        >>> ax = pm.evaluation.plots.density_bands(dist.Normal(x, 1.0), x, levels=[0.9])
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['90 % band', 'median']
    """
    levels = check_levels(levels)[::-1]
    places = as_rows("x", x, 1)[:, 0]
    labels = None if y is None else as_rows("y", y, size=len(places))
    p, across = model_or_p, places
    if not isinstance(p, Distribution):
        across = np.linspace(places.min(), places.max(), _PLACES)
        p = density_at(p, across[:, None])
    if p.batch_shape != across.shape or p.event_shape:
        got = f"{tuple(p.batch_shape)} and {tuple(p.event_shape)}"
        raise ValueError(f"p: expected batch shape ({len(across)},) and event shape (), one number a row, got {got}")
    ends = [end for level in levels for end in ((1 - level) / 2, (1 + level) / 2)]
    with torch.no_grad():
        found = quantile(p, torch.tensor([*ends, 0.5], dtype=torch.float64)).cpu().double().numpy()
    order = np.argsort(across, kind="stable")
    across, found = across[order], found[:, order]
    ax = axes_or_new(ax)
    for place, level in enumerate(levels, start=1):
        low, high = found[2 * place - 2 : 2 * place]
        shade = tint(BLUE, 0.7 * place / len(levels))  # opaque, for the legend to show what is seen
        ax.fill_between(across, low, high, color=shade, linewidth=0, label=f"{100 * level:g} % band")
    ax.plot(across, found[-1], color=BLUE, linewidth=1.5, label="median")
    if labels is not None:
        ax.scatter(places, labels, s=12, color="black", linewidth=0, zorder=3, label="data")
    return describe(ax, "x", "y")
