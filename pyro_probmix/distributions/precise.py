"""Pyro's distributions of large parameters and counts, right in single precision too.

Their log-densities are differences of numbers as large as y log y: of a million counts single precision loses most of
a nat. The classes here are Pyro's own in all but that: what cancels is computed in double precision.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import logits_to_probs, probs_to_logits

from pyro_probmix.distributions.filled_numbers import filled_numbers

__all__ = ["PRECISE", "double", "precise"]


def double(value: Any) -> Any:
    """A tensor in double precision: where it is, or on the CPU if its device has none; else what is given."""
    if not isinstance(value, Tensor):
        return value
    return value.double() if value.device.type != "mps" else value.to("cpu", torch.float64)


class _InDouble:
    """A Pyro distribution that computes log_prob and entropy in double precision.

    Attributes:
        plain: Pyro's class.
        names: the arguments that it is made of.
    """

    plain: ClassVar[Any]
    names: ClassVar[tuple[str, ...]]

    def arguments(self) -> dict[str, Any]:
        """The arguments of the constructor that make it."""
        return {name: getattr(self, name) for name in self.names}

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:  # type: ignore[attr-defined]
            self._validate_sample(value)  # type: ignore[attr-defined]
        arguments = self.arguments()
        like = _floating(arguments)
        if like.dtype == torch.float64:
            return super().log_prob(value)  # type: ignore[misc,no-any-return]
        log_prob = self._in_double(arguments, like).log_prob(double(value))
        wider = value.is_floating_point() and value.dtype.itemsize > like.dtype.itemsize
        return log_prob.to(like.device, value.dtype if wider else like.dtype)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        arguments = self.arguments()
        like = _floating(arguments)
        if like.dtype == torch.float64:
            return super().entropy()  # type: ignore[misc,no-any-return]
        return self._in_double(arguments, like).entropy().to(like.device, like.dtype)

    def _in_double(self, arguments: dict[str, Any], like: Tensor) -> Any:
        wide = {name: double(value) for name, value in arguments.items()}
        with filled_numbers(double(like)):
            return self.plain(**wide, validate_args=False)


def _floating(arguments: dict[str, Any]) -> Tensor:
    """The first parameter, which is known to be a tensor."""
    return next(t for t in arguments.values() if isinstance(t, Tensor) and t.is_floating_point())


class _ByOdds(_InDouble):
    """A parameter in two forms, probs and logits, of which one was given."""

    def arguments(self: Any) -> dict[str, Any]:
        law = getattr(self, "_categorical", self)
        name = "logits" if law._param is vars(law).get("logits") else "probs"  # the other may have been asked for since
        return {"total_count": self.total_count, name: law._param}


class Poisson(_InDouble, dist.Poisson):
    plain, names = dist.Poisson, ("rate", "is_sparse")


class Gamma(_InDouble, dist.Gamma):
    plain, names = dist.Gamma, ("concentration", "rate")


class Chi2(_InDouble, dist.Chi2):
    plain, names = dist.Chi2, ("df",)


class InverseGamma(_InDouble, dist.InverseGamma):
    plain, names = dist.InverseGamma, ("concentration", "rate")


class Beta(_InDouble, dist.Beta):
    plain, names = dist.Beta, ("concentration1", "concentration0")


class AffineBeta(_InDouble, dist.AffineBeta):
    plain, names = dist.AffineBeta, ("concentration1", "concentration0")

    def arguments(self) -> dict[str, Any]:
        (affine,) = self.transforms  # as they were given: the attributes are tensors of the default dtype
        return super().arguments() | {"loc": affine.loc, "scale": affine.scale}


class Dirichlet(_InDouble, dist.Dirichlet):
    plain, names = dist.Dirichlet, ("concentration",)


class StudentT(_InDouble, dist.StudentT):
    plain, names = dist.StudentT, ("df", "loc", "scale")


class FisherSnedecor(_InDouble, dist.FisherSnedecor):
    plain, names = dist.FisherSnedecor, ("df1", "df2")


class Binomial(_ByOdds, dist.Binomial):
    plain = dist.Binomial


class ExtendedBinomial(_ByOdds, dist.ExtendedBinomial):
    plain = dist.ExtendedBinomial


class NegativeBinomial(_ByOdds, dist.NegativeBinomial):
    plain = dist.NegativeBinomial


class Multinomial(_ByOdds, dist.Multinomial):
    plain = dist.Multinomial


class GammaPoisson(_InDouble, dist.GammaPoisson):
    plain, names = dist.GammaPoisson, ("concentration", "rate")


class BetaBinomial(_InDouble, dist.BetaBinomial):
    plain, names = dist.BetaBinomial, ("concentration1", "concentration0", "total_count")


class ExtendedBetaBinomial(_InDouble, dist.ExtendedBetaBinomial):
    plain, names = dist.ExtendedBetaBinomial, ("concentration1", "concentration0", "total_count")


class DirichletMultinomial(_InDouble, dist.DirichletMultinomial):
    plain, names = dist.DirichletMultinomial, ("concentration", "total_count", "is_sparse")


class ZeroInflatedDistribution(dist.ZeroInflatedDistribution):
    """Pyro's, of a base whose log_prob is right, with the gate in the one form that was given.

    Pyro keeps the other form too, once ``mean`` or ``sample`` has asked for it, and can no longer be expanded then.
    """

    def __init__(self, base_dist: Any, **gate: Any) -> None:
        super().__init__(base_dist, **gate)
        self.settle()

    def settle(self) -> None:
        """Makes what Pyro holds what this class holds: of the gate's forms, the one that it has held for longest."""
        self.base_dist = precise(self.base_dist)
        _, *asked = [name for name in vars(self) if name in ("gate", "gate_logits")]
        for name in asked:
            del self.__dict__[name]

    @property
    def gate(self) -> Tensor:
        return vars(self)["gate"] if "gate" in vars(self) else logits_to_probs(self.gate_logits, is_binary=True)

    @gate.setter
    def gate(self, value: Tensor) -> None:
        self.__dict__["gate"] = value

    @property
    def gate_logits(self) -> Tensor:
        return vars(self)["gate_logits"] if "gate_logits" in vars(self) else probs_to_logits(self.gate, is_binary=True)

    @gate_logits.setter
    def gate_logits(self, value: Tensor) -> None:
        self.__dict__["gate_logits"] = value


