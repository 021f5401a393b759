"""Likelihoods: from the raw output of a network to a Pyro distribution over y."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_probmix._checks import as_size, check_integer, check_number
from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.held_tensors import map_tensors
from pyro_probmix.distributions.supports import elementwise
from pyro_probmix.nn._constrained import ConstrainedParameter, Layout, accepts, parameter_names, pyro_class
from pyro_probmix.ops.autocast import full_precision, without_autocast
from pyro_probmix.ops.devices import filled_numbers

__all__ = ["CategoricalLikelihood", "DistributionLikelihood", "Likelihood", "NormalLikelihood"]


class Likelihood(nn.Module):
    """A likelihood p(y | raw): called on raw network outputs, it gives a Pyro distribution over y.

    A subclass fills :meth:`distribution`.

    Args:
        num_outputs: Raw network outputs per data point.
        event_shape: Shape of one y.
        support: Where one y lives; known without a forward pass.
    """

    num_outputs: int
    event_shape: torch.Size
    support: constraints.Constraint

    def __init__(self, num_outputs: int, event_shape: torch.Size, support: constraints.Constraint) -> None:
        super().__init__()
        self.num_outputs, self.event_shape, self.support = num_outputs, event_shape, support

    def forward(self, raw: Tensor) -> dist.TorchDistribution:
        """Return p(y | raw) of batch shape ``raw.shape[:-1]`` and the likelihood's event shape.

        Args:
            raw: Network outputs, shape (..., num_outputs).

        Raises:
            ValueError: if the last dimension is not ``num_outputs``.
        """
        if raw.shape[-1:] != (self.num_outputs,):
            raise ValueError(
                f"raw: expected shape (..., {self.num_outputs}), as num_outputs of {type(self).__name__}, "
                f"got {tuple(raw.shape)}"
            )
        raw = full_precision(raw)
        with without_autocast(raw):
            return self.distribution(raw)

    @torch.no_grad()
    def probe(self) -> dist.TorchDistribution | None:
        """p(y | raw) at two different rows of raw outputs, always the same: what kind of distribution it is.

        Returns:
            The distribution, without a mask; None of a likelihood that takes no two rows, being made for others.

        Example:
            >>> NormalLikelihood(scale=1.0).probe().mean
            tensor([-0.5000,  0.5000])
        """
        device = next((t.device for t in (*self.parameters(), *self.buffers())), None)
        raw = torch.linspace(-0.5, 0.5, 2 * self.num_outputs, device=device)
        try:
            p = self.forward(raw.reshape(2, self.num_outputs))  # a call of Pyro's modules would reach its store
        except (RuntimeError, ValueError):
            return None
        return p.base_dist if isinstance(p, dist.MaskedDistribution) else p

    def distribution(self, raw: Tensor) -> dist.TorchDistribution:
        """What a subclass fills: p(y | raw) of raw outputs that :meth:`forward` has checked."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses."""
        return f"num_outputs={self.num_outputs}, event_shape={tuple(self.event_shape)}"


