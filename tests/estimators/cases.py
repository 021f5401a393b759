"""What the tests of estimators share."""

from __future__ import annotations

import json
from typing import Any

METHODS = ("erm", "mixup", "manifold_mixup", "probmix", "manifold_probmix")
SMALL: dict[str, Any] = {"hidden_features": (8,), "epochs": 3, "num_samples": 5, "random_state": 0}


def fitted_again(estimator: Any) -> Any:
    """The estimator from its settings as text, and its tensors."""
    settings = json.loads(json.dumps(estimator.fitted_settings(), allow_nan=False))
    return type(estimator).from_fitted(settings, estimator.fitted_tensors())
