"""The house order of the package: a room imports only from rooms below it, and importing changes nothing."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "pyro_probmix"
ROOT = Path(__file__).resolve().parents[1]
# From the ground floor up; the version belongs to no floor and the package's own __init__ is the roof.
FLOORS = (
    "_version",
    "_imports",
    "_checks",
    "_random",
    "_drawing",
    "_files",
    "ops",
    "distributions",
    "mixing",
    "nn",
    "models",
    "training",
    "evaluation",
    "tables",
    "estimators",
    "datasets",
    "persistence",
    "reports",
    "experiments",
    "cli",
)
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
GROUND_FLOOR_MAY_IMPORT = {PACKAGE, "pyro", "torch", *sys.stdlib_module_names}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Yield the full name of everything the source imports, at any depth of the code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            base = base[: len(base) - node.level + is_package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return what the imports of a module do against the house order, one sentence each."""
    floor = module.split(".")[1] if "." in module else ""
    found = []
    for name in imported_modules(source, module, is_package):
        top, *rest = name.split(".")
        if floor == "distributions" and top not in GROUND_FLOOR_MAY_IMPORT:
            found.append(f"{module} imports {name}; distributions may import torch and pyro only")
        if top != PACKAGE or not floor:
            continue
        origin = rest[0] if rest else "the package itself"
        if origin not in FLOORS or FLOORS.index(origin) > FLOORS.index(floor):
            found.append(f"{module} imports {name}, which is above it")
    return found


def foreign_secrets(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return the imports of what another room keeps to itself, one sentence each; the top level's two are for all."""
    room = module.split(".")[: None if is_package else -1]
    found = []
    for name in imported_modules(source, module, is_package):
        parts = name.split(".")
        for depth, part in enumerate(parts):
            hidden = part.startswith("_") and not part.endswith("__")
            if parts[0] == PACKAGE and hidden and depth > 1 and parts[:depth] != room:
                found.append(f"{module} imports {name}, which is another room's own")
    return found


def listed_names(path: Path) -> list[str] | None:
    """Return the literal `__all__` of a module, None where there is none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def order(name: str) -> tuple[int, str]:
    """Sort constants first, then classes, then the rest, as ruff does."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    module = module_name(path)
    floor = module.split(".")[1] if "." in module else None
    assert floor is None or floor in FLOORS, f"{module} stands on no floor of the house"
    assert not faults(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyro_probmix.nn.backbones", "from pyro_probmix.models import mix"),
        ("pyro_probmix.nn.backbones", "from ..models.mix import mix"),
        ("pyro_probmix.nn.backbones", "from .. import models"),
        ("pyro_probmix.nn.backbones", "from pyro_probmix import training"),
        ("pyro_probmix.nn.backbones", "import pyro_probmix as pm"),
        ("pyro_probmix.nn.backbones", "from pyro_probmix import ProbMix"),
        ("pyro_probmix.nn.backbones", "def f():\n    import pyro_probmix.cli"),
        ("pyro_probmix.distributions.pooling", "import numpy as np"),
        ("pyro_probmix.distributions.pooling", "from scipy import stats"),
    ],
)
def test_an_arrow_that_points_up_is_found(module: str, source: str) -> None:
    assert faults(source, module)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_room_keeps_its_own_modules_to_itself(path: Path) -> None:
    assert not foreign_secrets(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")


def test_no_file_imports_itself_by_way_of_others() -> None:
    modules = {module_name(path): path for path in FILES}
    arrows = {}
    for module, path in modules.items():
        names = imported_modules(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
        origins = {name if name in modules else name.rpartition(".")[0] for name in names}
        arrows[module] = {origin for origin in origins if origin in modules and modules[origin].name != "__init__.py"}
    graphlib.TopologicalSorter(arrows).prepare()  # which raises CycleError, with the files of a circle


@pytest.mark.parametrize(
    "source",
    [
        "from pyro_probmix.distributions.numerical._quadrature import Panels",
        "from pyro_probmix.distributions.numerical import _measures",
        "from pyro_probmix.distributions.pooling import _fuse",
        "from pyro_probmix.distributions.families._numerics import expm1",
    ],
)
def test_an_import_of_what_another_room_keeps_is_found(source: str) -> None:
    assert foreign_secrets(source, "pyro_probmix.mixing.vicinity")


def test_what_all_rooms_share_and_what_is_its_own_a_room_may_import() -> None:
    source = "from pyro_probmix._checks import at_index\nfrom pyro_probmix.mixing._own import thing"
    assert not foreign_secrets(source, "pyro_probmix.mixing.vicinity")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyro_probmix.nn.likelihoods", "from pyro_probmix.distributions import families"),
        ("pyro_probmix.nn.likelihoods", "from ..distributions import families\nfrom .backbones import MLP"),
        ("pyro_probmix.cli", "from pyro_probmix._version import __version__"),
        (
            "pyro_probmix.distributions.pooling",
            "import math\nimport torch\nfrom pyro.distributions import Beta",
        ),
    ],
)
def test_an_arrow_that_points_down_is_not(module: str, source: str) -> None:
    assert not faults(source, module)


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if not path.name.startswith("_") or path.stem == "__init__"],
    ids=module_name,
)
def test_a_public_module_lists_its_names(path: Path) -> None:
    names = listed_names(path)
    assert names is not None, "a public module has a literal __all__"
    assert names == sorted(set(names), key=order)
    module = importlib.import_module(module_name(path))
    assert not [name for name in names if not hasattr(module, name)]


OPTIONAL = [
    "arviz",
    "faiss",
    "jinja2",
    "lightning",
    "matplotlib",
    "pandas",
    "pooch",
    "pytorch_lightning",
    "rich",
    "typer",
]
# The libraries below it come first, since what their own import changes is not the package's doing.
IMPORT_CHANGES_NOTHING = f"""
import random, sys, warnings
import numpy, pyro, scipy.stats, sklearn.neighbors, torch, torch._dynamo

sys.modules.update(dict.fromkeys({OPTIONAL}))  # importing one of them is now an ImportError
pyro.param("weight", torch.ones(()))

def state():
    return {{
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "thread count": torch.get_num_threads(),
        "Pyro settings": pyro.settings.get(),
        "warning filters": list(warnings.filters),
        "parameter store": {{name: value.item() for name, value in pyro.get_param_store().items()}},
        "random state": (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()),
    }}

before = state()
import pyro_probmix
[getattr(pyro_probmix, name) for name in dir(pyro_probmix)]
after = state()
print([name for name in before if before[name] != after[name]])
"""


@pytest.mark.faults("random state disturbed")
def test_importing_the_package_changes_nothing_global_and_needs_no_extra() -> None:
    command = [sys.executable, "-c", IMPORT_CHANGES_NOTHING]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
