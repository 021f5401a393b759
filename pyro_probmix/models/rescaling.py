"""Rescaled prediction with a mixup-trained model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_probmix.mixing import LogSpaceBeta
from pyro_probmix.models.methods import ERM, Mixup
from pyro_probmix.nn import CategoricalLikelihood, NormalLikelihood, RescaledNetwork

__all__ = ["rescaled"]


def rescaled(model: Mixup, x: Tensor, y: Tensor) -> ERM:
    r"""The model that predicts with a mixup-trained network, rescaled as mixup shrank its data.

    The network is evaluated at :math:`\bar\theta x + (1 - \bar\theta) \bar x`, and its raw output taken back by
    :math:`1/\bar\theta` about ȳ, with :math:`\bar\theta = \mathbb{E}[\lambda | \lambda \ge \tfrac12]
    = 1 - I_{1/2}(\alpha + 1, \alpha)` for λ ~ Beta(α, α), I being the regularised incomplete beta function. For a
    Normal likelihood ȳ is the mean target, and only the predicted means are taken back; for a Categorical one it is
    the mean one-hot label.

    Args:
        model: a trained :class:`Mixup` model; its network and likelihood are shared, not copied.
        x: training inputs, of shape ``(N, ...)``.
        y: training targets, of shape ``(N,) + event_shape``.

    Returns:
        A model whose ``predictive`` is the rescaled one.

    Raises:
        TypeError: if the model is no Mixup model, or its likelihood neither Normal nor Categorical.
        ValueError: if its coefficient is no symmetric Beta.

    Source: Carratino et al., "On Mixup Regularization" (2022).

    Example:
        >>> likelihood = pm.nn.CategoricalLikelihood(3)
        >>> model = Mixup(pm.nn.MLP(2, [8], 3), likelihood, coefficient=dist.Beta(1.0, 1.0))
        >>> x, y = torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> rescaled(model, x, y).decoder
        RescaledNetwork(
          theta=0.75
        ...
    """
    from scipy.special import betainc  # here, for it is slow to import

    if not isinstance(model, Mixup):
        raise TypeError(f"model: expected a Mixup model, whose input is interpolated, got {type(model).__name__}")
    law, likelihood = model.coefficient, model.likelihood
    if not isinstance(law, LogSpaceBeta) or law.batch_shape or law.concentration1 != law.concentration0:
        raise ValueError(f"model: expected λ of a symmetric Beta(α, α), got {law}")
    if isinstance(likelihood, CategoricalLikelihood):
        y_mean = one_hot(y.long(), likelihood.num_outputs).to(x.dtype).mean(0)
    elif isinstance(likelihood, NormalLikelihood):
        y_mean = y.mean(0).reshape(-1)
    else:
        raise TypeError(
            f"model: expected a Normal or a Categorical likelihood, whose raw outputs are on the scale of the "
            f"labels, got {type(likelihood).__name__}"
        )
    alpha = float(law.concentration1)
    theta = 1 - float(betainc(alpha + 1, alpha, 0.5))
    with torch.no_grad():
        network = RescaledNetwork(model.decoder, theta, x.mean(0), y_mean)
    return ERM(network, likelihood)
