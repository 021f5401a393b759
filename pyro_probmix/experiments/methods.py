"""The eleven columns of the paper's tables: which site of one model is fused, and on which graph."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pyro.distributions as dist
from torch import Tensor

from pyro_probmix import models
from pyro_probmix.datasets import Dataset
from pyro_probmix.experiments.settings import ExperimentSettings
from pyro_probmix.mixing import CompleteGraph, NearestNeighborGraph, SamplingGraph
from pyro_probmix.models import DensityModel, assemble
from pyro_probmix.nn import CategoricalLikelihood, Likelihood, NormalLikelihood

__all__ = ["ENSEMBLES", "METHODS", "Method", "select", "select_methods"]


@dataclass(frozen=True)
class Method:
    """One column of the tables.

    Args:
        name: name of the model.
        fuses: the site that is fused.
        model: its class, or its name for :func:`~pyro_probmix.models.assemble`.
        local: mixes nearest neighbours instead of any two rows.
        separate_variance: the variance of the embedding has a layer of its own, and both are half as wide.
    """

    name: str
    fuses: str
    model: str | type[DensityModel]
    local: bool = False
    separate_variance: bool = False

    @property
    def label(self) -> str:
        """Name with its graph."""
        return f"Local {self.name}" if self.local else self.name

    def make_model(self, data: Dataset, settings: ExperimentSettings) -> DensityModel:
        """A freshly initialised model for a data set, drawn from torch's default generator."""
        if self.separate_variance:
            first, second = settings.hidden_features
            settings = replace(settings, hidden_features=(first // 2, second))
        regression = data.task == "regression"
        likelihood: Likelihood = NormalLikelihood() if regression else CategoricalLikelihood(data.num_classes)
        network = settings.make_network(data.num_features, likelihood.num_outputs)
        law = dist.Beta(settings.alpha, settings.alpha)
        return assemble(
            self.model,
            network,
            settings.hidden_features[0],
            likelihood,
            coefficient=law,
            beta=settings.beta,
            separate_variance=self.separate_variance,
        )

    def graph(self, x: Tensor, num_neighbors: int) -> SamplingGraph:
        """The sampling graph over training rows ``x`` of shape ``(n, d)``."""
        return NearestNeighborGraph(x, num_neighbors=num_neighbors) if self.local else CompleteGraph(len(x))


class _Columns(dict[str, Method]):
    """The paper's columns. A method that has been registered besides is found by its name too, but not listed."""

    def __missing__(self, name: str) -> Method:
        registered = models.METHODS[name.removeprefix("local_")]
        return Method(registered.label, registered.fuses, registered.model, name.startswith("local_"))


ENSEMBLES = {"ensemble": "manifold_probmix", "local_ensemble": "local_manifold_probmix", "erm_ensemble": "erm"}
"""The ensembles by name, and the method of their members."""

METHODS = _Columns()
"""The methods by name, in the order of the paper's tables."""

for _name in ("erm", "mixup", "manifold_mixup", "probmix", "manifold_probmix"):
    METHODS[_name] = METHODS[_name]
    if _name != "erm":
        METHODS[f"local_{_name}"] = METHODS[f"local_{_name}"]
for _name in ("manifold_probmix", "local_manifold_probmix"):
    METHODS[f"{_name}_separate_variance"] = replace(METHODS[_name], name="Manifold ProbMix*", separate_variance=True)


def select_methods(names: str, columns: Sequence[str] | None = None) -> tuple[str, ...]:
    """The methods of a comma-separated list, in the order of the tables.

    Args:
        names: the list.
        columns: the methods to choose from; default: the paper's, then those that have been registered besides, each
            with its local variant.

    Raises:
        ValueError: if a name is unknown or the list is empty.

    >>> select_methods("probmix, erm")
    ('erm', 'probmix')
    """
    if columns is None:
        others = [name for name in models.METHODS if name not in METHODS]
        columns = [*METHODS, *(column for name in others for column in (name, f"local_{name}"))]
    return select("methods", names, columns)


def select(what: str, names: str, known: Collection[str]) -> tuple[str, ...]:
    """Those of a comma-separated list, in the order of the ones that are known."""
    chosen = {name.strip() for name in names.split(",")} - {""}
    unknown = sorted(chosen - set(known))
    if unknown or not chosen:
        raise ValueError(f"{what}: expected some of {', '.join(known)}, got {', '.join(unknown) or 'none'}")
    return tuple(name for name in known if name in chosen)
