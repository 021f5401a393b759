"""Nothing heavy is imported before it is used; how long a start takes is measured by `benchmarks/startup.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "arviz",
    "joblib",
    "lightning",
    "matplotlib",
    "numpy",
    "pandas",
    "pyro",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "tqdm",
}


def imported(code: str, status: int = 0) -> set[str]:
    """The heavy libraries that a fresh process has imported when it ends with this status after running the code."""
    script = f"import atexit, sys\natexit.register(lambda: print('\\n', *sys.modules))\n{code}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return HEAVY & {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.fixture(scope="module")
def of_pyro() -> set[str]:
    """What Pyro imports itself."""
    return imported("import pyro")


@pytest.mark.parametrize(
    "look",
    ["", "dir(pm)", "pm.__version__", "assert not hasattr(pm, 'no_such_name')"],
)
def test_the_package_imports_nothing_heavy(look: str) -> None:
    assert not imported(f"import pyro_probmix as pm\n{look}")


def test_models_trainings_scores_and_data_need_pyro_alone(of_pyro: set[str]) -> None:
    assert imported("import pyro_probmix.training, pyro_probmix.evaluation, pyro_probmix.datasets") == of_pyro


def test_a_pool_needs_pyro_alone(of_pyro: set[str]) -> None:
    code = "import pyro.distributions as dist, pyro_probmix as pm\n"
    code += "pm.log_linear_pool([dist.Normal(0.0, 1.0), dist.Normal(3.0, 2.0)], [0.3, 0.7])"
    assert imported(code) == of_pyro


def test_what_is_registered_is_there_before_anybody_looks() -> None:
    code = """
import pyro_probmix as pm, pyro.distributions as dist
from torch.distributions import kl_divergence
from pyro_probmix.evaluation.registry import METRICS
from pyro_probmix.models.assembly import METHODS
p = pm.LogLinearPool([dist.Beta(2.0, 3.0)], [1.0])
assert kl_divergence(p, dist.Beta(2.0, 3.0)) == kl_divergence(dist.Beta(2.0, 3.0), p) == 0
assert {"erm", "mixup", "manifold_mixup", "probmix", "manifold_probmix"} <= METHODS.keys()
assert {"nll", "crps", "rmse", "accuracy", "brier", "ece"} <= METRICS.keys()
"""
    imported(code)


@pytest.mark.faults("random state disturbed")
@pytest.mark.parametrize(
    "use",
    [
        "pm.NearestNeighborGraph(torch.randn(9, 2), num_neighbors=2)",
        "pm.ProbMixRegressor()",
        "load('iris')",
        "pm.ood_scores(dist.Categorical(torch.rand(9, 3)), dist.Categorical(torch.rand(9, 3)))",
    ],
)
def test_what_is_imported_late_draws_no_random_numbers(use: str) -> None:
    code = f"""
import random, numpy, torch, pyro.distributions as dist, pyro_probmix as pm
from pyro_probmix.datasets import load
torch.manual_seed(0)
before = random.getstate(), str(numpy.random.get_state())
{use}
assert before == (random.getstate(), str(numpy.random.get_state()))
"""
    imported(code)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("--help", 0),
        ("--version", 0),
        ("fit --help", 0),
        ("predict --help", 0),
        ("evaluate --help", 0),
        ("compare --help", 0),
        ("reproduce --help", 0),
        ("ft", 2),
        ("fit homes.csv --tagret price", 2),
        ("fit homes.csv --target price --out model --epochs many", 2),
    ],
)
def test_the_command_imports_nothing_heavy_before_it_runs(arguments: str, status: int) -> None:
    code = f"sys.argv[1:] = {arguments.split()}\nfrom pyro_probmix.cli import main\nmain()"
    assert not imported(code, status)
