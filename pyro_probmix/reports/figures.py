"""The pictures of a report: drawn, held in the page itself, and told in words for who does not see them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import NDArray

from pyro_probmix._drawing import BLUE, GREY, VERMILION, describe, tint
from pyro_probmix.evaluation import evaluate, find_metric, plots
from pyro_probmix.reports.page import Figure, plural, shown
from pyro_probmix.reports.predictions import LEVELS, Predictions
from pyro_probmix.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "calibration_figures",
    "calibration_numbers",
    "densities_figure",
    "scores_figure",
    "training_figure",
]

_INCH = 96
"""CSS pixels."""

_SHARPNESS = 1.5
"""Pixels of a picture per CSS pixel."""

_COLORS = 48
"""Of a picture, which makes it a third as large as all colours would."""

_BINS = 10


def calibration_numbers(kept: Predictions) -> dict[str, float]:
    """How far predictions are from calibrated, by the names of the metrics."""
    if kept.transforms is not None:
        uniform, u = _uniform(kept.transforms)
        return evaluate(uniform, u, ["pit", "qce", "coverage@0.5", "coverage@0.9"])
    if kept.probabilities is not None:
        p = _classes(kept.probabilities)
        return evaluate(p, torch.as_tensor(kept.labels), ["accuracy", "ece", "ece_classwise"])
    return {}


def calibration_figures(kept: Predictions, name: str = "") -> list[Figure]:
    """A histogram of the transforms and the quantiles of numbers; the reliability of classes."""
    before = f"{name}: " if name else ""
    if kept.transforms is not None:
        uniform, u = _uniform(kept.transforms)
        counts = np.histogram(kept.transforms, _BINS, (0.0, 1.0))[0]
        shares = {level: float((kept.transforms <= level).mean()) for level in (0.05, 0.25, 0.5, 0.75, 0.95)}
        below = ", ".join(f"{share:.0%} below the {level:.0%} quantile" for level, share in shares.items())
        return [
            _figure(
                lambda ax: _draw_transforms(ax, uniform, u),
                f"{before}Histogram of {len(u)} probability integral transforms in {_BINS} bins. From 0 to 1 the bins "
                f"have {', '.join(map(str, counts))} labels; {len(u) / _BINS:.4g} are expected in each.",
                f"{before}transforms of the labels",
            ),
            _figure(
                lambda ax: plots.quantile_calibration(uniform, u, ax=ax),
                f"{before}Share of labels below each predicted quantile, against its level: {below}.",
                f"{before}labels below predicted quantiles",
            ),
        ]
    if kept.probabilities is not None:
        probabilities, labels = kept.probabilities, torch.as_tensor(kept.labels)
        confidence, accuracy = probabilities.max(-1).mean(), (probabilities.argmax(-1) == kept.labels).mean()
        return [
            _figure(
                lambda ax: plots.reliability_diagram(_classes(probabilities), labels, bins=_BINS, ax=ax),
                f"{before}How often the most probable class came, against its probability, of "
                f"{plural(len(labels), 'row')}. On average its probability is "
                f"{confidence:.0%}, and it came in {accuracy:.0%} of the rows.",
                f"{before}reliability of the most probable class",
            )
        ]
    return []


def densities_figure(kept: Predictions, name: str = "", target: str = "y") -> Figure:
    """The predictive densities of a few rows, one above another, with what came."""
    before, told = f"{name}: " if name else "", []
    for one in kept.densities:
        low, median, high = (shown(float(one.quantiles[LEVELS.index(level)])) for level in (0.05, 0.5, 0.95))
        told.append(f"row {one.row}: label {shown(float(one.label))}, median {median}, 90 % from {low} to {high}")
    return _figure(
        lambda ax: _draw_densities(ax, kept),
        f"{before}Predictive densities of {target} in {plural(len(told), 'row')}. {'; '.join(told)}.",
        f"{before}predictive densities of {target}",
        height=0.9 + 0.42 * len(told),
    )


def training_figure(histories: Mapping[str, History]) -> Figure:
    """The losses of trainings, over their epochs."""
    told = []
    for name, history in histories.items():
        text = f"{name}: " if name else ""
        text += f"{len(history.train_loss)} epochs, training risk {_ends(history.train_loss)} nats"
        if history.validation_loss:
            least = history.validation_loss[history.best_epoch]
            text += f", least validation loss {least:.3g} nats in epoch {history.best_epoch}"
        told.append(text)
    return _figure(
        lambda ax: _draw_training(ax, histories),
        f"Training curves. {'. '.join(told)}.",
        "; ".join(told),
    )


def scores_figure(scores: Mapping[str, NDArray[np.float64]], metric: str) -> Figure:
    """Box plots of a metric over splits, by method."""
    told = ", ".join(f"{name} {shown(float(np.median(values)))}" for name, values in scores.items())
    heading = find_metric(metric).heading
    return _figure(
        lambda ax: plots.box_plots(scores, metric, ax=ax),
        f"Box plots of the {heading} of {len(scores)} methods. Medians: {told}.",
        f"{heading} over splits",
        height=1.1 + 0.3 * len(scores),
    )


def _figure(draw: Callable[[Axes], Any], alt: str, caption: str, height: float = 3.1, width: float = 4.4) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Drawing
        from PIL import Image  # which Matplotlib needs itself
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('a report needs matplotlib: pip install "pyro-probmix[tables]"') from error

    drawing = Drawing(figsize=(width, height), dpi=_INCH * _SHARPNESS, layout="constrained")
    canvas, content = FigureCanvasAgg(drawing), io.BytesIO()
    draw(drawing.subplots())
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    pixels.quantize(_COLORS).save(content, "png", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
    return Figure(source, alt, caption[0].upper() + caption[1:], round(width * _INCH), round(height * _INCH))


def _draw_transforms(ax: Axes, uniform: Any, u: torch.Tensor) -> None:
    plots.pit_histogram(uniform, u, bins=_BINS, ax=ax)
    ax.set_ylim(top=1.25 * ax.get_ylim()[1])  # room for the legend, in a picture as small as this


def _draw_densities(ax: Axes, kept: Predictions) -> None:
    """Each on a line of its own, from the top: their heights say nothing of each other."""
    for place, one in enumerate(kept.densities):
        base = -place
        heights = 0.8 * one.density / max(one.density.max(), np.finfo(float).tiny)
        inside = (one.quantiles[1] <= one.places) & (one.places <= one.quantiles[-2])
        first = place == 0
        ax.fill_between(one.places, base, base + heights, color=tint(BLUE, 0.3), linewidth=0)
        ax.fill_between(
            one.places, base, base + heights, where=inside, color=tint(BLUE, 0.6), linewidth=0,
            label="central 90 %" if first else None,
        )  # fmt: skip
        ax.plot(one.places, base + heights, color=BLUE, linewidth=1)
        ax.axhline(base, color=GREY, linewidth=0.5)
        ax.plot(
            one.label, base, color=VERMILION, marker="D", markersize=5, linestyle="none", clip_on=False, zorder=3,
            label="label" if first else None,
        )  # fmt: skip
    ax.set_yticks([-place for place in range(len(kept.densities))], [f"row {one.row}" for one in kept.densities])
    ax.set(xlabel="label", ylabel=" ", ylim=(-len(kept.densities) + 0.6, 1.7))
    describe(ax, "", "").legend(frameon=False, loc="upper right", ncols=2, fontsize="small")
    ax.set_ylabel("")


def _draw_training(ax: Axes, histories: Mapping[str, History]) -> None:
    plots.training_curves(dict(histories), ax=ax)
    if len(histories) > 1:
        ax.legend(frameon=False, fontsize="x-small")


def _ends(values: Sequence[float]) -> str:
    finite = [value for value in values if np.isfinite(value)]
    return f"from {finite[0]:.3g} to {finite[-1]:.3g}" if finite else "never finite"


def _uniform(transforms: NDArray[np.float64]) -> tuple[Any, torch.Tensor]:
    """Transforms as labels of the law that they have if predictions are calibrated, which leaves them as they are."""
    u = torch.as_tensor(transforms, dtype=torch.float64)
    return dist.Uniform(torch.zeros_like(u), torch.ones_like(u)), u


def _classes(probabilities: NDArray[np.float64]) -> Any:
    return dist.Categorical(torch.as_tensor(probabilities))
