"""Training one model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pyro
import torch
from pyro.distributions import validation_enabled
from torch import Tensor
from tqdm.auto import tqdm

from pyro_probmix.mixing import CompleteGraph, PairLoader, SamplingGraph
from pyro_probmix.mixing.batches import check_positive_integer
from pyro_probmix.models import DensityModel, seeded
from pyro_probmix.training._checks import check_labels, check_learning_rate, check_validation

__all__ = ["History", "fit"]

VALIDATION_SAMPLES = 32
"""Embedding samples a point in the validation loss of a model with a stochastic embedding."""


@dataclass
class History:
    """What happened in a training.

    Attributes:
        train_loss: risk of each epoch, in nats (eq. 16), the mean over the nodes of its batches.
        validation_loss: mean negative log-likelihood on the validation data after each epoch, in nats; empty
            without validation data.
        best_epoch: epoch whose parameters the model has, counted from 0; the last without validation data.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0


def fit(
    model: DensityModel,
    data: tuple[Tensor, Tensor],
    *,
    graph: SamplingGraph | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    epochs: int = 1000,
    batch_size: int | None = None,
    learning_rate: float = 5e-3,
    num_samples: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> History:
    r"""Trains a model with Adam on its risk (eq. 16), and keeps the epoch that is best on validation data.

    The model ends in evaluation mode. All random numbers come from ``seed``; the global random state and Pyro's
    parameter store are left alone.

    Args:
        model: any ready model, such as :class:`~pyro_probmix.ProbMix`; trained in place.
        data: training inputs of shape ``(N, ...)`` and labels of shape ``(N,) + event_shape``, on the model's device.
        graph: which pairs are mixed; default: :class:`~pyro_probmix.CompleteGraph`.
        validation: inputs and labels that choose the epoch; default: the last epoch is kept.
        epochs: passes over the data, at least 1.
        batch_size: nodes a step; default: all of them.
        learning_rate: Adam's step size, positive.
        num_samples: K of eq. 16.
        seed: seed of the pairs, λ, the labels, the embeddings and the order of the data.
        progress: whether a progress bar is shown.

    Returns:
        The losses of each epoch, and the epoch that was kept.

    Raises:
        TypeError: if x or y is not a tensor, or ``epochs``, ``batch_size`` or ``num_samples`` no integer.
        ValueError: if x or y has NaN or inf (rows are named), shapes do not match, a number is out of range, the
            loss stops being finite (the parameters are then those of the last finite step), or the validation loss
            is finite in no epoch (the parameters are then the last ones).

    Example:
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(-1)
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> model = pm.ProbMix(pm.nn.MLP(1, [16], likelihood.num_outputs), likelihood)
        >>> history = pm.fit(model, (x, x.squeeze(-1)), epochs=50, progress=False)
        >>> history.train_loss[-1] < history.train_loss[0]
        True
    """
    epochs = check_positive_integer("epochs", epochs)
    num_samples = check_positive_integer("num_samples", num_samples)
    check_learning_rate(learning_rate)
    x, y = data
    graph = CompleteGraph(len(x)) if graph is None else graph
    loader = PairLoader(x, y, graph, batch_size)
    check_labels("y", y, model)
    if validation is not None:
        check_validation(*validation, model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=learning_rate, fused=True)
    # The data have been looked at: no step needs to wait for the device to look again.
    with seeded(seed, x.device), validation_enabled(False), pyro.get_param_store().scope():
        history = _train(model, loader, validation, epochs, optimizer, num_samples, progress)
    model.eval()
    return history


def _train(
    model: DensityModel,
    loader: PairLoader,
    validation: tuple[Tensor, Tensor] | None,
    epochs: int,
    optimizer: torch.optim.Optimizer,
    num_samples: int,
    progress: bool,
) -> History:
    """The loop. What it learns on the way stays on the device until the host asks, every ``interval`` epochs."""
    device = loader.x.device
    dtype = torch.promote_types(loader.x.dtype, torch.float32)
    interval = 1 if device.type == "cpu" else 50
    losses = torch.zeros(2, epochs, device=device, dtype=dtype)
    failed = torch.zeros((), device=device)
    finite_epochs = torch.zeros((), device=device)
    best_loss = torch.full((), math.inf, device=device, dtype=dtype)
    best_epoch = torch.full((), epochs - 1, device=device)
    tensors = list(model.state_dict().values())
    best = [t.clone() for t in tensors]
    optimizer.found_inf = failed  # type: ignore[attr-defined]  # the fused optimiser takes no step once this is set
    with tqdm(total=epochs, desc=type(model).__name__, unit="epoch", disable=not progress, leave=False) as bar:
        for epoch in range(epochs):
            model.train()
            num_nodes = 0
            for batch in loader:
                optimizer.zero_grad()
                loss = model.risk(batch, num_samples)
                loss.backward()
                failed.copy_(failed.maximum(_non_finite(loss, optimizer)))
                optimizer.step()
                losses[0, epoch] += loss.detach() * len(batch)
                num_nodes += len(batch)
            losses[0, epoch] /= num_nodes
            finite_epochs += 1 - failed
            if validation is not None:
                model.eval()
                with torch.no_grad():
                    losses[1, epoch] = _negative_log_likelihood(model, *validation)
                    improved = losses[1, epoch] < best_loss
                    best_loss = torch.where(improved, losses[1, epoch], best_loss)
                    best_epoch = torch.where(improved, epoch, best_epoch)
                    for kept, tensor in zip(best, tensors, strict=True):
                        kept.copy_(torch.where(improved, tensor, kept))
            bar.update()
            if (epoch + 1) % interval == 0 or epoch + 1 == epochs:
                if failed:
                    raise ValueError(
                        "loss: expected finite losses and gradients, got one that is not in epoch "
                        f"{int(finite_epochs)}; the parameters are those of the last finite step"
                    )
                if progress and (epoch + 1) % 50 == 0:
                    names = ("train",) if validation is None else ("train", "validation")
                    bar.set_postfix({name: f"{losses[i, epoch]:.3f}" for i, name in enumerate(names)})
    if validation is not None:
        if not best_loss.isfinite():
            raise ValueError(
                f"validation: expected a finite loss in some epoch, got {losses[1, -1].item()} in the last"
            )
        for kept, tensor in zip(best, tensors, strict=True):
            tensor.copy_(kept)
    validation_loss = losses[1].tolist() if validation is not None else []
    return History(losses[0].tolist(), validation_loss, int(best_epoch))


def _negative_log_likelihood(model: DensityModel, x: Tensor, y: Tensor) -> Tensor:
    return -model.predictive(x, num_samples=VALIDATION_SAMPLES).log_prob(y).mean()


def _non_finite(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """One if the loss or a gradient is not finite, else zero."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norms = torch.stack([loss.detach(), *torch._foreach_norm(gradients, math.inf)])
    return (~norms.isfinite().all()).to(torch.float32)
