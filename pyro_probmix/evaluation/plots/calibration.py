"""Whether predicted probabilities come true: of intervals and quantiles, and of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributions import Distribution

from pyro_probmix._checks import check_integer, check_number
from pyro_probmix._drawing import BLUE, GREY, axes_or_new, describe, style
from pyro_probmix.distributions import interval
from pyro_probmix.evaluation.classes import confidences
from pyro_probmix.evaluation.labels import as_labels
from pyro_probmix.evaluation.metrics import evaluate
from pyro_probmix.evaluation.plots._inputs import check_levels, named
from pyro_probmix.evaluation.plots.boxes import box_plots
from pyro_probmix.evaluation.probability_transform import pit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["coverage", "pit_histogram", "quantile_calibration", "reliability_diagram", "sharpness"]

Array = NDArray[np.float64]
Densities = Distribution | Mapping[str, Distribution]

_TRUST = 0.95
_LEVELS = tuple(k / 20 for k in range(1, 20))
_FEWER_LEVELS = (*(k / 10 for k in range(1, 10)), 0.95)


def pit_histogram(p: Distribution, y: Any, bins: int = 10, seed: int = 0, ax: Axes | None = None) -> Axes:
    r"""Draw a histogram of the probability integral transform :math:`F(y_i|x_i)`, which is uniform if ``p`` is right.

    A U is a density too narrow, a hill one too wide, a slope one that is shifted. Behind it is the band in which a bar
    is with probability 95 % if ``p`` is right and the labels are independent.

    Args:
        p: predictive distribution of numbers or counts; of several outputs each is transformed by its marginal.
        y: labels, of shape ``p.batch_shape + p.event_shape``.
        bins: number of bars.
        seed: of :func:`~pyro_probmix.evaluation.pit` of counts.
        ax: where to draw; default: new axes.

    Returns:
        The axes.

    Raises:
        TypeError: as by :func:`~pyro_probmix.evaluation.pit`, or if ``bins`` is no integer.
        ValueError: as by :func:`~pyro_probmix.evaluation.pit`, or if ``bins`` is not positive.

    Example:
        >>> p = dist.Normal(torch.zeros(1000), 1.0)
        >>> ax = pm.evaluation.plots.pit_histogram(p, p.sample())
        >>> int(sum(bar.get_height() for bar in ax.patches[:10]))
        1000
    """
    from scipy import stats  # here, for it is slow to import

    check_integer("bins", bins)
    values = _pit(p, y, seed)
    ax = axes_or_new(ax)
    counts, edges = np.histogram(values, bins, (0.0, 1.0))
    look: Any = {"color": BLUE, "alpha": 0.7, "edgecolor": "white"}
    ax.bar(edges[:-1], counts, np.diff(edges), align="edge", label="labels", **look)
    low, high = stats.binom.interval(_TRUST, len(values), 1 / bins)
    ax.axhspan(low, high, color=GREY, alpha=0.3, linewidth=0, label="95 % if calibrated")
    ax.axhline(len(values) / bins, color="black", linestyle="--", linewidth=1, label="expected if calibrated")
    ax.set(xlim=(0, 1), ylim=(0, 1.3 * max(high, counts.max())))
    return describe(ax, "probability integral transform F(y|x)", "labels a bin")


def quantile_calibration(
    p: Densities, y: Any, levels: Sequence[float] = _LEVELS, seed: int = 0, ax: Axes | None = None
) -> Axes:
    r"""Draw the share of labels below the predicted quantile of each level, which is the level if ``p`` is right.

    Around the diagonal is the band in which a share is with probability 95 % then, the labels being independent.

    Args:
        p: predictive distribution of numbers or counts, or several by name.
        y: labels, of shape ``p.batch_shape + p.event_shape``.
        levels: probabilities in (0, 1).
        seed: of :func:`~pyro_probmix.evaluation.pit` of counts.
        ax: where to draw; default: new axes.

    Returns:
        The axes.

    Raises:
        TypeError: as by :func:`~pyro_probmix.evaluation.pit`.
        ValueError: as by :func:`~pyro_probmix.evaluation.pit`, or if a level is not in (0, 1).

    Example:
        >>> y = torch.randn(500)
        >>> wide, right = (dist.Normal(torch.zeros(500), scale) for scale in (2.0, 1.0))
        >>> ax = pm.evaluation.plots.quantile_calibration({"too wide": wide, "right": right}, y)
        >>> ax.get_xlabel()
        'level of the quantile'
    """
    levels = check_levels(levels)
    values = {name: _pit(one, y, seed) for name, one in named("p", p, Distribution).items()}
    shares = {name: np.array([(found <= level).mean() for level in levels]) for name, found in values.items()}
    ax = _against_levels(levels, shares, min(map(len, values.values())), ax)
    return describe(ax, "level of the quantile", "share of labels below it")


def coverage(p: Densities, y: Any, levels: Sequence[float] = _FEWER_LEVELS, ax: Axes | None = None) -> Axes:
    r"""Draw the share of labels in the central interval of each level, which is the level if ``p`` is right.

    Around the diagonal is the band in which a share is with probability 95 % then, the labels being independent.
    Intervals of counts cover more than their level.

    Args:
        p: predictive distribution of numbers or counts, or several by name.
        y: labels, of shape ``p.batch_shape + p.event_shape``.
        levels: probabilities in (0, 1).
        ax: where to draw; default: new axes.

    Returns:
        The axes.

    Raises:
        TypeError: if ``p`` is no distribution.
        ValueError: as by :func:`~pyro_probmix.evaluate` with ``"coverage"``, or if a level is not in (0, 1).

    Example:
        >>> p = dist.Normal(torch.zeros(100), 1.0)
        >>> ax = pm.evaluation.plots.coverage(p, p.sample(), levels=[0.5, 0.9])
        >>> ax.get_ylabel()
        'share of labels in it'
    """
    levels = check_levels(levels)
    densities = named("p", p, Distribution)
    names = [f"coverage@{level:g}" for level in levels]
    shares = {name: np.array(list(evaluate(one, y, names).values())) for name, one in densities.items()}
    size = min(len(_pit(one, y)) for one in densities.values())
    ax = _against_levels(levels, shares, size, ax)
    return describe(ax, "level of the central interval", "share of labels in it")


def sharpness(p: Densities, level: float = 0.9, ax: Axes | None = None) -> Axes:
    """Draw box plots of the widths of central intervals: of calibrated densities, the narrower one says more.

    Args:
        p: predictive distribution of numbers or counts, or several by name.
        level: probability of the intervals, in (0, 1).
        ax: where to draw; default: new axes.

    Returns:
        The axes.

    Raises:
        TypeError: if ``p`` is no distribution of numbers.
        ValueError: if the level is not in (0, 1).

    Example:
        >>> ax = pm.evaluation.plots.sharpness({"ERM": dist.Normal(torch.zeros(5), torch.linspace(1.0, 2.0, 5))})
        >>> ax.get_xlabel()
        'width of the central 90 % interval (units of the target)'
    """
    level = check_number("level", level, "(0, 1)")
    widths = {}
    for name, one in named("p", p, Distribution).items():
        low, high = interval(one, level)
        widths[name] = (high - low).detach().flatten()
    ax = axes_or_new(ax)
    if not ax.get_xlabel():
        ax.set_xlabel(f"width of the central {100 * level:g} % interval (units of the target)")
    return box_plots(widths, ax=ax)


def reliability_diagram(p: Densities, y: Any, bins: int = 10, ax: Axes | None = None) -> Axes:
    """Draw how often the most probable class came, against its probability, in bins of equal width.

    A point is at the mean probability of its bin, with the 95 % interval of Wilson for the share. Of a single density
    bars at the bottom show the share of all labels that a bin has, with their number.

    Args:
        p: predictive distribution of classes, or several by name.
        y: classes, of shape ``p.batch_shape + p.event_shape``.
        bins: number of bins.
        ax: where to draw; default: new axes.

    Returns:
        The axes.

    Raises:
        TypeError: if ``p`` is no distribution over classes, or ``bins`` no integer.
        ValueError: if labels do not fit, or ``bins`` is not positive.

    Example:
        >>> p = dist.Categorical(torch.tensor([0.3, 0.7]).expand(100, 2))
        >>> ax = pm.evaluation.plots.reliability_diagram(p, p.sample())
        >>> [text.get_text() for text in ax.texts]
        ['100']
    """
    check_integer("bins", bins)
    densities = named("p", p, Distribution)
    found = {name: _confidences(one, y) for name, one in densities.items()}
    ax = axes_or_new(ax)
    ax.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="calibrated")
    for place, (name, (confidence, hits)) in enumerate(found.items()):
        where = np.minimum((confidence * bins).astype(int), bins - 1)
        counts = np.bincount(where, minlength=bins)
        used = counts.nonzero()[0]
        means, shares = (np.bincount(where, v, minlength=bins)[used] / counts[used] for v in (confidence, hits))
        errors = [_wilson(share * count, count) for share, count in zip(shares, counts[used], strict=True)]
        lengths = np.abs(np.array(errors).T - shares)
        ax.errorbar(means, shares, lengths, **style(place), markersize=5, capsize=2, label=name or "labels")
        if len(found) == 1:
            ax.bar((used + 0.5) / bins, counts[used] / len(where), 1 / bins, color=GREY, alpha=0.4, edgecolor="white")
            for bin_, count in zip(used, counts[used], strict=True):
                height = min(count / len(where), 0.9)
                ax.text((bin_ + 0.5) / bins, height, str(count), fontsize="x-small", ha="center", va="bottom")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return describe(ax, "probability of the most probable class", "share of labels that are it")


def _against_levels(levels: Sequence[float], shares: Mapping[str, Array], size: int, ax: Axes | None) -> Axes:
    """Shares against levels, and the band of a share of so many labels."""
    from scipy import stats  # here, for it is slow to import

    ax = axes_or_new(ax)
    every = np.linspace(0, 1, 101)
    low, high = stats.binom.interval(_TRUST, size, every)
    ax.fill_between(every, low / size, high / size, color=GREY, alpha=0.3, linewidth=0, label="95 % if calibrated")
    ax.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="calibrated")
    for place, (name, share) in enumerate(shares.items()):
        ax.plot(levels, share, **style(place), markersize=4, label=name or "labels")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return ax


def _pit(p: Distribution, y: Any, seed: int = 0) -> Array:
    values = pit(p, y, seed=seed).flatten()
    return values[~values.isnan()].cpu().double().numpy()


def _confidences(p: Distribution, y: Any) -> tuple[Array, Array]:
    with torch.no_grad():
        labels, seen = as_labels(p, y)
        confidence, hits = confidences(p, labels)[seen].flatten(0, -2).unbind(-1)
    return confidence.numpy(), hits.numpy()


def _wilson(hits: float, count: int) -> tuple[float, float]:
    from scipy import stats  # here, for it is slow to import

    found = stats.binomtest(round(hits), int(count)).proportion_ci(_TRUST, method="wilson")
    return float(found.low), float(found.high)
