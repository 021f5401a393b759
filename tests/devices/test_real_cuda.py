"""On a CUDA device itself: no host waits in an epoch, and results are the CPU's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import pyro_probmix as pm
from tests.models.cases import METHODS, make_data, make_model

pytestmark = [
    pytest.mark.faults("tensors on another device"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class Watch:
    """A schedule that changes nothing, but makes it an error in the second and third epoch that a host waits."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.epochs = 0

    def step(self) -> None:
        self.epochs += 1
        torch.cuda.set_sync_debug_mode("error" if self.epochs in (1, 2) else "default")


@pytest.fixture
def sync_debug_mode() -> Iterator[None]:
    """Put back however the test ends."""
    before = torch.cuda.get_sync_debug_mode()
    yield
    torch.cuda.set_sync_debug_mode(before)


@pytest.mark.usefixtures("sync_debug_mode")
@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("method", METHODS)
def test_no_host_waits_in_an_epoch_of_fit(method: str, batch_size: int | None) -> None:
    """With the default optimiser and validation; in the first epoch and after the last, values are looked at."""
    data, held_out = ([t.cuda() for t in make_data(size=size, dtype=torch.float32)] for size in (32, 8))
    model = make_model(method, dtype=torch.float32).cuda()
    history = pm.fit(model, data, validation=held_out, epochs=4, batch_size=batch_size, scheduler=Watch, progress=False)
    assert len(history.train_loss) == 4


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_the_cpu(method: str) -> None:
    model, (x, y) = make_model(method), make_data()
    batch = pm.CompleteGraph(len(x)).pair_batch(x, y)
    draws = model.draw(batch, 2)
    expected = model.risk(batch, 2, **draws)
    found = model.cuda().risk(batch.to("cuda"), 2, **{name: t.cuda() for name, t in draws.items()})
    torch.testing.assert_close(found.cpu(), expected)
