"""The methods as scikit-learn estimators.

Other packages take them as they are. Conformal intervals of MAPIE::

    model = SplitConformalRegressor(pm.ProbMixRegressor(), confidence_level=0.9, prefit=False)
    model.fit(X, y).conformalize(X_other, y_other).predict_interval(X_new)

A probabilistic regressor of skpro, which keeps mean and standard deviation; targets are a data frame, for of a Series
its wrapper makes n × n numbers::

    SklearnProbaReg(pm.ProbMixRegressor()).fit(X, y.to_frame()).predict_proba(X_new)

A search of optuna, by the log-likelihood::

    def objective(trial):
        model = pm.ProbMixRegressor(beta=trial.suggest_float("beta", 1e-3, 0.1, log=True))
        return cross_val_score(model, X, y, scoring=pm.log_likelihood_scorer).mean()


    optuna.create_study(direction="maximize").optimize(objective, n_trials=50)
"""

from pyro_probmix.estimators.classifier import ProbMixClassifier
from pyro_probmix.estimators.likelihoods import (
    CountLikelihood,
    NormalMixtureLikelihood,
    OrdinalLikelihood,
    ShapeLikelihood,
    StudentTLikelihood,
)
from pyro_probmix.estimators.predictions import prediction_table, score
from pyro_probmix.estimators.regressor import ProbMixRegressor
from pyro_probmix.estimators.scoring import log_likelihood_scorer
from pyro_probmix.estimators.targets import LIKELIHOODS

__all__ = [
    "LIKELIHOODS",
    "CountLikelihood",
    "NormalMixtureLikelihood",
    "OrdinalLikelihood",
    "ProbMixClassifier",
    "ProbMixRegressor",
    "ShapeLikelihood",
    "StudentTLikelihood",
    "log_likelihood_scorer",
    "prediction_table",
    "score",
]
