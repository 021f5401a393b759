"""A folder of settings and weights: written whole or not at all, and believed in nothing that is not checked."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = [
    "FORMAT",
    "SETTINGS",
    "WEIGHTS",
    "Weights",
    "check_destination",
    "read_folder",
    "read_settings",
    "write_folder",
]

FORMAT = 1
"""Version of the folder's layout; a folder of every older one is still read."""

SETTINGS, WEIGHTS = "settings.json", "weights.safetensors"

_LARGEST_TEXT = 1 << 23  # bytes of settings, and of the header of the weights
_MOST_TENSORS = 1 << 14
_PIECE = 1 << 20
_NOT_FINITE = "__float__"


def check_destination(path: str | os.PathLike, overwrite: bool = False) -> Path:
    """The folder that a model would be saved in, refused where something is there that is not to be replaced.

    Args:
        path: the folder; a symbolic link stands for what it points to.
        overwrite: whether a model that is there is replaced.

    Raises:
        FileExistsError: if a model is there and not to be replaced, or anything else but an empty folder.

    Example:
        >>> check_destination("a_new_folder").name
        'a_new_folder'
    """
    resolved = Path(os.path.realpath(path))
    there = _existing(resolved)
    if there is None or (there.is_dir() and not any(there.iterdir())):
        return resolved
    if not (there.is_dir() and {file.name for file in there.iterdir()} <= {SETTINGS, WEIGHTS}):
        raise FileExistsError(f"{path}: expected a new folder or that of a model, got something else, which is kept")
    if not overwrite:
        raise FileExistsError(f"{path}: expected a new folder, got one with a model; overwrite=True replaces it")
    return resolved


