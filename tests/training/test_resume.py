"""``resume=True`` goes on as if nothing had happened: N + N epochs are 2N epochs, bit by bit, whatever stops them."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix._random import random_state
from pyro_probmix.training import load_checkpoint

N = 11
ROOT = Path(__file__).resolve().parents[2]
METHODS = ("ERM", "Mixup", "ManifoldMixup", "ProbMix", "ManifoldProbMix")


def data(size: int = N) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, 2, generator=generator)
    return x, x[:, 0] - 0.5 * x[:, 1] + 0.1 * torch.randn(size, generator=generator)


def make(method: str = "ProbMix", coefficient: Any = None, beta: float = 0.01, width: int = 6) -> Any:
    """With dropout and a running mean: noise and buffers of the networks' own."""
    torch.manual_seed(7)
    likelihood = pm.nn.NormalLikelihood()
    encoder = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.2))
    decoder = nn.Linear(width, 2)
    vicinity = pm.NormalVicinity(beta)
    if method == "ERM":
        return pm.ERM(nn.Sequential(encoder, decoder), likelihood)
    keywords = {"coefficient": coefficient, "vicinity": vicinity, "labels": "sample"}
    if method in ("Mixup", "ProbMix"):
        return getattr(pm, method)(nn.Sequential(encoder, decoder), likelihood, **keywords)
    if method == "ManifoldMixup":
        return pm.ManifoldMixup(encoder, decoder, likelihood, **keywords)
    return pm.ManifoldProbMix(pm.nn.NormalEmbedding(encoder, width), decoder, likelihood, **keywords)


def fit(model: Any, epochs: int = 4, **arguments: Any) -> pm.History:
    defaults = {"batch_size": 4, "validation": data(8), "checkpoint_every": 1, "progress": False, "learning_rate": 0.05}
    return pm.fit(model, arguments.pop("data", data()), epochs=epochs, **defaults | arguments)


def assert_equal(one: Any, other: Any) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def cosine(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)


def plateau(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)


def milestones(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3], gamma=0.5)


def momentum(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


CASES: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in METHODS},
    **{
        f"{method}, λ at nodes": {"method": method, "coefficient": pm.GaussJacobi(0.3, num_nodes=3)}
        for method in METHODS[1:]
    },
    "cosine schedule": {"scheduler": cosine},
    "schedule of the validation loss": {"scheduler": plateau},
    "milestones": {"scheduler": milestones},
    "momentum": {"optimizer": momentum},
    "annealing": {"annealing": lambda epoch: dist.Beta(0.1 * (epoch + 1), 0.1 * (epoch + 1))},
    "no validation": {"validation": None},
    "full batch": {"batch_size": None},
    "neighbours": {"graph": pm.NearestNeighborGraph(data()[0], num_neighbors=2)},
    "clipping": {"max_grad_norm": 0.1},
    "average": {"ema_decay": 0.9},
    "average, no validation": {"ema_decay": 0.9, "validation": None},
    "bfloat16": {"precision": torch.bfloat16},
    "patience": {"patience": 1, "learning_rate": 0.3},
    "validation now and then": {"validation_every": 2},
    "samples": {"num_samples": 3, "objective": "log-expected"},
}


@pytest.mark.faults("resume that forgets")
@pytest.mark.parametrize("name", CASES)
def test_n_and_n_epochs_are_2n_epochs(name: str, tmp_path: Path) -> None:
    case = dict(CASES[name])
    method, law = case.pop("method", "ProbMix"), case.pop("coefficient", None)
    if "annealing" in case:
        case["coefficient"] = case.pop("annealing")
    through, first, second = (make(method, law) for _ in range(3))
    expected = fit(through, 6, **case)
    fit(first, 3, checkpoint_dir=tmp_path, **case)
    torch.manual_seed(123)
    torch.rand(5)
    history = fit(second, 6, checkpoint_dir=tmp_path, resume=True, **case)
    assert history == expected
    assert_equal(second, through)


def test_neighbours_of_an_embedding_are_resumed(tmp_path: Path) -> None:
    """They are those of the encoder at the last refresh, not of the encoder at the checkpoint or at the start."""

    def graph_of(model: Any) -> pm.EmbeddingGraph:
        return pm.EmbeddingGraph(data()[0], model.encoder, num_neighbors=2, refresh_every=2)

    through, first, second = (make("ManifoldMixup") for _ in range(3))
    graphs = [graph_of(through), graph_of(second)]
    start = graphs[0].neighbors
    expected = fit(through, 8, graph=graphs[0], learning_rate=0.5)
    fit(first, 5, graph=graph_of(first), learning_rate=0.5, checkpoint_dir=tmp_path)
    history = fit(second, 8, graph=graphs[1], learning_rate=0.5, checkpoint_dir=tmp_path, resume=True)
    assert history == expected
    assert_equal(second, through)
    assert torch.equal(graphs[0].neighbors, graphs[1].neighbors)
    assert not torch.equal(graphs[0].neighbors, start)


