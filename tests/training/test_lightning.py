"""Training with Lightning: shards and draws of the processes, their joint gradient, and the state left behind."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_probmix as pm

pytest.importorskip("lightning", reason="needs the extra lightning")
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from pyro_probmix._random import derived_seed
from pyro_probmix.training.lightning import PairDataModule, ProbMixModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]

EPOCHS, BATCH_SIZE = 3, 4


def make_model(method: str = "ProbMix", seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    likelihood = pm.nn.NormalLikelihood()
    arguments: dict[str, Any] = {"vicinity": pm.NormalVicinity(0.01), "coefficient": dist.Beta(0.4, 0.4)}
    if method == "ManifoldProbMix":
        encoder = pm.nn.NormalEmbedding(pm.nn.MLP(2, [], 4), 4)
        model = pm.ManifoldProbMix(encoder, pm.nn.MLP(4, [], 2), likelihood, **arguments)
    else:
        model = pm.ProbMix(pm.nn.MLP(2, [8], 2), likelihood, **arguments)
    for parameter in model.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def make_data(size: int = 17) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, 2, generator=generator, dtype=torch.float64)
    return x, x[:, 0] - x[:, 1].sin()


def neighbors(x: Tensor) -> pm.NearestNeighborGraph:
    return pm.NearestNeighborGraph(x, num_neighbors=2)


def make_trainer(**arguments: Any) -> Trainer:
    defaults = {"max_epochs": EPOCHS, "accelerator": "cpu", "devices": 1, "logger": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(**(defaults | quiet | {"num_sanity_val_steps": 0} | arguments))


def train_by_hand(model: Any, graph: Any, world_size: int) -> Any:
    """What as many processes do, one after the other: their losses averaged before each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    x, y = make_data()
    loaders = []
    for rank in range(world_size):
        data = PairDataModule(x, y, graph, BATCH_SIZE, seed=3)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, current_epoch=0)
        loaders.append(data.train_dataloader())
    kept = torch.get_rng_state()
    for epoch in range(EPOCHS):
        states = []
        for rank in range(world_size):
            loaders[rank].trainer.current_epoch = epoch
            torch.default_generator.manual_seed(derived_seed(5, rank, epoch))
            states.append(torch.get_rng_state())
        for batches in zip(*loaders, strict=True):
            losses = []
            for rank, batch in enumerate(batches):
                torch.set_rng_state(states[rank])
                losses.append(model.risk(batch))
                states[rank] = torch.get_rng_state()
            optimizer.zero_grad()
            (sum(losses) / world_size).backward()
            optimizer.step()
    torch.set_rng_state(kept)
    return model


@pytest.mark.parametrize("graph", [None, neighbors], ids=["complete", "neighbors"])
@pytest.mark.parametrize("method", ["ProbMix", "ManifoldProbMix"])
def test_one_process_trains_as_by_hand(method: str, graph: Any) -> None:
    """Adam on the risk of the loader's batches; neither the seed of the user nor his random state is touched."""
    model = make_model(method)
    expected = train_by_hand(copy.deepcopy(model), graph, 1)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    trainer = make_trainer()
    trainer.fit(ProbMixModule(model, seed=5), PairDataModule(*make_data(), graph, BATCH_SIZE, make_data(5), seed=3))
    assert torch.equal(before, torch.get_rng_state())
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert set(trainer.callback_metrics) == {"train_loss", "val_loss"}
    with torch.no_grad():
        x, y = make_data(5)
        loss = -model.predictive(x, num_samples=32).log_prob(y).mean()
    torch.testing.assert_close(trainer.callback_metrics["val_loss"].double(), loss, rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_the_precision_of_a_trainer_is_that_of_the_batches(precision: Any) -> None:
    model = make_model().float()
    x, y = (tensor.float() for tensor in make_data())
    seen = set()
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].dtype))
    before = [parameter.clone() for parameter in model.parameters()]
    trainer = make_trainer(precision=precision)
    trainer.fit(ProbMixModule(model, learning_rate=0.05), PairDataModule(x, y, batch_size=4, validation=(x, y)))
    assert seen == {torch.float64 if precision == "64-true" else torch.bfloat16}
    assert trainer.callback_metrics["val_loss"].isfinite()
    assert not any(torch.equal(b, p.to(b)) for b, p in zip(before, model.parameters(), strict=True))


