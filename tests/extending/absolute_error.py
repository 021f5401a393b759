"""A metric: the mean absolute error of the predictive mean."""

import pyro_probmix as pm


@pm.evaluation.register_metric("mean_error", units="y", label="MAE of the mean")
def absolute_error(p, y):
    """The distance of the label from the predictive mean; of a class it has no meaning."""
    return None if p.support.is_discrete else (y - p.mean).abs()
