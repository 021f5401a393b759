"""Predictions and posteriors for ArviZ, of its versions 0.18 to 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pyro.infer import MCMC

from pyro_probmix._checks import check_integer
from pyro_probmix._version import __version__
from pyro_probmix.evaluation.inference_data.arrays import Coords, Groups
from pyro_probmix.evaluation.inference_data.posterior import of_guide, of_mcmc
from pyro_probmix.evaluation.inference_data.predictions import predictions

__all__ = ["to_inference_data"]


def to_inference_data(
    model: Any,
    x: Any = None,
    y: Any = None,
    num_samples: int = 1000,
    seed: int = 0,
    *,
    guide: Callable[..., Any] | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    num_embeddings: int = 100,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    r"""What a model predicts, or its posterior, for ArviZ's checks and plots.

    - ``to_inference_data(model, x, y)``, of a ready model, replicas or an estimator, has draws of y at ``x``:
      ``posterior_predictive``, ``observed_data``, ``constant_data``; ``predictions`` and ``predictions_constant_data``
      without ``y``. It has neither ``posterior`` nor ``log_likelihood``: embeddings are drawn from q(z|x), and networks
      of an ensemble are no posterior draws, so that leave-one-out (``arviz.loo``) would mean nothing. Compare such
      models by :func:`~pyro_probmix.compare_scores` on held-out rows.
    - ``to_inference_data(mcmc)``, of a ``pyro.infer.MCMC`` that has run, and
      ``to_inference_data(model, guide=guide, args=(x, y))``, of a trained guide of weights or of other latents outside
      of the data plate, have ``posterior``, ``log_likelihood``, ``log_prior``, ``posterior_predictive``,
      ``observed_data``, and ``sample_stats`` where there are any.

    The log-likelihood of row i and draw s is that of the plain model, on the data as they are, whatever was mixed in
    training, with the latents of the row, such as an embedding, integrated out:

    .. math:: \log p(y_i|w_s) = \log \frac1K \sum_{k=1}^K p(y_i|z_{ik}, w_s), \qquad z_{ik} \sim p(z|x_i, w_s),

    too small by about half their relative variance over K; discrete ones that can be enumerated are summed out. Their
    draws under mixing, and λ, are of pairs, and left out. ``arviz.loo`` takes the draws for those of the plain model's
    posterior. Rows that are masked are left out.

    Args:
        model: a ready model, replicas, a fitted estimator, an ``MCMC``, or with a ``guide`` any Pyro model.
        x: inputs, of shape ``(N, ...)``: a tensor, an array or a data frame, whose columns name the features.
        y: labels, of shape ``(N,) + event_shape``, for estimators in their units, or the classes by name.
        num_samples: number of draws, at least 1; of an ``MCMC``, all that it has.
        seed: seed of the draws; the global random state is left alone.
        guide: a trained guide, as ``SVI`` had it.
        args: what model and guide are called with; ``(x, y)`` also for a ready or mixed model. Default for an
            ``MCMC``: what it ran with.
        kwargs: their keyword arguments.
        num_embeddings: K ≥ 1. A model that ``torch.func.vmap`` cannot follow runs once for each of them and each draw.
        coords: dimension → the values along it.
        dims: variable → the names of its dimensions, after ``chain`` and ``draw``.

    Returns:
        An ``arviz.InferenceData``; for ArviZ 1 an ``xarray.DataTree``. The rows are the dimension ``observation``,
        features ``feature``; plates give their names to theirs. Counts and classes are integers.

    Raises:
        TypeError: if the model, or what it is called with, is of no such type.
        ValueError: if the shape of ``y`` is not that of the density, the draws are of embeddings alone or of a point,
            the observed sites are in no plate, rows have weights, or a number is out of range.

    Example:
        >>> likelihood = pm.nn.NormalLikelihood()
        >>> model = pm.ERM(pm.nn.MLP(2, [8], likelihood.num_outputs), likelihood)
        >>> idata = pm.to_inference_data(model, torch.zeros(5, 2), torch.zeros(5), num_samples=20)
        >>> idata.posterior_predictive["y"].shape
        (1, 20, 5)

        Of a posterior:

        >>> def model(x, y):
        ...     slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)
        >>> guide = pyro.infer.autoguide.AutoNormal(model)
        >>> x, y = torch.arange(5.0), torch.arange(5.0)
        >>> loss = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x, y)
        >>> idata = pm.to_inference_data(model, guide=guide, args=(x, y), num_samples=20)
        >>> idata.log_likelihood["y"].dims
        ('chain', 'draw', 'observation')
    """
    check_integer("num_samples", num_samples)
    check_integer("num_embeddings", num_embeddings)
    if isinstance(model, MCMC) or guide is not None:
        if x is not None or y is not None:
            raise ValueError("x, y: expected None beside a posterior, whose rows are in args, got values")
        if guide is None:
            groups, own = of_mcmc(model, args, kwargs, seed, num_embeddings)
        elif isinstance(model, MCMC):
            raise ValueError(f"guide: expected None beside an MCMC, got {type(guide).__name__}")
        else:
            groups, own = of_guide(model, guide, args, kwargs, num_samples, seed, num_embeddings)
    elif args is not None or kwargs is not None:
        raise ValueError("guide: expected a trained guide beside args, got None; to predict, hand over x and y")
    else:
        groups, own = predictions(model, x, y, num_samples, seed)
    return _assembled(groups, {**own, **(coords or {})}, dims or {})


def _assembled(groups: Groups, coords: Coords, dims: Mapping[str, Sequence[str]]) -> Any:
    import arviz  # here, for it brings Matplotlib with it
    import xarray

    attributes = {"inference_library": "pyro_probmix", "inference_library_version": __version__}
    datasets: dict[str, Any] = {}
    for group, variables in groups.items():
        named = {name: (_renamed(name, own, dims), values) for name, (own, values) in variables.items()}
        sizes = {dim: size for own, values in named.values() for dim, size in zip(own, values.shape)}
        ticks = {dim: np.arange(size) if coords.get(dim) is None else coords[dim] for dim, size in sizes.items()}
        datasets[group] = xarray.Dataset(named, ticks, attributes)
    if int(arviz.__version__.partition(".")[0]) > 0:
        return xarray.DataTree.from_dict(datasets)
    return arviz.InferenceData(**datasets)


def _renamed(name: str, own: list[str], dims: Mapping[str, Sequence[str]]) -> list[str]:
    """The dimensions of a variable, by the names that they are given; those of a log-density are the first."""
    if name not in dims:
        return own
    leading = [dim for dim in own if dim in ("chain", "draw")]
    names = list(dims[name])[: len(own) - len(leading)]
    if len(names) + len(leading) < len(own):
        raise ValueError(f"dims: expected {len(own) - len(leading)} names for {name!r}, got {list(dims[name])}")
    return [*leading, *names]
