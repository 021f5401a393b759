"""Training one model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_probmix._checks import check_choice, check_integer
from pyro_probmix._random import seeded
from pyro_probmix.mixing import SamplingGraph
from pyro_probmix.models import DensityModel
from pyro_probmix.models.objectives import Objective
from pyro_probmix.models.priors import refuse_priors
from pyro_probmix.training.bars import bar_size
from pyro_probmix.training.checkpoints import describe_training
from pyro_probmix.training.data import Validation, check_model, check_rows, prepare, without_validation
from pyro_probmix.training.history import History
from pyro_probmix.training.loop import Loop
from pyro_probmix.training.rates import Rate, check_rate
from pyro_probmix.training.settings import Settings
from pyro_probmix.training.steps import SingleStep

__all__ = ["fit"]


def fit(
    model: DensityModel,
    data: tuple[Tensor, Tensor],
    *,
    graph: SamplingGraph | None = None,
    validation: Validation | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    epochs: int = 1000,
    batch_size: int | None = None,
    learning_rate: Rate = 5e-3,
    num_samples: int = 1,
    objective: Objective = "expected-log",
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    max_grad_norm: float | None = None,
    ema_decay: float | None = None,
    precision: torch.dtype | None = None,
    compile: bool = False,
    coefficient: Callable[[int], Any] | None = None,
    patience: int | None = None,
    validation_every: int = 1,
    non_finite: Literal["raise", "skip"] = "raise",
    max_skipped: int = 10,
    checkpoint_dir: str | os.PathLike | None = None,
    checkpoint_every: int = 50,
    resume: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> History:
    r"""Trains a model on its risk (eq. 16), and keeps the epoch that is best on validation data.

    The model ends in evaluation mode. All random numbers come from ``seed``; the global random state and Pyro's
    parameter store are left alone. Data that are elsewhere are moved to the model's device, at once where they
    take no more than half of its free memory, else batch by batch. On a CUDA device the host does not wait inside
    an epoch, as long as the optimiser is fused.

    A step whose loss or gradient is not finite is not taken: parameters, buffers and the optimiser stay as they are.

    Args:
        model: any ready model, such as :class:`~pyro_probmix.ProbMix`; trained in place.
        data: training inputs of shape ``(N, ...)`` and labels of shape ``(N,) + event_shape``.
        graph: which pairs are mixed; default: :class:`~pyro_probmix.CompleteGraph`.
        validation: inputs and labels that choose the epoch, and where rows do not count the same their weights;
            default: the last epoch is kept. Their loss is computed in full precision and without compilation,
            whatever ``precision`` and ``compile`` say.
        weight: how much each row counts, of shape ``(N,)``, as for :class:`~pyro_probmix.PairLoader`; default: equally.
        mask: which labels are observed, boolean, of shape ``(N,)`` or that of y, as for
            :class:`~pyro_probmix.PairLoader`; default: all.
        epochs: passes over the data, at least 1, those before a checkpoint included.
        batch_size: nodes a step; default: all of them.
        learning_rate: step size of the default optimiser, positive; or a function from the epoch, counted from 0, to
            that in it, such as :class:`~pyro_probmix.training.OneCycle`, in place of a ``scheduler``.
        num_samples: K of eq. 16.
        objective: of :meth:`~pyro_probmix.models.DensityModel.risk`.
        optimizer: from the trainable parameters, one whose step needs no closure; default: fused Adam.
        scheduler: from the optimiser, its learning-rate schedule, stepped once an epoch; one that looks at a loss
            gets the validation loss if there are validation data, after the epochs that are validated.
        max_grad_norm: gradients are scaled down to this norm, positive; default: left as they are.
        ema_decay: in (0, 1), to validate and keep the exponential moving average of the parameters instead of
            themselves, :math:`\bar\theta_t = \bar\theta_{t-1} + w_t (\theta_t - \bar\theta_{t-1})` over the steps
            taken, with :math:`w_t = \max(1/t, 1 - \text{decay})`: the plain mean of the first 1 / (1 − ``ema_decay``),
            of about as many of the last from then on (Polyak and Juditsky, 1992). Buffers are not averaged. Default: no
            average.
        precision: ``torch.bfloat16`` or ``torch.float16`` to compute the risk under autocast, for float16 with a
            scaled loss; default: the parameters' own.
        compile: whether the risk is compiled by ``torch.compile``, which takes a C++ compiler.
        coefficient: epoch, counted from 0, → distribution of λ in it; the model keeps the last. Default: the model's.
        patience: epochs without a better validation loss after which training stops; default: never.
        validation_every: epochs from one validation to the next; the last epoch is validated too.
        non_finite: ``"raise"``, or ``"skip"`` to go on with the next batch, which the history counts.
        max_skipped: how many steps may be skipped before it is an error.
        checkpoint_dir: folder in which ``checkpoint.pt`` is kept; default: none is written.
        checkpoint_every: epochs from one checkpoint to the next; the last epoch always has one.
        resume: go on from the checkpoint, if there is one, as if nothing had happened: on the CPU the result is
            bitwise that of a training that never stopped.
        seed: seed of the pairs, λ, the labels, the embeddings and the order of the data.
        progress: whether a progress bar is shown.

    Returns:
        The losses of each epoch, and the epoch that was kept.

    Raises:
        TypeError: if x or y is not a tensor, or ``epochs``, ``batch_size`` or ``num_samples`` no integer.
        ValueError: if networks have priors, x or y has NaN or inf (rows are named), shapes do not match, a number is
            out of range, a checkpoint is damaged or was written with other settings, ``checkpoint_dir`` holds one that
            is not to be resumed, the loss or a gradient stops being finite (epoch, batch and parameter are named, and
            the parameters are those of the last finite step), or the validation loss is finite in no epoch (the
            parameters are then the last ones).

    Example:
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(-1)
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> model = pm.ProbMix(pm.nn.MLP(1, [16], likelihood.num_outputs), likelihood)
        >>> history = pm.fit(model, (x, x.squeeze(-1)), epochs=50, progress=False)
        >>> history.train_loss[-1] < history.train_loss[0]
        True
    """
    check_model("model", model)
    refuse_priors(model, "fit")
    check_choice("non_finite", non_finite, ("raise", "skip"))
    epochs = check_integer("epochs", epochs)
    learning_rate = check_rate(learning_rate, epochs)
    if callable(learning_rate) and (optimizer is not None or scheduler is not None):
        raise ValueError("learning_rate: expected a number beside an optimizer or a scheduler, got a function")
    settings = Settings.among(locals())
    path = settings.path("checkpoint.pt")
    loader, held_out = prepare(model, data, graph, validation, batch_size, seed, weight=weight, mask=mask)
    with without_validation():  # which the first torch.compile of a process would end
        step = SingleStep(model, loader, held_out, settings, optimizer, scheduler, learning_rate)
    described = describe_training(model, loader, held_out, settings, seed, step.described) if path else {}
    name = type(model).__name__
    bar = tqdm(total=epochs, desc=name, unit="epoch", disable=not progress, leave=False, **bar_size())
    # The data have been looked at: no step needs to wait for the device to look again.
    with seeded(seed, step.device), without_validation(), pyro.get_param_store().scope(), bar:
        loop = Loop(step, [epochs], settings, path, described)
        try:
            (result,) = loop.run(bar)
        except RuntimeError:
            check_rows("x", loader.x, model, seed)  # which says so if it is the inputs
            raise
    if result.failed is not None:
        got = result.history.validation_loss[-1]
        raise ValueError(f"validation: expected a finite loss in some epoch, got {got} in the last")
    model.eval()
    return result.history
