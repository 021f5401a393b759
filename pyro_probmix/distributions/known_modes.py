"""Modes in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch import distributions as laws

from pyro_probmix.distributions.held_tensors import held_tensors
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["known_mode"]

Rule = Callable[[Any], Tensor]

OURS = "pyro_probmix."  # which has the densities of PyTorch and Pyro under their names


def known_mode(p: Any) -> Tensor | None:
    """The value of highest density or mass in closed form; None where there is no rule, NaN where there is no mode.

    Of several it is one of them; where the density is infinite, there.
    """
    law = next((cls for cls in type(p).__mro__ if cls in RULES), None)
    own = next(cls for cls in type(p).__mro__ if "log_prob" in vars(cls))
    # What is derived from a law may have another density.
    if law is None or not (issubclass(law, own) or own.__module__.startswith(OURS)):
        return None
    found = RULES[law](p)
    return torch.where(_unknown(p, found), torch.nan, found) if found.is_floating_point() else found


def _unknown(p: Any, like: Tensor) -> Tensor:
    """Where a parameter is NaN, of a shape that broadcasts with the values of ``p``."""
    rows, unknown = len(p.batch_shape), like.new_zeros((), dtype=torch.bool)
    for value in held_tensors(p):
        if value.shape[:rows] == p.batch_shape:
            unknown = unknown | value.isnan().unsqueeze(-1).flatten(rows).any(-1)
    return unsqueeze_right(unknown, len(p.event_shape))


def _loc(p: Any) -> Tensor:
    return p.loc  # type: ignore[no-any-return]


def _of_pytorch(p: Any) -> Tensor:
    return p.mode  # type: ignore[no-any-return]


def _zero(p: Any) -> Tensor:
    return torch.zeros_like(p.mean)


def _beta(p: Any) -> Tensor:
    return _of_dirichlet(torch.stack([p.concentration1, p.concentration0], -1))[..., 0]


def _of_dirichlet(concentration: Tensor) -> Tensor:
    """Inside or on the face of the entries above one; else the corner whose other entries have the steepest poles."""
    above = (concentration - 1).clamp(min=0)
    total = above.sum(-1, keepdim=True)
    corner = torch.nn.functional.one_hot(concentration.argmax(-1), concentration.shape[-1]).to(concentration.dtype)
    flat = (concentration == 1).all(-1, keepdim=True)
    end = torch.where(flat, 1 / concentration.shape[-1], corner)
    return torch.where(total > 0, above / torch.where(total > 0, total, 1), end)


def _continuous_bernoulli(p: Any) -> Tensor:
    return torch.where(p.logits == 0, 0.5, (p.logits > 0).to(p.logits.dtype))


def _kumaraswamy(p: Any) -> Tensor:
    a, b = torch.broadcast_tensors(p.concentration1, p.concentration0)
    inside = (a >= 1) & (b >= 1) & (a * b > 1)
    power = torch.where(inside, (a - 1) / torch.where(inside, a * b - 1, 1), 0)
    end = torch.where((a == 1) & (b == 1), 0.5, (b < a).to(a.dtype))
    return torch.where(inside, power ** (1 / a), end)


def _fisher_snedecor(p: Any) -> Tensor:
    return (1 - 2 / p.df1).clamp(min=0) * p.df2 / (p.df2 + 2)


def _weibull(p: Any) -> Tensor:
    return p.scale * (1 - 1 / p.concentration).clamp(min=0) ** (1 / p.concentration)


def _generalized_pareto(p: Any) -> Tensor:
    """At the lower end; where the density rises, at the upper one."""
    rises = p.concentration < -1
    return torch.where(rises, p.loc - p.scale / torch.where(rises, p.concentration, -1), p.loc)


def _gamma_poisson(p: Any) -> Tensor:
    return ((p.concentration - 1) / p.rate).floor().clamp(min=0)


def _multinomial(p: Any) -> Tensor:
    return _shared(p.total_count, lambda x: p.logits.unsqueeze(-1) - (x + 1).log(), p.logits.new_ones(p.logits.shape))


def _dirichlet_multinomial(p: Any) -> Tensor:
    total, concentration = int(torch.as_tensor(p.total_count).max()), p.concentration
    return _shared(total, lambda x: (concentration.unsqueeze(-1) + x).log() - (x + 1).log(), concentration)


def _shared(total: int, gain: Callable[[Tensor], Tensor], concentration: Tensor) -> Tensor:
    """How a total is best shared by classes, the (x + 1)th of a class being worth ``gain(x)``.

    In classes of concentrations of one or more each is worth less than the one before, and the worthiest are taken one
    by one; of the others, where each is worth more, one class at most has any.
    """
    trials = torch.arange(total, dtype=concentration.dtype, device=concentration.device)
    gains, falls = gain(trials), concentration >= 1
    inner = torch.where(falls.unsqueeze(-1), gains, -torch.inf).flatten(-2).topk(total, -1)
    start = torch.zeros_like(gains[..., :1])
    taken = torch.cat([start[..., 0, :], inner.values.cumsum(-1)], -1).flip(-1)  # by what the other class has
    own = torch.cat([start, gains.cumsum(-1)], -1)
    worth = own + taken.unsqueeze(-2)
    worth[..., 1:] = torch.where(falls.unsqueeze(-1), -torch.inf, worth[..., 1:])
    best = worth.flatten(-2).argmax(-1, keepdim=True)
    other, amount = best // (total + 1), best % (total + 1)
    counts = torch.zeros_like(concentration).scatter_add(-1, other, amount.to(concentration.dtype))
    rest = (torch.arange(total, device=concentration.device) < total - amount).to(concentration.dtype)
    return counts.scatter_add(-1, inner.indices // total, rest)


def _wishart(p: Any) -> Tensor:
    factor = p.df - p.event_shape[-1] - 1
    return unsqueeze_right(torch.where(factor > 0, factor, torch.nan), 2) * p.covariance_matrix


def _identity(p: Any) -> Tensor:
    there = torch.where(p.concentration >= 1, 1.0, torch.nan)
    return unsqueeze_right(there, 2) * torch.eye(p.event_shape[-1], dtype=there.dtype, device=there.device)


def _empirical(p: Any) -> Tensor:
    """Of the values, that which has most of the weight, whichever of its places have it."""
    values = p._samples.movedim(len(p.batch_shape), 0)
    alike = values.unsqueeze(0) == values.unsqueeze(1)
    alike = alike.flatten(2 + len(p.batch_shape)).all(-1) if p.event_shape else alike
    weights = p._log_weights.softmax(-1).movedim(-1, 0)
    best = (alike * weights).sum(1).argmax(0)
    index = unsqueeze_right(best, len(p.event_shape)).expand(values.shape[1:])
    return values.gather(0, index.unsqueeze(0))[0]


def _direction(p: Any) -> Tensor:
    return torch.nn.functional.normalize(p.concentration, dim=-1)  # type: ignore[no-any-return]


def _sine(p: Any) -> Tensor:
    """At the locations; of two modes, the one on the positive side of the first.

    Source: Singh, Hnizdo and Demchuk (2002), theorem 3.
    """
    a, b, c = p.phi_concentration, p.psi_concentration, p.correlation
    two = c.square() > a * b
    square = torch.where(two, c, 1).square()
    ratio = ((square + b.square()) / (square + a.square())).sqrt()
    phi = (a / square.sqrt() * ratio).clamp(max=1).acos()
    psi = (b / square.sqrt() / ratio).clamp(max=1).acos() * c.sign()
    apart = torch.where(two.unsqueeze(-1), torch.stack([phi, psi], -1), 0)
    return torch.stack([p.phi_loc, p.psi_loc], -1) + apart


RULES: dict[type, Rule] = {
    dist.AsymmetricLaplace: _loc,
    dist.Delta: lambda p: p.v,
    dist.DirichletMultinomial: _dirichlet_multinomial,
    dist.Empirical: _empirical,
    dist.ExtendedBinomial: _of_pytorch,
    dist.GammaPoisson: _gamma_poisson,
    dist.GaussianScaleMixture: lambda p: torch.zeros_like(p.coord_scale),
    dist.InverseGamma: lambda p: p.rate / (p.concentration + 1),
    dist.LKJ: _identity,
    dist.MultivariateStudentT: _loc,
    dist.OneOneMatching: _of_pytorch,
    dist.OneTwoMatching: _of_pytorch,
    dist.ProjectedNormal: _direction,
    dist.SineBivariateVonMises: _sine,
    dist.SoftLaplace: _loc,
    dist.SpanningTree: _of_pytorch,
    dist.VonMises3D: _direction,
    laws.Beta: _beta,
    laws.Binomial: _of_pytorch,
    laws.Cauchy: _loc,
    laws.ContinuousBernoulli: _continuous_bernoulli,
    laws.Dirichlet: lambda p: _of_dirichlet(p.concentration),
    laws.Exponential: _zero,
    laws.FisherSnedecor: _fisher_snedecor,
    laws.Gamma: lambda p: ((p.concentration - 1) / p.rate).clamp(min=0),
    laws.Geometric: lambda p: torch.zeros_like(p.probs),
    laws.Gumbel: _loc,
    laws.HalfCauchy: lambda p: torch.zeros_like(p.scale),
    laws.HalfNormal: lambda p: torch.zeros_like(p.scale),
    laws.InverseGamma: lambda p: p.rate / (p.concentration + 1),
    laws.Kumaraswamy: _kumaraswamy,
    laws.LKJCholesky: _identity,
    laws.Laplace: _loc,
    laws.LogNormal: lambda p: (p.loc - p.scale.square()).exp(),
    laws.LowRankMultivariateNormal: _loc,
    laws.Multinomial: _multinomial,
    laws.MultivariateNormal: _loc,
    laws.NegativeBinomial: lambda p: ((p.total_count - 1) * p.logits.exp()).floor().clamp(min=0),
    laws.Normal: _loc,
    laws.Pareto: lambda p: p.scale,
    laws.Poisson: lambda p: p.rate.floor(),
    laws.StudentT: _loc,
    laws.Uniform: lambda p: 0.5 * (p.low + p.high),
    laws.VonMises: _loc,
    laws.Weibull: _weibull,
    laws.Wishart: _wishart,
}
for _name, _rule in {"GeneralizedPareto": _generalized_pareto, "Logistic": _loc}.items():
    RULES |= {getattr(home, _name): _rule for home in (laws, dist) if hasattr(home, _name)}
