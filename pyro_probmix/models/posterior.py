"""An amortised posterior of the embedding as guide."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyro_probmix._checks import as_module
from pyro_probmix.mixing import PairBatch
from pyro_probmix.models.density_model import DensityModel
from pyro_probmix.models.laws import Unscored
from pyro_probmix.models.mix import MixMessenger
from pyro_probmix.models.names import EMBEDDING_SITE, LABEL_SITE, PLATE, UniquelyNamed
from pyro_probmix.models.statements import data_plate
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["PosteriorGuide"]


class PosteriorGuide(UniquelyNamed):
    r"""Guide that draws the embedding from an amortised posterior :math:`q_\phi(z|x_i, x_j, \tilde y, \lambda)`.

    With it the loss of ``Trace_ELBO``, divided by the number of nodes, bounds the risk of eq. 23 from above by

    .. math:: -\mathbb{E}_{\lambda, \tilde y}\, \mathbb{E}_{q_\phi}\bigl[\log p_{\theta_1}(\tilde y|z)
        + \log q_{\theta_0}(z|x_i, x_j, \lambda) - \log q_\phi(z|x_i, x_j, \tilde y, \lambda)\bigr],

    equal to it where :math:`q_\phi` is the exact posterior of eq. 21. ``model.guide`` draws z from the fused
    embedding density instead, the looser bound of ``model.risk``. Model and guide are trained together; labels
    ỹ are drawn (eq. 14), by the guide. Prediction does not use it.

    Args:
        model: with a stochastic embedding, such as :class:`ManifoldProbMix`.
        network: called with :math:`x_i, x_j, \tilde y, \lambda`, of shapes ``(..., B) + x.shape[1:]`` twice,
            ``(..., B) + y.shape[1:]`` and ``(..., B)``, missing labels being zero; gives a distribution of batch shape
            ``(..., B)`` and the embedding's event shape.

    Raises:
        TypeError: if ``model`` has no stochastic embedding, or ``network`` is no module.
        ValueError: if the model propagates means, or, when called, there are no labels or the network's distribution
            has another shape.

    Example:
        >>> class Network(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embedding = pm.nn.NormalEmbedding(pm.nn.MLP(6, [32], 8), 8)
        ...     def forward(self, x, partner_x, label, coefficient):
        ...         pieces = [x, partner_x, label.unsqueeze(-1), coefficient.unsqueeze(-1)]
        ...         return self.embedding(torch.cat(pieces, -1))
        >>> embedding = pm.nn.NormalEmbedding(torch.nn.Linear(2, 8), 8)
        >>> model = pm.ManifoldProbMix(embedding, pm.nn.MLP(8, [8], 2), pm.nn.NormalLikelihood())
        >>> guide = PosteriorGuide(model, Network())
        >>> batch = pm.CompleteGraph(4).pair_batch(torch.randn(4, 2), torch.randn(4))
        >>> loss = SVI(model, guide, pyro.optim.Adam({"lr": 5e-3}), Trace_ELBO()).step(batch)
    """

    network: Any

    def __init__(self, model: DensityModel, network: nn.Module) -> None:
        super().__init__()
        if not (isinstance(model, DensityModel) and model.stochastic):
            raise TypeError(f"model: expected one with a stochastic embedding, got {type(model).__name__}")
        if model.propagate == "mean":
            raise ValueError('model: expected propagate="sample", got "mean", which leaves no embedding to infer')
        self.__dict__["_model"] = model  # not a child: its parameters are the model's
        self.network = as_module("network", network)

    def forward(self, batch: PairBatch, num_rows: int | None = None) -> None:
        """Draws ``mixing_coefficient``, ``label`` and ``embedding``; ``num_rows`` as for the model."""
        self._model.check_batch(batch, labelled=True)
        weight = self._model.mixing.edge_weight(batch)
        with data_plate(len(batch), num_rows):
            q = self._posterior(batch)
            if weight is None:
                pyro.sample(EMBEDDING_SITE, q)
                return
            present: Any = weight != 0
            with pyro.poutine.scale(scale=weight.masked_fill(~present, 1)), pyro.poutine.mask(mask=present):
                pyro.sample(EMBEDDING_SITE, q)

    def _posterior(self, batch: PairBatch) -> Any:
        """The network's distribution, from λ and a label that are drawn."""
        mixing, modules = self._model.mixing, self._model._modules
        label: Any = batch.y
        dtype = batch.x.dtype if batch.x.is_floating_point() else None
        coefficient, observed = torch.ones(len(batch), dtype=dtype, device=batch.x.device), batch.mask
        if mixing.coefficient is not None:
            with MixMessenger(mixing, batch, PLATE, latent_only=True) as messenger:
                drawn = messenger.draw()
            coefficient = drawn.expand(torch.broadcast_shapes(drawn.shape, coefficient.shape))
            label = mixing.draw_label(label, batch.partner, coefficient, modules["likelihood"].support)
            if observed is not None:
                weight = unsqueeze_right(coefficient, observed.dim() - 1)
                observed = mixing.edge_mask(observed, batch.partner, -observed.dim(), weight)
        event_dim = len(modules["likelihood"].event_shape)
        law = Unscored(dist.Delta(label, event_dim=event_dim, validate_args=False))
        label = pyro.sample(LABEL_SITE, law, infer={"is_auxiliary": True})
        if observed is not None:
            missing_dims = 1 + event_dim - batch.mask.dim()  # type: ignore[union-attr]
            label = label.masked_fill(~unsqueeze_right(observed, missing_dims), 0)
        pair = batch.x, batch.x[batch.partner]
        x, partner_x = (value.expand(coefficient.shape + value.shape[1:]) for value in pair)
        q = self.network(x, partner_x, label, coefficient)
        expected, got = (coefficient.shape, modules["encoder"].event_shape), (q.batch_shape, q.event_shape)
        if got != expected:
            raise ValueError(
                f"network: expected a distribution of batch shape {tuple(expected[0])} and event shape "
                f"{tuple(expected[1])}, got {tuple(got[0])} and {tuple(got[1])}"
            )
        return q
