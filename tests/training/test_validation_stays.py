"""Whether values are validated is the caller's: in a process of its own, for the first compilation clears a flag."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from functools import partial

import pyro, torch
import pyro.distributions as dist
import pyro_probmix as pm
from pyro_probmix.training import compiled, replicas

torch.compile = partial(torch.compile, backend="eager")
compiled.COMPILED_FROM = 0
replicas.check_compiler = lambda: None
x = torch.linspace(-1, 1, 6).unsqueeze(-1)
data = x, x.squeeze(-1)


def make_model(r=0):
    return pm.ProbMix(pm.nn.MLP(1, [2], 2), pm.nn.NormalLikelihood())


def train(way):
    if way == "fit":
        pm.fit(make_model(), data, epochs=1, compile=True, progress=False)
    else:
        pm.fit_replicas(make_model, [data, data], epochs=1, compile=True, progress=False)


def refuses():
    try:
        dist.Normal(0.0, -1.0)
    except ValueError:
        return True
    return False


found = []
for ours, theirs in ((True, True), (False, True), (True, False), (False, False)):
    pyro.enable_validation(ours)
    torch.distributions.Distribution.set_default_validate_args(theirs)
    before = refuses(), dict(pyro.settings.get())
    train(sys.argv[1])
    found.append(before == (refuses(), dict(pyro.settings.get())))
print(found, "torch._dynamo" in sys.modules)
"""


@pytest.mark.faults("the first torch.compile ends validation")
@pytest.mark.parametrize("way", ["fit", "fit_replicas"])
def test_a_compiled_training_leaves_validation_as_it_was(way: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, way]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[0] == "[True, True, True, True] True"
