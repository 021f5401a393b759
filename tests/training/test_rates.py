"""Step sizes that are functions of the epoch: what fit and fit_replicas take, and the one cycle."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pyro_probmix as pm
from pyro_probmix.training import OneCycle


def make_model(_: int = 0) -> pm.ERM:
    likelihood = pm.nn.NormalLikelihood()
    return pm.ERM(pm.nn.MLP(2, [4], likelihood.num_outputs), likelihood)


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 60).reshape(30, 2)
    return x, x.sum(1)


def halving(epoch: int) -> float:
    return 0.05 / 2**epoch


def test_one_cycle_is_pytorchs_in_the_midst_of_each_epoch() -> None:
    """With two steps an epoch, PyTorch's sizes on both sides of the midst enclose it, but where they turn."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=2001, cycle_momentum=False)
    sizes = []
    for _ in range(2000):
        sizes.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    rate = OneCycle(0.01, 1000)
    for epoch in (0, 100, 299, 300, 500, 999):
        assert rate(epoch) == pytest.approx(sizes[2 * epoch + 1], rel=3e-3, abs=1e-8)
    assert rate(5000) == pytest.approx(0.01 / 25e4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0, 10), "max_lr: expected"), ((0.1, 0), "epochs: expected"), ((0.1, 10, 1.0), "pct_start: expected")],
)
def test_a_cycle_out_of_range_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneCycle(*arguments)


def test_fit_takes_the_steps_of_pytorchs_lambda_lr(data: Any) -> None:
    ours, theirs = make_model(), make_model()
    theirs.load_state_dict(ours.state_dict())
    options: dict[str, Any] = {"epochs": 5, "batch_size": 10, "progress": False}
    pm.fit(ours, data, learning_rate=halving, **options)
    pm.fit(
        theirs,
        data,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1.0, fused=True),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, halving),
        **options,
    )
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=0, atol=0)


def test_replicas_equal_fit_each_by_its_own_rate(data: Any) -> None:
    rates = [halving, 0.01, OneCycle(0.03, 5)]
    options: dict[str, Any] = {"epochs": 5, "batch_size": 10, "progress": False}
    replicas = pm.fit_replicas(make_model, [data] * 3, learning_rate=rates, **options)
    begun = pm.fit_replicas(make_model, [data] * 3, learning_rate=1e-30, **options).models
    for r, rate in enumerate(rates):
        pm.fit(begun[r], data, learning_rate=rate, seed=replicas.seeds[r], **options)
        for name, tensor in begun[r].state_dict().items():
            torch.testing.assert_close(replicas.models[r].state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("replicas", [False, True])
def test_a_schedule_goes_on_from_a_checkpoint(replicas: bool, data: Any, tmp_path: Any) -> None:
    def train(epochs: int, cycle: int = 6, **where: Any) -> Any:
        options: dict[str, Any] = {"learning_rate": OneCycle(0.05, cycle), "batch_size": 10, "progress": False, **where}
        if replicas:
            return pm.fit_replicas(make_model, [data] * 2, epochs=epochs, **options).models[1]
        torch.manual_seed(1)
        model = make_model()
        pm.fit(model, data, epochs=epochs, **options)
        return model

    expected = train(6).state_dict()
    train(3, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"(optimizer|scheduler): expected .*'epochs': 6.*, got .*'epochs': 7"):
        train(6, cycle=7, checkpoint_dir=tmp_path, resume=True)
    found = train(6, checkpoint_dir=tmp_path, resume=True).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_a_rate_beside_a_scheduler_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="learning_rate: expected a number beside an optimizer or a scheduler"):
        pm.fit(make_model(), data, learning_rate=halving, optimizer=torch.optim.Adam, progress=False)


def test_a_rate_that_is_no_step_size_is_refused(data: Any) -> None:
    """In any epoch: Adam on stacked parameters would divide by a size of zero in the last."""
    falling: Any = {"learning_rate": lambda epoch: 1 - epoch / 4, "epochs": 5, "progress": False}
    with pytest.raises(ValueError, match=r"learning_rate\(4\): expected a number in \(0, inf\), got 0.0"):
        pm.fit(make_model(), data, **falling)
    with pytest.raises(ValueError, match=r"replica 0: learning_rate\(4\): expected a number in \(0, inf\), got 0.0"):
        pm.fit_replicas(make_model, [data], **falling)
