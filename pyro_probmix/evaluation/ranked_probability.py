"""The continuous ranked probability score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix._checks import check_choice, check_integer
from pyro_probmix._random import seeded
from pyro_probmix.distributions import marginals
from pyro_probmix.distributions.cumulative.law import law_type
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.distributions.mixtures import mixture_of
from pyro_probmix.evaluation.cdf_quadrature import integrated_score
from pyro_probmix.evaluation.labels import as_labels, check_numbers, unmasked
from pyro_probmix.ops.blocks import BLOCK
from pyro_probmix.ops.devices import double
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["crps", "ranked_probability_score"]

METHODS = "closed form", "quadrature", "samples"
SQRT2, TINY = math.sqrt(2), 1e-300
Parameters = tuple[Tensor, Tensor, Tensor]


def crps(p: Any, y: Any, method: str | None = None, num_samples: int = 1000, seed: int = 0) -> Tensor:
    r"""Continuous ranked probability score of each number of each row, in the units of y.

    .. math:: \mathrm{crps}(F, y) = \int (F(t) - 1\{y \le t\})^2 \, dt = \mathbb{E}|Y - y| - \tfrac12 \mathbb{E}|Y - Y'|

    It is the absolute error of a point, and for counts a sum over the integers. Outputs of a vector are scored by their
    marginals. A law without a mean has scores, too, but their average over labels drawn from it grows without end; it
    is infinite where a tail of F or 1 − F is as heavy as :math:`|t|^{-1/2}`.

    Args:
        p: a law of numbers or counts, or of vectors of them.
        y: labels, of shape ``p.batch_shape + p.event_shape``, in a tensor or an array.
        method: ``"closed form"``, for Normals, Laplaces, logistic, exponential, lognormal and uniform laws, points, and
            mixtures of Normals and points; ``"quadrature"`` over the cdf, to a relative error of 1e-6 or less, for
            what else has known marginals and a cdf; ``"samples"``, the unbiased estimate from
            ``num_samples`` draws. Default: the first of them that is possible.
        num_samples: number of draws, at least 2.
        seed: seed of the draws; the global random state is left alone.

    Returns:
        Scores, of the shape of y, computed in double precision; NaN where ``p`` masks. In closed form they are
        differentiable in ``p``.

    Raises:
        TypeError: if ``p`` is not a distribution, or one of classes, angles or directions, or ``y`` holds no numbers.
        ValueError: if the shapes do not match, no label is seen, one is not finite or outside the support, there is no
            such method, or it is not possible.

    Source:
        Gneiting and Raftery (2007), Strictly proper scoring rules; Grimit et al. (2006) for mixtures of Normals;
        Jordan, Krüger and Lerch (2019), Evaluating probabilistic forecasts with scoringRules.

    Example:
        >>> crps(dist.Normal(torch.tensor([0.0, 3.0]), 1.0), [0.5, 0.5])
        tensor([0.3314, 1.9398], dtype=torch.float64)
        >>> crps(dist.Delta(torch.tensor(1.0)), torch.tensor(3.0))
        tensor(2.)
    """
    if method is not None:
        check_choice("method", method, METHODS)
    check_integer("num_samples", num_samples, minimum=2)
    y, seen = as_labels(p, y)
    score = ranked_probability_score(p, y, method, num_samples, seed)
    score = score.to(y.device, torch.promote_types(reference_tensor([p]).dtype, y.dtype))
    return score.masked_fill(~unsqueeze_right(seen, y.dim() - seen.dim()).to(y.device), math.nan)


def ranked_probability_score(
    p: Any, y: Tensor, method: str | None = None, num_samples: int = 1000, seed: int = 0
) -> Tensor:
    """:func:`crps` in double precision, of labels that are legal, masked ones too."""
    check_numbers(p)
    y = double(y)
    if method != "samples":
        try:
            return _exact(p, y, method)
        except (NotImplementedError, TypeError) as error:  # of marginals or a cdf that are not known
            if isinstance(error, TypeError) and not str(error).startswith("p: "):
                raise
            if method is not None:
                raise ValueError(f'method: expected "samples", got "{method}": {error}') from error
    return _by_samples(unmasked(p), y, num_samples, seed)


def _exact(p: Any, y: Tensor, method: str | None) -> Tensor:
    each = resolved(marginals(p))
    score = None if method == "quadrature" else _in_closed_form(each, y)
    if score is None and method == "closed form":
        raise ValueError(f'method: expected "quadrature" or "samples" for {type(p).__name__}, got "{method}"')
    return integrated_score(each, y) if score is None else score


def _in_closed_form(p: Any, y: Tensor) -> Tensor | None:
    """The score of a scalar law, if there is a formula."""
    formula = FORMULAS.get(type(p))
    if formula is not None:
        return formula(p, y)
    found = _normals(p)
    return None if found is None else _of_normals(*found, y)


def _of_laplace(p: Any, y: Tensor) -> Tensor:
    loc, scale = double(p.loc), double(p.scale)
    z = (y - loc).abs() / scale
    return scale * (z + (-z).exp() - 0.75)


def _of_logistic(p: Any, y: Tensor) -> Tensor:
    z = (y - double(p.loc)) / double(p.scale)
    return double(p.scale) * (z - 2 * torch.nn.functional.logsigmoid(z) - 1)


def _of_exponential(p: Any, y: Tensor) -> Tensor:
    rate = double(p.rate)
    return y + (2 * torch.expm1(-rate * y) + 0.5) / rate


def _of_uniform(p: Any, y: Tensor) -> Tensor:
    low, width = double(p.low), double(p.high) - double(p.low)
    z = (y - low) / width
    return width * (z.square() - z + 1 / 3)


def _of_lognormal(p: Any, y: Tensor) -> Tensor:
    loc, scale = double(p.loc), double(p.scale)
    z = (y.log() - loc) / scale
    mean = (loc + 0.5 * scale.square()).exp()
    return y * torch.erf(z / SQRT2) - mean * (torch.erfc((scale - z) / SQRT2) - torch.erfc(0.5 * scale))


FORMULAS: dict[type, Callable[[Any, Tensor], Tensor]] = {
    getattr(module, name): formula
    for module in (dist, torch.distributions)
    for name, formula in {
        "Exponential": _of_exponential,
        "Laplace": _of_laplace,
        "LogNormal": _of_lognormal,
        "Logistic": _of_logistic,
        "Uniform": _of_uniform,
    }.items()
    if hasattr(module, name)
}


def _normals(p: Any) -> Parameters | None:
    """Weights, locations and scales, in a last dimension of components, if ``p`` is a mixture of Normals and points."""
    p = resolved(p)
    if law_type(type(p)) is law_type(dist.Normal):
        return _alone(p.loc, p.scale)
    if isinstance(p, dist.Delta):
        return _alone(p.v, torch.zeros_like(p.v))
    mixture = mixture_of(p)
    if mixture is None:
        return None
    each = [_normals(member) for member in mixture.members]
    found = [own for own in each if own is not None]
    if len(found) < len(each):
        return None
    outer = double(mixture.weights).unsqueeze(-1)
    if mixture.batched:
        parts = torch.broadcast_tensors(outer * found[0][0], *found[0][1:])
        weights, loc, scale = (t.flatten(-2) for t in parts)
    else:
        shares = [[outer[..., k, :] * own[0], *own[1:]] for k, own in enumerate(found)]
        aligned = [torch.broadcast_tensors(*own) for own in shares]
        batch = torch.broadcast_shapes(*[own[0].shape[:-1] for own in aligned])
        weights, loc, scale = (
            torch.cat([t.expand(*batch, -1) for t in same], -1) for same in zip(*aligned, strict=True)
        )
    counts = weights > 0  # a component of no weight may have no finite parameters
    return weights, torch.where(counts, loc, 0), torch.where(counts, scale, 1)


def _alone(loc: Tensor, scale: Tensor) -> Parameters:
    loc, scale = torch.broadcast_tensors(double(loc), double(scale))
    return torch.ones_like(loc).unsqueeze(-1), loc.unsqueeze(-1), scale.unsqueeze(-1)


def _of_normals(weights: Tensor, loc: Tensor, scale: Tensor, y: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(loc.shape[:-1], y.shape)
    size = loc.shape[-1]
    parts = [t.expand(shape + (size,)).reshape(-1, size) for t in (weights, loc, scale)]
    rows = max(1, BLOCK // (8 * size))
    blocks = [_of_block(*own) for own in zip(*(t.split(rows) for t in (*parts, y.expand(shape).reshape(-1))))]
    return torch.cat(blocks).reshape(shape)


def _of_block(weights: Tensor, loc: Tensor, scale: Tensor, y: Tensor) -> Tensor:
    """Of mixtures of shape ``(rows, components)``; each component meets the one ``shift`` places after it."""
    size, variance = loc.shape[-1], scale.square()
    near = (weights * _mean_distance(loc - y.unsqueeze(-1), variance)).sum(-1)
    spread = (weights.square() * scale).sum(-1) / math.sqrt(math.pi)
    twice = [torch.cat([t, t[..., : size // 2]], -1) for t in (weights, loc, variance)]
    for shift in range(1, size // 2 + 1):
        other, apart, both = (t.narrow(-1, shift, size) for t in twice)
        pairs = (weights * other * _mean_distance(loc - apart, variance + both)).sum(-1)
        spread = spread + (0.5 * pairs if 2 * shift == size else pairs)
    return near - spread


def _mean_distance(loc: Tensor, variance: Tensor) -> Tensor:
    """E|X| for X ~ N(loc, variance)."""
    width = (2 * variance).clamp(min=TINY).sqrt()
    z = loc / width
    return torch.addcmul(width * (-z * z).exp() / math.sqrt(math.pi), loc, torch.erf(z))


def _by_samples(p: Any, y: Tensor, num_samples: int, seed: int) -> Tensor:
    """E|Y − y| − ½ E|Y − Y'| as averages over draws and their pairs."""
    with torch.no_grad(), seeded(seed, y.device):
        draws = double(p.sample((num_samples,))).sort(0).values
    ranks = torch.arange(1 - num_samples, num_samples, 2, dtype=draws.dtype, device=draws.device)
    spread = torch.tensordot(ranks, draws, 1) / (num_samples * (num_samples - 1))
    return (draws - y).abs().mean(0) - spread
