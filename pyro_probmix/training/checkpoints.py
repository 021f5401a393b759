"""Checkpoints: all that a training is, in one file of tensors and plain values."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_probmix._random import set_random_state
from pyro_probmix.mixing import EmbeddingGraph, PairLoader, as_coefficient
from pyro_probmix.models import DensityModel
from pyro_probmix.training.data import HeldOut
from pyro_probmix.training.settings import Settings

__all__ = ["SCHEMA", "Checkpoint", "describe", "describe_training", "load_checkpoint", "save_checkpoint"]

SCHEMA = 1
"""Version of the file's layout; a file of every older one is still read."""

_MAGIC = b"pyro_probmix checkpoint\n"
_HEADER_BYTES = 1024
_SHOWN = 4
"""Elements of a tensor up to which it is described by them."""


@dataclass
class Checkpoint:
    """A training at the end of an epoch: the order of the data in the next follows from the random states.

    Attributes:
        epoch: epochs that are done.
        model: ``model.state_dict()``.
        optimizer: ``optimizer.state_dict()``.
        scheduler: ``scheduler.state_dict()``, or None.
        scaler: ``state_dict()`` of the loss scaling of float16, or None.
        best: best-so-far on validation data: its ``loss``, its ``epoch``, and the ``model`` it had.
        history: losses of the epochs that are done, and the moving average of the parameters where one is kept, as the
            ``average`` of ``count`` steps.
        sampler: its next ``epoch``, and the ``neighbors`` of a graph that finds them anew.
        random: random states, by device, such as ``{"cpu": torch.get_rng_state()}``.
        settings: what the training was asked for, as JSON has it; it is resumed with equal settings only.
    """

    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    best: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def restore(self, model: nn.Module, optimizer: Any = None, scheduler: Any = None) -> Checkpoint:
        """Gives a model, an optimiser and a schedule the state they had, and torch its random states.

        Args:
            model: of the checkpoint's parameters; None of it is changed if something does not fit.
            optimizer: over the same parameters.
            scheduler: of the same kind.

        Raises:
            ValueError: if a name, a shape or a dtype of the model is not the checkpoint's, or the optimiser has
                other parameter groups.
        """
        check_tensors(model.state_dict(), self.model)
        if optimizer is not None:
            optimizer.load_state_dict(copy.deepcopy(self.optimizer))  # which it would go on with
        if scheduler is not None:
            scheduler.load_state_dict(copy.deepcopy(self.scheduler))
        model.load_state_dict(self.model)
        set_random_state(self.random)
        return self


