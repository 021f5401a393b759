"""Every example in a docstring of the package runs, under the same isolation as the tests."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import pyro_probmix as pm

# What every example may take as imported.
NAMES = {"torch": torch, "pyro": pyro, "dist": dist, "pm": pm, "SVI": SVI, "Trace_ELBO": Trace_ELBO}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [pm.__name__, *(info.name for info in pkgutil.walk_packages(pm.__path__, f"{pm.__name__}."))]
    return [test for name in names for test in finder.find(importlib.import_module(name)) if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_example(example: doctest.DocTest) -> None:
    example.globs = {**example.globs, **NAMES}
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=report.append)
    if failed:
        pytest.fail("".join(report), pytrace=False)
