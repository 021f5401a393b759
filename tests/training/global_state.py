"""What a training leaves alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyro
import torch

__all__ = ["global_state"]


def global_state() -> dict[str, Any]:
    """The random states, the user's parameters and what is validated, to be compared."""
    store = pyro.get_param_store()
    return {
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "store": {name: id(value) for name, value in store._params.items()},
        "validation": (torch.distributions.Distribution._validate_args, pyro.settings.get()),
    }