def save_checkpoint(path: str | os.PathLike, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint in place of the file at ``path``, whole or not at all.

    It is written beside it, brought to the disk, and renamed: whenever the process or the machine stops, there is
    either the old file or the new one.

    Args:
        path: the file; missing folders are made.
        checkpoint: what to keep; tensors are copied to the CPU.

    Raises:
        TypeError: if it holds anything but tensors, numbers, strings, None, and lists, tuples and dictionaries of
            them.

    Example:
        >>> import tempfile
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> checkpoint = Checkpoint(3, model.state_dict(), optimizer.state_dict())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(f"{folder}/linear.pt", checkpoint)
        ...     load_checkpoint(f"{folder}/linear.pt").restore(model, optimizer).epoch
        3
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save({f.name: _plain(getattr(checkpoint, f.name), f.name) for f in fields(Checkpoint)}, buffer)
    payload = buffer.getbuffer()
    header = {"schema": SCHEMA, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(_MAGIC + json.dumps(header).encode() + b"\n")
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load_checkpoint(path: str | os.PathLike, settings: Mapping[str, Any] | None = None) -> Checkpoint:
    """Reads a checkpoint, its tensors on the CPU; no code in the file is ever run.

    Args:
        path: the file.
        settings: what the training that goes on is asked for; default: not compared.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file is no checkpoint, is damaged or truncated, holds more than tensors and plain values,
            comes from a newer version, or was written with other settings, the first of which is named.
    """
    path = Path(path)
    content = path.read_bytes()
    if not content.startswith(_MAGIC):
        raise ValueError(f"{path}: expected a checkpoint of pyro_probmix, got a file that begins {content[:16]!r}")
    line, _, payload = content[len(_MAGIC) :].partition(b"\n")
    header = _read_header(path, line)
    if header["schema"] > SCHEMA:
        raise ValueError(
            f"{path}: expected schema {SCHEMA} at most, got {header['schema']}: a newer pyro_probmix wrote it"
        )
    if len(payload) != header["bytes"]:
        raise ValueError(f"{path}: expected {header['bytes']} bytes, got {len(payload)}: the file is cut off")
    if (got := hashlib.sha256(payload).hexdigest()) != header["sha256"]:
        raise ValueError(f"{path}: expected sha256 {header['sha256']}, got {got}: the file is damaged")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: expected tensors and plain values alone, got something else: {reason}") from error
    checkpoint = _read_state(path, state)
    if settings is not None:
        _check_settings(f"with which {path} was written", checkpoint.settings, settings)
    return checkpoint


def check_tensors(own: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another model, by the names, shapes and dtypes of its state."""
    for name in [*own, *saved]:
        ours, theirs = (_describe(state, name) for state in (own, saved))
        if ours != theirs:
            raise ValueError(f"model: expected {name} to be {ours}, got {theirs} in the checkpoint")


def _describe(state: Mapping[str, Any], name: str) -> str:
    value = state.get(name)
    if name not in state:
        return "missing"
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _read_header(path: Path, line: bytes) -> dict[str, Any]:
    kinds = {"schema": int, "bytes": int, "sha256": str}
    try:
        header = json.loads(line[:_HEADER_BYTES])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or any(type(header.get(name)) is not kind for name, kind in kinds.items()):
        raise ValueError(f"{path}: expected schema, bytes and sha256 in its second line, got {line[:80]!r}")
    if header["schema"] < 1:
        raise ValueError(f"{path}: expected a schema of 1 at least, got {header['schema']}")
    return header


def _read_state(path: Path, state: Any) -> Checkpoint:
    optional = ("scheduler", "scaler")
    kinds: dict[str, Any] = {f.name: dict | None if f.name in optional else dict for f in fields(Checkpoint)}
    kinds["epoch"] = int
    got = {k: type(v).__name__ for k, v in state.items()} if isinstance(state, dict) else type(state).__name__
    if not isinstance(got, dict) or set(got) != set(kinds):
        raise ValueError(f"{path}: expected the entries {', '.join(kinds)}, got {got}")
    for name, kind in kinds.items():
        if not isinstance(state[name], kind):
            raise ValueError(f"{path}: expected {name} to be {kind}, got {got[name]}")
    return Checkpoint(**state)


def _plain(value: Any, name: str) -> Any:
    """A copy on the CPU of what a checkpoint may hold."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if value is None:
        return value
    if isinstance(value, np.generic):  # np.float64 is a float, and no plain one; np.longdouble is its own item
        value = value.item()
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if type(value) is Counter:
        return Counter({_plain(key, f"key of {name}"): int(count) for key, count in value.items()})
    if isinstance(value, Mapping):
        return {_plain(key, f"key of {name}"): _plain(own, f"{name}.{key}") for key, own in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(own, f"{name}.{i}") for i, own in enumerate(value))
    raise TypeError(f"checkpoint: expected tensors and plain values, got {type(value).__name__} at {name}")


# What a training was asked for, in words that can be kept and compared.


def describe_training(
    model: DensityModel,
    loader: PairLoader,
    validation: HeldOut | None,
    settings: Settings,
    seed: int,
    optimizer: Mapping[str, Any],
) -> dict[str, Any]:
    """All that decides what a training computes, but the number of its epochs."""
    law = model.coefficient if settings.coefficient is None else as_coefficient(settings.coefficient(0))
    mixing = None
    if model.mixing.coefficient is not None:
        mixing = {k: v for k, v in vars(model.mixing).items() if k != "coefficient" and not k.startswith("_")}
    graph = describe(loader.graph)
    if isinstance(loader.graph, EmbeddingGraph):
        del graph["neighbors"]  # they follow the model
    always = ("num_samples", "objective", "max_grad_norm", "precision", "compile", "max_skipped")
    usual = {"ema_decay": None, "patience": None, "validation_every": 1}
    asked = {name: getattr(settings, name) for name in (*always, *usual)}
    rows = {name: getattr(loader, name) for name in ("weight", "mask")}
    return {
        "seed": describe(seed),
        "batch_size": loader.batch_size,
        **{name: describe(own) for name, own in asked.items() if name in always or own != usual[name]},
        "optimizer": optimizer["optimizer"],
        "coefficient": describe(law),
        "annealing": settings.coefficient is not None,
        "mixing": describe(mixing),
        "propagate": model.propagate,
        "graph": graph,
        **{name: describe(own) for name, own in rows.items() if own is not None},
        "x": describe(loader.x),
        "y": describe(loader.y),
        "validation": describe(validation and [own for own in validation if own is not None]),
        "device": next(model.parameters()).device.type,
        "model": re.sub(r" at 0x[0-9a-f]+", "", repr(model)),  # its layers and what they are made with
        "scheduler": optimizer["scheduler"],
    }


def describe(value: Any) -> Any:
    """The value as JSON has it; the elements of a large tensor by their sha256, an object by its attributes.

    Example:
        >>> describe(dist.Beta(0.2, 0.2))
        {'class': 'Beta', 'concentration1': [0.20000000298023224], 'concentration0': [0.20000000298023224]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return _describe_tensor(value.detach().cpu())
    if isinstance(value, Mapping):
        return {str(key): describe(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [describe(own) for own in value]
    if isinstance(value, torch.distributions.Distribution):
        return {"class": type(value).__name__, **_parameters(value)}
    if callable(value) and (isinstance(value, type) or not is_dataclass(value)):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if hasattr(value, "__dict__"):
        attributes = {
            key: own for key, own in vars(value).items() if not key.startswith("_") or isinstance(own, Tensor)
        }
        return {"class": type(value).__name__, **describe(attributes)}
    return str(value)


def _check_settings(origin: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse settings that differ, naming the first that does."""
    ours, theirs = _flatten(own), _flatten(saved)
    for name in dict.fromkeys([*theirs, *ours]):
        expected, got = (_show(values[name]) if name in values else "none" for values in (theirs, ours))
        if expected != got:
            lines = zip_longest(expected.splitlines(), got.splitlines(), fillvalue="nothing")
            expected, got = next((e.strip(), g.strip()) for e, g in lines if e != g)
            raise ValueError(f"{name}: expected {expected}, {origin}, got {got}")


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, own in value.items():
        flat.update(_flatten(own, f"{prefix}.{key}" if prefix else key))
    return flat


def _show(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _parameters(p: torch.distributions.Distribution) -> dict[str, Any]:
    names = list(p.arg_constraints)
    if names:
        return {name: describe(getattr(p, name)) for name in names}
    parts = {k: v for k, v in vars(p).items() if isinstance(v, Tensor | float | torch.distributions.Distribution)}
    return {name: describe(part) for name, part in parts.items()}


def _describe_tensor(value: Tensor) -> Any:
    if value.numel() <= _SHOWN:
        return value.flatten().tolist()
    data = value.contiguous().flatten().view(torch.uint8).numpy()
    return f"{value.dtype} {tuple(value.shape)} sha256 {hashlib.sha256(data.tobytes()).hexdigest()[:16]}"