def test_resume_without_a_checkpoint_starts(tmp_path: Path) -> None:
    model, expected = make(), make()
    fit(expected)
    fit(model, checkpoint_dir=tmp_path / "new" / "folder", resume=True)
    assert_equal(model, expected)


def test_resume_of_a_training_that_is_through(tmp_path: Path) -> None:
    """The best epoch again, and nothing is trained."""
    model, again = make(), make()
    history = fit(model, checkpoint_dir=tmp_path)
    assert fit(again, checkpoint_dir=tmp_path, resume=True) == history
    assert_equal(again, model)


def test_the_law_of_lambda_is_the_last_where_nothing_is_left_to_train(tmp_path: Path) -> None:
    def anneal(epoch: int) -> dist.Beta:
        return dist.Beta(1.0 + epoch, 1.0 + epoch)

    fit(make(), checkpoint_dir=tmp_path, coefficient=anneal)
    again = make()
    fit(again, checkpoint_dir=tmp_path, coefficient=anneal, resume=True)
    assert float(again.coefficient.concentration1) == 4.0


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {
        "learning_rate": np.float64(0.05),
        "max_grad_norm": np.float32(1.5),
        "seed": np.int64(3),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [2], gamma=np.float64(0.5)),
    }
    model, through = make(), make()
    fit(model, 2, checkpoint_dir=tmp_path, **numbers)
    fit(model, 4, checkpoint_dir=tmp_path, resume=True, **numbers)
    fit(through, 4, **numbers)
    assert_equal(model, through)


@pytest.mark.faults("resume that forgets")
def test_resume_after_an_interrupt(tmp_path: Path) -> None:
    """In the middle of an epoch: it is begun again from the checkpoint before it."""
    through, stopped = make(), make()
    expected = fit(through, 6)
    steps = 0

    def interrupt(*arguments: Any) -> None:
        nonlocal steps
        steps += stopped.training
        if steps == 11:  # three steps an epoch
            raise KeyboardInterrupt

    handle = stopped.decoder.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, 6, checkpoint_dir=tmp_path)
    handle.remove()
    assert load_checkpoint(tmp_path / "checkpoint.pt").epoch == 3
    assert fit(stopped, 6, checkpoint_dir=tmp_path, resume=True) == expected
    assert_equal(stopped, through)


@pytest.mark.parametrize("every", [1, 2, 3, 10])
def test_checkpoints_come_as_often_as_asked_and_at_the_end(every: int, tmp_path: Path) -> None:
    file, seen = tmp_path / "checkpoint.pt", set()

    def law(epoch: int) -> Any:  # asked for at the start of each epoch
        seen.add(load_checkpoint(file).epoch if file.exists() else 0)
        return dist.Beta(1.0, 1.0)

    fit(make(), 7, checkpoint_dir=tmp_path, checkpoint_every=every, coefficient=law)
    assert seen == {0, *range(every, 8, every), 7}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_writing_checkpoints_changes_nothing(tmp_path: Path) -> None:
    with_, without = make("ManifoldProbMix"), make("ManifoldProbMix")
    assert fit(with_, checkpoint_dir=tmp_path) == fit(without)
    assert_equal(with_, without)


@pytest.mark.faults("models that meet in the store")
@pytest.mark.parametrize("local", [True, False])
def test_the_users_parameter_store_and_random_state_stay(local: bool, tmp_path: Path) -> None:
    """Pyro's two ways to keep parameters; a parameter of the user's has the name of one of the model's."""
    pyro.settings.set(module_local_params=local)
    try:
        mine = pyro.param("decoder.0.weight", torch.ones(2))
        pyro.param("mine", torch.ones(2), constraint=dist.constraints.positive)
        through, resumed = make(), make()
        expected = fit(through, 4)
        fit(make(), 2, checkpoint_dir=tmp_path)
        before, state = dict(pyro.get_param_store()._params), torch.get_rng_state()
        assert fit(resumed, 4, checkpoint_dir=tmp_path, resume=True) == expected
        assert_equal(resumed, through)
        after = dict(pyro.get_param_store()._params)
        assert list(after) == list(before)
        assert all(after[name] is before[name] for name in before)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(mine, torch.ones(2))
    finally:
        pyro.settings.set(module_local_params=False)


# Other settings.


