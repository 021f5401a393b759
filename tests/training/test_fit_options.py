"""``pm.fit``'s options: optimisers, schedules, clipping, autocast, compilation, annealing, and steps left out."""

from __future__ import annotations

import copy
import math
import shutil
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.models import seeded
from tests.training.networks import FailingAt

N = 12
METHODS = ("ERM", "Mixup", "ManifoldMixup", "ProbMix", "ManifoldProbMix")


def data(size: int = N, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, 2, dtype=dtype, generator=generator)
    return x, x[:, 0] - 0.5 * x[:, 1] + 0.1 * torch.randn(size, dtype=dtype, generator=generator)


def make(
    method: str = "ProbMix", network: nn.Module | None = None, dtype: torch.dtype = torch.float64, **keywords: Any
) -> Any:
    torch.manual_seed(3)
    likelihood = pm.nn.NormalLikelihood()
    encoder, decoder = pm.nn.MLP(2, [], 4, output_activation=nn.Tanh), pm.nn.MLP(4, [], 2)
    if method == "ManifoldMixup":
        model = pm.ManifoldMixup(encoder, decoder, likelihood, **keywords)
    elif method == "ManifoldProbMix":
        model = pm.ManifoldProbMix(pm.nn.NormalEmbedding(encoder, 4), decoder, likelihood, **keywords)
    else:
        model = getattr(pm, method)(
            nn.Sequential(encoder, decoder) if network is None else network, likelihood, **keywords
        )
    return model.to(dtype)


def fit(model: Any, **arguments: Any) -> pm.History:
    return pm.fit(model, arguments.pop("data", data()), **{"epochs": 5, "progress": False} | arguments)


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def assert_close(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], msg=name, **tolerance)


