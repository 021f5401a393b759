"""What happened in a training."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["VALIDATION_SAMPLES", "History"]

VALIDATION_SAMPLES = 32
"""Embedding samples a point in the validation loss of a model with a stochastic embedding."""


@dataclass
class History:
    """What happened in a training.

    Attributes:
        train_loss: risk of each epoch, in nats (eq. 16), the mean over the nodes of its batches.
        validation_loss: mean negative log-likelihood on the validation data after each epoch, in nats, of the average
            of the parameters where one is kept; empty without validation data.
        best_epoch: epoch whose parameters the model has, counted from 0; the last without validation data.
        skipped_steps: steps that were not taken, their loss or a gradient not being finite.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    skipped_steps: int = 0
