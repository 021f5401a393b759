"""The methods as a classifier of scikit-learn: of classes, ordered ones, several labels at once, and soft labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from pyro_probmix._checks import check_choice
from pyro_probmix.distributions import class_log_probabilities
from pyro_probmix.estimators.base import ProbMixEstimator
from pyro_probmix.estimators.labels import Labels
from pyro_probmix.estimators.likelihoods import OrdinalLikelihood
from pyro_probmix.estimators.prepared import as_weights
from pyro_probmix.estimators.saved import check_keys, labels_from_dict, labels_to_dict
from pyro_probmix.estimators.targets import as_tensor
from pyro_probmix.nn import CategoricalLikelihood, DistributionLikelihood, Likelihood

__all__ = ["ProbMixClassifier"]


class ProbMixClassifier(ClassifierMixin, ProbMixEstimator):
    r"""Classification by mixup on a statistical manifold, for scikit-learn.

    .. math:: p(y|x) = \frac{1}{MS} \sum_{m=1}^{M} \sum_{s=1}^{S} \mathrm{softmax}(f_m(z_{ms}))_y, \qquad
        z_{ms} \sim q_m(z|x)

    Settings and attributes are those of :class:`~pyro_probmix.ProbMixRegressor`, but for these.

    Args:
        likelihood: ``"categorical"``, or ``"ordinal"`` for classes that have an order: numbers, or an ordered
            category of pandas. The class is then where a predicted number plus logistic noise falls among cutpoints.
        beta: β ≥ 0, what is added to the probability of each class in the vicinity of a label
            (:class:`~pyro_probmix.LabelVicinity`). Labels are pooled log-linearly; linearly for β = 0, the default. Of
            C classes a label has else (C − 1) β / (1 + C β) off its class, a floor of the loss where they are apart.
        class_weight: ``"balanced"`` for weights n / (C nₖ) that give each class the same sum, or the weight of each
            class by its label, others having one; multiplies ``sample_weight``. Default: one for all.

    Attributes:
        classes_: the labels, sorted, or in their order where they have one; the columns of a matrix of labels.

    Source: El-Laham et al. (2025), sections 4 and 5.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = pm.ProbMixClassifier("probmix", epochs=10, random_state=0).fit(X, y)
        >>> model.predict_proba(X[:4]).shape
        (4, 3)
    """

    classes_: NDArray[Any]

    def __init__(
        self,
        method: str = "manifold_probmix",
        *,
        likelihood: str = "categorical",
        hidden_features: Sequence[int] = (100, 100),
        alpha: float = 0.2,
        beta: float = 0.0,
        fusion: str = "log-linear",
        num_neighbors: int | None = None,
        num_members: int = 1,
        epochs: int | None = None,
        batch_size: int | str | None = "auto",
        learning_rate: float = 0.01,
        scheduler: str = "one_cycle",
        validation_fraction: float = 0.2,
        patience: int | None = None,
        ema_decay: float | None = None,
        refit: bool = False,
        num_samples: int = 100,
        class_weight: Any = None,
        kinds: Mapping[Any, Any] | None = None,
        num_workers: int = 0,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            method=method,
            likelihood=likelihood,
            hidden_features=hidden_features,
            alpha=alpha,
            beta=beta,
            fusion=fusion,
            num_neighbors=num_neighbors,
            num_members=num_members,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            scheduler=scheduler,
            validation_fraction=validation_fraction,
            patience=patience,
            ema_decay=ema_decay,
            refit=refit,
            num_samples=num_samples,
            kinds=kinds,
            num_workers=num_workers,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, eval_set: tuple[Any, Any] | None = None
    ) -> ProbMixClassifier:
        """Trains the members.

        Args:
            X: features, as for :meth:`ProbMixRegressor.fit() <pyro_probmix.ProbMixRegressor.fit>`.
            y: labels of any type, of shape ``(n,)``; a matrix of zeros and ones, of shape ``(n, k)``, for k labels that
                are each there or not, independent given x; or soft labels, the probability of each of C classes, of
                shape ``(n, C)`` and not all zeros and ones, whose rows add up to one. A row of these counts as one row
                a class with these weights.
            sample_weight: how much each row counts, of shape ``(n,)``, at least 0; default: equally.
            eval_set: ``(X, y)`` of other rows, by which all members choose their epoch, nothing being held back.

        Returns:
            The estimator itself.

        Raises:
            ValueError: if features are infinite, labels are of one class alone or have no order where they are to,
                there are fewer than three rows (two where none are held back), a setting is out of range, or a loss
                stops being finite.
        """
        self._check_settings()
        check_choice("likelihood", self.likelihood, ("categorical", "ordinal"))
        X, dtype = self._check_features(X, y)
        labels = Labels.of(y, ordered=self.likelihood == "ordinal")
        check_consistent_length(X, labels.values)
        if labels.kind == "several" and self.likelihood == "ordinal":
            raise ValueError('likelihood: expected "categorical" for several labels a row, got "ordinal"')
        weight = None if sample_weight is None else as_weights(sample_weight, len(X))
        if weight is not None:
            X, labels, weight = X[weight > 0], labels.take(weight > 0), weight[weight > 0]
        num_classes = len(labels.classes)
        if num_classes < 2 and labels.kind != "several":
            raise ValueError(f"y: expected at least two classes, got one class, {labels.classes.tolist()[0]!r}")
        weight = labels.weighted(weight, self.class_weight)
        prepared = self._prepared(X, eval_set, dtype, soft=labels.kind == "soft")
        validation = None
        if eval_set is not None:
            others = labels.others("eval_set y", eval_set[1])
            validation = prepared.eval_rows(others.values, others.weighted(None, self.class_weight))
        likelihood = _likelihood(self.likelihood, labels.kind, num_classes)
        rows = prepared.rows(labels.values, weight)
        members = self._train(rows, validation, likelihood, prepared.network, self._draws(len(rows)))
        self._keep(members, prepared)
        self.classes_, self.likelihood_, self._kind = labels.classes, self.likelihood, labels.kind
        return self

    def encode_labels(self, y: Any) -> NDArray[Any]:
        check_is_fitted(self, "models_")
        kind = "classes" if self._kind == "soft" and np.ndim(y) == 1 else self._kind
        return Labels(kind, self.classes_, np.empty(0)).others("y", y).values

    def predict(self, X: Any) -> NDArray[Any]:
        """The label of the largest probability; of several labels, which have a probability above one half."""
        probabilities = self.predict_proba(X)
        if self._kind == "several":
            return (probabilities > 0.5).astype(int)
        return self.classes_[probabilities.argmax(-1)]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """The probabilities of ``classes_``, of shape ``(n, num_classes)``; of several labels, that each is there."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Their logarithms, finite where the probability itself would be too small for a number."""
        (found,) = self.map_distributions(X, lambda p: (class_log_probabilities(p),))
        return found[..., 1] if self._kind == "several" else found

    def log_likelihood(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        r"""The mean log-probability of the labels, weighted where there are weights, in nats.

        Of soft labels it is :math:`\sum_k y_k \log p(k|x)`. It is −∞ where a label is no class of the training labels.

        In a grid search, ``scoring=log_likelihood_scorer`` chooses by it.
        """
        check_is_fitted(self, "models_")
        labels = Labels(self._kind, self.classes_, np.empty(0)).others("y", y, strict=False)
        values, device = labels.values, next(self.models_[0].parameters()).device

        def scores(p: Any, rows: slice) -> Any:
            given = as_tensor(values[rows], device)
            if labels.kind == "several":
                return p.log_prob(given.to(next(self.models_[0].parameters()).dtype))
            log_probs = class_log_probabilities(p)
            if labels.kind == "soft":
                return torch.where(given > 0, given * log_probs, 0).sum(-1)
            found = log_probs.gather(-1, given.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            return torch.where(given < 0, -torch.inf, found)

        return self._mean_score(X, scores, len(values), sample_weight)

    def _own_settings(self) -> dict[str, Any]:
        return {"classes": labels_to_dict(self.classes_), "kind": self._kind, "likelihood": self.likelihood_}

    def _restore(self, settings: Mapping[str, Any]) -> Any:
        check_keys("own", settings, ("classes", "kind", "likelihood"))
        check_choice("kind", settings["kind"], ("classes", "several", "soft"))
        check_choice("likelihood", settings["likelihood"], ("categorical", "ordinal"))
        self.classes_ = labels_from_dict(settings["classes"])
        self._kind, self.likelihood_ = settings["kind"], settings["likelihood"]
        return _likelihood(self.likelihood_, self._kind, len(self.classes_)), lambda trained: trained

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _likelihood(name: str, kind: str, num_classes: int) -> Likelihood:
    with torch.device("cpu"):  # whichever the default is
        if kind == "several":
            return DistributionLikelihood(dist.Bernoulli, num_classes)
        return OrdinalLikelihood(num_classes) if name == "ordinal" else CategoricalLikelihood(num_classes)