def write_folder(
    path: str | os.PathLike, settings: Mapping[str, Any], tensors: Mapping[str, Tensor], overwrite: bool = False
) -> None:
    """Writes settings and weights as a folder, whole or not at all.

    It is written beside its place, brought to the disk, and renamed. An old model is moved aside by its name with
    ``.previous``, which :func:`read_folder` reads if the process stops before the new one is in its place.

    Args:
        path: the folder; missing ones above it are made.
        settings: what JSON has, NaN and infinities too.
        tensors: by name; on the CPU.
        overwrite: whether a model that is there is replaced.

    Raises:
        FileExistsError: as of :func:`check_destination`.
        OSError: if it cannot be written, such as to a full disk.
        ValueError: if the settings are too long, or the tensors too many, to be read again.
    """
    path = check_destination(path, overwrite)
    if len(tensors) > _MOST_TENSORS:
        raise ValueError(f"model: expected at most {_MOST_TENSORS} tensors, got {len(tensors)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        weights = temporary / WEIGHTS
        try:
            save_file(dict(tensors), weights)
        except SafetensorError as error:  # such as of a full disk
            raise OSError(f"{path}: {error}") from error
        with open(weights, "rb") as file:
            os.fsync(file.fileno())
        about = {"tensors": len(tensors), "bytes": weights.stat().st_size, "sha256": _sha256(weights)}
        content = _encoded({"format": FORMAT, **settings, "weights": about})
        text = json.dumps({**content, "sha256": _checksum(content)}, indent=1, allow_nan=False) + "\n"
        if len(text) > _LARGEST_TEXT:
            raise ValueError(f"{path}: expected settings of at most {_LARGEST_TEXT} characters, got {len(text)}")
        with open(temporary / SETTINGS, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(temporary / SETTINGS, weights)  # the library writes for the owner alone
        _sync(temporary)
        _put(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)


def _put(new: Path, path: Path) -> None:
    """Renames the folder into its place."""
    aside = _aside(path)
    if path.exists() and any(path.iterdir()):
        shutil.rmtree(aside, ignore_errors=True)  # of a process that stopped when the new one was in its place
        os.rename(path, aside)
        try:
            os.rename(new, path)
        except BaseException:
            os.rename(aside, path)
            raise
    else:
        if path.exists():
            path.rmdir()
        os.rename(new, path)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def _existing(path: Path) -> Path | None:
    return next((found for found in (path, _aside(path)) if os.path.lexists(found)), None)


def _sync(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Weights:
    """The tensors of a file, whose names and shapes are known before any is in memory.

    Args:
        path: the file, which has been checked.

    Attributes:
        shapes: by name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, framework="pt", device="cpu") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            self.shapes = {name: tuple(piece.get_shape()) for name, piece in slices.items()}

    def read(self, name: str) -> Tensor:
        """The tensor of that name, a copy in memory.

        Raises:
            ValueError: if there is none, or it holds NaN, or a byte that is no boolean.
        """
        if name not in self.shapes:
            raise ValueError(f"{self.path}: expected weights {name}, got none of that name")
        try:
            with safe_open(self.path, framework="pt", device="cpu") as file:
                tensor = file.get_tensor(name).clone()
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
            raise ValueError(f"{self.path}: expected {name} in a dtype of PyTorch: {error}") from error
        if tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
            raise ValueError(f"{self.path}: expected booleans in {name}, got other bytes")
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise ValueError(f"{self.path}: expected numbers in {name}, got NaN")
        return tensor


def read_folder(path: str | os.PathLike) -> tuple[dict[str, Any], Weights]:
    """The settings of a folder and its weights, of which none is in memory yet.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: if there is no such folder, or one of the two files is not in it.
        ValueError: if a file is damaged, cut off, too large, no regular file of the folder, or of a newer format.
    """
    settings = read_settings(path)
    shown, weights = Path(path) / WEIGHTS, _folder(path) / WEIGHTS
    about, size = settings["weights"], _size(shown, weights)
    if size != about["bytes"]:
        raise ValueError(f"{shown}: expected {about['bytes']} bytes, got {size}: the file is cut off or another's")
    if size > _memory():
        raise ValueError(f"{shown}: expected weights that memory has room for, got {size} bytes")
    names = _names(shown, weights, size)
    if len(names) > _MOST_TENSORS:
        raise ValueError(f"{shown}: expected at most {_MOST_TENSORS} tensors, got {len(names)}")
    if len(names) != about["tensors"]:
        raise ValueError(f"{shown}: expected {about['tensors']} tensors, got {len(names)}")
    if (got := _sha256(weights)) != about["sha256"]:
        raise ValueError(f"{shown}: expected sha256 {about['sha256']:.64}, got {got}: the file is damaged")
    try:
        return settings, Weights(weights)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{shown}: expected a file of safetensors, got another or a damaged one: {error}") from error


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """What the folder of a model says of it, without its weights.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: if there is no such folder, or no settings are in it.
        ValueError: as of :func:`read_folder`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pm.save(torch.nn.Linear(3, 1), f"{folder}/model", about={"target": "price"})
        ...     read_settings(f"{folder}/model")["about"]
        {'target': 'price'}
    """
    shown, file = Path(path) / SETTINGS, _folder(path) / SETTINGS
    size = _size(shown, file)
    if size > _LARGEST_TEXT:
        raise ValueError(f"{shown}: expected at most {_LARGEST_TEXT} bytes, got {size}")
    try:
        return _checked(shown, _parsed(shown, file.read_bytes()))
    except RecursionError:
        raise ValueError(f"{shown}: expected settings, got lists in lists: the file is damaged") from None


def _folder(path: str | os.PathLike) -> Path:
    folder = _existing(Path(os.path.realpath(path)))
    if folder is None:
        raise FileNotFoundError(f"{path}: expected the folder of a model, got none")
    if not folder.is_dir():
        raise ValueError(f"{path}: expected the folder of a model, got a file")
    return folder


def _size(shown: Path, file: Path) -> int:
    """Bytes of a file that is one of the folder itself: a pipe would never end, and a link may point anywhere."""
    try:
        found = os.lstat(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{shown}: expected a file, got none: this is no folder of a model") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "something else"
        raise ValueError(f"{shown}: expected a regular file, got {kind}")
    return found.st_size


def _checked(shown: Path, settings: dict[str, Any]) -> dict[str, Any]:
    version = settings.get("format")
    if type(version) is not int or version < 1:
        raise ValueError(f"{shown}: expected a format of 1 at least, got {version!r:.80}")
    if version > FORMAT:
        raise ValueError(
            f"{shown}: expected format {FORMAT} at most, got {version!s:.80}: a newer pyro-probmix wrote it"
        )
    checksum = settings.pop("sha256", None)
    if checksum != _checksum(settings):
        raise ValueError(f"{shown}: expected the sha256 of its other entries, got {checksum!s:.64}: it is damaged")
    if not isinstance(settings.setdefault("about", {}), dict):
        raise ValueError(f"{shown}: expected what else is told of the model by name, got {settings['about']!r:.80}")
    weights, kinds = settings.get("weights"), {"tensors": int, "bytes": int, "sha256": str}
    if not isinstance(weights, dict) or any(type(weights.get(name)) is not kind for name, kind in kinds.items()):
        raise ValueError(f"{shown}: expected tensors, bytes and sha256 of the weights, got {weights!r:.80}")
    return _decoded(settings)


def _names(shown: Path, file: Path, size: int) -> list[str]:
    """The names in the header, of which the library would take the last of two that are equal."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(size - 8, _LARGEST_TEXT):
            raise ValueError(f"{shown}: expected a header of {_LARGEST_TEXT} bytes at most, got {length}: damaged")
        header = _parsed(shown, opened.read(length))
    return [name for name in header if name != "__metadata__"]


def _parsed(shown: Path, content: bytes) -> dict[str, Any]:
    """An object of JSON in which no name comes twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise ValueError(f"{twice!r:.80} comes twice")
        return found

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown}: expected JSON, got something else or a damaged file: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{shown}: expected an object of JSON, got {type(found).__name__}")
    return found


def _checksum(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _encoded(value: Any) -> Any:
    """The value as JSON has it, which has no NaN and no infinity, and knows names that are strings alone."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_NOT_FINITE: repr(float(value))}
    if isinstance(value, Mapping):
        return {str(name): _encoded(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(own) for own in value]
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_NOT_FINITE} and value[_NOT_FINITE] in ("nan", "inf", "-inf"):
            return float(value[_NOT_FINITE])
        return {name: _decoded(own) for name, own in value.items()}
    return [_decoded(own) for own in value] if isinstance(value, list) else value


def _sha256(file: Path) -> str:
    found = hashlib.sha256()
    with open(file, "rb") as opened:
        while piece := opened.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def _memory() -> float:
    """Bytes of the machine's memory, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf
