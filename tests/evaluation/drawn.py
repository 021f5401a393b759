"""What is drawn in an Axes, and the rows that tests draw."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes

X = torch.tensor([2.0, 0.0, 1.0, 4.0])
Y = torch.tensor([1.0, -1.0, 0.5, 2.0])


def polygon(ax: Axes, label: str) -> dict[float, tuple[float, float]]:
    """The lower and the upper end of a band, by place."""
    (band,) = [collection for collection in ax.collections if collection.get_label() == label]
    heights: dict[float, list[float]] = {}
    for place, height in band.get_paths()[0].vertices:
        heights.setdefault(float(place), []).append(float(height))
    return {place: (min(found), max(found)) for place, found in heights.items()}


def line(ax: Axes, label: str) -> Any:
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return found.get_xydata()
