"""The registry of metrics: what they are called, how they are shown, and what makes one number of their values."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from torch import Tensor

from pyro_probmix._checks import check_choice, check_free, check_number

__all__ = ["METRICS", "Metric", "find_metric", "register_metric"]

Score = Callable[..., Tensor | float | None]
Function = TypeVar("Function", bound=Score)

_UNITS = {"nats": "nats", "y": "units of the target", "y²": "squared units of the target", "": ""}


@dataclass(frozen=True)
class Metric:
    """A metric that has a name; :func:`register_metric` says what its fields are."""

    name: str
    function: Score
    units: str
    better: str
    label: str
    root: bool
    default: bool
    summary: Callable[[Tensor], Tensor] | None = None
    level: float | None = None

    def values(self, p: Any, y: Tensor) -> Any:
        """What its function returns, at its level if it has one."""
        return self.function(p, y) if self.level is None else self.function(p, y, level=self.level)

    def rescaled(self, value: float, scale: float) -> float:
        """Its value for labels that are ``scale`` times as large, the density being that of these."""
        if self.units == "nats":
            return value + math.log(scale)
        return value * {"": 1.0, "y": scale, "y²": scale**2}[self.units]

    @property
    def lower_is_better(self) -> bool | None:
        """Whether lower values are better; None where those nearest to the level are."""
        return None if self.better == "level" else self.better == "lower"

    @property
    def heading(self) -> str:
        """Its name in a table."""
        return f"{self.label} (nats)" if self.units == "nats" else self.label

    @property
    def axis(self) -> str:
        """Its name along an axis."""
        units = f" ({_UNITS[self.units]})" if self.units else ""
        return f"{self.label}{units}, {self._best}"

    @property
    def meaning(self) -> str:
        """Its units, and which values are better."""
        return f"{_UNITS[self.units]}, {self._best}" if self.units else self._best

    @property
    def _best(self) -> str:
        return f"{self.better} is better" if self.better != "level" else f"best at {self.level:g}"


METRICS: dict[str, Metric] = {}
"""The metrics by name, in the order in which they have been registered."""


def register_metric(
    name: str,
    *,
    units: Literal["nats", "y", "y²", ""] = "",
    better: Literal["lower", "higher", "level"] = "lower",
    label: str | None = None,
    root: bool = False,
    default: bool = True,
    summary: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[Function], Function]:
    """Function decorator: :func:`evaluate`, and tables and figures of experiments, know the metric by this name.

    The function takes a predictive distribution and labels, as :func:`evaluate` does, those that are masked being some
    value of the support. It returns what is averaged over the labels that are seen, a number for each row or for each
    of its labels, or one number for all rows, which is refused where labels are masked. It returns None, or raises
    ``NotImplementedError`` with the reason, where it has no meaning. If it has a parameter ``level``, its default is
    that of the metric, and ``"name@0.8"`` is the metric at another level.

    Args:
        name: name of the metric.
        units: of its values: ``"y"``, ``"y²"``, ``"nats"`` of the density of y, or ``""`` where the units of y do not
            matter. They tell how a value for standardised labels becomes one in the units of the data.
        better: ``"lower"`` or ``"higher"`` values, or those nearest to the ``"level"``.
        label: how tables and axes show it; default: its name, in capitals.
        root: whether it is the square root of the average.
        default: whether :func:`evaluate` gives it unasked.
        summary: what makes one number of the values of all labels that are seen, of shape ``(number of rows, ...)``;
            default: their average.

    Raises:
        ValueError: if ``units`` or ``better`` is unknown, or another function has the name.

    Example:
        >>> @register_metric("absolute_error", units="y")
        ... def absolute_error(p, y):
        ...     return (y - p.mean).abs()
        >>> pm.evaluate(dist.Normal(torch.zeros(2), 1.0), torch.tensor([1.0, -1.0]))
        {'nll': 1.418..., 'crps': 0.602..., 'rmse': 1.0, 'absolute_error': 1.0}
        >>> del METRICS["absolute_error"]
    """
    check_choice("units", units, _UNITS)
    check_choice("better", better, ("lower", "higher", "level"))

    def register(function: Function) -> Function:
        check_free("name", name, {key: metric.function for key, metric in METRICS.items()}, function)
        parameter = inspect.signature(function).parameters.get("level")
        level = None if parameter is None else check_number("level", parameter.default, "(0, 1)")
        METRICS[name] = Metric(name, function, units, better, label or name.upper(), root, default, summary, level)
        return function

    return register


def find_metric(metric: str | Metric, argument: str = "metric") -> Metric:
    """The metric of that name, which may end with a level.

    Args:
        metric: such as ``"crps"`` or ``"pinball@0.9"``; a metric is itself.
        argument: what an error calls it.

    Raises:
        ValueError: if there is none of that name, or it has no levels, or the level is not between 0 and 1.

    Example:
        >>> find_metric("crps").units
        'y'
    """
    if isinstance(metric, Metric):
        return metric
    name, at, text = metric.partition("@") if isinstance(metric, str) else (metric, "", "")
    check_choice(argument, name, METRICS)
    found = METRICS[name]
    if not at:
        return found
    if found.level is None:
        raise ValueError(f'{argument}: expected "{name}" without a level, got "{metric}"')
    try:
        level = check_number("level", float(text), "(0, 1)")
    except ValueError:
        raise ValueError(f'{argument}: expected a level in (0, 1), such as "{name}@0.8", got "{metric}"') from None
    return replace(found, name=metric, level=level, label=f"{found.label} at {level:g}")
