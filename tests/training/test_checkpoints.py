"""Checkpoint files: whole or not there, tensors and plain values alone, refused by name where something is wrong."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import zipfile
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix._random import random_state
from pyro_probmix.training import Checkpoint, load_checkpoint, save_checkpoint
from pyro_probmix.training.checkpoints import SCHEMA

FIRST = Path(__file__).parent / "data" / "checkpoint_schema_1.pt"


def make() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    for _ in range(2):
        model(torch.randn(4, 2)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def checkpoint_of(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any) -> Checkpoint:
    states = model.state_dict(), optimizer.state_dict(), scheduler.state_dict()
    return Checkpoint(2, *states, random=random_state(), settings={"seed": 3})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "checkpoint.pt", checkpoint_of(*make()))
    return tmp_path / "checkpoint.pt"


def with_payload(payload: bytes, **header: Any) -> bytes:
    """A file whose header fits its payload."""
    line = {"schema": SCHEMA, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()} | header
    return b"pyro_probmix checkpoint\n" + json.dumps(line).encode() + b"\n" + payload


def parts(path: Path) -> tuple[bytes, bytes, bytes]:
    magic, header, payload = path.read_bytes().split(b"\n", 2)
    return magic, header, payload


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


# There and back.


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer, scheduler = make()
    save_checkpoint(tmp_path / "new" / "one.pt", checkpoint_of(model, optimizer, scheduler))
    expected = torch.rand(3)
    others = make()
    torch.rand(7)
    checkpoint = load_checkpoint(tmp_path / "new" / "one.pt").restore(*others)
    assert torch.equal(torch.rand(3), expected)
    assert (checkpoint.epoch, checkpoint.settings) == (2, {"seed": 3})
    # The next steps are those of the original.
    x = torch.randn(4, 2)
    for own in ((model, optimizer, scheduler), others):
        own[1].zero_grad()
        own[0](x).square().sum().backward()
        own[1].step()
        own[2].step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, others[0].state_dict()[name]), name
    assert others[2].get_last_lr() == scheduler.get_last_lr()
    assert type(others[2].milestones) is Counter


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_tensors_keep_their_dtype_and_take_no_more_room_than_they_need(tmp_path: Path, dtype: torch.dtype) -> None:
    large = torch.arange(1_000_000).to(dtype)
    save_checkpoint(tmp_path / "one.pt", Checkpoint(0, {"view": large[::250_000]}, {}))
    view = load_checkpoint(tmp_path / "one.pt").model["view"]
    assert view.dtype == dtype
    assert torch.equal(view, large[::250_000])
    assert (tmp_path / "one.pt").stat().st_size < 5000


def test_a_saved_tensor_is_a_copy(tmp_path: Path) -> None:
    model, optimizer, scheduler = make()
    before = copy.deepcopy(model.state_dict())
    save_checkpoint(tmp_path / "one.pt", checkpoint_of(model, optimizer, scheduler))
    loaded = load_checkpoint(tmp_path / "one.pt")
    loaded.model["0.weight"].zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.faults("code in a checkpoint")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (nn.ReLU(), r"got ReLU at optimizer\.a\.1"),
        ({1, 2}, r"got set at optimizer\.a\.1"),
        (print, r"got builtin_function_or_method at optimizer\.a\.1"),
        (np.longdouble(1.5), r"got longdouble at optimizer\.a\.1"),
    ],
    ids=["module", "set", "function", "longdouble"],
)
def test_only_plain_values_are_written(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        save_checkpoint(tmp_path / "one.pt", Checkpoint(0, {}, {"a": [1, value]}))
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_plain_ones(tmp_path: Path) -> None:
    """np.float64 is a float that cannot be read back; a schedule counts its milestones in a Counter."""
    value = {
        "rate": np.float64(0.5),
        "flag": np.bool_(True),
        "at": Counter({np.int64(3): 1}),
        np.int64(4): np.str_("a"),
    }
    save_checkpoint(tmp_path / "one.pt", Checkpoint(0, {}, {"a": value}))
    loaded = load_checkpoint(tmp_path / "one.pt").optimizer["a"]
    assert loaded == {"rate": 0.5, "flag": True, "at": Counter({3: 1}), 4: "a"}
    assert [type(own) for own in loaded.values()] == [float, bool, Counter, str]


def test_restoring_leaves_the_checkpoint_as_it_is(path: Path) -> None:
    model, optimizer, scheduler = make()
    checkpoint = load_checkpoint(path)
    before = copy.deepcopy(checkpoint)
    checkpoint.restore(model, optimizer, scheduler)
    model(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()
    scheduler.step()
    state, kept = checkpoint.optimizer["state"], before.optimizer["state"]
    assert all(torch.equal(state[i][name], kept[i][name]) for i in kept for name in kept[i])
    assert checkpoint.scheduler == before.scheduler


# Whole or not at all.


@pytest.mark.faults("damaged checkpoint")
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    before = path.read_bytes()

    def fail(*arguments: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, checkpoint_of(*make()))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.faults("damaged checkpoint")
def test_the_file_is_on_the_disk_before_it_gets_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        function = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, function=function: (calls.append(name), function(*a)))
    save_checkpoint(path, checkpoint_of(*make()))
    assert calls[:2] == ["fsync", "replace"]


# What is wrong is said.


@pytest.mark.faults("damaged checkpoint")
def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.faults("damaged checkpoint")
@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.5, 0.999])
def test_truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"checkpoint\.pt: expected .*, got"):
        load_checkpoint(path)


@pytest.mark.faults("damaged checkpoint")
def test_any_changed_byte_is_seen(path: Path) -> None:
    """In the header each one, in the payload a hundred."""
    content = path.read_bytes()
    start = len(content) - len(parts(path)[2])
    step = (len(content) - start) // 100
    for position in [*range(start - 1), *range(start, len(content), step)]:
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checkpoint\.pt: expected .*, got"):
            load_checkpoint(path)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.faults("code in a checkpoint")
@pytest.mark.parametrize("kind", ["torch", "pickle", "in the model", "in torch's zip"])
def test_hostile_files_run_nothing(path: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "ran"
    payload = Payload(target)
    if kind == "pickle":
        content = pickle.dumps(payload)
    elif kind == "torch":
        content = saved(payload)
    elif kind == "in the model":
        state = {f.name: getattr(load_checkpoint(path), f.name) for f in fields(Checkpoint)}
        content = saved(state | {"model": {"weight": payload}})
    else:
        buffer = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(parts(path)[2])) as source,
            zipfile.ZipFile(buffer, "w") as hostile,
        ):
            for name in source.namelist():
                hostile.writestr(name, pickle.dumps(payload) if name.endswith("data.pkl") else source.read(name))
        content = buffer.getvalue()
    for file in (content, with_payload(content)):
        path.write_bytes(file)
        with pytest.raises(
            ValueError, match=r"expected (tensors and plain values alone|a checkpoint of pyro_probmix), got"
        ):
            load_checkpoint(path)
        assert not target.exists()
    with io.BytesIO(content) as stream:  # the payload is armed
        pickle.load(stream) if kind == "pickle" else torch.load(stream, weights_only=False)
    assert target.exists()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "newer": ({"schema": SCHEMA + 1}, f"expected schema {SCHEMA} at most, got {SCHEMA + 1}: a newer"),
    "schema 0": ({"schema": 0}, "expected a schema of 1 at least, got 0"),
    "schema of text": ({"schema": "1"}, "expected schema, bytes and sha256"),
    "another length": ({"bytes": 7}, "expected 7 bytes, got"),
    "another sum": ({"sha256": "0" * 64}, "expected sha256 0000.*: the file is damaged"),
}


@pytest.mark.faults("code in a checkpoint")
def test_a_header_of_brackets(path: Path) -> None:
    """JSON gives up on it in another way than on what is no JSON."""
    magic, _, payload = parts(path)
    path.write_bytes(b"\n".join([magic, b"[" * 1020, payload]))
    with pytest.raises(ValueError, match="expected schema, bytes and sha256 in its second line"):
        load_checkpoint(path)


@pytest.mark.faults("damaged checkpoint")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_headers(path: Path, name: str) -> None:
    header, message = WRONG[name]
    path.write_bytes(with_payload(parts(path)[2], **header))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


@pytest.mark.faults("damaged checkpoint")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": "2"}, "expected epoch to be .*int.*, got str"),
        ({"model": torch.ones(2)}, "expected model to be .*dict.*, got Tensor"),
        ({"more": 1}, "expected the entries epoch, model, .*, got .*more"),
    ],
    ids=["epoch", "model", "entries"],
)
def test_wrong_entries(path: Path, change: dict[str, Any], message: str) -> None:
    state = {f.name: getattr(load_checkpoint(path), f.name) for f in fields(Checkpoint)}
    path.write_bytes(with_payload(saved(state | change)))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


@pytest.mark.faults("damaged checkpoint")
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)), r"0\.weight to be .*\(4, 2\), got .*\(3, 2\)"),
        (
            lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double(),
            "0.weight to be torch.float64 .*, got torch.float32",
        ),
        (lambda: nn.Sequential(nn.Linear(2, 3)), "1.weight to be missing, got torch.float32"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)), "2.weight to be .*, got missing"),
    ],
    ids=["shape", "dtype", "fewer", "more"],
)
def test_another_model_is_refused_whole(path: Path, other: Any, message: str) -> None:
    model = other()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(ValueError, match="^model: expected " + message):
        load_checkpoint(path).restore(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_are_compared_where_they_are_given(path: Path) -> None:
    assert load_checkpoint(path, {"seed": 3}).epoch == 2
    with pytest.raises(ValueError, match=r"seed: expected 3, with which .*checkpoint\.pt was written, got 4"):
        load_checkpoint(path, {"seed": 4})
    with pytest.raises(ValueError, match=r"other: expected none, .*, got 1"):
        load_checkpoint(path, {"seed": 3, "other": 1})


# A file of each schema is kept.


def first_data() -> tuple[Tensor, Tensor]:
    x = torch.arange(16, dtype=torch.float64).reshape(8, 2) / 8 - 1
    return x, x[:, 0] - x[:, 1] ** 2


def first_model() -> pm.ProbMix:
    network = nn.Linear(2, 2, dtype=torch.float64)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.5, -0.25], [0.0, 0.125]]))
        network.bias.copy_(torch.tensor([0.0, 0.5]))
    return pm.ProbMix(network, pm.nn.NormalLikelihood(), vicinity=pm.NormalVicinity(0.01))


@pytest.mark.faults("damaged checkpoint")
def test_schema_1_loads() -> None:
    """Three epochs of ``fit`` on the data and the model above, in two batches; written by the first version."""
    assert parts(FIRST)[1].startswith(b'{"schema": 1, ')
    checkpoint = load_checkpoint(FIRST)
    assert checkpoint.epoch == 3
    assert checkpoint.history["losses"].shape == (2, 3)
    model = first_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    checkpoint.restore(model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)
    x, y = first_data()
    nll = -model.predictive(x).log_prob(y).mean()
    assert nll.item() == pytest.approx(checkpoint.history["losses"][1, -1].item(), rel=1e-12)
