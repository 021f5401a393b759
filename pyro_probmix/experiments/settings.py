"""How a method is trained: the settings of an experiment, one class, and the paper's for a data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from torch import nn

from pyro_probmix._checks import check_choice, check_integer, check_number
from pyro_probmix.datasets import UCI, WINDOW, Dataset
from pyro_probmix.nn import MLP, LSTMBackbone, TransformerBackbone

__all__ = ["LARGE", "PAPER_TOY", "Candidate", "ExperimentSettings", "settings_for"]

LARGE = 2000
"""Rows of a data set beyond which a step takes a part of them, and fewer epochs are trained."""


@dataclass(frozen=True)
class Candidate:
    """What is chosen between by validation rows, besides the epoch: :class:`ExperimentSettings` of the same names."""

    learning_rate: float
    batch_size: int
    alpha: float
    beta: float


@dataclass(frozen=True)
class ExperimentSettings:
    """Every choice of an experiment besides the data and the seed.

    Args:
        hidden_features: widths of the two hidden layers; the first is the embedding of the manifold methods.
        splits: number of train/test splits, or of redrawn data sets for a toy problem.
        epochs: passes over the training rows.
        batch_size: rows a step; ``None`` for all.
        learning_rate: of Adam.
        alpha: the mixing coefficient is Beta(alpha, alpha).
        beta: variance of the Normal vicinity, or the constant added to the label probabilities.
        num_neighbors: neighbours of a row in the nearest-neighbour graph.
        validation_fraction: part of the training rows held back to pick the epoch; 0 for the last epoch.
        num_samples: embedding samples of a prediction.
        standardise: whether features and targets are standardised by the training rows; β is in those units.
        validation_every: epochs from one validation to the next.
        patience: epochs without a better validation loss after which a split stops; ``None`` for never.
        network: ``"mlp"``; for windows of prices ``"lstm"`` or ``"transformer"``, before the hidden layers.
        ema_decay: of the moving average of the parameters that is validated and kept; ``None`` for the parameters.
        candidates: settings that are all tried, of which the validation rows of a split choose; none for those above.
        members: networks of an ensemble, each with a part of its own of the training rows held back.
        refit: whether what has been chosen is trained anew, on all training rows, for as many epochs as were chosen.
        calibration_fraction: part of the training rows set aside for recalibration of what has been trained.

    Raises:
        TypeError: if a value is of another type.
        ValueError: if a value is out of its range, there are candidates and no rows that choose, or the members of an
            ensemble cannot hold back other rows each.

    >>> ExperimentSettings(alpha=0.0)
    Traceback (most recent call last):
        ...
    ValueError: alpha: expected a number in (0, inf), got 0.0
    """

    hidden_features: tuple[int, int] = (128, 32)
    splits: int = 20
    epochs: int = 1000
    batch_size: int | None = None
    learning_rate: float = 5e-3
    alpha: float = 0.2
    beta: float = 0.01
    num_neighbors: int = 5
    validation_fraction: float = 0.2
    num_samples: int = 100
    standardise: bool = True
    validation_every: int = 1
    patience: int | None = None
    network: str = "mlp"
    ema_decay: float | None = None
    candidates: tuple[Candidate, ...] = ()
    members: int = 5
    refit: bool = False
    calibration_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in ("splits", "epochs", "num_neighbors", "num_samples", "validation_every", "members"):
            check_integer(name, getattr(self, name))
        check_number("learning_rate", self.learning_rate)
        check_number("alpha", self.alpha)
        check_number("beta", self.beta, "[0, inf)")
        if self.batch_size is not None:
            check_integer("batch_size", self.batch_size, minimum=2)
        if self.patience is not None:
            check_integer("patience", self.patience)
        if self.ema_decay is not None:
            check_number("ema_decay", self.ema_decay, "(0, 1)")
        check_number("calibration_fraction", self.calibration_fraction, "[0, 1)")
        check_choice("network", self.network, ("mlp", "lstm", "transformer"))
        check_number("validation_fraction", self.validation_fraction, "(0, 1)" if self.candidates else "[0, 1)")
        if self.candidates and (self.members - 1) * self.validation_fraction >= 1:
            raise ValueError(
                f"members: expected so many that each can hold back {self.validation_fraction:.0%} of the training "
                f"rows, got {self.members}"
            )

    def candidate(self, index: int) -> ExperimentSettings:
        """The settings with those of a candidate in place."""
        return replace(self, **asdict(self.candidates[index])) if self.candidates else self

    def make_network(self, num_features: int, num_outputs: int) -> nn.Sequential:
        """A freshly initialised network whose first layer is the embedding of the manifold methods."""
        if self.network == "mlp":
            return MLP(num_features, self.hidden_features, num_outputs)
        prices = num_features // WINDOW  # windows are flattened in the order of time
        width, hidden = self.hidden_features
        if self.network == "lstm":
            backbone: nn.Module = LSTMBackbone(prices, width, num_layers=2, sequence=True)
        else:
            backbone = TransformerBackbone(prices, width, num_heads=2, num_layers=2, sequence=True)
        steps = nn.Unflatten(-1, (WINDOW, prices))
        encoder = nn.Sequential(steps, backbone, nn.Flatten(-2), nn.Linear(WINDOW * width, width))
        return nn.Sequential(encoder, nn.ReLU(), *MLP(width, [hidden], num_outputs))


PAPER_TOY = ExperimentSettings((128, 64), epochs=500, learning_rate=0.01, standardise=False)
"""The paper's settings of a toy problem, and its own units."""


def settings_for(data: Dataset) -> ExperimentSettings:
    """The paper's settings for a data set, but for the steps of the toy regression.

    A toy problem has widths 128 and 64, 500 epochs at learning rate 0.01, 5 draws and its own units; a UCI regression
    widths 128 and 32, 1000 epochs at learning rate 0.005 and 20
    splits; other data the same with 5 splits. Beyond 2000 rows a step takes 256 rows instead of all, and 200
    epochs are trained.

    The toy regression has 300 epochs in steps of 20 rows at learning rate 0.005. In 500 steps of all rows at 0.01
    Manifold ProbMix learns to call its targets, of up to 64, noise, and misses its training points: on fresh rows
    from where it was trained its median NLL over 5 draws is 3.27 and its RMSE 8.7, in these steps 2.78 and 4.0, beside
    noise of 3.0. Outside, where the toy is tested, its median NLL becomes 10.6 from 8.1, that of ERM 54 from 20.

    Source: El-Laham et al. (2025), sections 6.1 and 6.2.

    >>> from pyro_probmix.datasets import load
    >>> settings_for(load("toy-regression")).epochs, settings_for(load("iris")).splits
    (300, 5)
    """
    if data.splitting == "drawn":
        toy = replace(PAPER_TOY, splits=5)
        return toy if data.task == "classification" else replace(toy, epochs=300, batch_size=20, learning_rate=0.005)
    settings = ExperimentSettings(splits=20 if data.name in UCI else 5)
    return replace(settings, batch_size=256, epochs=200) if len(data) > LARGE else settings
