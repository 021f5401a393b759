"""What the estimators have in common: settings, members trained on prepared features, and the density they predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor
from tqdm.auto import tqdm

from pyro_probmix._checks import check_choice, check_device, check_integer, check_number
from pyro_probmix.distributions import LinearPool, linear_pool
from pyro_probmix.estimators.members import Members, Network, Rows, Schedule, in_few_threads, train
from pyro_probmix.estimators.prepared import Prepared, as_weights, is_frame, named_by_text
from pyro_probmix.estimators.saved import as_settings, as_tensors, restored
from pyro_probmix.estimators.targets import as_tensor
from pyro_probmix.models import METHODS, DensityModel
from pyro_probmix.nn import Likelihood
from pyro_probmix.tables import Preparation
from pyro_probmix.tables.kinds import clean_name
from pyro_probmix.training.bars import bar_size

__all__ = ["ProbMixEstimator"]

_ARRAYS: dict[str, Any] = {"dtype": (np.float64, np.float32), "ensure_all_finite": "allow-nan"}
_NUMBERS_AT_ONCE = 2**22
"""Coordinates of embedding samples, or of the points of quantiles, that a prediction has in memory at a time."""

Own = TypeVar("Own", bound="ProbMixEstimator")


class ProbMixEstimator(BaseEstimator):
    """The settings that the estimators share; see :class:`~pyro_probmix.ProbMixRegressor`."""

    models_: list[DensityModel]
    preparation_: Preparation
    network_: Network

    def __init__(
        self,
        method: str,
        likelihood: Any,
        hidden_features: Sequence[int],
        alpha: float,
        beta: float,
        fusion: str,
        num_neighbors: int | None,
        num_members: int,
        epochs: int | None,
        batch_size: int | str | None,
        learning_rate: float,
        scheduler: str,
        validation_fraction: float,
        patience: int | None,
        ema_decay: float | None,
        refit: bool,
        num_samples: int,
        kinds: Mapping[Any, Any] | None,
        num_workers: int,
        device: str,
        random_state: Any,
        verbose: bool,
    ) -> None:
        self.method = method
        self.likelihood = likelihood
        self.hidden_features = hidden_features
        self.alpha = alpha
        self.beta = beta
        self.fusion = fusion
        self.num_neighbors = num_neighbors
        self.num_members = num_members
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.scheduler = scheduler
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.ema_decay = ema_decay
        self.refit = refit
        self.num_samples = num_samples
        self.kinds = kinds
        self.num_workers = num_workers
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # What is predicted.

    def predict_distribution(self, X: Any) -> Any:
        """The predictive density p(y|x), the equal mixture over the members and the embedding samples of each.

        All rows are in memory at once, with as many numbers as members, samples and parameters of the density; the
        other predictions go through any number of rows in slices.

        Args:
            X: features, as in ``fit``.

        Returns:
            A :class:`~pyro_probmix.LinearPool` of batch shape ``(n,)``: of y in its units, or of the position of a
            class in ``classes_``. Rows of it are ``p[i:j]``.
        """
        features = self._features(X)
        return self._predictive(features, self._noise(features))

    def iter_distributions(self, X: Any) -> Iterator[Any]:
        """The densities of :meth:`predict_distribution` of slices of the rows, one after another, in bounded memory.

        Args:
            X: features, as in ``fit``.

        Example:
            >>> X = np.linspace(0.0, 1.0, 60).reshape(30, 2)
            >>> model = pm.ProbMixRegressor("erm", epochs=2, random_state=0).fit(X, X[:, 0])
            >>> list(pm.evaluate(model.iter_distributions(X), X[:, 0]))
            ['nll', 'crps', 'rmse']
        """
        check_is_fitted(self, "models_")
        yield from self._blocks(X)

    def map_distributions(self, X: Any, function: Callable[[Any], Sequence[Tensor]]) -> list[NDArray[Any]]:
        """What a function gives of the densities of all rows, which it meets slice by slice, in one pass.

        Args:
            X: features, as in ``fit``.
            function: from the density of some rows to several tensors, whose first dimension is the rows.

        Returns:
            As many arrays, of all rows.

        Raises:
            sklearn.exceptions.NotFittedError: if it has not been fitted.

        Example:
            >>> X = np.linspace(0.0, 1.0, 60).reshape(30, 2)
            >>> model = pm.ProbMixRegressor("erm", epochs=2, random_state=0).fit(X, X[:, 0])
            >>> mean, entropy = model.map_distributions(X, lambda p: (p.mean, p.entropy()))
            >>> mean.shape, entropy.shape
            ((30,), (30,))
        """
        check_is_fitted(self, "models_")
        with in_few_threads(self.models_[0]), torch.no_grad():
            found = [[part.cpu().numpy() for part in function(p)] for p in self._blocks(X)]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def encode_labels(self, y: Any) -> NDArray[Any]:
        """Labels as the densities have them: targets in double precision, classes as their positions in ``classes_``.

        Args:
            y: targets or labels, as in ``fit``.

        Raises:
            ValueError: if a label is none of the classes of training, or y is of another shape.

        Example:
            >>> X, y = np.linspace(0.0, 1.0, 60).reshape(30, 2), np.array(["no", "yes"] * 15)
            >>> model = pm.ProbMixClassifier("erm", epochs=2, random_state=0).fit(X, y)
            >>> model.encode_labels(["yes", "no"])
            array([1, 0])
        """
        raise NotImplementedError

    @torch.no_grad()
    def _predictive(self, x: Tensor, noise: Sequence[Tensor | None]) -> Any:
        with in_few_threads(self.models_[0]):
            members = [
                model.predictive(x, self.num_samples, noise=None if own is None else own.expand(-1, len(x), -1))
                for model, own in zip(self.models_, noise, strict=True)
            ]
        return members[0] if len(members) == 1 and isinstance(members[0], LinearPool) else linear_pool(members)

    def _noise(self, x: Tensor) -> list[Tensor | None]:
        """Of each member, the same for each row: what is predicted of one does not depend on the others."""
        generators = [torch.Generator(x.device).manual_seed(0) for _ in self.models_]  # of its own: threads may predict
        shape = (self.num_samples, 1)
        return [model.draw_noise(x[:1], shape, own) for model, own in zip(self.models_, generators, strict=True)]

    def _blocks(self, X: Any) -> Iterator[Any]:
        """The predictive densities, of as many rows at a time as memory allows."""
        features = self._features(X)
        noise = self._noise(features)
        widest = max(parameter.shape[0] for parameter in self.models_[0].parameters() if parameter.dim())
        width = self.num_samples * len(self.models_) * widest
        with tqdm(total=len(features), unit="row", disable=not self.verbose, leave=False, **bar_size()) as bar:
            for x in features.split(max(1, _NUMBERS_AT_ONCE // width)):
                yield self._predictive(x, noise)
                bar.update(len(x))

    def _mean_score(self, X: Any, scores: Any, size: int, sample_weight: Any) -> float:
        """The weighted mean of scores of rows, given the density of rows and their slice."""
        check_consistent_length(X, np.empty(size))
        first, found = 0, []
        with in_few_threads(self.models_[0]), torch.no_grad():
            for p in self._blocks(X):
                last = first + p.batch_shape[0]
                found.append(scores(p, slice(first, last)).double().cpu().numpy())
                first = last
        values = np.concatenate(found)
        if sample_weight is None:
            return float(values.mean())
        weight = as_weights(sample_weight, len(values))
        return float(np.average(values[weight > 0], weights=weight[weight > 0]))

    # Features.

    def _features(self, X: Any) -> Tensor:
        check_is_fitted(self, "models_")
        check_integer("num_samples", self.num_samples)
        parameter = next(self.models_[0].parameters())
        return as_tensor(self.preparation_.transform(self._as_fitted(X)), parameter.device).to(parameter.dtype)

    def _as_fitted(self, X: Any) -> Any:
        """New rows as those of the fit: a data frame where that was one, else numbers."""
        named = getattr(self, "feature_names_in_", None)
        if is_frame(X):
            X = named_by_text(X)
            known: set[Any] = set() if named is None else {*named}
            if known > {*X.columns} >= {name for name in known if clean_name(name) not in self.preparation_.dropped}:
                X = X.reindex(columns=named)  # what was dropped, new rows need not have
            validate_data(self, X, reset=False, skip_check_array=True)
            if not len(X):
                raise ValueError("X: expected rows, got none")
            return X if named is not None else check_array(X, **_ARRAYS)
        X = validate_data(self, X, reset=False, **_ARRAYS)
        if named is None:
            return X
        import pandas

        return pandas.DataFrame(X, columns=named)

    def _check_features(self, X: Any, y: Any) -> tuple[Any, Any]:
        """The features and their precision; their names and number are remembered."""
        if is_frame(X):
            X = named_by_text(X)
            validate_data(self, X, y, skip_check_array=True)
            check_consistent_length(X, y)
            if len(X) < self._fewest:
                raise ValueError(f"X: expected at least {self._fewest} rows, got {len(X)}")
            return X, np.float32 if all(str(kind) == "float32" for kind in X.dtypes) else np.float64
        X = validate_data(self, X, ensure_min_samples=self._fewest, **_ARRAYS)
        return X, X.dtype

    @property
    def _fewest(self) -> int:
        return 3 if self.validation_fraction else 2

    # Training.

    def _check_settings(self) -> None:
        check_choice("method", self.method, METHODS)
        check_integer("num_members", self.num_members)
        check_integer("num_samples", self.num_samples)
        check_number("alpha", self.alpha)
        check_number("beta", self.beta, "[0, inf)")
        check_number("validation_fraction", self.validation_fraction, "[0, 1)")
        check_device(self.device)

    def _draws(self, size: int) -> tuple[int, NDArray[np.int64]]:
        """The seed of a fit, and the order of its rows."""
        if isinstance(self.random_state, np.random.Generator):
            return int(self.random_state.integers(2**31 - 1)), self.random_state.permutation(size)
        rng = check_random_state(self.random_state)
        return int(rng.randint(2**31 - 1)), rng.permutation(size)

    def _schedule(self) -> Schedule:
        return Schedule(
            num_members=self.num_members,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            scheduler=self.scheduler,
            validation_fraction=self.validation_fraction,
            patience=self.patience,
            ema_decay=self.ema_decay,
            refit=bool(self.refit),
            num_neighbors=self.num_neighbors,
            num_workers=self.num_workers,
            progress=bool(self.verbose),
        )

    def _prepared(self, X: Any, eval_set: Any, dtype: Any, soft: bool = False) -> Prepared:
        """The features of a fit as tensors, those of ``eval_set`` besides."""
        preparation = Preparation.fit(X, self.kinds)
        widths: Any = self.hidden_features
        widths = tuple(widths) if isinstance(widths, list | tuple) else widths  # others are refused by name
        own = (self.method, widths, self.alpha, self.beta, self.fusion)
        network = Network(*own, num_features=preparation.num_features, dtype=np.dtype(dtype).name)
        x, other = preparation.transform(X), None
        if eval_set is not None:
            if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
                raise ValueError("eval_set: expected a pair (X, y)")
            other = preparation.transform(self._as_fitted(eval_set[0]))
            check_consistent_length(other, eval_set[1])
        return Prepared(preparation, network, x, other, self.device, soft)

    def _train(
        self, rows: Rows, validation: Rows | None, likelihood: Likelihood, network: Network, draws: Any
    ) -> Members:
        seed, order = draws
        return train(network, likelihood, rows.take(order), validation, self._schedule(), seed)

    def _keep(self, members: Members, prepared: Prepared) -> None:
        self.models_, self.histories_ = members.models, members.histories
        self.preparation_, self.network_ = prepared.preparation, prepared.network

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    # A fitted estimator as numbers and strings.

    def fitted_settings(self) -> dict[str, Any]:
        """All of a fitted estimator but its tensors, in types that JSON has.

        A ``random_state`` that is no integer is None in it.

        Raises:
            TypeError: if a setting is of another type, such as a likelihood of one's own.
            sklearn.exceptions.NotFittedError: if it has not been fitted.
        """
        check_is_fitted(self, "models_")
        return as_settings(self, self._own_settings())

    def fitted_tensors(self) -> dict[str, Tensor]:
        """The tensors of a fitted estimator, by member and name.

        Raises:
            sklearn.exceptions.NotFittedError: if it has not been fitted.
        """
        check_is_fitted(self, "models_")
        return as_tensors(self.models_)

    @classmethod
    def from_fitted(cls: type[Own], settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Own:
        """The estimator that gave these, whose predictions are equal to the last bit.

        Args:
            settings: of :meth:`fitted_settings`.
            tensors: of :meth:`fitted_tensors`; copied.

        Raises:
            ValueError: if they are none of this class, or do not fit each other; the first that does not is named.

        Example:
            >>> X = torch.randn(30, 2).numpy()
            >>> model = pm.ProbMixRegressor("erm", epochs=2, random_state=0).fit(X, X[:, 0])
            >>> same = pm.ProbMixRegressor.from_fitted(model.fitted_settings(), model.fitted_tensors())
            >>> bool((same.predict(X) == model.predict(X)).all())
            True
        """
        return restored(cls, settings, tensors)

    def _own_settings(self) -> dict[str, Any]:
        """What a subclass remembers besides."""
        raise NotImplementedError

    def _restore(self, settings: Mapping[str, Any]) -> Any:
        """Take back what :meth:`_own_settings` gave: a maker of the likelihood that members have."""
        raise NotImplementedError