class ZeroInflatedPoisson(dist.ZeroInflatedPoisson, ZeroInflatedDistribution):
    pass


class ZeroInflatedNegativeBinomial(dist.ZeroInflatedNegativeBinomial, ZeroInflatedDistribution):
    pass


PRECISE: dict[type, Any] = {
    getattr(home, cls.__name__): cls
    for home in (torch.distributions, dist)
    for cls in (
        AffineBeta,
        Beta,
        BetaBinomial,
        Binomial,
        Chi2,
        Dirichlet,
        DirichletMultinomial,
        ExtendedBetaBinomial,
        ExtendedBinomial,
        FisherSnedecor,
        Gamma,
        GammaPoisson,
        InverseGamma,
        Multinomial,
        NegativeBinomial,
        Poisson,
        StudentT,
        ZeroInflatedDistribution,
        ZeroInflatedNegativeBinomial,
        ZeroInflatedPoisson,
    )
    if hasattr(home, cls.__name__)
}
"""From a class of PyTorch or Pyro to the one here."""


def precise(p: Any) -> Any:
    """The same law as a member of the class here, if there is one.

    Example:
        >>> y = torch.tensor(1e6)
        >>> precise(dist.Poisson(y)).log_prob(y), dist.Poisson(y).log_prob(y)
        (tensor(-7.8267), tensor(-7.))
    """
    cls = PRECISE.get(type(p))
    if cls is None:
        return p
    member = cls.__new__(cls)
    vars(member).update(vars(p))
    if isinstance(member, ZeroInflatedDistribution):
        member.settle()
    return member