class NormalLikelihood(Likelihood):
    r"""Normal likelihood with independent output dimensions.

    .. math:: p(y \mid \mathrm{raw}) = \prod_d N(y_d \mid \mu_d, \sigma_d^2), \qquad
        \sigma_d = \mathrm{softplus}(\mathrm{raw}_{D + d}) + \mathtt{min\_scale}

    The D means come first in the raw outputs, then the D raw standard deviations. Data points can share their
    standard deviations instead; the D means are then all that is predicted.

    Args:
        event_shape: Shape of one y: ``()`` for a number, ``D`` or a tuple for D independent outputs.
        homoscedastic: Learn one standard deviation per output dimension, exp(log_scale) + min_scale, with the
            parameter ``log_scale`` of shape ``event_shape`` starting at zero.
        scale: Known standard deviation of every output dimension, in units of y.
        min_scale: Lower bound of a learned standard deviation, in units of y.

    Raises:
        ValueError: if a number is out of range, or ``scale`` is given with ``homoscedastic``.

    Example:
        >>> likelihood = NormalLikelihood()
        >>> likelihood.num_outputs
        2
        >>> p = likelihood(torch.zeros(364, 2))
        >>> p.batch_shape, p.event_shape
        (torch.Size([364]), torch.Size([]))
    """

    def __init__(
        self,
        event_shape: int | Sequence[int] = (),
        homoscedastic: bool = False,
        scale: float | None = None,
        min_scale: float = 1e-4,
    ) -> None:
        size = as_size("event_shape", event_shape)
        if homoscedastic and scale is not None:
            raise ValueError("scale: expected None with homoscedastic=True, which learns the scale")
        predicts_scale = not homoscedastic and scale is None
        support = constraints.independent(constraints.real, len(size)) if size else constraints.real
        super().__init__(size.numel() * (2 if predicts_scale else 1), size, support)
        self.min_scale = check_number("min_scale", min_scale)
        self.scale = None if scale is None else check_number("scale", scale)
        self.log_scale = nn.Parameter(torch.zeros(size)) if homoscedastic else None

    def distribution(self, raw: Tensor) -> dist.TorchDistribution:
        if self.scale is not None:
            return self._normal(self._shaped(raw), raw.new_full((), self.scale))
        if self.log_scale is not None:
            loc = self._shaped(raw)
            return self._normal(loc, self.log_scale.to(loc.dtype).exp() + self.min_scale)
        if self.event_shape:
            loc, raw_scale = map(self._shaped, raw.chunk(2, -1))
        else:
            loc, raw_scale = raw.unbind(-1)
        return self._normal(loc, F.softplus(raw_scale) + self.min_scale)

    def _shaped(self, raw: Tensor) -> Tensor:
        return raw if len(self.event_shape) == 1 else raw.reshape(raw.shape[:-1] + self.event_shape)

    def _normal(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        normal = dist.Normal(loc, scale)
        return normal.to_event(len(self.event_shape)) if self.event_shape else normal


class CategoricalLikelihood(Likelihood):
    r"""Categorical likelihood of an integer label, the raw outputs being its logits.

    .. math:: p(y = k \mid \mathrm{raw}) = \mathrm{softmax}(\mathrm{raw})_k

    Args:
        num_classes: Number of classes, at least two; y is in 0 .. num_classes - 1.

    Raises:
        ValueError: if there are fewer than two classes.

    Example:
        >>> p = CategoricalLikelihood(3)(torch.zeros(364, 3))
        >>> p.batch_shape, p.event_shape
        (torch.Size([364]), torch.Size([]))
    """

    def __init__(self, num_classes: int) -> None:
        classes = check_integer("num_classes", num_classes, minimum=2)
        super().__init__(classes, torch.Size(), constraints.integer_interval(0, classes - 1))
        self.num_classes = classes

    def distribution(self, raw: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=raw)


class DistributionLikelihood(Likelihood):
    r"""Likelihood of any Pyro family, its parameters read off the raw outputs through their constraints.

    The raw outputs are split in the order of ``parameters``, and each piece is mapped into its parameter's
    domain, ``distribution_class.arg_constraints``:

    ===================== ==========================================================================
    real                  the raw output itself
    bounded below by l    l + softplus(raw) + floor
    lower Cholesky, d × d d (d + 1) / 2 raw outputs: the diagonal, softplus(raw) + floor, then the
                          entries below it, row by row
    other                 ``torch.distributions.transform_to``: sigmoid for an interval, softmax for
                          the simplex
    ===================== ==========================================================================

    ``event_shape`` is the shape of one y. Families over numbers have independent entries; a family over
    vectors takes its vector from the last dimension, and has independent vectors along the others: ``Gamma``
    with (2, 3) is six Gammas, ``Dirichlet`` with (2, 3) two Dirichlets over three categories.

    Args:
        distribution_class: A Pyro distribution class, or the torch class of the same name.
        event_shape: Shape of one y: ``()`` for a number or label, else an integer or a tuple.
        parameters: Names of the parameters to predict. ``None``: all that are continuous and not fixed, in
            the order of ``arg_constraints``; of several forms, logits and scale_tril.
        num_classes: Number of classes of a family over labels, i.e. ``Categorical``.
        floor: Distance kept from the lower bound of a parameter.
        **fixed: The distribution's other arguments, e.g. ``total_count=10``. Tensors broadcast with
            ``event_shape``, are buffers of the module and take the floating dtype of the raw outputs.

    Raises:
        ValueError: if the parameters cannot be predicted for this family and shape, or a fixed one is
            invalid.
        TypeError: if ``distribution_class`` is not a distribution class, or a size is not an integer.

    Example:
        >>> likelihood = DistributionLikelihood(dist.StudentT, df=4.0)
        >>> likelihood.parameter_names, likelihood.num_outputs
        (('loc', 'scale'), 2)
        >>> likelihood = DistributionLikelihood(dist.MultivariateNormal, event_shape=3)
        >>> likelihood.parameter_names, likelihood.num_outputs
        (('loc', 'scale_tril'), 9)
        >>> likelihood(torch.zeros(364, 9)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        distribution_class: type[torch.distributions.Distribution],
        event_shape: int | Sequence[int] = (),
        *,
        parameters: Sequence[str] | None = None,
        num_classes: int | None = None,
        floor: float = 1e-6,
        **fixed: Any,
    ) -> None:
        size = as_size("event_shape", event_shape)
        family = pyro_class(distribution_class)
        names = parameter_names(family, parameters, fixed)
        layout = Layout.of(family, names, size, num_classes)
        floor = check_number("floor", floor)
        predicted = [ConstrainedParameter.of(family, name, layout, floor) for name in names]
        sizes = [parameter.raw_shape.numel() for parameter in predicted]
        super().__init__(sum(sizes), size, constraints.real)
        self.distribution_class, self.parameter_names = family, names
        self.floor, self.num_classes = floor, num_classes
        self._predicted, self._sizes = predicted, sizes
        self._num_independent = len(layout.batch)
        self._constants = {name: value for name, value in fixed.items() if not isinstance(value, Tensor)}
        self._buffer_names = {name: f"fixed_{name}" for name in fixed if name not in self._constants}
        for name, buffer_name in self._buffer_names.items():
            if fixed[name].requires_grad:
                raise ValueError(f"{name}: expected a fixed tensor, got one that requires a gradient")
            self.register_buffer(buffer_name, fixed[name].clone())
        self.support = self._find_support()

    @property
    def fixed(self) -> dict[str, Any]:
        """The distribution's other arguments by name, tensors being the buffers of the module."""
        buffers = {name: getattr(self, buffer_name) for name, buffer_name in self._buffer_names.items()}
        return {**self._constants, **buffers}

    def distribution(self, raw: Tensor) -> dist.TorchDistribution:
        return self._build(raw, self._constants)

    def _build(self, raw: Tensor, constants: Mapping[str, Any]) -> dist.TorchDistribution:
        arguments = dict(constants)
        for name, buffer_name in self._buffer_names.items():
            value = getattr(self, buffer_name)
            arguments[name] = value.to(raw.dtype) if value.is_floating_point() else value
        for parameter, piece in zip(self._predicted, self._pieces(raw), strict=True):
            arguments[parameter.name] = parameter.constrain(piece)
        with filled_numbers(raw):
            distribution = corrected_class(self.distribution_class)(**arguments)
        return distribution.to_event(self._num_independent) if self._num_independent else distribution

    def _pieces(self, raw: Tensor) -> Sequence[Tensor]:
        """Split raw outputs into those of each parameter, shape (..., *raw_shape)."""
        if not any(parameter.raw_shape for parameter in self._predicted):
            return raw.unbind(-1)  # the same, several times faster
        pieces: Sequence[Tensor] = raw.split(self._sizes, -1)
        shapes = [raw.shape[:-1] + parameter.raw_shape for parameter in self._predicted]
        return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DistributionLikelihood:
        """Move the bounds of the support with the buffers that they come from."""
        super()._apply(fn, recurse)
        self.support = map_tensors(self.support, fn)
        return self

    def _find_support(self) -> constraints.Constraint:
        """Support of the distribution at raw = 0, built once with validation on to check what is fixed."""
        device = next((buffer.device for buffer in self.buffers()), torch.device("cpu"))
        family = self.distribution_class.__name__
        constants = dict(self._constants)
        if accepts(self.distribution_class, "validate_args"):
            constants["validate_args"] = True
        with torch.enable_grad():
            raw = torch.zeros(self.num_outputs, device=device, requires_grad=True)
            try:
                probe: Any = self._build(raw, constants)
            except (ValueError, TypeError, RuntimeError) as error:
                raise ValueError(
                    f"{family}: expected fixed arguments that go with predicted {self.parameter_names} at "
                    f"event_shape {tuple(self.event_shape)}, got: {error}"
                ) from error
        if probe.batch_shape or probe.event_shape != self.event_shape:
            raise ValueError(
                f"event_shape: expected a {family} over y of shape {tuple(self.event_shape)}, got one of "
                f"batch_shape {tuple(probe.batch_shape)} and event_shape {tuple(probe.event_shape)}"
            )
        two_rows: Any = self._build(raw.expand(2, -1), constants)
        if (two_rows.batch_shape, two_rows.event_shape) != ((2,), self.event_shape):
            raise ValueError(
                f"{family}: expected a family that takes parameters of two rows of shape {tuple(self.event_shape)} as "
                f"two distributions, got batch_shape {tuple(two_rows.batch_shape)} and event_shape "
                f"{tuple(two_rows.event_shape)}"
            )
        support: constraints.Constraint = probe.support
        bounds = vars(elementwise(support)).values()
        if any(isinstance(bound, Tensor) and bound.requires_grad for bound in bounds):
            raise ValueError(f"{family}: expected a support that no predicted parameter moves, got {support}")
        return support

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses."""
        family = self.distribution_class.__name__
        return f"{family}, parameters={self.parameter_names}, {super().extra_repr()}"
