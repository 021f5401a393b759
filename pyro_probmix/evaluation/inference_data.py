"""Predictive samples and pointwise log-likelihoods as ArviZ InferenceData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_probmix._checks import check_tensor
from pyro_probmix._random import seeded
from pyro_probmix.models import DensityModel

if TYPE_CHECKING:
    import arviz

__all__ = ["to_inference_data"]


def to_inference_data(
    model: DensityModel, x: Tensor, y: Tensor, num_samples: int = 1000, seed: int = 0
) -> arviz.InferenceData:
    """What a model predicts at ``x`` and how it scores ``y``, for ArviZ's checks and plots.

    One chain of ``num_samples`` draws. A draw is one embedding sample and one y given it; a model without a
    stochastic embedding has equal log-likelihoods in all draws.

    Args:
        model: any ready model.
        x: inputs, of shape ``(N, ...)``.
        y: labels, of shape ``(N,) + event_shape``.
        num_samples: number of draws, at least 1.
        seed: seed of the draws; the global random state is left alone.

    Returns:
        Groups ``posterior_predictive`` (y), ``log_likelihood`` (y), ``observed_data`` (y) and ``constant_data`` (x),
        with the dimension ``observation``.

    Raises:
        ValueError: if the shape of ``y`` is not the likelihood's, or ``num_samples`` < 1.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> model = pm.ERM(pm.nn.MLP(2, [8], likelihood.num_outputs), likelihood)
        >>> idata = pm.to_inference_data(model, torch.zeros(5, 2), torch.zeros(5), num_samples=20)
        >>> idata.posterior_predictive["y"].shape
        (1, 20, 5)
    """
    import arviz  # here, for it brings Matplotlib with it

    check_tensor("x", x)
    with torch.no_grad(), seeded(seed, x.device):
        p = model.predictive(x, num_samples, seed=None)
        check_tensor("y", y, p.batch_shape + p.event_shape)
        if model.stochastic and model.propagate == "sample":  # one component an embedding sample
            components: Any = p.components
            draws = components.sample().movedim(1, 0)
            log_likelihood = components.log_prob(y.unsqueeze(1)).movedim(1, 0)
        else:
            draws = p.sample((num_samples,))
            log_likelihood = p.log_prob(y).expand(num_samples, -1)
    dims = {"y": ["observation", *(f"y_dim_{d}" for d in range(y.dim() - 1))]}
    return arviz.from_dict(
        posterior_predictive={"y": _numpy(draws)[None]},
        log_likelihood={"y": _numpy(log_likelihood)[None]},
        observed_data={"y": _numpy(y)},
        constant_data={"x": _numpy(x)},
        coords={"observation": np.arange(len(y))},
        dims=dims | {"x": ["observation", *(f"x_dim_{d}" for d in range(x.dim() - 1))]},
    )


def _numpy(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # NumPy has no bfloat16