# Optimisers, schedules, clipping: against the same loop by hand.


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "groups": lambda p: torch.optim.Adam([{"params": p[:1], "lr": 0.1}, {"params": p[1:]}], lr=0.01),
}
SCHEDULERS: dict[str, Any] = {
    "none": None,
    "step": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1),
    "one cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5),
}


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("schedule", SCHEDULERS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_loop_by_hand(name: str, schedule: str, clip: float | None) -> None:
    """ERM on the full batch draws nothing that matters."""
    model = make("ERM")
    by_hand = copy.deepcopy(model)
    x, y = data()
    fit(model, optimizer=OPTIMIZERS[name], scheduler=SCHEDULERS[schedule], max_grad_norm=clip)
    optimizer = OPTIMIZERS[name](list(by_hand.parameters()))
    scheduler = SCHEDULERS[schedule] and SCHEDULERS[schedule](optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        by_hand.risk(pm.PairBatch(x, y, torch.arange(N))).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(by_hand.parameters(), clip)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    assert_close(model, by_hand, rtol=1e-12, atol=1e-14)


def test_a_schedule_of_the_loss_sees_the_validation_loss() -> None:
    """Validation on the opposite of the truth gets worse from the second epoch on: the rate is halved then."""
    made: list[torch.optim.Optimizer] = []

    def plateau(optimizer: torch.optim.Optimizer) -> Any:
        made.append(optimizer)
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    x, y = data()
    for validation, halvings in ((x, -5 * y), 4), (None, 0):
        model = pm.ERM(nn.Linear(2, 1), pm.nn.NormalLikelihood(scale=1.0)).double()
        fit(model, scheduler=plateau, learning_rate=0.02, validation=validation)
        assert made[-1].param_groups[0]["lr"] == 0.02 * 0.5**halvings


def test_a_schedule_of_the_loss_is_stepped_after_validations_alone() -> None:
    made: list[torch.optim.Optimizer] = []

    def plateau(optimizer: torch.optim.Optimizer) -> Any:
        made.append(optimizer)
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    x, y = data()
    model = pm.ERM(nn.Linear(2, 1), pm.nn.NormalLikelihood(scale=1.0)).double()
    fit(model, scheduler=plateau, learning_rate=0.02, validation=(x, -5 * y), validation_every=2)
    assert made[-1].param_groups[0]["lr"] == 0.02 * 0.5**2  # after the epochs 1, 3 and 4, the first of which is best


# Which epochs are validated, and how many there are.


def test_patience_ends_a_training() -> None:
    """Validation on the opposite of the truth: the first epoch is best, and the model is that of one epoch."""
    x, y = data()
    model, one_epoch = (pm.ERM(nn.Linear(2, 1), pm.nn.NormalLikelihood(scale=1.0)).double() for _ in range(2))
    one_epoch.load_state_dict(model.state_dict())
    history = fit(model, validation=(x, -5 * y), patience=3, epochs=50, learning_rate=0.02)
    assert (len(history.train_loss), len(history.validation_loss), history.best_epoch) == (4, 4, 0)
    fit(one_epoch, epochs=1, learning_rate=0.02)
    assert_equal(model, one_epoch)


def test_validation_now_and_then() -> None:
    every, third = (make() for _ in range(2))
    expected = fit(every, validation=data(8), epochs=8)
    history = fit(third, validation=data(8), epochs=8, validation_every=3)
    assert history.train_loss == expected.train_loss
    assert history.validation_loss == [expected.validation_loss[epoch] for epoch in (2, 5, 7)]
    assert history.best_epoch == min((2, 5, 7), key=expected.validation_loss.__getitem__)


# Objectives.


@pytest.mark.parametrize("objective", ["expected-log", "log-expected", "log-expected-graph"])
def test_the_objective_is_the_risks(objective: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    seen: list[Any] = []
    risk = model.risk
    monkeypatch.setattr(model, "risk", lambda *a, **k: (seen.append(k["objective"]), risk(*a, **k))[1])
    history = fit(model, objective=objective, num_samples=3, epochs=2)
    assert seen == [objective] * 2
    assert all(math.isfinite(loss) for loss in history.train_loss)


# Annealing.


@pytest.mark.parametrize("compile", [False, True])
def test_annealing_gives_each_epoch_its_law(compile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    model, still = make(), make(coefficient=dist.Delta(torch.tensor(1.0)))
    seen: list[float] = []

    def anneal(epoch: int) -> Any:
        return dist.Delta(torch.tensor(1.0 - epoch / 10, dtype=torch.float64))

    def record(module: Any, inputs: Any) -> None:
        seen.append(float(model.coefficient.v))

    model.decoder.register_forward_pre_hook(record)
    fit(model, coefficient=anneal, epochs=4, compile=compile)
    assert seen == pytest.approx([1.0, 0.9, 0.8, 0.7])
    assert float(model.coefficient.v) == pytest.approx(0.7)
    # λ = 1 in the first epoch: the same step as with λ = 1 throughout, not the same as later.
    model = make()
    fit(model, coefficient=anneal, epochs=1)
    fit(still, epochs=1)
    assert_equal(model, still)


# Autocast.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_autocast_is_close_to_single_precision(method: str, dtype: torch.dtype) -> None:
    """And the networks do run in half precision, in training alone."""
    arguments: dict[str, Any] = {"data": data(40, torch.float32), "validation": data(30, torch.float32), "epochs": 30}
    model = make(method, dtype=torch.float32)
    seen: set[tuple[bool, torch.dtype]] = set()
    cast = copy.deepcopy(model)
    cast.decoder.register_forward_hook(lambda module, inputs, output: seen.add((module.training, output.dtype)))
    history, expected = fit(cast, precision=dtype, **arguments), fit(model, **arguments)
    assert seen == {(True, dtype), (False, torch.float32)}
    assert all(p.dtype == torch.float32 for p in cast.parameters())
    # In float16 the first steps are left out, until the loss is scaled so that no gradient overflows.
    start, error = (0, 0.05) if dtype is torch.bfloat16 else (25, 0.15)
    assert history.train_loss[start:] == pytest.approx(expected.train_loss[start:], abs=error)
    assert history.validation_loss[start:] == pytest.approx(expected.validation_loss[start:], abs=error)


@pytest.mark.faults("dtype drift")
def test_small_scales_survive_half_precision() -> None:
    """A scale of 1e-4 has a precision of 1e8, which float16 does not hold."""
    x, y = data(dtype=torch.float32)
    model = make(network=nn.Linear(2, 2), vicinity=pm.NormalVicinity(0.01), dtype=torch.float32)
    with torch.no_grad():
        model.decoder.bias[1] = -30.0
    batch = pm.PairBatch(x, y, torch.arange(N).roll(1))
    draws = model.draw(batch)
    with torch.autocast("cpu", torch.float16):
        risk = model.risk(batch, **draws)
    torch.testing.assert_close(risk, model.risk(batch, **draws), rtol=1e-2, atol=0)


class Full(nn.Module):
    """A network that autocast leaves in single precision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.network(x)


@pytest.mark.parametrize("fusion", ["log-linear", "linear"])
@pytest.mark.parametrize("case", ["low-rank embedding", "multivariate likelihood"])
def test_covariances_are_left_out_of_autocast(case: str, fusion: Any) -> None:
    """Their matrix products would round precisions to three digits, and Cholesky factors have no half precision."""
    x, y = data(dtype=torch.float32)
    torch.manual_seed(3)
    model: Any
    keywords: Any = {"fusion": fusion, "labels": "sample", "vicinity": pm.NormalVicinity(0.01)}
    if case == "low-rank embedding":
        embedding = pm.nn.LowRankNormalEmbedding(Full(nn.Linear(2, 5)), 5, rank=2)
        embedding.factor_head, embedding.variance_head = Full(embedding.factor_head), Full(embedding.variance_head)
        model = pm.ManifoldProbMix(embedding, Full(nn.Linear(5, 2)), pm.nn.NormalLikelihood(), **keywords)
    else:
        likelihood = pm.nn.DistributionLikelihood(dist.MultivariateNormal, 3)
        model = pm.ProbMix(Full(nn.Linear(2, likelihood.num_outputs)), likelihood, **keywords)
        y = y.unsqueeze(-1) * torch.tensor([1.0, -0.3, 0.2])
    batch = pm.PairBatch(x, y, torch.arange(N).roll(1))
    draws = model.draw(batch)
    risks = []
    for enabled in (True, False):
        torch.manual_seed(4)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            risks.append(model.risk(batch, **draws))
    assert torch.equal(*risks)


@pytest.mark.faults("steps on a non-finite loss")
def test_overflow_of_a_scaled_loss_is_no_fault() -> None:
    """Gradients of the scaled loss overflow in float16: the scale falls, nothing is skipped, and it learns."""
    x, y = data(40, torch.float32)
    model = make("ERM", dtype=torch.float32)
    with torch.no_grad():
        model.decoder[1][0].bias[1] = -4.0  # steep at first
    history = fit(model, data=(x, y), precision=torch.float16, epochs=60, learning_rate=0.05)
    assert history.skipped_steps == 0
    assert history.train_loss[0] > 100
    assert history.train_loss[-1] < history.train_loss[0] / 10
    assert history.train_loss[0] == history.train_loss[1]  # the first step overflowed, and was not taken


# Compilation.


@pytest.mark.parametrize("coefficient", [dist.Beta(0.3, 0.3), pm.GaussJacobi(0.3, num_nodes=3)], ids=["Beta", "nodes"])
@pytest.mark.parametrize("method", METHODS)
def test_the_risk_is_one_graph(method: str, coefficient: Any) -> None:
    keywords = {} if method == "ERM" else {"coefficient": coefficient, "vicinity": pm.NormalVicinity(0.1)}
    model = make(method, **keywords)
    batch = pm.PairBatch(*data(), torch.arange(N).roll(1))
    draws = model.draw(batch, 2)
    torch.compiler.reset()
    compiled = torch.compile(model.risk, backend="eager", fullgraph=True)
    with pyro.validation_enabled(False):  # as in fit
        assert torch.equal(compiled(batch, 2, **draws), model.risk(batch, 2, **draws))


def test_compiled_training_is_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an odd last batch, annealed λ and drawn labels; forward and backward as they are handed to a compiler."""
    model = make("ProbMix", network=nn.Linear(2, 2), vicinity=pm.NormalVicinity(0.1))
    compiled = copy.deepcopy(model)
    arguments: dict[str, Any] = {
        "batch_size": 5,
        "epochs": 4,
        "objective": "log-expected",
        "num_samples": 2,
        "coefficient": lambda epoch: dist.Beta(0.1 + epoch, 0.1 + epoch),
    }
    expected = fit(model, **arguments)
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    history = fit(compiled, compile=True, **arguments)
    assert history.train_loss == pytest.approx(expected.train_loss, rel=1e-9)
    assert_close(compiled, model, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile takes a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # what the compiler warns of is its own
def test_compiled_by_the_compiler() -> None:
    model = make("ProbMix", network=nn.Linear(2, 2))
    compiled = copy.deepcopy(model)
    torch.compiler.reset()
    expected, history = fit(model), fit(compiled, compile=True)
    assert history.train_loss == pytest.approx(expected.train_loss, rel=1e-9)
    assert_close(compiled, model, rtol=1e-7, atol=1e-9)


# Steps that are not taken.


@pytest.mark.faults("steps on a non-finite loss")
@pytest.mark.parametrize("where", ["output", "gradient"])
def test_skipped_steps_are_as_if_they_had_not_been(where: str) -> None:
    """Three batches an epoch. Parameters, buffers and optimiser are those of the steps that were taken."""
    bad = {0, 4, 5}
    model = make("ERM", network=FailingAt(bad, where))
    taken = copy.deepcopy(model)
    taken.decoder.steps = set()
    history = fit(model, batch_size=4, epochs=3, non_finite="skip", max_skipped=3)
    assert history.skipped_steps == 3
    assert all(math.isfinite(loss) for loss in history.train_loss)
    assert_equal(model, replay(taken, bad, 3))


def replay(model: Any, bad: set[int], epochs: int) -> Any:
    """The loop by hand, without the bad steps."""
    x, y = data()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)
    step = 0
    with seeded(0, x.device):
        for _ in range(epochs):
            for batch in pm.PairLoader(x, y, pm.CompleteGraph(N), 4):
                if step not in bad:
                    optimizer.zero_grad()
                    model.risk(batch).backward()
                    optimizer.step()
                step += 1
    return model


@pytest.mark.faults("steps on a non-finite loss")
@pytest.mark.parametrize("where", ["output", "gradient"])
def test_one_step_too_many_is_an_error(where: str) -> None:
    what = "the loss" if where == "output" else r"the gradient of decoder\.linear\.weight"
    model = make("ERM", network=FailingAt({1, 3, 5, 7}, where))
    taken = copy.deepcopy(model)
    taken.decoder.steps = set()
    message = rf"in epoch 1, batch 2: {what}, after 2 steps had been skipped; .* last finite step"
    with pytest.raises(ValueError, match=message):
        fit(model, batch_size=4, non_finite="skip", max_skipped=2)
    assert_equal(model, replay(taken, {1, 3, *range(5, 6)}, 2))


@pytest.mark.faults("steps on a non-finite loss")
def test_the_first_fault_is_an_error_by_default() -> None:
    model = make("ERM", network=FailingAt({4}))
    taken = copy.deepcopy(model)
    taken.decoder.steps = set()
    with pytest.raises(
        ValueError, match="in epoch 1, batch 1: the loss; the parameters are those of the last finite step"
    ):
        fit(model, batch_size=4)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert_equal(model, replay(taken, {4, 5}, 2))


def test_an_epoch_without_a_step_has_no_loss() -> None:
    """NaN, and not a number that looks like one."""
    history = fit(make("ERM", network=FailingAt({1})), epochs=3, non_finite="skip")
    assert [math.isnan(loss) for loss in history.train_loss] == [False, True, False]


@pytest.mark.faults("steps on a non-finite loss")
@pytest.mark.parametrize("fused", [True, False])
def test_any_optimizer_is_unchanged_by_a_step_not_taken(fused: bool) -> None:
    made: list[Any] = []

    def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
        made.append(torch.optim.Adam(parameters, lr=0.01, fused=fused))
        return made[-1]

    model = make("ERM", network=FailingAt({3}))
    shorter = copy.deepcopy(model)
    fit(model, epochs=4, optimizer=adam, non_finite="skip")
    fit(shorter, epochs=3, optimizer=adam)
    assert_equal(model, shorter)
    states = [optimizer.state_dict()["state"] for optimizer in made]
    for index, state in states[0].items():
        assert all(torch.equal(value, states[1][index][name]) for name, value in state.items())


# Bad input.


class NotAnOptimizer:
    pass


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "non_finite": ({"non_finite": "ignore"}, ValueError, 'non_finite: expected one of "raise", "skip", got "ignore"'),
    "max_skipped": (
        {"non_finite": "skip", "max_skipped": 0},
        ValueError,
        "max_skipped: expected an integer >= 1, got 0",
    ),
    "objective": ({"objective": "elbo"}, ValueError, 'objective: expected one of .*expected-log.*, got "elbo"'),
    "precision": (
        {"precision": torch.float64},
        ValueError,
        "precision: expected one of torch.bfloat16.*, got torch.float64",
    ),
    "clipping": ({"max_grad_norm": 0.0}, ValueError, r"max_grad_norm: expected a number in \(0, inf\], got 0\.0"),
    "optimizer": ({"optimizer": lambda p: NotAnOptimizer()}, TypeError, "optimizer: expected .*, got NotAnOptimizer"),
    "patience": ({"patience": 2}, ValueError, "patience: expected validation data with it, got 2 without"),
    "no patience": ({"patience": 0, "validation": data()}, ValueError, "patience: expected an integer >= 1, got 0"),
    "seldom": ({"validation_every": 0}, ValueError, "validation_every: expected an integer >= 1, got 0"),
    "closure": ({"optimizer": torch.optim.LBFGS}, ValueError, "optimizer: .* needs no closure, got LBFGS"),
    "every": ({"checkpoint_every": 0}, ValueError, "checkpoint_every: expected an integer >= 1, got 0"),
    "coefficient": (
        {"coefficient": lambda epoch: dist.Normal(0.0, 1.0)},
        ValueError,
        "coefficient: expected a support",
    ),
    "no law of the epoch": (
        {"coefficient": dist.Beta(1.0, 1.0)},
        TypeError,
        "coefficient: expected a function from the epoch to a law of λ, got Beta",
    ),
    "no λ": (
        {"method": "ERM", "coefficient": lambda epoch: dist.Beta(1.0, 1.0)},
        ValueError,
        "a model that mixes, got ERM",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    arguments, error, message = BAD[name]
    model = make(dict(arguments).get("method", "ProbMix"))
    before = copy.deepcopy(model)
    with pytest.raises(error, match=message):
        fit(model, **{key: value for key, value in arguments.items() if key != "method"})
    assert_equal(model, before)


def test_weights_and_masks_of_rows() -> None:
    """ERM full batch: weight zero is a row left out, and a label that is masked is one, NaN or not."""
    torch.manual_seed(0)
    x = torch.randn(12, 2, dtype=torch.float64)
    y = x[:, 0].clone()
    keep = torch.arange(12) < 9

    def trained(data: tuple[Tensor, Tensor], **rows: Tensor) -> list[Tensor]:
        torch.manual_seed(1)
        model = pm.ERM(pm.nn.MLP(2, [4], 2), pm.nn.NormalLikelihood()).double()
        pm.fit(model, data, epochs=20, progress=False, **rows)  # type: ignore[arg-type]
        return list(model.parameters())

    expected = trained((x[keep], y[keep]))
    missing = y.masked_fill(~keep, float("nan"))
    for rows in (trained((x, y), weight=2.0 * keep), trained((x, missing), mask=keep)):
        for ours, theirs in zip(rows, expected, strict=True):  # Adam takes no notice of a factor, but for its epsilon
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="y: expected finite values"):
        trained((x, missing))


@pytest.mark.parametrize("length", [3, 9])
def test_sequences_of_another_length_validate(length: int) -> None:
    torch.manual_seed(0)
    likelihood = pm.nn.NormalLikelihood()
    network = nn.Sequential(pm.nn.LSTMBackbone(1, 4), nn.Linear(4, likelihood.num_outputs))
    history = pm.fit(
        pm.ERM(network, likelihood),
        (torch.randn(8, 5, 1), torch.randn(8)),
        validation=(torch.randn(6, length, 1), torch.randn(6)),
        epochs=2,
        progress=False,
    )
    assert len(history.validation_loss) == 2


def test_gradients_are_clipped_by_those_that_are_optimised() -> None:
    """What the optimiser has not got keeps its gradient from step to step."""
    one, other = make("ERM"), make("ERM")
    last = list(other.parameters())[-2:]
    for p in other.parameters():
        p.requires_grad_(any(p is own for own in last))
    for model in (one, other):
        fit(model, optimizer=lambda ps: torch.optim.SGD(ps[-2:], lr=0.1), max_grad_norm=0.1, epochs=20)
    assert_equal(one, other)


def test_validation_data_of_another_width_are_refused_before_training() -> None:
    model, (x, y) = make("ERM"), data()
    with pytest.raises(ValueError, match=r"validation x: expected rows that the networks take, got shape \(12, 1\)"):
        fit(model, validation=(x[:, :1], y))
    assert_equal(model, make("ERM"))
