"""The methods as a regressor of scikit-learn, with a predictive density of any named family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from pyro_probmix._checks import check_choice, check_number
from pyro_probmix.distributions import interval, quantile
from pyro_probmix.estimators.base import ProbMixEstimator
from pyro_probmix.estimators.choosing import best
from pyro_probmix.estimators.labels import row_names
from pyro_probmix.estimators.members import Members
from pyro_probmix.estimators.prepared import as_weights
from pyro_probmix.estimators.saved import check_keys
from pyro_probmix.estimators.targets import Target, as_tensor, candidates
from pyro_probmix.models import METHODS, ProbMix
from pyro_probmix.nn import Likelihood

__all__ = ["ProbMixRegressor"]


class ProbMixRegressor(RegressorMixin, ProbMixEstimator):
    r"""Regression with a predictive density, by mixup on a statistical manifold, for scikit-learn.

    .. math:: p(y|x) = \frac{1}{MS} \sum_{m=1}^{M} \sum_{s=1}^{S} p_m(y \mid z_{ms}), \qquad z_{ms} \sim q_m(z|x)

    Networks are trained on the risk of their method (eq. 16, or eq. 23 with an embedding), on prepared features and
    scaled targets, and keep the epoch that is best on rows held back. The likelihood :math:`p_m(y|z)` is one of

    ========================= ============================ =========================================================
    name                      targets                      scaled for training to
    ========================= ============================ =========================================================
    ``normal``                numbers                      mean 0 and variance 1
    ``student_t``             numbers                      the same; more than 2 degrees of freedom, predicted
    ``mixture``               numbers                      the same; of ``num_components`` Normals
    ``lognormal``             positive numbers             logarithms of mean 0 and variance 1
    ``gamma``                 positive numbers             mean 1
    ``beta``                  between 0 and 1              nothing else
    ``poisson``               counts                       nothing else
    ``negative_binomial``     counts                       nothing else
    ``zero_inflated_poisson`` counts                       nothing else
    ========================= ============================ =========================================================

    Densities are of y in its own units, in double precision, whatever the scaling.

    Args:
        method: ``"erm"``, ``"mixup"``, ``"manifold_mixup"``, ``"probmix"`` or ``"manifold_probmix"``, as for
            :func:`~pyro_probmix.models.assemble`, or one of :func:`~pyro_probmix.models.register_method`.
        likelihood: a name above; default: ``"mixture"``, but ``"normal"`` with ``"probmix"``, whose pool of mixtures
            has no closed form; ``"auto"`` for the one of least negative log-likelihood on the rows held back, among
            densities or among counts, as the values of the targets allow; or a :class:`~pyro_probmix.nn.Likelihood`,
            of targets of mean 0 and variance 1 if it is of all numbers, of mean 1 if of positive ones, and else of
            targets as they are. By default, and for ``"auto"``, scales are at least half the smallest gap between two
            targets.
        num_components: K of ``"mixture"``.
        hidden_features: widths of the hidden layers; the first is the embedding of the manifold methods.
        alpha: α > 0, the mixing coefficient is Beta(α, α).
        beta: β ≥ 0, variance of the Normal vicinity of a scaled target on the real line, below which no predicted
            variance falls; other targets have the limit at β = 0, the default.
        fusion: of densities, ``"log-linear"`` in closed form, ``"linear"``, or ``"numerical"`` by quadrature. With
            ``"probmix"``, which fuses the likelihood itself, ``student_t``, ``mixture``, ``negative_binomial`` and
            ``zero_inflated_poisson`` need one of the last two; other methods take them as they are.
        num_neighbors: pairs are of a row and one of so many neighbours; default: of any two rows.
        num_members: M, networks of the ensemble, each with other rows held back.
        epochs: passes over the rows, at most; default: of about :math:`50 \sqrt n` steps for n rows to train on, and
            of no more than 3,000.
        batch_size: rows a step; ``"auto"`` for a power of two near n / 32, from 32 to 512; None for all.
        learning_rate: step size of Adam; its peak where it has a schedule.
        scheduler: ``"one_cycle"`` for steps that grow and shrink (:class:`~pyro_probmix.training.OneCycle`) in the
            course of all ``epochs``, or ``"constant"``.
        validation_fraction: part of the rows that is held back to choose the epoch; 0 for the last epoch.
        patience: epochs without a better validation loss after which a member stops, each epoch being validated then;
            default: never, and some 25 epochs are validated, 12 where there are 2,000 rows or more.
        ema_decay: of the exponential moving average of parameters that is validated and kept; default: none.
        refit: whether each member is then trained anew on all rows, for as many epochs as were chosen.
        num_samples: S, embedding samples of a prediction, of the stochastic method alone.
        kinds: the kind of a column by its name or position, where it is not to be guessed, as for
            :class:`~pyro_probmix.tables.Preparation`.
        num_workers: processes that share the members; 0 trains in this one.
        device: where networks are trained and predict, such as ``"cuda"``. Small networks take one thread on a CPU.
        random_state: an integer, a ``RandomState``, a ``numpy.random.Generator`` or None. Predictions draw nothing
            anew: the embedding noise is the same for each row and call.
        verbose: whether progress bars are shown, of training and of predictions.

    Attributes:
        models_: the members, ordinary models from prepared features to a density of y in its units, in double
            precision. They predict: what they were trained with, β among it, is of scaled targets.
        histories_: the losses of each member, in nats of the scaled target.
        preparation_: from features to prepared ones, a :class:`~pyro_probmix.tables.Preparation`.
        likelihood_: the name of the likelihood, or one's own.
        likelihood_scores_: of ``"auto"``, the negative log-likelihood of each candidate on the rows held back, in nats
            of y in its units.
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
        >>> model.predict_quantiles(X[300:], [0.05, 0.5, 0.95]).shape, model.predict_interval(X[300:], 0.9).shape
        ((142, 3), (142, 2))
        >>> model.predict_distribution(X[300:]).log_prob(torch.as_tensor(y[300:])).shape
        torch.Size([142])
    """

    def __init__(
        self,
        method: str = "manifold_probmix",
        *,
        likelihood: str | Likelihood | None = None,
        num_components: int = 3,
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
        self.num_components = num_components

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, eval_set: tuple[Any, Any] | None = None
    ) -> ProbMixRegressor:
        """Trains the members.

        Args:
            X: features, of shape ``(n, d)``: numbers, of which NaN is missing, or a data frame, whose text, dates and
                categories are prepared too. Those in float32 are trained on in single precision, others in double.
            y: targets, of shape ``(n,)``, or ``(n, k)`` for k outputs that are independent given x.
            sample_weight: how much each row counts, of shape ``(n,)``, at least 0; default: equally. Rows count so in
                the risk, where an edge has the product of two, in the validation loss and in the scaling of targets.
            eval_set: ``(X, y)`` of other rows, by which all members choose their epoch, nothing being held back.

        Returns:
            The estimator itself.

        Raises:
            ValueError: if features are infinite, targets are not finite numbers or no targets of the likelihood (rows
                are named), the method does not take it, there are fewer than three rows (two where none are held back),
                a setting is out of range, or a loss stops being finite.
        """
        self._check_settings()
        if y is None:
            raise ValueError(f"y: {type(self).__name__} requires y to be passed, but the target y is None")
        X, dtype = self._check_features(X, y)
        rows = row_names(y, X)
        y = _targets(y)
        check_consistent_length(X, y)
        weight = None if sample_weight is None else as_weights(sample_weight, len(X))
        if weight is not None:
            rows = None if rows is None else rows[weight > 0]
            X, y, weight = (own[weight > 0] for own in (X, y, weight))
        self._fit_scaled(X, y, weight, eval_set, dtype, rows)
        return self

    def _fit_scaled(self, X: Any, y: NDArray[np.float64], weight: Any, eval_set: Any, dtype: Any, rows: Any) -> None:
        """Train on targets scaled for each candidate likelihood, and keep the best."""
        auto = isinstance(self.likelihood, str) and self.likelihood == "auto"
        chosen = self.likelihood
        if chosen is None:
            chosen = "normal" if issubclass(METHODS[self.method].model, ProbMix) else "mixture"
        names = candidates(y) if auto else [chosen]
        floored = auto or self.likelihood is None
        targets = [Target.of(name, y, weight, floored, self.num_components, rows) for name in names]
        if auto and eval_set is None and not self.validation_fraction:
            raise ValueError('validation_fraction: expected more than 0, or an eval_set, for likelihood "auto", got 0')
        prepared = self._prepared(X, eval_set, dtype)
        if eval_set is not None:
            eval_y = _targets(eval_set[1])
            if eval_y.shape[1:] != y.shape[1:]:
                raise ValueError(f"eval_set: expected targets of shape {y.shape[1:]} a row, got {eval_y.shape[1:]}")
            named = row_names(*reversed(eval_set))
            allowed = [target for target in targets if target.check("eval_set y", eval_y, not auto, named)]
            if not allowed:  # counts to train on, others to validate
                targets[0].check("eval_set y", eval_y, rows=named)
            targets = allowed
        draws = self._draws(len(y))

        def trained(target: Target) -> Members:
            rows = prepared.rows(target.scaled(y), weight)
            validation = None if eval_set is None else prepared.eval_rows(target.scaled(eval_y))
            own = self.likelihood if target.name is None else None
            return self._train(rows, validation, target.likelihood(own), prepared.network, draws)

        target, members, scores = best(targets, trained, int(self.num_samples))
        for model in members.models:
            model.likelihood = target.in_own_units(model.likelihood).to(next(model.parameters()).device)
        self._keep(members, prepared)
        self._target = target
        self.likelihood_ = self.likelihood if target.name is None else target.name
        self.__dict__.pop("likelihood_scores_", None)
        if auto:
            self.likelihood_scores_ = scores

    def encode_labels(self, y: Any) -> NDArray[np.float64]:
        check_is_fitted(self, "models_")
        names, y = row_names(y), _targets(y)
        self._target.check("y", y, rows=names)
        return y

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The predictive mean and, where ``return_std``, the standard deviation, in the shape and units of y."""
        found = self.map_distributions(X, lambda p: (p.mean, p.stddev) if return_std else (p.mean,))
        return tuple(found) if return_std else found[0]

    def predict_quantiles(self, X: Any, q: Any = (0.05, 0.5, 0.95)) -> NDArray[np.float64]:
        r"""The least y with :math:`F(y|x) \ge q`, of each row, in slices of bounded memory.

        Args:
            X: features, as in ``fit``.
            q: a number or a sequence of numbers, in (0, 1).

        Returns:
            Of shape ``(n, len(q))``, in units of y; ``(n, k, len(q))`` of k outputs.

        Raises:
            ValueError: if an entry of q is not in (0, 1).
        """
        shares = np.atleast_1d(np.asarray(q, np.float64))
        if shares.ndim != 1 or not len(shares) or not ((shares > 0) & (shares < 1)).all():
            raise ValueError(f"q: expected numbers in (0, 1), got {q!r}")
        return self.map_distributions(X, lambda p: (quantile(p, shares).movedim(0, -1),))[0]

    def predict_interval(self, X: Any, level: float = 0.9, kind: str = "central") -> NDArray[np.float64]:
        """The ends of the interval that has a share of the predictive mass, in slices of bounded memory.

        Args:
            X: features, as in ``fit``.
            level: that share, in (0, 1).
            kind: ``"central"``, with the same share on both sides, or ``"hdi"``, the shortest, as for
                :func:`~pyro_probmix.interval`.

        Returns:
            Of shape ``(n, 2)``, in units of y; ``(n, k, 2)`` of k outputs.

        Raises:
            ValueError: if the level is not in (0, 1), or the kind is another.
        """
        level = check_number("level", level, "(0, 1)")
        check_choice("kind", kind, ("central", "hdi"))
        return self.map_distributions(X, lambda p: (torch.stack(interval(p, level, kind), -1),))[0]

    def log_likelihood(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The mean log predictive density of y, weighted where there are weights, in nats of its units.

        In a grid search, ``scoring=log_likelihood_scorer`` chooses by it.
        """
        check_is_fitted(self, "models_")
        names, y = row_names(y, X), _targets(y)
        if y.shape[1:] != self._target.shape:
            raise ValueError(f"y: expected shape {(len(y), *self._target.shape)}, as in fit, got {y.shape}")
        self._target.check("y", y, rows=names)
        device = next(self.models_[0].parameters()).device

        def scores(p: Any, rows: slice) -> Any:
            return p.log_prob(as_tensor(y[rows], device))

        return self._mean_score(X, scores, len(y), sample_weight)

    def _own_settings(self) -> dict[str, Any]:
        if self._target.name is None:
            got = type(self.likelihood_).__name__
            raise TypeError(f"likelihood: expected one by name, whose settings can be written down, got {got}")
        scores = getattr(self, "likelihood_scores_", None)
        return {"target": self._target.to_dict(), "likelihood_scores": scores}

    def _restore(self, settings: Mapping[str, Any]) -> Any:
        check_keys("own", settings, ("likelihood_scores", "target"))
        self._target = Target.from_dict(settings["target"])
        self.likelihood_ = self._target.name
        if settings["likelihood_scores"] is not None:
            self.likelihood_scores_ = dict(settings["likelihood_scores"])
        return self._target.likelihood(), self._target.in_own_units

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _targets(y: Any) -> NDArray[np.float64]:
    """Targets of shape ``(n,)`` or ``(n, k)`` in double precision."""
    if np.asarray(y).dtype.kind in "mM":
        raise ValueError("y: expected numbers, got dates or durations; take what is counted since a date, such as days")
    try:
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    except ValueError as error:
        text = next(
            (cell for cell in np.asarray(y, object).ravel() if isinstance(cell, str) and not _is_number(cell)), None
        )
        if text is None:
            raise
        raise ValueError(f"y: expected numbers, got text such as {text!r}; ProbMixClassifier takes labels") from error
    if y.ndim > 2 or y.ndim == 0:
        raise ValueError(f"y: expected shape (n,) or (n, k), got {y.shape}")
    return y


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