def test_validation_scores_in_full_precision_under_autocast() -> None:
    factor = torch.tensor([[1.0, 0.0], [0.3, 0.8], [-0.5, 0.2]])
    likelihood = pm.nn.DistributionLikelihood(
        dist.LowRankMultivariateNormal, 3, parameters=("loc",), cov_factor=factor, cov_diag=torch.full((3,), 4e-4)
    )
    network = torch.nn.Linear(2, 3)
    torch.nn.init.zeros_(network.weight)
    torch.nn.init.zeros_(network.bias)  # which half precision does not round
    model = pm.ProbMix(network, likelihood, coefficient=dist.Beta(0.4, 0.4), vicinity=pm.DiracVicinity())
    x, y = torch.randn(9, 2), torch.randn(9, 3, generator=torch.Generator().manual_seed(2))
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        data = PairDataModule(x, y, validation=(x, y))
        (found,) = make_trainer(precision=precision).validate(ProbMixModule(model), data, verbose=False)
        losses.append(found["val_loss"])
    with torch.autocast("cpu", torch.bfloat16):
        scores = pm.evaluate(model.predictive(x), y)
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert scores["nll"] == pytest.approx(losses[0], rel=1e-6)


DDP = """
make_trainer(devices=2, strategy="ddp").fit(module, data)
state = module.model.state_dict()
"""
# Sharded parameters of a checkpoint are put together again, and go on from there.
FSDP = """
from lightning.pytorch.strategies import ModelParallelStrategy
def fit(module, epochs, checkpoint=None):
    strategy = ModelParallelStrategy(2, 1, process_group_backend="gloo")
    trainer = make_trainer(devices=2, max_epochs=epochs, strategy=strategy)
    trainer.fit(module, data, ckpt_path=checkpoint)
    return trainer
fit(module, EPOCHS - 1).save_checkpoint(folder + "/sharded")
module = ProbMixModule(make_model(method, seed=1), seed=5)
fit(module, EPOCHS, folder + "/sharded")
assert {p.to_local().numel() < p.numel() for p in module.model.parameters() if len(p) > 1} == {True}
state = {name: p.full_tensor() for name, p in module.model.state_dict().items()}
"""


