"""What an installed package promises: its version, its types, its public names."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
from pathlib import Path

import pytest

import pyro_probmix as pm


def test_version_is_that_of_the_installed_package() -> None:
    try:
        installed = importlib.metadata.version("pyro-probmix")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pyro-probmix is not installed; the tests run from its source")
    assert pm.__version__ == installed


def test_types_are_shipped() -> None:
    assert (Path(pm.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", pm.__all__)
def test_public_name_is_documented(name: str) -> None:
    value = getattr(pm, name)
    if name != "__version__":
        assert value.__doc__
        assert value.__doc__.strip()


def test_public_names_are_what_the_type_checker_takes_them_for() -> None:
    imported = {}
    for node in ast.walk(ast.parse(Path(pm.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(pm.__name__):
            module = importlib.import_module(str(node.module))
            imported |= {alias.name: getattr(module, alias.name) for alias in node.names if not alias.asname}
    assert sorted(imported) == sorted(pm.__all__)
    assert all(getattr(pm, name) is value for name, value in imported.items())
