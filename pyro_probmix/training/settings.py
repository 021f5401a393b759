"""What a training is asked for, the same for one model and for many."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch.distributions import Distribution

from pyro_probmix._checks import check_choice, check_integer, check_number
from pyro_probmix.models.objectives import OBJECTIVES, Objective

__all__ = ["Settings"]


@dataclass
class Settings:
    """The options that :func:`~pyro_probmix.fit` and :func:`~pyro_probmix.fit_replicas` share, checked."""

    num_samples: int
    objective: Objective
    max_grad_norm: float | None
    ema_decay: float | None
    precision: torch.dtype | None
    compile: bool
    coefficient: Callable[[int], Any] | None
    patience: int | None
    validation_every: int
    non_finite: str
    max_skipped: int
    checkpoint_dir: str | os.PathLike | None
    checkpoint_every: int
    resume: bool

    @classmethod
    def among(cls, arguments: Mapping[str, Any]) -> Settings:
        """Those of a call, by their names."""
        if arguments["patience"] is not None and arguments["validation"] is None:
            raise ValueError(f"patience: expected validation data with it, got {arguments['patience']} without")
        return cls(**{field.name: arguments[field.name] for field in fields(cls)})

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, OBJECTIVES)
        check_choice("precision", self.precision, (torch.bfloat16, torch.float16, None))
        for name in ("num_samples", "validation_every", "max_skipped", "checkpoint_every"):
            setattr(self, name, check_integer(name, getattr(self, name)))
        if self.patience is not None:
            self.patience = check_integer("patience", self.patience)
        if self.max_grad_norm is not None:
            check_number("max_grad_norm", self.max_grad_norm, "(0, inf]")
        if self.ema_decay is not None:
            check_number("ema_decay", self.ema_decay, "(0, 1)")
        if self.coefficient is not None and (
            isinstance(self.coefficient, Distribution) or not callable(self.coefficient)
        ):
            got = type(self.coefficient).__name__
            raise TypeError(f"coefficient: expected a function from the epoch to a law of λ, got {got}")
        if self.non_finite != "skip":
            self.max_skipped = 0
        if self.resume and self.checkpoint_dir is None:
            raise ValueError("checkpoint_dir: expected a folder to resume from, got None")

    def path(self, name: str) -> Path | None:
        """The file in ``checkpoint_dir``, refused where it is there and would be lost."""
        if self.checkpoint_dir is None:
            return None
        path = Path(self.checkpoint_dir) / name
        if path.exists() and not self.resume:
            raise ValueError(
                f"checkpoint_dir: expected a folder without a checkpoint, got {path.parent}, whose {path.name} would "
                "be lost; pass resume=True to go on from it"
            )
        return path
