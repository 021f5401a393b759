"""Probability integral transforms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_probmix._random import seeded
from pyro_probmix.distributions import cdf, marginals
from pyro_probmix.distributions.cumulative.scalar import law_of
from pyro_probmix.evaluation.labels import as_labels, check_numbers
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["pit", "transforms"]


def pit(p: Any, y: Any, seed: int = 0) -> Tensor:
    r"""Probability integral transforms :math:`F(y)`, which are uniform if y is drawn from ``p``.

    Where single values have mass, as of counts, they are randomised, :math:`F(y^-) + v\,(F(y) - F(y^-))` for v uniform
    on [0, 1] and F(y⁻) the mass below y, without which they would not be uniform. Outputs of a vector have those of
    their marginals.

    Args:
        p: a distribution of numbers or counts, or of vectors whose marginals are known.
        y: labels, of shape ``p.batch_shape + p.event_shape``, in a tensor or an array.
        seed: of v; the global random state is left alone.

    Returns:
        Shares from 0 to 1, of the shape of y and the dtype of ``p``; NaN where ``p`` masks.

    Raises:
        TypeError: if ``p`` is no distribution, or one over classes or angles, or its marginals are not known, or ``y``
            holds no numbers.
        ValueError: if the shapes do not match, no label is seen, or one is not finite or outside the support.

    Source:
        Czado, Gneiting and Held (2009), Predictive model assessment for count data.

    Example:
        >>> pit(dist.Normal(torch.zeros(3), 1.0), [-1.0, 0.0, 1.0])
        tensor([0.1587, 0.5000, 0.8413])
    """
    y, seen = as_labels(p, y)
    share = transforms(p, y, seed)
    return share.masked_fill(~unsqueeze_right(seen, y.dim() - seen.dim()).to(share.device), torch.nan)


def transforms(p: Any, y: Tensor, seed: int = 0) -> Tensor:
    """:func:`pit` of labels that are legal, masked ones too."""
    check_numbers(p)
    each = marginals(p)
    share = cdf(each, y)
    if law_of(each).atomic:
        below = cdf(each, y.double().nextafter(y.new_full((), -torch.inf, dtype=torch.float64)))
        with seeded(seed, share.device):
            share = below + torch.rand_like(share) * (share - below)
    return share
