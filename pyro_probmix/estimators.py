"""The methods as scikit-learn estimators."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from pyro_probmix._checks import check_device, check_integer, check_number
from pyro_probmix.distributions import LinearPool, class_log_probabilities, linear_pool
from pyro_probmix.mixing import NearestNeighborGraph
from pyro_probmix.models import DensityModel, assemble
from pyro_probmix.nn import MLP, CategoricalLikelihood, Likelihood, NormalLikelihood
from pyro_probmix.training import fit_replicas

__all__ = ["ProbMixClassifier", "ProbMixRegressor", "log_likelihood_scorer"]

_DTYPES = (np.float64, np.float32)
_NUMBERS_AT_ONCE = 2**24
"""Coordinates of embedding samples that a prediction has in memory at a time."""


class _ProbMixEstimator(BaseEstimator):
    """What the two have in common: settings, members trained on scaled features, and the density they predict."""

    def __init__(
        self,
        method: str = "manifold_probmix",
        *,
        hidden_features: Sequence[int] = (128, 32),
        alpha: float = 0.2,
        beta: float = 0.01,
        num_neighbors: int | None = None,
        num_members: int = 1,
        epochs: int = 400,
        batch_size: int | None = 64,
        learning_rate: float = 2e-3,
        validation_fraction: float = 0.2,
        patience: int | None = 50,
        num_samples: int = 100,
        num_workers: int = 0,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.method = method
        self.hidden_features = hidden_features
        self.alpha = alpha
        self.beta = beta
        self.num_neighbors = num_neighbors
        self.num_members = num_members
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.num_samples = num_samples
        self.num_workers = num_workers
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def predict_distribution(self, X: Any) -> Any:
        """The predictive density p(y|x), the equal mixture over the members and the embedding samples of each.

        Args:
            X: features, of shape ``(n, d)``.

        Returns:
            A :class:`LinearPool` of batch shape ``(n,)``: of y in its units, or of the position of a class in
            ``classes_``. Rows of it are ``p[i:j]``.
        """
        return self._predictive(self._features(X))

    def _check(self, X: Any, y: Any, **options: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        check_integer("num_members", self.num_members)
        check_integer("num_samples", self.num_samples)
        check_number("alpha", self.alpha)
        check_number("validation_fraction", self.validation_fraction, "[0, 1)")
        check_device(self.device)
        smallest = 3 if self.validation_fraction else 2
        return validate_data(self, X, y, dtype=_DTYPES, ensure_min_samples=smallest, **options)

    def _train(self, X: NDArray[Any], y: NDArray[Any], likelihood: Likelihood) -> None:
        rng = check_random_state(self.random_state)
        seed, order = int(rng.randint(2**31 - 1)), rng.permutation(len(X))
        scaler = StandardScaler().fit(X)
        x, labels = (_tensor(rows[order], self.device) for rows in (scaler.transform(X), y))
        with x.device:  # whichever the default is
            law = dist.Beta(float(self.alpha), float(self.alpha))

        def make_model(r: int) -> DensityModel:
            with x.device:
                network = MLP(X.shape[1], self.hidden_features, likelihood.num_outputs)
                width, own = next(iter(self.hidden_features), 0), copy.deepcopy(likelihood)
                return assemble(self.method, network, width, own, coefficient=law, beta=self.beta).to(x.dtype)

        folds = list(self._folds(len(X)))
        validated = len(folds[0]) > 0
        graph = None
        if self.num_neighbors is not None:
            graph = functools.partial(NearestNeighborGraph, num_neighbors=self.num_neighbors)
        kept = [np.delete(np.arange(len(X)), fold) for fold in folds]
        replicas = fit_replicas(
            make_model,
            [(x[rows], labels[rows]) for rows in kept],
            graph=graph,
            validation=[(x[rows], labels[rows]) for rows in folds] if validated else None,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            progress=bool(self.verbose),
            patience=self.patience if validated else None,
            num_workers=self.num_workers,
        )
        if replicas.failed:
            member, epoch = next(iter(replicas.failed.items()))
            raise ValueError(
                "learning_rate: expected one by which losses stay finite, got one by which that of member "
                f"{member} is not in epoch {epoch}; try a smaller one"
            )
        self.models_, self.histories_, self.x_scaler_ = replicas.models, replicas.histories, scaler

    def _folds(self, size: int) -> Iterator[NDArray[np.int64]]:
        """The rows that each member holds back, other rows for each as long as there are."""
        held_out = max(1, round(self.validation_fraction * size)) if self.validation_fraction else 0
        if held_out == size:
            raise ValueError(
                f"validation_fraction: expected one that leaves rows to train on, got {self.validation_fraction} "
                f"of {size} rows"
            )
        folds = size // held_out if held_out else 1
        for member in range(self.num_members):
            first = member % folds * held_out
            yield np.arange(first, first + held_out)

    def _features(self, X: Any) -> Tensor:
        check_is_fitted(self, "models_")
        check_integer("num_samples", self.num_samples)
        X = validate_data(self, X, reset=False, dtype=_DTYPES)
        parameter = next(self.models_[0].parameters())
        return _tensor(self.x_scaler_.transform(X), parameter.device).to(parameter.dtype)

    @torch.no_grad()
    def _predictive(self, x: Tensor) -> Any:
        members = [model.predictive(x, self.num_samples, noise=self._noise(model, x)) for model in self.models_]
        return members[0] if len(members) == 1 and isinstance(members[0], LinearPool) else linear_pool(members)

    def _noise(self, model: DensityModel, x: Tensor) -> Tensor | None:
        """The same for each row: what is predicted of one does not depend on the others."""
        generator = torch.Generator(x.device).manual_seed(0)  # of its own: threads may predict at once
        noise = model.draw_noise(x[:1], (self.num_samples, 1), generator)
        return None if noise is None else noise.expand(-1, len(x), -1)

    def _blocks(self, X: Any) -> Iterator[Any]:
        """The predictive densities, of as many rows at a time as memory allows."""
        features = self._features(X)
        widest = max(parameter.shape[0] for parameter in self.models_[0].parameters() if parameter.dim())
        width = self.num_samples * len(self.models_) * widest
        for x in features.split(max(1, _NUMBERS_AT_ONCE // width)):
            yield self._predictive(x)

    def _log_likelihood(self, X: Any, y: NDArray[Any]) -> float:
        check_consistent_length(X, y)
        total, first = 0.0, 0
        for p in self._blocks(X):
            if y.shape[1:] != p.event_shape:
                raise ValueError(f"y: expected shape {(len(y), *p.event_shape)}, as in fit, got {y.shape}")
            last = first + p.batch_shape[0]
            device = next(self.models_[0].parameters()).device
            total += float(p.log_prob(_tensor(y[first:last], device)).sum())
            first = last
        return total / len(y)


def log_likelihood_scorer(estimator: Any, X: Any, y: Any) -> float:
    r"""The mean log predictive density :math:`\frac1n \sum_i \log p(y_i|x_i)`, in nats, as a scorer of scikit-learn.

    Args:
        estimator: a fitted :class:`ProbMixRegressor` or :class:`ProbMixClassifier`, or a pipeline that ends in one.
        X: features, of shape ``(n, d)``.
        y: targets in their units, or labels, as in ``fit``.

    Raises:
        TypeError: if the estimator predicts no density.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.model_selection import GridSearchCV
        >>> model = pm.ProbMixRegressor(epochs=5, random_state=0)
        >>> search = GridSearchCV(model, {"beta": [1e-3, 1e-2]}, scoring=pm.log_likelihood_scorer, cv=2)
        >>> search.fit(*load_diabetes(return_X_y=True)).best_params_.keys()
        dict_keys(['beta'])
    """
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps[:-1]:
            X = X if step in (None, "passthrough") else step.transform(X)
        return log_likelihood_scorer(estimator.steps[-1][1], X, y)
    if not isinstance(estimator, _ProbMixEstimator):
        raise TypeError(
            "estimator: expected a ProbMixRegressor, a ProbMixClassifier or a pipeline that ends in one, "
            f"got {type(estimator).__name__}"
        )
    return estimator.log_likelihood(X, y)


class ProbMixRegressor(RegressorMixin, _ProbMixEstimator):
    r"""Regression with a predictive density, by mixup on a statistical manifold, for scikit-learn.

    .. math:: p(y|x) = \frac{1}{MS} \sum_{m=1}^{M} \sum_{s=1}^{S} N(y \mid \mu_m(z_{ms}), \sigma_m^2(z_{ms})), \qquad
        z_{ms} \sim q_m(z|x)

    Networks are trained on the risk of their method (eq. 16, or eq. 23 with an embedding), on features and targets of
    mean zero and variance one, and keep the epoch that is best on rows held back.

    Args:
        method: ``"erm"``, ``"mixup"``, ``"manifold_mixup"``, ``"probmix"`` or ``"manifold_probmix"``, as for
            :func:`~pyro_probmix.models.assemble`, or one of :func:`~pyro_probmix.models.register_method`.
        hidden_features: widths of the hidden layers; the first is the embedding of the manifold methods.
        alpha: α > 0, the mixing coefficient is Beta(α, α).
        beta: β ≥ 0, variance of the Normal vicinity of a target, in units of the targets' variance.
        num_neighbors: pairs are of a row and one of so many neighbours; default: of any two rows.
        num_members: M, networks of the ensemble, each with other rows held back.
        epochs: passes over the rows, at most.
        batch_size: rows a step; None for all.
        learning_rate: step size of Adam.
        validation_fraction: part of the rows that is held back to choose the epoch; 0 for the last epoch.
        patience: epochs without a better validation loss after which a member stops; None for never.
        num_samples: S, embedding samples of a prediction, of the stochastic method alone.
        num_workers: processes that share the members; 0 trains in this one.
        device: where networks are trained and predict, such as ``"cuda"``.
        random_state: an integer, a ``RandomState`` or None, as in scikit-learn. Predictions draw nothing anew: the
            embedding noise is the same for each row and call.
        verbose: whether a progress bar is shown.

    Attributes:
        models_: the members, ordinary models from scaled features to a density of y in its units, in double precision.
            They predict: what they were trained with, β among it, is of scaled targets.
        histories_: the losses of each member, in nats of the scaled target.
        x_scaler_: from features to scaled ones.
        n_features_in_: number of features.
        feature_names_in_: their names, where they have any.

    Source: El-Laham et al. (2025), sections 4 and 5.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = pm.ProbMixRegressor(epochs=10, random_state=0).fit(X[:300], y[:300])
        >>> mean, std = model.predict(X[300:], return_std=True)
        >>> mean.shape, std.shape
        ((142,), (142,))
        >>> model.predict_distribution(X[300:]).log_prob(torch.as_tensor(y[300:])).shape
        torch.Size([142])
    """

    def fit(self, X: Any, y: Any) -> ProbMixRegressor:
        """Trains the members.

        Args:
            X: features, of shape ``(n, d)``; those in float32 are trained on in single precision, others in double.
            y: targets, of shape ``(n,)``, or ``(n, k)`` for k outputs that are independent given x.

        Raises:
            ValueError: if features or targets are not finite numbers, there are fewer than three rows (two where none
                are held back), a setting is out of range, or a loss stops being finite.
        """
        X, y = self._check(X, y, multi_output=True, y_numeric=True)
        shape, columns = y.shape[1:], y.reshape(len(y), -1).astype(np.float64)
        scaler = StandardScaler().fit(columns)
        scaled = scaler.transform(columns).reshape(y.shape).astype(X.dtype)
        self._train(X, scaled, NormalLikelihood(shape))
        shift, scale = (torch.as_tensor(t.reshape(shape), device="cpu") for t in (scaler.mean_, scaler.scale_))
        for model in self.models_:
            model.likelihood = _OwnUnits(shift, scale).to(next(model.parameters()).device)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The predictive mean and, where ``return_std``, the standard deviation, in the shape and units of y."""
        moments = [(p.mean, p.stddev) if return_std else (p.mean,) for p in self._blocks(X)]
        found = tuple(torch.cat(blocks).cpu().numpy() for blocks in zip(*moments, strict=True))
        return found if return_std else found[0]

    def log_likelihood(self, X: Any, y: Any) -> float:
        """The mean log predictive density of y, in nats of its units.

        In a grid search, ``scoring=log_likelihood_scorer`` chooses by it.
        """
        return self._log_likelihood(X, np.asarray(y, float))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class ProbMixClassifier(ClassifierMixin, _ProbMixEstimator):
    r"""Classification by mixup on a statistical manifold, for scikit-learn.

    .. math:: p(y|x) = \frac{1}{MS} \sum_{m=1}^{M} \sum_{s=1}^{S} \mathrm{softmax}(f_m(z_{ms}))_y, \qquad
        z_{ms} \sim q_m(z|x)

    Settings and attributes are those of :class:`ProbMixRegressor`, but for two.

    Args:
        beta: β ≥ 0, what is added to the probability of each class in the vicinity of a label
            (:class:`~pyro_probmix.LabelVicinity`). Labels are pooled log-linearly; linearly for β = 0.

    Attributes:
        classes_: the labels, sorted.

    Source: El-Laham et al. (2025), sections 4 and 5.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = pm.ProbMixClassifier("probmix", epochs=10, random_state=0).fit(X, y)
        >>> model.predict_proba(X[:4]).shape
        (4, 3)
    """

    def fit(self, X: Any, y: Any) -> ProbMixClassifier:
        """Trains the members.

        Args:
            X: features, of shape ``(n, d)``; those in float32 are trained on in single precision, others in double.
            y: labels of any type, of shape ``(n,)``.

        Raises:
            ValueError: if features are not finite numbers, labels are of one class alone, there are fewer than three
                rows (two where none are held back), a setting is out of range, or a loss stops being finite.
        """
        X, y = self._check(X, y)
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        num_classes = len(encoder.classes_)
        if num_classes < 2:
            raise ValueError(f"y: expected at least two classes, got one class, {encoder.classes_[0]!r}")
        self._train(X, encoder.transform(y), CategoricalLikelihood(num_classes))
        self.classes_ = encoder.classes_
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The label of the largest probability."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(-1)]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """The probabilities of the classes, in the order of ``classes_``, of shape ``(n, num_classes)``."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Their logarithms, finite where the probability itself would be too small for a number."""
        return torch.cat([class_log_probabilities(p) for p in self._blocks(X)]).cpu().numpy()

    def log_likelihood(self, X: Any, y: Any) -> float:
        """The mean log-probability of the labels, in nats; −∞ where one is no class of the training labels.

        In a grid search, ``scoring=log_likelihood_scorer`` chooses by it.
        """
        check_is_fitted(self, "models_")
        y = column_or_1d(y)
        positions = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        found = self._log_likelihood(X, positions)
        return found if (self.classes_[positions] == y).all() else -math.inf


class _OwnUnits(NormalLikelihood):
    """A Normal likelihood of scaled targets, of the targets in their own units: in the precision of the units."""

    y_shift: Tensor
    y_scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__(tuple(shift.shape))
        self.register_buffer("y_shift", shift)
        self.register_buffer("y_scale", scale)

    def distribution(self, raw: Tensor) -> Any:
        p: Any = super().distribution(raw)
        scaled, precision = p.base_dist if self.event_shape else p, self.y_scale.dtype
        loc, scale = scaled.loc.to(precision), scaled.scale.to(precision)  # not that of the network
        normal = dist.Normal(loc * self.y_scale + self.y_shift, scale * self.y_scale)
        return normal.to_event(len(self.event_shape))


def _tensor(array: NDArray[Any], device: Any) -> Tensor:
    return torch.as_tensor(np.require(array, requirements=["C", "W"]), device=device)
