"""Conditional density estimation with mixup on statistical manifolds, in Pyro."""

from typing import TYPE_CHECKING, Any

from pyro_probmix._imports import imported as _imported
from pyro_probmix._version import __version__

if TYPE_CHECKING:
    from pyro_probmix import distributions, evaluation, mixing, models, nn, training
    from pyro_probmix.distributions import (
        ExpandedBeta,
        HolderPool,
        LinearPool,
        LogLinearPool,
        NumericalPool,
        bhattacharyya_distance,
        chernoff_coefficient,
        chernoff_information,
        cross_entropy,
        entropy,
        interval,
        kl_divergence,
        linear_pool,
        log_linear_pool,
        median,
        mode,
        quantile,
        renyi_divergence,
        rows,
    )
    from pyro_probmix.estimators import ProbMixClassifier, ProbMixRegressor, log_likelihood_scorer
    from pyro_probmix.evaluation import (
        ConformalInterval,
        IsotonicRecalibration,
        TemperatureScaling,
        VarianceScaling,
        compare_scores,
        evaluate,
        ood_scores,
        to_inference_data,
    )
    from pyro_probmix.mixing import (
        CompleteGraph,
        DiracVicinity,
        EmbeddingGraph,
        GaussJacobi,
        KernelGraph,
        LabelGraph,
        LabelVicinity,
        NearestNeighborGraph,
        NormalVicinity,
        PairBatch,
        PairLoader,
        Vicinity,
        WeightedGraph,
    )
    from pyro_probmix.models import ERM, ManifoldMixup, ManifoldProbMix, Mixup, ProbMix, mix, rescaled
    from pyro_probmix.persistence import load, save
    from pyro_probmix.training import History, Replicas, fit, fit_replicas

__all__ = [
    "ERM",
    "CompleteGraph",
    "ConformalInterval",
    "DiracVicinity",
    "EmbeddingGraph",
    "ExpandedBeta",
    "GaussJacobi",
    "History",
    "HolderPool",
    "IsotonicRecalibration",
    "KernelGraph",
    "LabelGraph",
    "LabelVicinity",
    "LinearPool",
    "LogLinearPool",
    "ManifoldMixup",
    "ManifoldProbMix",
    "Mixup",
    "NearestNeighborGraph",
    "NormalVicinity",
    "NumericalPool",
    "PairBatch",
    "PairLoader",
    "ProbMix",
    "ProbMixClassifier",
    "ProbMixRegressor",
    "Replicas",
    "TemperatureScaling",
    "VarianceScaling",
    "Vicinity",
    "WeightedGraph",
    "__version__",
    "bhattacharyya_distance",
    "chernoff_coefficient",
    "chernoff_information",
    "compare_scores",
    "cross_entropy",
    "distributions",
    "entropy",
    "evaluate",
    "evaluation",
    "fit",
    "fit_replicas",
    "interval",
    "kl_divergence",
    "linear_pool",
    "load",
    "log_likelihood_scorer",
    "log_linear_pool",
    "median",
    "mix",
    "mixing",
    "mode",
    "models",
    "nn",
    "ood_scores",
    "quantile",
    "renyi_divergence",
    "rescaled",
    "rows",
    "save",
    "to_inference_data",
    "training",
]

_NAMES = {
    "distributions": (
        "ExpandedBeta",
        "HolderPool",
        "LinearPool",
        "LogLinearPool",
        "NumericalPool",
        "bhattacharyya_distance",
        "chernoff_coefficient",
        "chernoff_information",
        "cross_entropy",
        "entropy",
        "interval",
        "kl_divergence",
        "linear_pool",
        "log_linear_pool",
        "median",
        "mode",
        "quantile",
        "renyi_divergence",
        "rows",
    ),
    "mixing": (
        "CompleteGraph",
        "DiracVicinity",
        "EmbeddingGraph",
        "GaussJacobi",
        "KernelGraph",
        "LabelGraph",
        "LabelVicinity",
        "NearestNeighborGraph",
        "NormalVicinity",
        "PairBatch",
        "PairLoader",
        "Vicinity",
        "WeightedGraph",
    ),
    "models": ("ERM", "ManifoldMixup", "ManifoldProbMix", "Mixup", "ProbMix", "mix", "rescaled"),
    "training": ("History", "Replicas", "fit", "fit_replicas"),
    "evaluation": (
        "ConformalInterval",
        "IsotonicRecalibration",
        "TemperatureScaling",
        "VarianceScaling",
        "compare_scores",
        "evaluate",
        "ood_scores",
        "to_inference_data",
    ),
    "estimators": ("ProbMixClassifier", "ProbMixRegressor", "log_likelihood_scorer"),
    "persistence": ("load", "save"),
}
"""The names of each room that the package has too, as the type checker sees them above."""

_ROOMS = {"nn", "ops", "tables", *_NAMES}
_HOMES = {name: room for room, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # for which any name at all would be there

    def __getattr__(name: str) -> Any:
        """A room, or a name of one, which is imported when it is asked for (PEP 562)."""
        if name in _ROOMS:
            return _imported(f"{__name__}.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(_imported(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        """What there is, imported or not."""
        return sorted({*globals(), *_ROOMS, *__all__})
