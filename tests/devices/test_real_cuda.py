"""On a CUDA device itself: no host waits in an epoch, and results are the CPU's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import pyro_probmix as pm
from tests.models.cases import METHODS, make_data, make_model

pytestmark = [
    pytest.mark.faults("work on another device: copies, waits, tensors left behind"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@contextmanager
def waiting_forbidden() -> Iterator[None]:
    """Inside, an operation for which the host waits is an error."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("method", METHODS)
def test_no_host_waits_in_an_epoch_of_fit(method: str, batch_size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the default optimiser and validation; before the first epoch and after the last, values are looked at."""
    from pyro_probmix.training import _loop

    data, held_out = ([t.cuda() for t in make_data(size=size, dtype=torch.float32)] for size in (32, 8))
    model = make_model(method, dtype=torch.float32).cuda()
    pm.fit(model, data, validation=held_out, epochs=2, batch_size=batch_size, progress=False)  # compiles kernels
    epochs = []

    def without_waiting(function: Any) -> Any:
        def called(self: Any, epoch: int, *arguments: Any) -> None:
            with waiting_forbidden():
                function(self, epoch, *arguments)
            epochs.append(epoch)

        return called

    for name in ("_train", "_validate"):
        monkeypatch.setattr(_loop.Training, name, without_waiting(getattr(_loop.Training, name)))
    history = pm.fit(model, data, validation=held_out, epochs=3, batch_size=batch_size, progress=False)
    assert epochs == [0, 0, 1, 1, 2, 2]
    assert len(history.train_loss) == 3


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_the_cpu(method: str) -> None:
    model, (x, y) = make_model(method), make_data()
    batch = pm.CompleteGraph(len(x)).pair_batch(x, y)
    draws = model.draw(batch, 2)
    expected = model.risk(batch, 2, **draws)
    found = model.cuda().risk(batch.to("cuda"), 2, **{name: t.cuda() for name, t in draws.items()})
    torch.testing.assert_close(found.cpu(), expected)
