"""The log predictive density as a scorer of scikit-learn."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRequest

from pyro_probmix._checks import name_rows
from pyro_probmix.estimators.base import ProbMixEstimator
from pyro_probmix.estimators.labels import row_names

__all__ = ["LogLikelihoodScorer", "log_likelihood_scorer"]


class LogLikelihoodScorer:
    r"""The mean log predictive density :math:`\frac1n \sum_i \log p(y_i|x_i)`, in nats, as a scorer of scikit-learn.

    Rows may have weights, :math:`\sum_i w_i \log p(y_i|x_i) / \sum_i w_i`. Of a regressor of targets that are
    transformed by t, the density is that of the targets themselves,

    .. math:: \log p(y|x) = \log p_t(t(y)|x) + \log |t'(y)|,

    with a derivative by central differences; of several outputs it is the determinant of the Jacobian.

    ``log_likelihood_scorer(estimator, X, y, sample_weight=None)`` is the scorer. Its arguments:

    - ``estimator``: a fitted :class:`~pyro_probmix.ProbMixRegressor` or :class:`~pyro_probmix.ProbMixClassifier`, a
      pipeline that ends in one, a ``TransformedTargetRegressor`` of one, or a search over one.
    - ``X``: features, of shape ``(n, d)``.
    - ``y``: targets in their units, or labels, as in ``fit``.
    - ``sample_weight``: how much each row counts, of shape ``(n,)``. With metadata routing of scikit-learn on, ask for
      it by ``log_likelihood_scorer.set_score_request(sample_weight=True)``.

    It raises a TypeError if the estimator predicts no density.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.model_selection import GridSearchCV
        >>> model = pm.ProbMixRegressor(epochs=5, random_state=0)
        >>> search = GridSearchCV(model, {"beta": [1e-3, 1e-2]}, scoring=pm.log_likelihood_scorer, cv=2)
        >>> search.fit(*load_diabetes(return_X_y=True)).best_params_.keys()
        dict_keys(['beta'])
    """

    __name__ = "log_likelihood_scorer"

    def __init__(self) -> None:
        self._request: bool | str | None = None

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        while not isinstance(estimator, ProbMixEstimator):
            if hasattr(estimator, "best_estimator_"):
                estimator = estimator.best_estimator_
            elif isinstance(estimator, Pipeline):
                for _, step in estimator.steps[:-1]:
                    X = X if step in (None, "passthrough") else step.transform(X)
                estimator = estimator.steps[-1][1]
            elif isinstance(estimator, TransformedTargetRegressor) and hasattr(estimator, "regressor_"):
                jacobian = _log_jacobian(estimator, np.asarray(y, np.float64))
                if np.isnan(jacobian).any():
                    where = name_rows(torch.as_tensor(np.isnan(jacobian)), row_names(y, X))
                    raise ValueError(f"y: expected targets near which the transform is defined, got others in {where}")
                of_transformed = self(estimator.regressor_, X, _transformed(estimator, y), sample_weight)
                return of_transformed + float(np.average(jacobian, weights=sample_weight))
            else:
                raise TypeError(
                    "estimator: expected a fitted ProbMixRegressor or ProbMixClassifier, or a pipeline, a "
                    f"TransformedTargetRegressor or a search of one, got {type(estimator).__name__}"
                )
        return estimator.log_likelihood(X, y, sample_weight)

    def __repr__(self) -> str:
        return self.__name__

    def set_score_request(self, *, sample_weight: bool | str | None) -> LogLikelihoodScorer:
        """A scorer that asks metadata routing for weights, or for those of another name, or for none."""
        other = copy.copy(self)
        other._request = sample_weight
        return other

    def get_metadata_routing(self) -> Any:
        """What the scorer asks metadata routing for."""
        request = MetadataRequest(owner=self)
        request.score.add_request(param="sample_weight", alias=self._request)
        return request


log_likelihood_scorer = LogLikelihoodScorer()
"""See :class:`LogLikelihoodScorer`."""


def _transformed(estimator: TransformedTargetRegressor, y: Any) -> NDArray[np.float64]:
    """Targets as the inner regressor had them in ``fit``."""
    y = np.asarray(y, np.float64)
    found = estimator.transformer_.transform(y.reshape(-1, 1) if y.ndim == 1 else y)
    return found.squeeze(1) if found.ndim == 2 and found.shape[1] == 1 else found


def _log_jacobian(estimator: TransformedTargetRegressor, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of the absolute Jacobian determinant of the transform at each target."""
    columns = y.reshape(len(y), -1)
    transform = estimator.transformer_.transform
    spread = np.where(columns.std(0) > 0, columns.std(0), 1)
    step = np.cbrt(np.finfo(float).eps) * np.maximum(np.abs(columns), 1e-3 * spread)  # near zero stays on its side
    slopes = []
    for k in range(columns.shape[1]):
        above, below = columns.copy(), columns.copy()
        above[:, k] += step[:, k]
        below[:, k] -= step[:, k]
        with np.errstate(invalid="ignore", divide="ignore"):
            rise = np.asarray(transform(above)) - np.asarray(transform(below))
        slopes.append(rise / (above[:, k] - below[:, k])[:, None])
    jacobian = np.stack(slopes, -1)
    if jacobian.shape[1] != jacobian.shape[2]:
        raise ValueError(f"estimator: expected a transform of as many outputs as targets, got {jacobian.shape[1:]}")
    with np.errstate(invalid="ignore"):
        return np.linalg.slogdet(jacobian)[1]
