"""Invalid inputs at random: each is refused by an error that begins with the argument, and nothing has changed."""

from __future__ import annotations

import importlib
import os
import random
import re
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from tests.random_models import RandomModel, random_model
from tests.refusals.registry import REFUSALS

__all__ = ["REFUSALS", "failures"]

for room in ("batches", "models", "risks", "training", "pools"):
    importlib.import_module(f"tests.refusals.{room}")

# What may stand before the name: PyTorch's own words, which data, which replica.
BEFORE = r"(replica \d+: )?(Expected parameter |validation |Input )?"


def frozen(case: RandomModel) -> dict[str, Any]:
    """What no refusal may change."""
    batch = {f.name: getattr(case.batch, f.name) for f in fields(case.batch)}
    return {
        "parameters": {k: v.clone() for k, v in case.model.state_dict().items()},
        "modes": [module.training for module in case.model.modules()],
        "batch": {k: v.clone() for k, v in batch.items() if v is not None},
        "handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "settings": pyro.settings.get(),
        "validation": torch.distributions.Distribution._validate_args,
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "files": os.listdir(),
    }


def random_state() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "random": random.getstate(), "numpy": str(np.random.get_state())}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, Tensor):
        return torch.equal(a.nan_to_num(), b.nan_to_num())
    return bool(a == b)


def fault_of(name: str, seed: int) -> str | None:
    """How the attempt is not refused as it should be; None if it is."""
    case, rng = random_model(seed), random.Random(seed + 1)
    attempt = REFUSALS[name](rng, case)
    before, state = frozen(case), random_state()
    try:
        attempt.call()
    except (ValueError, TypeError) as error:
        message = str(error)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    else:
        return "not refused"
    if not re.match(rf"{BEFORE}{attempt.names}\b", message):
        return f"expected a message that begins with {attempt.names}, got {message[:150]!r}"
    after = frozen(case)
    if not attempt.draws:
        before |= {"random state": state, "store": []}
        after |= {"random state": random_state(), "store": sorted(pyro.get_param_store().keys())}
    changed = [key for key in before if not same(before[key], after[key])]
    return f"changed: {changed}" if changed else None


def failures(seeds: Sequence[int]) -> list[str]:
    """The attempts of these numbers that are not refused as they should be; a line each."""
    names, lines, here = list(REFUSALS), [], os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # so that a file that is left is seen
        try:
            for seed in seeds:
                name = names[seed % len(names)]
                pyro.clear_param_store()
                fault = fault_of(name, seed)
                lines += [] if fault is None else [f"{seed}: {name}; {fault}"]
        finally:
            os.chdir(here)
    return lines
