"""Folders that are no model's: each is refused by name, and runs no code, hangs, fills memory or leaves anything."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import pyro_probmix as pm
from pyro_probmix.persistence import FORMAT, SETTINGS, WEIGHTS

ROOT = Path(__file__).resolve().parents[2]


def checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(folder: Path, **changes: Any) -> None:
    """Settings with these changes, and sums that go with both files, as one who is after something would write them."""
    settings = json.loads((folder / SETTINGS).read_text())
    settings |= changes
    del settings["sha256"]
    content = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    with contextlib.suppress(ValueError, RecursionError):
        settings["weights"]["tensors"] = len(json.loads(content[8 : 8 + length]))
    settings["weights"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / SETTINGS).write_text(json.dumps({**settings, "sha256": checksum(settings)}))


def of_model(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    model = json.loads((folder / SETTINGS).read_text())["model"]
    change(model)
    seal(folder, model=model)


def header(folder: Path, text: bytes, body: bytes = b"") -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + body)
    seal(folder)


def truncated(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-7])


def flipped(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def edited(folder: Path) -> None:
    text = (folder / SETTINGS).read_text()
    (folder / SETTINGS).write_text(text.replace('"min_scale": 0.0001', '"min_scale": 0.1'))


def twice(folder: Path) -> None:
    text = (folder / SETTINGS).read_text()
    (folder / SETTINGS).write_text('{"kind": "model",' + text.lstrip("{"))


def linked(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to("../elsewhere")


def piped(folder: Path) -> None:
    (folder / SETTINGS).unlink()
    os.mkfifo(folder / SETTINGS)


def of_pickle(folder: Path) -> None:
    class Run:
        def __reduce__(self):
            return os.system, (f"touch {folder.parent / 'ran'}",)

    (folder / WEIGHTS).write_bytes(pickle.dumps(Run()))
    seal(folder)


def huge(model: dict[str, Any]) -> None:
    model["network"] |= {"in_features": 10**7, "hidden_features": [10**7, 10**7]}


def of_nan(folder: Path, value: float = torch.nan) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["decoder.0.weight"][0, 0] = value
    save_file(tensors, folder / WEIGHTS)
    seal(folder)


def named(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda model: model.__setitem__(name, value)


def in_one_another(model: dict[str, Any]) -> None:
    for _ in range(100):
        model["network"] = {"type": "Sequential", "layers": {"0": model["network"]}}


def very_long(model: dict[str, Any]) -> None:
    layers = {str(k): {"type": "Tanh"} for k in range(20_000)}
    model["network"] = {"type": "Sequential", "layers": layers}


def overlapping(folder: Path) -> None:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header(folder, json.dumps({"a": one, "b": one}).encode(), b"\0" * 4)


def absurd_shape(folder: Path) -> None:
    header(
        folder, json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}).encode(), b"0000"
    )


def sparse(folder: Path) -> None:
    with open(folder / WEIGHTS, "ab") as file:
        file.truncate(1 << 43)
    settings = json.loads((folder / SETTINGS).read_text())
    del settings["sha256"]
    settings["weights"]["bytes"] = 1 << 43
    (folder / SETTINGS).write_text(json.dumps({**settings, "sha256": checksum(settings)}))


LAYER = {"type": "Linear", "in_features": 3, "out_features": 2, "bias": True}
TRANSFORMER = {"in_features": 3, "hidden_size": 2, "num_heads": 1, "num_layers": 10**9, "feedforward_size": 2} | {
    "dropout": 0.0,
    "causal": False,
    "sequence": False,
}
FAMILY = {"event_shape": [], "parameters": None, "num_classes": None, "floor": 1e-6, "numbers": {}, "tensors": []}
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (truncated, "weights.safetensors: expected [0-9]+ bytes, got [0-9]+: the file is cut off"),
    "a bit flipped": (flipped, "weights.safetensors: expected sha256 .*: the file is damaged"),
    "settings edited": (edited, "settings.json: expected the sha256 .* damaged"),
    "settings cut off": (lambda f: os.truncate(f / SETTINGS, 300), "settings.json: expected JSON"),
    "a newer format": (
        lambda f: seal(f, format=FORMAT + 1),
        f"settings.json: expected format {FORMAT} at most, got {FORMAT + 1}: a newer pyro-probmix",
    ),
    "no format": (lambda f: seal(f, format=None), "settings.json: expected a format of 1 at least, got None"),
    "a name twice": (twice, "settings.json: .*'kind' comes twice"),
    "a tensor twice": (
        lambda f: header(f, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":[]}', b"0000"),
        "weights.safetensors: .*'a' comes twice",
    ),
    "long settings": (lambda f: os.truncate(f / SETTINGS, 1 << 40), "settings.json: expected at most [0-9]+ bytes"),
    "lists in lists": (
        lambda f: (f / SETTINGS).write_text('{"format": ' + "[" * 10**6 + "]" * 10**6 + "}") and None,
        "settings.json: expected",
    ),
    "a long header": (
        lambda f: (f / WEIGHTS).write_bytes(struct.pack("<Q", 2**62) + b"{}") and seal(f),
        "weights.safetensors: expected a header of [0-9]+ bytes at most",
    ),
    "lists in lists in the header": (lambda f: header(f, b"[" * 10**6), "weights.safetensors: expected JSON"),
    "overlapping tensors": (overlapping, "weights.safetensors: expected a file of safetensors"),
    "an absurd shape": (absurd_shape, "weights.safetensors: expected a file of safetensors"),
    "weights of no end": (sparse, "weights.safetensors: expected weights that memory has room for"),
    "a link": (linked, "weights.safetensors: expected a regular file, got a symbolic link"),
    "a pipe": (piped, "settings.json: expected a regular file, got something else"),
    "a pickle": (of_pickle, "weights.safetensors: expected"),
    "NaN": (of_nan, "weights.safetensors: expected numbers in decoder.0.weight, got NaN"),
    "an infinity": (lambda f: of_nan(f, torch.inf), "expected finite weights, got an infinity in decoder.0.weight"),
    "absurd layers": (
        lambda f: of_model(f, huge),
        r"weights.safetensors: expected decoder.0.weight of shape \(10000000",
    ),
    "absurdly many layers": (
        lambda f: of_model(f, named("network", {**TRANSFORMER, "type": "TransformerBackbone"})),
        "expected weights of 1000000000 layers, got 6 tensors",
    ),
    "absurd outputs": (
        lambda f: of_model(f, lambda m: m["likelihood"].__setitem__("event_shape", [10**9])),
        "expected at most 67108864 numbers of one y",
    ),
    "an absurd matrix": (
        lambda f: of_model(
            f,
            named(
                "likelihood",
                {
                    **FAMILY,
                    "type": "DistributionLikelihood",
                    "distribution": "MultivariateNormal",
                    "event_shape": [10**5],
                },
            ),
        ),
        "expected at most 67108864 numbers of one y",
    ),
    "absurd classes": (
        lambda f: of_model(f, named("likelihood", {"type": "CategoricalLikelihood", "num_classes": 10**12})),
        "expected at most 67108864 numbers of one y",
    ),
    "other layers": (
        lambda f: of_model(f, named("network", LAYER)),
        "expected decoder.weight of shape .2, 3., .* none",
    ),
    "an unknown layer": (
        lambda f: of_model(f, named("network", {"type": "os.system", "command": "touch ran"})),
        "decoder: .*expected one of Sequential, .*, got 'os.system'",
    ),
    "a module of torch": (
        lambda f: of_model(f, named("network", {"type": "Module"})),
        "decoder: .*expected one of Sequential, .*, got 'Module'",
    ),
    "an unknown family": (
        lambda f: of_model(f, named("likelihood", {**FAMILY, "type": "DistributionLikelihood", "distribution": "sys"})),
        "likelihood: .*expected a family among .*, got 'sys'",
    ),
    "an unknown method": (
        lambda f: of_model(f, named("method", "eval")),
        "method: expected one of ERM, .*, got 'eval'",
    ),
    "an unknown law": (
        lambda f: of_model(f, named("coefficient", {"type": "exec"})),
        "coefficient: expected a listed one",
    ),
    "other arguments": (
        lambda f: of_model(f, lambda m: m["network"].__setitem__("__class__", "x")),
        "decoder: cannot be made of its settings",
    ),
    "layers in layers": (lambda f: of_model(f, in_one_another), "expected at most 32 architectures inside one another"),
    "20,000 layers": (lambda f: of_model(f, very_long), "expected at most 4096 architectures"),
    "a perceptron of 10,000 layers": (
        lambda f: of_model(f, lambda m: m["network"].__setitem__("hidden_features", [1] * 10**4)),
        "expected weights of 10000 layers, got 6 tensors",
    ),
    "20,000 tensors": (
        lambda f: header(f, json.dumps({str(k): {} for k in range(20_000)}).encode()),
        "weights.safetensors: expected at most 16384 tensors, got 20000",
    ),
    "a long name of a sum": (
        lambda f: (f / SETTINGS).write_text(json.dumps({"format": 1, "sha256": "x" * 10**6})) and None,
        "settings.json: expected the sha256",
    ),
    "frozen weights": (lambda f: seal(f, frozen=3), "settings.json: expected the names of frozen weights, got 3"),
    "another kind": (lambda f: seal(f, kind="skops"), "settings.json: expected a kind of estimator, .*, got 'skops'"),
    "another about": (lambda f: seal(f, about=[1]), "settings.json: expected what else is told .* got .1."),
    "no settings": (lambda f: (f / SETTINGS).unlink(), "settings.json: expected a file, got none"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "weights.safetensors: expected a file, got none"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused_by_name(name, tmp_path):
    spoil, expected = HOSTILE[name]
    folder = tmp_path / "model"
    pm.save(pm.ProbMix(pm.nn.MLP(3, [8, 5], 2), pm.nn.NormalLikelihood()), folder)
    spoil(folder)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, FileNotFoundError), match=expected) as caught:
            pm.load(folder)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**28
    assert len(str(caught.value)) < 2000
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_folder_of_nothing_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: expected the folder of a model, got none"):
        pm.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match="file: expected the folder of a model, got a file"):
        pm.load(tmp_path / "file")


STOPPED = """
import os, sys
import torch, pyro_probmix as pm

