"""Training one model."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
from torch import Tensor

from pyro_probmix._checks import check_integer
from pyro_probmix._random import seeded
from pyro_probmix.mixing import CompleteGraph, EmbeddingGraph, PairLoader, SamplingGraph, as_coefficient
from pyro_probmix.models import DensityModel
from pyro_probmix.models.objectives import OBJECTIVES, Objective
from pyro_probmix.models.priors import refuse_priors
from pyro_probmix.training._checks import (
    check_decay,
    check_labels,
    check_learning_rate,
    check_model,
    check_pair,
    check_rows,
    check_validation,
    make_lazy_layers,
    without_validation,
)
from pyro_probmix.training._loop import Plan, Training
from pyro_probmix.training._settings import describe, describe_network
from pyro_probmix.training.checkpoints import load_checkpoint
from pyro_probmix.training.history import History

__all__ = ["fit"]

CHECKPOINT = "checkpoint.pt"
"""Name of the file in ``checkpoint_dir``."""


def fit(
    model: DensityModel,
    data: tuple[Tensor, Tensor],
    *,
    graph: SamplingGraph | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    epochs: int = 1000,
    batch_size: int | None = None,
    learning_rate: float = 5e-3,
    num_samples: int = 1,
    objective: Objective = "expected-log",
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    max_grad_norm: float | None = None,
    ema_decay: float | None = None,
    precision: torch.dtype | None = None,
    compile: bool = False,
    coefficient: Callable[[int], Any] | None = None,
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
        validation: inputs and labels that choose the epoch; default: the last epoch is kept. Their loss is computed
            in full precision and without compilation, whatever ``precision`` and ``compile`` say.
        weight: how much each row counts, of shape ``(N,)``, as for :class:`~pyro_probmix.PairLoader`; default: equally.
        mask: which labels are observed, boolean, of shape ``(N,)`` or that of y, as for
            :class:`~pyro_probmix.PairLoader`; default: all.
        epochs: passes over the data, at least 1, those before a checkpoint included.
        batch_size: nodes a step; default: all of them.
        learning_rate: step size of the default optimiser, positive.
        num_samples: K of eq. 16.
        objective: of :meth:`~pyro_probmix.models.DensityModel.risk`.
        optimizer: from the trainable parameters, one whose step needs no closure; default: fused Adam.
        scheduler: from the optimiser, its learning-rate schedule, stepped once an epoch; one that looks at a loss
            gets the validation loss if there is one.
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
    if non_finite not in ("raise", "skip"):
        raise ValueError(f'non_finite: expected "raise" or "skip", got {non_finite!r}')
    if objective not in OBJECTIVES:
        raise ValueError(f"objective: expected one of {OBJECTIVES}, got {objective!r}")
    if precision not in (None, torch.bfloat16, torch.float16):
        raise ValueError(f"precision: expected torch.bfloat16, torch.float16 or None, got {precision}")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm: expected a positive number, got {max_grad_norm}")
    check_decay(ema_decay)
    check_pair(data)
    max_skipped = check_integer("max_skipped", max_skipped)
    plan = Plan(
        epochs=check_integer("epochs", epochs),
        num_samples=check_integer("num_samples", num_samples),
        objective=objective,
        max_grad_norm=max_grad_norm,
        precision=precision,
        compile=compile,
        coefficient=coefficient,
        max_skipped=max_skipped if non_finite == "skip" else 0,
        ema_decay=ema_decay,
        path=None if checkpoint_dir is None else Path(checkpoint_dir) / CHECKPOINT,
        checkpoint_every=check_integer("checkpoint_every", checkpoint_every),
        progress=progress,
    )
    check_learning_rate(learning_rate)
    _check_checkpoint_dir(plan.path, resume)
    parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device if parameters else data[0].device
    x, y = _on_device(data, device)
    graph = CompleteGraph(len(x)) if graph is None else graph
    weight, mask = (t.to(x.device) if isinstance(t, Tensor) else t for t in (weight, mask))
    loader = PairLoader(x, y, graph, batch_size, weight=weight, mask=mask)
    check_labels("y", y if loader.y is None else loader.y, model)
    with pyro.get_param_store().scope():
        make_lazy_layers(x[:1].to(device), model, seed)
    if validation is not None:
        check_validation(*validation, model)
        validation = (validation[0].to(device), validation[1].to(device))
        with pyro.get_param_store().scope():
            check_rows("validation x", validation[0], model)
    stepper = _make_optimizer(parameters, optimizer, learning_rate)
    settings: dict[str, Any] = {}
    if plan.path is not None:
        first = model.coefficient if coefficient is None else as_coefficient(coefficient(0))
        settings = _settings(model, loader, validation, plan, stepper, first, seed)
    schedule = None if scheduler is None else scheduler(stepper)
    if plan.path is not None:
        settings["scheduler"] = None if schedule is None else describe([type(schedule), schedule.state_dict()])
    checkpoint = (
        load_checkpoint(plan.path, settings) if resume and plan.path is not None and plan.path.exists() else None
    )
    # The data have been looked at: no step needs to wait for the device to look again.
    with seeded(seed, device), without_validation(), pyro.get_param_store().scope():
        training = Training(model, loader, validation, replace(plan, settings=settings), stepper, schedule, device)
        if checkpoint is not None:
            training.resume(checkpoint)
        try:
            history = training.run()
        except RuntimeError:
            check_rows("x", x[:1].to(device), model, seed)  # which says so if it is the inputs
            raise
    model.eval()
    return history


def _check_checkpoint_dir(path: Path | None, resume: bool) -> None:
    if path is None:
        if resume:
            raise ValueError("checkpoint_dir: expected a folder to resume from, got None")
    elif path.exists() and not resume:
        raise ValueError(
            f"checkpoint_dir: expected a folder without a checkpoint, got {path.parent}, whose {path.name} would be "
            "lost; pass resume=True to go on from it"
        )


def _on_device(data: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """The data where the model is, if they take no more than half of the memory that is free there."""
    x, y = data
    if device.type != "cuda" or not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return x, y
    size = sum(t.numel() * t.element_size() for t in (x, y) if t.device != device)
    return (x.to(device), y.to(device)) if size <= torch.cuda.mem_get_info(device)[0] // 2 else (x, y)


def _make_optimizer(
    parameters: list[Tensor],
    make: Callable[[list[Tensor]], torch.optim.Optimizer] | None,
    learning_rate: float,
) -> torch.optim.Optimizer:
    if make is None:
        return torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    optimizer = make(parameters)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(f"optimizer: expected one whose step needs no closure, got {type(optimizer).__name__}")
    return optimizer


def _settings(
    model: DensityModel,
    loader: PairLoader,
    validation: tuple[Tensor, Tensor] | None,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    coefficient: Any,
    seed: int,
) -> dict[str, Any]:
    """All that decides what a training computes, but the number of its epochs."""
    mixing = None
    if model.mixing.coefficient is not None:
        mixing = {k: v for k, v in vars(model.mixing).items() if k != "coefficient" and not k.startswith("_")}
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    graph = describe(loader.graph)
    if isinstance(loader.graph, EmbeddingGraph):
        del graph["neighbors"]  # they follow the model
    named = ("num_samples", "objective", "max_grad_norm", "precision", "compile", "max_skipped")
    return {
        "seed": describe(seed),
        "batch_size": loader.batch_size,
        **{name: describe(getattr(plan, name)) for name in named},
        **({} if plan.ema_decay is None else {"ema_decay": describe(plan.ema_decay)}),
        "optimizer": [type(optimizer).__name__, *describe(groups)],
        "coefficient": describe(coefficient),
        "annealing": plan.coefficient is not None,
        "mixing": describe(mixing),
        "propagate": model.propagate,
        "graph": graph,
        **{name: describe(rows) for name in ("weight", "mask") if (rows := getattr(loader, name)) is not None},
        "x": describe(loader.x),
        "y": describe(loader.y),
        "validation": describe(validation),
        "device": next(model.parameters()).device.type,
        "model": describe_network(model),
    }
