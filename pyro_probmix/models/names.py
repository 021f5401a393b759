"""Names of sites, and of modules in Pyro's parameter store."""

from __future__ import annotations

from itertools import count
from typing import Any

from pyro.nn import PyroModule
from torch import nn

__all__ = ["COEFFICIENT_SITE", "EMBEDDING_SITE", "LABEL_SITE", "PLATE", "UniquelyNamed"]

PLATE = "data"
COEFFICIENT_SITE, EMBEDDING_SITE, LABEL_SITE = "mixing_coefficient", "embedding", "label"

_instances = count()


class UniquelyNamed(PyroModule):
    """A module under a name of its own: it never meets another, nor a copy of it, in Pyro's parameter store."""

    def __init__(self) -> None:
        super().__init__(_unique_name(type(self)))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self._name_modules(value, f"{self._pyro_name}.{name}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        old, new = self._pyro_name, _unique_name(type(self))
        for module in self.modules():
            if isinstance(module, PyroModule) and (module._pyro_name + ".").startswith(old + "."):
                module._pyro_name = new + module._pyro_name.removeprefix(old)

    def _name_modules(self, module: nn.Module, name: str) -> None:
        """Names the modules of Pyro inside of those of torch, which Pyro leaves without a name, alike in any model."""
        for key, child in module._modules.items():
            full = f"{name}.{key}"
            if isinstance(child, PyroModule):
                if child._pyro_name and not isinstance(module, PyroModule):
                    continue  # it is another's, or has a name of the user's own
                child._pyro_name, child._pyro_context = full, self._pyro_context
            if child is not None:
                self._name_modules(child, full)


def _unique_name(cls: type) -> str:
    return f"{cls.__name__}_{next(_instances)}"
