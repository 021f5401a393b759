"""``pm.fit``: learns, keeps the epoch that validates best, and disturbs nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.training.history import VALIDATION_SAMPLES
from tests.training.global_state import global_state
from tests.training.networks import FailingAt

N = 10


def data(size: int = N, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, 2, dtype=dtype, generator=generator)
    return x, x[:, 0] - 0.5 * x[:, 1] + 0.1 * torch.randn(size, dtype=dtype, generator=generator)


def make(method: str = "ProbMix", network: nn.Module | None = None, scale: float | None = None) -> Any:
    likelihood = pm.nn.NormalLikelihood(scale=scale)
    if method == "ManifoldProbMix":
        embedding = pm.nn.NormalEmbedding(pm.nn.MLP(2, [], 4, output_activation=nn.Tanh), 4)
        return pm.ManifoldProbMix(embedding, pm.nn.MLP(4, [], 2), likelihood).double()
    network = pm.nn.MLP(2, [6], likelihood.num_outputs) if network is None else network
    return getattr(pm, method)(network, likelihood).double()


def fit(model: Any, data: Any, **arguments: Any) -> pm.History:
    return pm.fit(model, data, **{"epochs": 5, "progress": False} | arguments)


def assert_equal_parameters(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


# Learning.


@pytest.mark.parametrize("method", ["ERM", "Mixup", "ProbMix", "ManifoldProbMix"])
def test_loss_falls(method: str) -> None:
    history = fit(make(method), data(), epochs=120, learning_rate=0.02)
    assert sum(history.train_loss[-10:]) / 10 < sum(history.train_loss[:10]) / 10 - 0.5


def test_labels_are_learnt() -> None:
    x, y = data(40)
    likelihood = pm.nn.CategoricalLikelihood(2)
    model = pm.ProbMix(pm.nn.MLP(2, [6], 2), likelihood, vicinity=pm.LabelVicinity(0.01, 2)).double()
    labels = (y > 0).long()
    fit(model, (x, labels), epochs=150, learning_rate=0.02)
    assert pm.evaluate(model.predictive(x), labels)["accuracy"] > 0.9


def test_history_has_one_loss_an_epoch() -> None:
    history = fit(make(), data(), epochs=4)
    assert (len(history.train_loss), history.validation_loss, history.best_epoch) == (4, [], 3)
    history = fit(make(), data(), epochs=4, validation=data(7))
    assert len(history.train_loss) == len(history.validation_loss) == 4
    assert history.best_epoch == int(np.argmin(history.validation_loss))


@pytest.mark.faults("scale of a minibatch")
@pytest.mark.parametrize("batch_size", [None, 4, 7, 10, 50])
def test_train_loss_is_the_mean_over_the_nodes(batch_size: int | None) -> None:
    """At a vanishing step size: the loss over uneven batches is the loss over all data."""
    model = make("ERM")
    x, y = data()
    expected = model.risk(pm.CompleteGraph(N).pair_batch(x, y)).item()
    history = fit(model, (x, y), epochs=2, batch_size=batch_size, learning_rate=1e-15)
    assert history.train_loss == pytest.approx([expected] * 2, rel=1e-9)


@pytest.mark.faults("odd batches")
@pytest.mark.parametrize("graph", ["complete", "neighbors"])
@pytest.mark.parametrize("batch_size", [None, 3, 4])
def test_graphs_and_batch_sizes(graph: str, batch_size: int | None) -> None:
    x, y = data()
    graph_ = pm.CompleteGraph(N) if graph == "complete" else pm.NearestNeighborGraph(x, num_neighbors=2)
    history = fit(make(), (x, y), graph=graph_, batch_size=batch_size, epochs=60, learning_rate=0.02)
    assert history.train_loss[-1] < history.train_loss[0]


def test_the_graph_says_which_pairs_are_mixed() -> None:
    """Two far clusters of neighbours: no batch mixes across them."""
    x, y = data()
    x = x + 100.0 * (torch.arange(N) % 2)[:, None]
    seen: list[Tensor] = []

    class Recording(pm.ProbMix):
        def risk(self, batch: pm.PairBatch, *arguments: Any, **keywords: Any) -> Tensor:
            seen.append(((batch.x > 50) == (batch.x[batch.partner] > 50)).all())
            return super().risk(batch, *arguments, **keywords)

    model = Recording(pm.nn.MLP(2, [], 2), pm.nn.NormalLikelihood()).double()
    fit(model, (x, y), graph=pm.NearestNeighborGraph(x, num_neighbors=3))
    assert all(seen)
    seen.clear()
    fit(model, (x, y))
    assert not all(seen)


# The epoch that validates best.


@pytest.mark.parametrize("method", ["ProbMix", "ManifoldProbMix"])
def test_parameters_are_those_of_the_best_epoch(method: str) -> None:
    model, validation = make(method), data(8)
    history = fit(model, data(), epochs=40, learning_rate=0.05, validation=validation)
    p = model.predictive(validation[0], num_samples=VALIDATION_SAMPLES)
    nll = -p.log_prob(validation[1]).mean().item()
    assert nll == min(history.validation_loss) == history.validation_loss[history.best_epoch]


def test_best_epoch_before_the_last() -> None:
    """Validation on the opposite of the truth: the first epoch is best, and the model is that of one epoch."""
    model, (x, y) = make(scale=1.0), data()
    one_epoch = copy.deepcopy(model)
    history = fit(model, (x, y), epochs=10, learning_rate=0.02, validation=(x, -5 * y))
    assert history.best_epoch == 0
    fit(one_epoch, (x, y), epochs=1, learning_rate=0.02)
    assert_equal_parameters(model, one_epoch)


def test_buffers_are_kept_with_the_parameters() -> None:
    """Running means of the best epoch, not of the last."""
    network = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model, (x, y) = make(network=network, scale=1.0), data()
    history = fit(model, (x, y), epochs=10, learning_rate=0.05, validation=(x, -5 * y))
    assert int(model.decoder[1].num_batches_tracked) == history.best_epoch + 1 < 10
    nll = -model.predictive(x).log_prob(-5 * y).mean().item()
    assert nll == min(history.validation_loss)


def test_model_ends_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    model = make(network=network)
    fit(model, data())
    assert not model.training
    assert not network.training


def test_frozen_parameters_stay() -> None:
    model = make()
    model.decoder[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    fit(model, data())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"decoder.2.weight", "decoder.2.bias"}


# Reproducible, and alone.


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("method", ["ProbMix", "ManifoldProbMix"])
def test_the_seed_decides_everything(method: str, batch_size: int | None) -> None:
    model = make(method)
    again, other = copy.deepcopy(model), copy.deepcopy(model)
    arguments: dict[str, Any] = {"batch_size": batch_size, "validation": data(8)}
    histories = [fit(model, data(), seed=3, **arguments)]
    torch.manual_seed(99)
    histories.append(fit(again, data(), seed=3, **arguments))
    histories.append(fit(other, data(), seed=4, **arguments))
    assert histories[0] == histories[1] != histories[2]
    assert_equal_parameters(model, again)


@pytest.mark.faults("random state disturbed")
@pytest.mark.parametrize("outcome", ["success", "bad input", "failure"])
@pytest.mark.parametrize("validate", [True, False])
def test_global_state_stays(outcome: str, validate: bool) -> None:
    pyro.param("mine", torch.ones(2))
    x, y = data()
    model = make(network=FailingAt({2})) if outcome == "failure" else make("ManifoldProbMix")
    with pyro.validation_enabled(validate):
        before = global_state()
        if outcome == "success":
            fit(model, (x, y), validation=(x, y), batch_size=3)
        elif outcome == "bad input":
            with pytest.raises(ValueError, match="y: expected shape"):
                fit(model, (x, y[:, None]))
        else:
            with pytest.raises(ValueError, match="loss: expected finite"):
                fit(model, (x, y), validation=(x, y))
        assert global_state() == before


@pytest.mark.faults("models that meet in the store")
def test_networks_that_are_pyro_modules_stay_out_of_the_store() -> None:
    network = PyroModule[nn.Sequential](PyroModule[nn.Linear](2, 4), nn.Tanh(), PyroModule[nn.Linear](4, 2))
    network[0].bias = pyro.nn.PyroParam(torch.ones(4), dist.constraints.positive)
    model = make(network=network)
    before = copy.deepcopy(model.state_dict())
    fit(model, data())
    assert list(pyro.get_param_store()) == []
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    fit(make(), data(), epochs=50, progress=True, validation=data(8))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "ProbMix" in shown.err
    assert "validation=" in shown.err
    fit(make(), data(), epochs=50)
    assert capsys.readouterr().err == ""


# A loss that stops being finite.


@pytest.mark.faults("steps on a non-finite loss")
@pytest.mark.parametrize("where", ["output", "gradient"])
@pytest.mark.parametrize(("batch_size", "first", "epoch"), [(None, 0, 0), (None, 3, 3), (4, 4, 1)])
def test_non_finite_loss_leaves_the_parameters_of_the_last_finite_step(
    batch_size: int | None, first: int, epoch: int, where: str
) -> None:
    model = make(network=FailingAt({first}, where))
    start = copy.deepcopy(model)
    start.decoder.steps = ()
    batch = 0 if batch_size is None else first % 3
    what = "the loss" if where == "output" else r"the gradient of decoder\.linear\.weight"
    message = (
        f"loss: expected finite losses and gradients, got one that is not in epoch {epoch}, batch {batch}: {what};"
    )
    with pytest.raises(ValueError, match=message):
        fit(model, data(), batch_size=batch_size, epochs=6, validation=data(8))

    # The same steps, as many as were finite.
    steps = 0

    def stop_after(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps > first:
            raise KeyboardInterrupt

    start.decoder.register_forward_pre_hook(lambda module, inputs: stop_after() if module.training else None)
    with pytest.raises(KeyboardInterrupt):
        fit(start, data(), batch_size=batch_size, epochs=6, validation=data(8))
    assert_equal_parameters(model, start)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_finite_gradients_whose_squares_overflow_are_no_fault() -> None:
    x, y = data(dtype=torch.float32)
    model = pm.ERM(nn.Linear(2, 1), pm.nn.NormalLikelihood(scale=1e-13))
    history = pm.fit(model, (x, y), epochs=1, optimizer=lambda p: torch.optim.SGD(p, lr=1e-30), progress=False)
    loss = model.risk(pm.PairBatch(x, y, torch.arange(N)))
    (gradient,) = torch.autograd.grad(loss, model.decoder.bias)
    assert gradient.isfinite().all()
    assert not gradient.square().isfinite().all()
    assert math.isfinite(history.train_loss[0])


def test_validation_loss_that_is_never_finite() -> None:
    class Blind(nn.Module):
        """Sees nothing in validation."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) if self.training else self.linear(x) * math.nan

    model = make(network=Blind())
    with pytest.raises(ValueError, match="validation: expected a finite loss in some epoch, got nan"):
        fit(model, data(), validation=data(8))