count, after = 0, int(sys.argv[2])
def stop(function):
    def wrapped(*args, **kwargs):
        global count
        count += 1
        if count > after:
            os._exit(9)
        return function(*args, **kwargs)
    return wrapped
for name in ("rename", "fsync", "mkdir", "unlink", "rmdir"):
    setattr(os, name, stop(getattr(os, name)))
new = torch.nn.Linear(1, 1)
new.weight.data.fill_(2.0)
pm.save(new, sys.argv[1], overwrite=True)
print("done")
"""


@pytest.mark.slow
def test_a_kill_leaves_the_old_model_or_the_new_one(tmp_path):
    old = nn.Linear(1, 1)
    old.weight.data.fill_(1.0)
    seen = set()
    for after in range(30):
        folder = tmp_path / str(after) / "model"
        pm.save(old, folder)
        command = [sys.executable, "-c", STOPPED, str(folder), str(after)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 9), done.stderr
        seen.add(float(pm.load(folder).weight.detach()))
        pm.save(old, folder, overwrite=True)  # which what was left is not in the way of
        assert float(pm.load(folder).weight.detach()) == 1.0
        if done.returncode == 0:
            break
    assert seen == {1.0, 2.0}
    assert done.stdout == "done\n"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    model = nn.Linear(2, 1)
    pm.save(model, tmp_path / "model")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    for path, overwrite in ((tmp_path / "model", True), (tmp_path / "other", False)):
        with pytest.raises(OSError, match="no space left"):
            pm.save(nn.Linear(2, 1), path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert torch.equal(pm.load(tmp_path / "model").weight, model.weight)
