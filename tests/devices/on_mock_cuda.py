"""What is checked on a mock CUDA device, in a process of its own, where ``main`` tells which cases fail."""

from __future__ import annotations

import copy
import json
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from tests.devices.mock_cuda import DEVICE, generators, mock_cuda, module_on_device, on_device, on_host, stand_in
from tests.models.cases import EMBEDDING, FEATURES, METHODS, make_data, make_model, randomize
from tests.training.networks import FailingAt

__all__ = ["CASES", "main"]

SIZE, BATCH = 16, 8
# Indices are drawn on the CPU: of each batch, its nodes and their partners, for which no host waits.
PAIRS = "to device, not waited for in mixing/graphs/base.py:pair_batch (aten::_to_copy)"
SINGLE = torch.float32


def check(found: Counter[str], allowed: dict[str, int]) -> None:
    """Refuse other events than these, and other numbers of them."""
    if found != Counter(allowed):
        lines = [f"{number} x {event}, allowed {allowed.get(event, 0)}" for event, number in sorted(found.items())]
        raise AssertionError("\n".join(lines) or f"nothing has passed, allowed {allowed}")


def moved(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(map(on_device, tensors))


def pair_on_both(make: Callable[[], Any]) -> tuple[Any, Any]:
    """A model on the CPU, and the same on the device."""
    torch.manual_seed(0)
    model = make()
    return model, module_on_device(copy.deepcopy(model))


def check_equal(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert other.device == DEVICE, f"{name} is on {other.device}"
        torch.testing.assert_close(
            on_host(other), mine, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


# A step: forward and backward.


def step(make: Callable[[], Any], likelihood: str = "normal", **arguments: Any) -> None:
    ours, theirs = pair_on_both(make)
    x, y = make_data(likelihood, SIZE, SINGLE)
    partner = torch.randperm(SIZE)
    torch.manual_seed(1)
    expected = ours.risk(pm.PairBatch(x, y, partner), 2, **arguments)
    expected.backward()
    batch = pm.PairBatch(*moved(x, y, partner))
    with mock_cuda() as events, dist.validation_enabled(False):
        theirs.risk(batch, 2, **arguments).backward()
        events.clear()
        theirs.zero_grad()
        torch.manual_seed(1)
        risk = theirs.risk(batch, 2, **arguments)
        risk.backward()
        found = Counter(map(str, events))
    torch.testing.assert_close(on_host(risk), expected, rtol=1e-4, atol=1e-5)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(on_host(other.grad), mine.grad, rtol=1e-3, atol=1e-5)
    check(found, {})


def low_rank(**arguments: Any) -> Any:
    embedding = pm.nn.LowRankNormalEmbedding(pm.nn.MLP(FEATURES, [], EMBEDDING), EMBEDDING, rank=2)
    head = pm.nn.NormalLikelihood()
    decoder = pm.nn.MLP(EMBEDDING, [5], head.num_outputs)
    return randomize(pm.ManifoldProbMix(embedding, decoder, head, **arguments)).to(SINGLE)


# Training.


def events_of_epochs(train: Callable[[int], Any]) -> Counter[str]:
    """What passes in two epochs, whatever passes before and after them."""
    counts = []
    for epochs in (2, 4):
        with mock_cuda() as events:
            train(epochs)
            counts.append(Counter(map(str, events)))
    return counts[1] - counts[0]


def fit(make: Callable[[], Any], likelihood: str = "normal", graph: str = "complete", **arguments: Any) -> None:
    ours, theirs = pair_on_both(make)
    data, held_out = make_data(likelihood, SIZE, SINGLE), make_data(likelihood, 5, SINGLE)
    sampler: Any = pm.NearestNeighborGraph(data[0], num_neighbors=3) if graph == "neighbors" else None
    options: dict[str, Any] = {"graph": sampler, "batch_size": BATCH, "progress": False, **arguments}
    expected = pm.fit(ours, data, validation=held_out, epochs=4, **options)
    there = moved(*data), moved(*held_out)
    last: list[Any] = []

    def train(epochs: int) -> None:
        model = copy.deepcopy(theirs)
        last[:] = model, pm.fit(model, there[0], validation=there[1], epochs=epochs, **options)

    found = events_of_epochs(train)
    model, history = last
    check_equal(ours, model)
    torch.testing.assert_close(history.train_loss, expected.train_loss, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(history.validation_loss, expected.validation_loss, rtol=1e-3, atol=1e-4)
    check(found, {PAIRS: 2 * 2 * (SIZE // BATCH)})


def fit_that_fails(where: str, steps: set[int], **arguments: Any) -> None:
    """The device decides by itself which steps are taken; parameters, buffers and the error are the CPU's."""
    ours, theirs = pair_on_both(lambda: pm.ERM(FailingAt(steps, where), pm.nn.NormalLikelihood()))
    x, y = make_data("normal", 12, SINGLE)
    data = x[:, :2], y
    options: dict[str, Any] = {"epochs": 3, "batch_size": 4, "progress": False, **arguments}
    found: list[Any] = []
    for model, own in ((ours, data), (theirs, moved(*data))):
        with mock_cuda() if model is theirs else nullcontext():
            try:
                found.append(pm.fit(model, own, **options).skipped_steps)
            except ValueError as error:
                found.append(str(error))
    assert found[0] == found[1], found
    assert "epoch 1, batch 2" in found[0] if arguments.get("max_skipped", 1) < len(steps) else found[0] == len(steps)
    check_equal(ours, theirs)


def fit_from_host() -> None:
    """Data on the CPU are moved at once, where there is memory."""
    _, theirs = pair_on_both(partial(make_model, "ProbMix", dtype=SINGLE))
    x, y = make_data("normal", SIZE, SINGLE)
    found = events_of_epochs(lambda epochs: pm.fit(copy.deepcopy(theirs), (x, y), epochs=epochs, progress=False))
    check(found, {PAIRS: 2})


def fit_annealed() -> None:
    """A law of an epoch's own is moved once, and no host waits for it."""
    _, theirs = pair_on_both(partial(make_model, "ProbMix", dtype=SINGLE))
    data = moved(*make_data("normal", SIZE, SINGLE))

    def train(epochs: int) -> None:
        model = copy.deepcopy(theirs)
        pm.fit(model, data, epochs=epochs, coefficient=lambda e: dist.Uniform(0.0, 1 / (e + 1)), progress=False)

    law = "to device, not waited for in mixing/coefficients.py:move (aten::_to_copy)"
    check(events_of_epochs(train), {PAIRS: 2, law: 2 * 2})


def fit_replicas(
    make: Callable[[], Any], likelihood: str = "normal", sizes: tuple[int, ...] = (SIZE, SIZE), **arguments: Any
) -> None:
    data = [make_data(likelihood, size, SINGLE) for size in sizes]
    held_out = [make_data(likelihood, 5, SINGLE) for _ in sizes]
    options: dict[str, Any] = {"batch_size": BATCH, "progress": False, **arguments}
    expected = pm.fit_replicas(lambda r: make(), data, validation=held_out, epochs=4, **options)
    there = [moved(*own) for own in data], [moved(*own) for own in held_out]
    last: list[Any] = []

    def train(epochs: int) -> None:
        last[:] = [
            pm.fit_replicas(lambda r: make().to(DEVICE), there[0], validation=there[1], epochs=epochs, **options)
        ]

    torch.__future__.set_overwrite_module_params_on_conversion(True)
    found = events_of_epochs(train)
    for mine, other in zip(expected.models, last[0].models, strict=True):
        check_equal(mine, other)
    check(found, {PAIRS: 2 * 2 * sum(-(-size // BATCH) for size in sizes)})


# Predictions.


def predict(make: Callable[[], Any], likelihood: str = "normal") -> None:
    ours, theirs = pair_on_both(make)
    x, y = make_data(likelihood, SIZE, SINGLE)
    expected = ours.predictive(x)
    with mock_cuda() as events, torch.no_grad(), dist.validation_enabled(False):
        there = moved(x, y)
        p = theirs.predictive(there[0])
        log_prob, draw = p.log_prob(there[1]), p.sample()
        found = Counter(map(str, events))
        scores = pm.evaluate(p, there[1])
    assert draw.device == DEVICE
    torch.testing.assert_close(on_host(log_prob), expected.log_prob(y).detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, pm.evaluate(expected, y), rtol=1e-4, atol=1e-4)
    check(found, {})


def evaluate_copies_once() -> None:
    """A score is a number on the host: what it is made of comes there once each."""
    x, y = make_data("normal", SIZE, SINGLE)
    with mock_cuda() as events:
        p = dist.Normal(on_device(x[:, 0]), on_device(torch.ones(SIZE)))
        events.clear()
        pm.evaluate(p, on_device(y))
        found = Counter(event.kind for event in events)
    check(found, {"to host": 4, "wait": 3})


def quantiles() -> None:
    """By formula, by root search and by sums: where the parameters are, and those of the CPU."""
    one, some = torch.ones(2), torch.tensor([0.5, 30.0])

    def laws(one: Tensor, some: Tensor) -> list[Any]:
        pool = pm.LinearPool([dist.Normal(one, some), dist.StudentT(some, one, one)])
        return [pool, dist.BetaBinomial(some, one, 9), dist.Gumbel(one, some)]

    def quantile(p: Any, q: Tensor) -> Tensor:
        return pm.quantile(p, q[:, 0])

    def shortest(p: Any, q: Tensor) -> Tensor:
        return torch.stack(pm.interval(p, q[1, 0], kind="hdi"))

    q = torch.tensor([[0.1], [0.7]])
    functions = [pm.distributions.cdf, quantile], [pm.distributions.cdf, quantile], [shortest]
    with mock_cuda():
        there = laws(*moved(one, some))
    for ours, theirs, each in zip(laws(one, some), there, functions, strict=True):
        for function in each:
            with mock_cuda():
                found = function(theirs, on_device(q))
            assert found.device == DEVICE
            torch.testing.assert_close(on_host(found), function(ours, q))


def estimator() -> None:
    x, y = make_data("normal", 40, SINGLE)
    ours, theirs = (
        pm.ProbMixRegressor(epochs=3, num_samples=5, hidden_features=(8, 4), random_state=0, device=device)
        for device in ("cpu", "cuda:0")
    )
    expected = ours.fit(x.numpy(), y.numpy()).predict(x.numpy())
    with mock_cuda(), generators():
        found = theirs.fit(x.numpy(), y.numpy()).predict(x.numpy())
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-3, atol=1e-3)


def model_of(method: str, likelihood: str = "normal", **arguments: Any) -> Callable[[], Any]:
    return partial(make_model, method, likelihood, SINGLE, **arguments)


LIKELIHOODS = ("normals", "categorical", "one-hot", "bernoullis", "gamma", "poisson")
CASES: dict[str, Callable[[], None]] = {
    **{f"a step of {method}": partial(step, model_of(method)) for method in METHODS},
    **{f"a step of {name}": partial(step, model_of("ProbMix", name), name) for name in LIKELIHOODS},
    "a step of drawn labels": partial(step, model_of("ProbMix", "poisson"), "poisson", objective="log-expected"),
    "a step of low rank": partial(step, low_rank),
    "a step of linear fusion": partial(step, partial(low_rank, fusion="linear")),
    "a step of a Uniform coefficient": partial(step, model_of("ProbMix", coefficient=dist.Uniform(0.0, 1.0))),
    **{f"fit of {method}": partial(fit, model_of(method)) for method in METHODS},
    "fit of classes": partial(fit, model_of("ProbMix", "categorical"), "categorical"),
    "fit of low rank": partial(fit, low_rank),
    "fit of neighbors": partial(fit, model_of("ProbMix"), graph="neighbors"),
    "fit of a moving average": partial(fit, model_of("ProbMix"), ema_decay=0.9),
    "fit with clipped gradients": partial(fit, model_of("ProbMix"), max_grad_norm=1.0),
    "fit that skips": partial(fit, model_of("ProbMix"), non_finite="skip"),
    **{
        f"fit that skips a bad {where}": partial(fit_that_fails, where, {0, 4, 5}, non_finite="skip", max_skipped=3)
        for where in ("output", "gradient")
    },
    **{
        f"fit that fails by its {where}": partial(fit_that_fails, where, {1, 3, 5, 7}, non_finite="skip", max_skipped=2)
        for where in ("output", "gradient")
    },
    "fit with patience": partial(fit, model_of("ProbMix"), patience=100, validation_every=1),
    "fit of integrated coefficients": partial(
        fit, model_of("ProbMix", coefficient=pm.GaussJacobi(0.2, num_nodes=3), vicinity=pm.NormalVicinity(0.01))
    ),
    "fit of annealed coefficients": fit_annealed,
    "fit of data on the host": fit_from_host,
    **{f"fit_replicas of {method}": partial(fit_replicas, model_of(method)) for method in METHODS},
    "fit_replicas of classes": partial(fit_replicas, model_of("ProbMix", "categorical"), "categorical"),
    "fit_replicas of uneven data": partial(fit_replicas, model_of("ManifoldProbMix"), sizes=(16, 11)),
    "fit_replicas that skip": partial(fit_replicas, model_of("ProbMix"), non_finite="skip", max_grad_norm=1.0),
    "fit_replicas of a moving average": partial(fit_replicas, model_of("ProbMix"), ema_decay=0.9, patience=100),
    **{f"predictions of {name}": partial(predict, model_of("ManifoldProbMix", name), name) for name in LIKELIHOODS},
    "predictions of ERM": partial(predict, model_of("ERM")),
    "evaluate": evaluate_copies_once,
    "quantiles": quantiles,
    "an estimator": estimator,
}


def main(path: str) -> None:
    """Write, as JSON, the traceback of each case that fails, and an empty string for each other."""
    stand_in()
    report = {}
    for name, case in CASES.items():
        torch.manual_seed(0)
        try:
            case()
            report[name] = ""
        except Exception:
            report[name] = traceback.format_exc()
    Path(path).write_text(json.dumps(report))