# Bad input: an error before the first step, nothing changed.


def with_nan(tensor: Tensor, *rows: int) -> Tensor:
    tensor = tensor.clone()
    tensor[list(rows)] = math.nan
    return tensor


X, Y = data()
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nan in x": (
        {"data": (with_nan(X, 2, 7), Y)},
        ValueError,
        r"x: .*NaN or inf in 2 of 10 rows \(rows 2, 7\)",
    ),
    "nan in y": ({"data": (X, with_nan(Y, 4))}, ValueError, r"y: .*NaN or inf in 1 of 10 rows \(row 4\)"),
    "nan in validation x": ({"validation": (with_nan(X, 1), Y)}, ValueError, r"validation x: .*\(row 1\)"),
    "nan in validation y": ({"validation": (X, with_nan(Y, 1))}, ValueError, r"validation y: .*\(row 1\)"),
    "column of y": ({"data": (X, Y[:, None])}, ValueError, r"y: expected shape \(10,\), got \(10, 1\)"),
    "column of validation y": (
        {"validation": (X, Y[:, None])},
        ValueError,
        r"validation y: expected shape \(10,\), got \(10, 1\)",
    ),
    "rows": ({"data": (X, Y[:9])}, ValueError, r"y: expected shape \(10, ...\).* got \(9,\)"),
    "rows of validation": ({"validation": (X, Y[:9])}, ValueError, "validation: .*got 10 and 9"),
    "no validation rows": ({"validation": (X[:0], Y[:0])}, ValueError, r"validation x: expected shape .* got \(0, 2\)"),
    "no rows": ({"data": (X[:0], Y[:0])}, ValueError, r"x: expected shape \(N, \.\.\.\) with N >= 1, got \(0, 2\)"),
    "numpy": ({"data": (X.numpy(), Y.numpy())}, TypeError, "x: expected a tensor, got ndarray"),
    "numpy validation": ({"validation": (X, Y.numpy())}, TypeError, "validation y: expected a tensor"),
    "graph": ({"graph": pm.CompleteGraph(9)}, ValueError, r"x: expected shape \(9, ...\)"),
    "no epochs": ({"epochs": 0}, ValueError, "epochs: expected an integer >= 1, got 0"),
    "half an epoch": ({"epochs": 0.5}, TypeError, "epochs: expected an integer >= 1, got 0.5"),
    "no samples": ({"num_samples": 0}, ValueError, "num_samples: expected an integer >= 1, got 0"),
    "no batch": ({"batch_size": 0}, ValueError, "batch_size: expected an integer >= 1, got 0"),
    "learning rate 0": (
        {"learning_rate": 0.0},
        ValueError,
        r"learning_rate: expected a number in \(0, inf\), got 0.0",
    ),
    "learning rate nan": ({"learning_rate": math.nan}, ValueError, "learning_rate: .*got nan"),
    "learning rate inf": ({"learning_rate": math.inf}, ValueError, "learning_rate: .*got inf"),
}


