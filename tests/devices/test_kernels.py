"""How many kernels a device is sent in a step: counted on the CPU, where they are the same operators."""

from __future__ import annotations

from typing import Any

import pytest
from pyro.distributions import validation_enabled
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_probmix as pm
from tests.models.cases import EMBEDDING, FEATURES, make_batch, make_model, randomize

NO_KERNEL = {f"aten::{name}" for name in ("_unsafe_view", "detach", "empty", "empty_like", "lift_fresh", "new_empty")}


class Count(TorchDispatchMode):
    """Counts operators that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
        self.kernels += not (view or schema.name in NO_KERNEL)
        return func(*args, **(kwargs or {}))


def low_rank() -> Any:
    embedding = pm.nn.LowRankNormalEmbedding(pm.nn.MLP(FEATURES, [], EMBEDDING), EMBEDDING, rank=2)
    head = pm.nn.NormalLikelihood()
    return randomize(pm.ManifoldProbMix(embedding, pm.nn.MLP(EMBEDDING, [5], head.num_outputs), head)).double()


@pytest.mark.faults("tensors on another device")
def test_kernels_of_a_step_of_low_rank() -> None:
    """At most 3.5 times those of independent Normals: capacitances are factored where they are needed alone, and the
    components of a pool are worked on at once."""
    counts = []
    for model in (make_model("ManifoldProbMix"), low_rank()):
        batch = make_batch()
        model.risk(batch).backward()
        with validation_enabled(False), Count() as count:
            model.risk(batch).backward()
        counts.append(count.kernels)
    assert counts[1] <= 3.5 * counts[0]