X, Y = data()
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 1}, "seed: expected 0, with which .*checkpoint.pt was written, got 1"),
    "batch_size": ({"batch_size": 5}, "batch_size: expected 4, .*, got 5"),
    "learning rate": ({"learning_rate": 0.1}, r"optimizer: expected .*0\.05.*, got .*0\.1"),
    "optimizer": ({"optimizer": momentum}, "optimizer: expected .*Adam.*, got .*SGD"),
    "scheduler": ({"scheduler": cosine}, "scheduler: expected None, .*, got .*CosineAnnealingLR"),
    "num_samples": ({"num_samples": 2}, "num_samples: expected 1, .*, got 2"),
    "objective": ({"objective": "log-expected"}, "objective: expected expected-log, .*, got log-expected"),
    "max_grad_norm": ({"max_grad_norm": 1.0}, r"max_grad_norm: expected None, .*, got 1\.0"),
    "ema_decay": ({"ema_decay": 0.9}, r"ema_decay: expected none, .*, got 0\.9"),
    "patience": ({"patience": 2}, "patience: expected none, .*, got 2"),
    "precision": ({"precision": torch.bfloat16}, r"precision: expected None, .*, got torch\.bfloat16"),
    "non_finite": ({"non_finite": "skip"}, "max_skipped: expected 0, .*, got 10"),
    "annealing": ({"coefficient": lambda epoch: dist.Beta(0.2, 0.2)}, "annealing: expected False, .*, got True"),
    "x": ({"data": (X + 1, Y)}, "x: expected .*sha256.*, got .*sha256"),
    "y": ({"data": (X, Y + 1)}, "y: expected .*sha256.*, got .*sha256"),
    "validation": ({"validation": data(9)}, r"validation: expected .*\(8, 2\).*, got .*\(9, 2\)"),
    "graph": (
        {"graph": pm.NearestNeighborGraph(X)},
        "graph.class: expected CompleteGraph, .*, got NearestNeighborGraph",
    ),
    "coefficient": (
        {"model": {"coefficient": dist.Beta(0.5, 0.5)}},
        "coefficient.concentration1: expected .*, got .*0.5",
    ),
    "vicinity": ({"model": {"beta": 0.02}}, "mixing.vicinity.beta: expected 0.01, .*, got 0.02"),
    "method": ({"model": {"method": "Mixup"}}, "mixing.at: expected y, .*, got x"),
    "width": ({"model": {"width": 7}}, "model: expected .*Linear.*out_features=6.*, got .*Linear.*out_features=7"),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_settings_are_refused_and_named(name: str, tmp_path: Path) -> None:
    changed, message = OTHER[name]
    changed = dict(changed)
    fit(make(), 2, checkpoint_dir=tmp_path)
    content = (tmp_path / "checkpoint.pt").read_bytes()
    model = make(**changed.pop("model", {}))
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        fit(model, 4, checkpoint_dir=tmp_path, resume=True, **changed)
    assert_equal(model, before)
    assert (tmp_path / "checkpoint.pt").read_bytes() == content


def test_fewer_epochs_than_are_done_are_refused(tmp_path: Path) -> None:
    fit(make(), 3, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="epochs: expected at least 3, which the checkpoint has, got 2"):
        fit(make(), 2, checkpoint_dir=tmp_path, resume=True)


def test_a_checkpoint_is_not_overwritten_by_another_training(tmp_path: Path) -> None:
    fit(make(), 2, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint_dir: .*checkpoint\.pt would be lost; pass resume=True"):
        fit(make(), 2, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="checkpoint_dir: expected a folder to resume from, got None"):
        fit(make(), 2, resume=True)


def test_a_failed_training_leaves_the_checkpoint_of_its_last_good_epoch(tmp_path: Path) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.steps = nn.Linear(2, 2), 0

        def forward(self, x: Tensor) -> Tensor:
            self.steps += self.training
            return self.linear(x) * (float("nan") if self.steps == 8 and self.training else 1.0)

    model = pm.ProbMix(Failing(), pm.nn.NormalLikelihood())
    with pytest.raises(ValueError, match="epoch 2, batch 1: the loss"):
        fit(model, 4, checkpoint_dir=tmp_path)
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    assert checkpoint.epoch == 2
    assert all(bool(t.isfinite().all()) for t in checkpoint.model.values())


# The random states are those of the training, not of the user.


@pytest.mark.faults("resume that forgets")
def test_random_states_are_those_of_the_training(tmp_path: Path) -> None:
    fit(make(), 2, checkpoint_dir=tmp_path / "one")
    torch.manual_seed(5)
    fit(make(), 2, checkpoint_dir=tmp_path / "two")
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    assert torch.equal(one.random["cpu"], two.random["cpu"])
    assert not torch.equal(one.random["cpu"], random_state()["cpu"])


# kill -9.


@pytest.mark.faults("damaged checkpoint")
@pytest.mark.faults("resume that forgets")
def test_kills_at_random_moments() -> None:
    """In training and in writing; what is left is whole, and the end is bitwise that of a training left alone."""
    script = ROOT / "tests" / "benchmarks" / "kills.py"
    command = [sys.executable, str(script), "--kills", "6", "--epochs", "10"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["kills"] == report["resumes"] == 6
    assert report["lost epochs"] == 0
    assert report["different endings"] == 0
