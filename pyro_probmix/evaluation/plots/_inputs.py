"""What plots are given: one thing or several by name, arrays or tensors, a density or a model that has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_probmix._checks import check_finite, check_number
from pyro_probmix.models import DensityModel

__all__ = ["as_rows", "check_levels", "density_at", "named"]

_NUM_SAMPLES = 100


def named(name: str, value: Any, kind: type) -> dict[str, Any]:
    """Things by name; a single one has an empty name. Refuse what is of another kind (TypeError), and nothing."""
    found = dict(value) if isinstance(value, Mapping) else {"": value}
    for key, one in found.items():
        if not isinstance(one, kind):
            what = f"{name}[{key!r}]" if key else name
            raise TypeError(f"{what}: expected {kind.__name__}, or several by name, got {type(one).__name__}")
    if not found:
        raise ValueError(f"{name}: expected at least one, got none")
    return found


def as_rows(name: str, value: Any, *columns: int, size: int | None = None) -> NDArray[Any]:
    """A finite array of shape ``(N, columns)``, or ``(N,)`` without columns; of one column, either."""
    try:
        array = (value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))).detach().cpu()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers, got others: {error}") from error
    if columns == (1,) and array.dim() == 1:
        array = array.unsqueeze(1)
    rows = len(array) if array.dim() else 0
    if not rows or array.shape != (rows, *columns) or rows != (size or rows):
        expected = ", ".join(map(str, ("N" if size is None else size, *columns)))
        raise ValueError(f"{name}: expected shape ({expected}{'' if columns else ','}), got {tuple(np.shape(value))}")
    check_finite(name, array)
    return array.numpy()


def check_levels(levels: Sequence[float]) -> list[float]:
    """Levels in (0, 1), each once, from the smallest; at least one."""
    found = sorted({check_number("levels", level, "(0, 1)") for level in levels})
    if not found:
        raise ValueError("levels: expected at least one, got none")
    return found


def density_at(model: Any, x: NDArray[Any]) -> Any:
    """What a ready model or an estimator predicts at inputs ``(N, d)``, of the same embedding noise at each of them."""
    if hasattr(model, "predict_distribution"):
        return model.predict_distribution(x)
    if not isinstance(model, DensityModel):
        raise TypeError(f"model: expected a ready model or a fitted estimator, got {type(model).__name__}")
    inputs = torch.as_tensor(x).to(next(model.parameters()))
    with torch.no_grad():
        noise = model.draw_noise(inputs[:1], (_NUM_SAMPLES, 1), torch.Generator(inputs.device).manual_seed(0))
        return model.predictive(inputs, _NUM_SAMPLES, noise=None if noise is None else noise.expand(-1, len(x), -1))
