"""The extensions: files that a user could copy, loaded as the command loads a plugin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyro_probmix.evaluation import METRICS
from pyro_probmix.experiments import import_plugins
from pyro_probmix.models import METHODS

HERE = Path(__file__).parent
FILES = sorted(path for path in HERE.glob("*.py") if not path.name.startswith(("conftest", "test_")))


@pytest.fixture(scope="module")
def extensions() -> Iterator[SimpleNamespace]:
    """The modules by name. What they have registered is taken back, so that other tests do not meet it."""
    registries = METHODS, METRICS
    kept, places = [dict(registry) for registry in registries], list(sys.path)
    import_plugins(map(str, FILES))
    yield SimpleNamespace(**{path.stem: sys.modules[path.stem] for path in FILES})
    for registry, before in zip(registries, kept, strict=True):
        registry.clear()
        registry.update(before)
    sys.path[:] = places
    for path in FILES:
        del sys.modules[path.stem]