@pytest.mark.parametrize(("strategy", "method"), [(DDP, "ProbMix"), (FSDP, "ManifoldProbMix")], ids=["ddp", "fsdp"])
def test_two_processes_are_one_with_the_joint_batch(strategy: str, method: str, tmp_path: Path) -> None:
    """Over gloo, replicated and sharded: the parameters, to 1e-12, of one process with both processes' pairs and λ."""
    script = f"""
import os, sys, torch
sys.path[:0] = {sys.path!r}
from tests.training.test_lightning import *
folder, method = {str(tmp_path)!r}, {method!r}
module = ProbMixModule(make_model(method), seed=5)
data = PairDataModule(*make_data(), neighbors, BATCH_SIZE, make_data(5), seed=3)
{strategy}
torch.save(state, folder + "/model" + os.environ["RANK"])
torch.distributed.barrier()
os._exit(0)  # threads of gloo may still be there, and may abort an orderly exit
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    elastic = {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | shared | elastic | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    of_both = [torch.load(tmp_path / f"model{rank}", weights_only=True) for rank in range(2)]
    assert all(torch.equal(of_both[0][name], of_both[1][name]) for name in of_both[0])
    ours = of_both[0]
    expected = train_by_hand(make_model(method), neighbors, 2).state_dict()
    assert ours.keys() == expected.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-12, atol=1e-12)
    start = make_model(method).state_dict()
    assert any((ours[name] - start[name]).abs().max() > 1e-3 for name in ours)


@pytest.mark.faults("workers that repeat draws")
def test_shards_do_not_meet_and_draws_do_not_repeat() -> None:
    x, y = make_data(11)
    seen, partners = [], []
    for rank in range(2):
        data = PairDataModule(x, y, batch_size=5)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, current_epoch=0)
        (batch,) = data.train_dataloader()
        seen.append({tuple(row) for row in batch.x.tolist()})
        partners.append(batch.partner.tolist())
    assert seen[0].isdisjoint(seen[1])
    assert [len(rows) for rows in seen] == [5, 5]
    assert partners[0] != partners[1]


def test_a_second_training_has_its_own_epochs_and_shard() -> None:
    x, y = make_data(11)
    data = PairDataModule(x, y, batch_size=5)
    for rank in (0, 1):
        trainer = data.trainer = SimpleNamespace(global_rank=rank, world_size=2, current_epoch=0)
        partners = []
        for trainer.current_epoch in range(4):
            (batch,) = data.train_dataloader()
            partners.append(tuple(batch.partner.tolist()))
            assert {tuple(row) for row in batch.x.tolist()} == {tuple(row) for row in x[rank:10:2].tolist()}
        assert len(set(partners)) > 1


@pytest.mark.faults("resume that forgets")
def test_resumed_training_is_uninterrupted_training(tmp_path: Path) -> None:
    """Two epochs, a checkpoint, and one more are three epochs, bit by bit."""
    whole, again = make_model(), make_model(seed=1)
    make_trainer().fit(ProbMixModule(whole, seed=5), PairDataModule(*make_data(), batch_size=BATCH_SIZE, seed=3))
    first = make_trainer(max_epochs=2)
    first.fit(ProbMixModule(make_model(), seed=5), PairDataModule(*make_data(), batch_size=BATCH_SIZE, seed=3))
    first.save_checkpoint(tmp_path / "two.ckpt")
    data = PairDataModule(*make_data(), batch_size=BATCH_SIZE, seed=3)
    make_trainer().fit(ProbMixModule(again, seed=5), data, ckpt_path=tmp_path / "two.ckpt")
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_optimizer_schedule_and_accumulation() -> None:
    class Rates(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
            self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    rates = Rates()
    module = ProbMixModule(
        make_model(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
    )
    trainer = make_trainer(callbacks=[rates], accumulate_grad_batches=2)
    trainer.fit(module, PairDataModule(*make_data(16), batch_size=4))
    assert isinstance(trainer.optimizers[0], torch.optim.SGD)
    assert rates.seen == pytest.approx([0.05, 0.025, 0.0125])
    assert trainer.global_step == 2 * EPOCHS


def test_an_interrupted_training_puts_the_random_state_back() -> None:
    class Stop(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("stop")

    module, data = ProbMixModule(make_model()), PairDataModule(*make_data())
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"):
        make_trainer(callbacks=[Stop()]).fit(module, data)
    assert torch.equal(before, torch.get_rng_state())


def test_a_strategy_that_divides_tensors_is_refused() -> None:
    """Its processes would train apart, each with rows of its own: what Lightning's strategy does by default."""
    module: Any = ProbMixModule(make_model())
    sizes = {"data_parallel": 1, "tensor_parallel": 2}
    module._device_mesh = {name: SimpleNamespace(size=lambda size=size: size) for name, size in sizes.items()}
    with pytest.raises(ValueError, match=r"strategy: expected tensor_parallel_size=1, .* got 2"):
        module.configure_model()


def test_bad_data_are_refused_before_training() -> None:
    x, y = make_data()
    with pytest.raises(ValueError, match="y: expected finite values, got NaN or inf in 1 of 17 rows"):
        PairDataModule(x, y.index_fill(0, torch.tensor([3]), float("nan")))
    with pytest.raises(ValueError, match=r"y: expected shape \(17,\), got \(17, 1\)"):
        make_trainer().fit(ProbMixModule(make_model()), PairDataModule(x, y.unsqueeze(-1)))