@pytest.mark.faults("NaN in the data")
@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    arguments, error, message = BAD[case]
    model = make()
    before = copy.deepcopy(model)
    with pytest.raises(error, match=message):
        fit(model, **{"data": (X, Y)} | arguments)
    assert_equal_parameters(model, before)
    assert model.training


@pytest.mark.parametrize(
    ("likelihood", "y", "message"),
    [
        (
            lambda: pm.nn.CategoricalLikelihood(3),
            torch.arange(N) % 4,
            r"2 of 10 rows \(rows 3, 7\)",
        ),
        (
            lambda: pm.nn.CategoricalLikelihood(3),
            torch.full((N,), -1),
            r"10 of 10 rows \(rows 0, 1, 2, 3, 4, \.\.\.\)",
        ),
        (lambda: pm.nn.DistributionLikelihood(dist.Gamma), 6.5 - torch.arange(N), r"3 of 10 rows \(rows 7, 8, 9\)"),
        (lambda: pm.nn.DistributionLikelihood(dist.Poisson), torch.full((N,), 0.5), "10 of 10 rows"),
        (
            lambda: pm.nn.DistributionLikelihood(dist.OneHotCategorical, 2),
            torch.full((N, 2), 0.5),
            "10 of 10 rows",
        ),
        (lambda: pm.nn.DistributionLikelihood(dist.Bernoulli, 2), torch.full((N, 2), 2.0), "10 of 10 rows"),
    ],
    ids=["class too large", "negative class", "gamma", "half a count", "soft label", "bernoulli"],
)
def test_labels_outside_the_domain(likelihood: Callable[[], Any], y: Tensor, message: str) -> None:
    head = likelihood()
    model = pm.ProbMix(pm.nn.MLP(2, [], head.num_outputs), head).double()
    with pytest.raises(ValueError, match="^y: expected values in .*" + message):
        fit(model, (X, y))
    legal = head(torch.zeros(N, head.num_outputs, dtype=torch.float64)).sample()
    with pytest.raises(ValueError, match="^validation y: expected values in .*" + message):
        fit(model, (X, legal), validation=(X, y))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_integer_labels_of_a_bernoulli(dtype: torch.dtype) -> None:
    """PyTorch has no log-probability of them."""
    model = pm.ERM(nn.Linear(2, 1), pm.nn.DistributionLikelihood(dist.Bernoulli)).double()
    y = torch.arange(N) % 2
    with pytest.raises(ValueError, match=rf"^y: expected labels 0\.0 and 1\.0, of a floating dtype, got {dtype}"):
        fit(model, (X, y.to(dtype)))
    with pytest.raises(ValueError, match=r"^validation y: expected labels 0\.0 and 1\.0"):
        fit(model, (X, y.double()), validation=(X, y.to(dtype)))


class Remembering(nn.Linear):
    """A network whose state is not all tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.version = state["version"]


def test_state_that_is_no_tensor_stays() -> None:
    x, y = data()
    model = make(network=Remembering(2, 2).double())
    fit(model, (x, y), validation=(x, y), epochs=3)
    assert model.state_dict()["decoder._extra_state"] == {"version": 1}


def test_a_gradient_of_another_module_is_told_of_as_such() -> None:
    other = nn.Parameter(torch.zeros(()))
    other.grad = torch.tensor(math.nan)
    optimizer = torch.optim.Adam([other])
    optimizer.zero_grad = lambda set_to_none=True: None
    with pytest.raises(ValueError, match="epoch 0, batch 0: a gradient of no parameter of the model"):
        fit(make(), data(), epochs=1, optimizer=lambda parameters: optimizer)


@pytest.mark.parametrize("name", ["weight", "mask"])
def test_arrays_are_no_tensors(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected a tensor, got ndarray"):
        fit(make(), data(), epochs=1, **{name: np.ones(N, dtype=bool)})
