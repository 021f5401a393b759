"""``pm.evaluate`` against scikit-learn, SciPy, scoringrules and torchmetrics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import scoringrules
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, mean_squared_error
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

import pyro_probmix as pm
from pyro_probmix.evaluation import METRICS

N, CLASSES = 12, 3


def normals(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def rmse(y: Tensor, mean: Any) -> float:
    return math.sqrt(mean_squared_error(y.reshape(-1), np.asarray(mean).reshape(-1)))


NUMBERS, CLASS_NUMBERS = ["nll", "rmse"], ["nll", "accuracy"]


def test_normal() -> None:
    loc, scale, y = normals(N), normals(N).exp(), normals(N)
    scores = pm.evaluate(dist.Normal(loc, scale), y)
    nll = -scipy.stats.norm(loc.numpy(), scale.numpy()).logpdf(y.numpy()).mean()
    crps = scoringrules.crps_normal(y.numpy(), loc.numpy(), scale.numpy()).mean()
    assert list(scores) == ["nll", "crps", "rmse"]
    assert scores == pytest.approx({"nll": nll, "crps": crps, "rmse": rmse(y, loc)}, rel=1e-12)


@pytest.mark.parametrize("of", [np.asarray, Tensor.tolist, lambda y: pandas.Series(y.numpy()), Tensor.float])
def test_labels_of_any_kind(of: Any) -> None:
    loc, y = normals(N), normals(N).float().double()
    assert pm.evaluate(dist.Normal(loc, 1.0), of(y)) == pm.evaluate(dist.Normal(loc, 1.0), y)


def test_several_outputs() -> None:
    """The log-likelihood of a row is the sum over its outputs, the squared error their mean."""
    loc, scale, y = normals(N, 2), normals(N, 2).exp(), normals(N, 2)
    scores = pm.evaluate(dist.Normal(loc, scale).to_event(1), y, NUMBERS)
    nll = -scipy.stats.norm(loc.numpy(), scale.numpy()).logpdf(y.numpy()).sum(-1).mean()
    assert scores == pytest.approx({"nll": nll, "rmse": rmse(y, loc)}, rel=1e-12)


def test_mixture_of_normals() -> None:
    loc, scale, y = normals(N, 5), normals(N, 5).exp(), normals(N)
    scores = pm.evaluate(pm.linear_pool(dist.Normal(loc, scale)), y, NUMBERS)
    density = scipy.stats.norm(loc.numpy(), scale.numpy()).pdf(y.numpy()[:, None]).mean(-1)
    assert scores == pytest.approx({"nll": -np.log(density).mean(), "rmse": rmse(y, loc.mean(-1))}, rel=1e-12)


def test_poisson() -> None:
    rate, y = normals(N).exp(), torch.randint(5, (N,)).double()
    scores = pm.evaluate(dist.Poisson(rate), y, NUMBERS)
    nll = -scipy.stats.poisson(rate.numpy()).logpmf(y.numpy()).mean()
    assert scores == pytest.approx({"nll": nll, "rmse": rmse(y, rate)}, rel=1e-12)


def test_binomial_counts_are_not_classes() -> None:
    """Over 0..C-1 as class labels are, but with a mean."""
    probs, y = torch.rand(N, dtype=torch.float64), torch.randint(CLASSES, (N,)).double()
    scores = pm.evaluate(dist.Binomial(CLASSES - 1, probs), y, NUMBERS)
    nll = -scipy.stats.binom(CLASSES - 1, probs.numpy()).logpmf(y.numpy()).mean()
    assert scores == pytest.approx({"nll": nll, "rmse": rmse(y, 2 * probs)}, rel=1e-12)


def class_scores(probabilities: Tensor, y: Tensor) -> Any:
    """As scikit-learn has them, and torchmetrics, in single precision; it must not be given a probability above one."""
    size = probabilities.shape[-1]
    labels = list(range(size))
    expected = {
        "nll": log_loss(y, probabilities, labels=labels),
        "accuracy": accuracy_score(y, probabilities.argmax(-1)),
        "brier": brier_score_loss(y, probabilities[:, 1] if size == 2 else probabilities, labels=labels),
    }
    ece = multiclass_calibration_error(probabilities.clamp(max=1), y, size, n_bins=15).item()
    close: dict[str, Any] = {name: pytest.approx(value, rel=1e-9) for name, value in expected.items()}
    return close | {"ece": pytest.approx(ece, abs=1e-6)}


def test_categorical() -> None:
    probabilities, y = normals(N, CLASSES).softmax(-1), torch.randint(CLASSES, (N,))
    assert pm.evaluate(dist.Categorical(probabilities), y) == class_scores(probabilities, y)


def test_one_hot() -> None:
    probabilities, y = normals(N, CLASSES).softmax(-1), torch.randint(CLASSES, (N,))
    vectors = torch.eye(CLASSES, dtype=torch.float64)[y]
    assert pm.evaluate(dist.OneHotCategorical(probabilities), vectors) == class_scores(probabilities, y)


def test_bernoulli() -> None:
    p, y = torch.rand(N, dtype=torch.float64), torch.randint(2, (N,))
    assert pm.evaluate(dist.Bernoulli(p), y.double()) == class_scores(torch.stack([1 - p, p], -1), y)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_bernoulli_of_any_dtype(dtype: torch.dtype) -> None:
    p, y = dist.Bernoulli(torch.rand(N, dtype=torch.float64)), torch.randint(2, (N,))
    assert pm.evaluate(p, y.to(dtype)) == pytest.approx(pm.evaluate(p, y.double()), rel=1e-6)


def test_mixture_of_categoricals() -> None:
    probabilities, y = normals(N, 5, CLASSES).softmax(-1), torch.randint(CLASSES, (N,))
    scores = pm.evaluate(pm.linear_pool(dist.Categorical(probabilities)), y)
    assert scores == class_scores(probabilities.mean(-2), y)


def test_mixture_of_one_hot() -> None:
    probabilities, y = normals(N, 5, CLASSES).softmax(-1), torch.randint(CLASSES, (N,))
    vectors = torch.eye(CLASSES, dtype=torch.float64)[y]
    scores = pm.evaluate(pm.linear_pool(dist.OneHotCategorical(probabilities)), vectors)
    assert scores == class_scores(probabilities.mean(-2), y)


def test_several_labels() -> None:
    """Log-likelihoods add up over the labels of a row; the accuracy is the share of single labels."""
    p, y = torch.rand(N, 4, dtype=torch.float64), torch.randint(2, (N, 4))
    scores = pm.evaluate(dist.Bernoulli(p).to_event(1), y.double(), CLASS_NUMBERS)
    nll = 4 * log_loss(y.reshape(-1), p.reshape(-1))
    assert scores == pytest.approx(
        {"nll": nll, "accuracy": accuracy_score(y.reshape(-1), (p > 0.5).reshape(-1))}, rel=1e-9
    )
    probabilities, classes = normals(N, 2, CLASSES).softmax(-1), torch.randint(CLASSES, (N, 2))
    scores = pm.evaluate(dist.Categorical(probabilities).to_event(1), classes, CLASS_NUMBERS)
    nll = 2 * log_loss(classes.reshape(-1), probabilities.reshape(-1, CLASSES), labels=[0, 1, 2])
    accuracy = accuracy_score(classes.reshape(-1), probabilities.argmax(-1).reshape(-1))
    assert scores == pytest.approx({"nll": nll, "accuracy": accuracy}, rel=1e-9)


def test_mixture_over_several_labels() -> None:
    """The most probable value of each label under its own marginal."""
    p, y = torch.rand(N, 5, 4, dtype=torch.float64), torch.randint(2, (N, 4))
    scores = pm.evaluate(pm.linear_pool(dist.Bernoulli(p).to_event(1)), y.double())
    assert scores["accuracy"] == accuracy_score(y.reshape(-1), (p.mean(1) > 0.5).reshape(-1))


@pytest.mark.parametrize("listed", [False, True])
def test_mixture_over_several_class_labels(listed: bool) -> None:
    probabilities, y = normals(N, 5, 2, CLASSES).softmax(-1), torch.randint(CLASSES, (N, 2))
    weights = torch.rand(5, dtype=torch.float64)
    weights = weights / weights.sum()
    components: Any = dist.Categorical(probabilities).to_event(1)
    if listed:
        components = [dist.Categorical(own).to_event(1) for own in probabilities.unbind(1)]
    p = pm.LinearPool(components, weights)
    marginal = torch.einsum("k,nkdc->ndc", weights, probabilities)
    accuracy = accuracy_score(y.reshape(-1), marginal.argmax(-1).reshape(-1))
    expected = {"nll": -p.log_prob(y).mean().item(), "accuracy": accuracy}
    assert pm.evaluate(p, y, CLASS_NUMBERS) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("method", ["ERM", "ManifoldProbMix"])
def test_predictive_of_a_model(method: str) -> None:
    likelihood = pm.nn.CategoricalLikelihood(CLASSES)
    if method == "ERM":
        model: Any = pm.ERM(torch.nn.Linear(2, CLASSES), likelihood)
    else:
        embedding = pm.nn.NormalEmbedding(torch.nn.Linear(2, 4), 4)
        model = pm.ManifoldProbMix(embedding, torch.nn.Linear(4, CLASSES), likelihood)
    x, y = torch.randn(N, 2), torch.randint(CLASSES, (N,))
    p = model.predictive(x)
    log_probs = torch.stack([p.log_prob(torch.full((N,), k)).detach() for k in range(CLASSES)], -1)
    probabilities = log_probs.double().softmax(-1)
    assert pm.evaluate(p, y, CLASS_NUMBERS) == {
        "nll": pytest.approx(log_loss(y, probabilities, labels=[0, 1, 2]), rel=1e-5),
        "accuracy": accuracy_score(y, probabilities.argmax(-1)),
    }


def test_nan_is_shown() -> None:
    p = dist.Normal(torch.tensor([0.0, math.nan]), 1.0, validate_args=False)
    scores = pm.evaluate(p, torch.zeros(2))
    assert math.isnan(scores["nll"])
    assert math.isnan(scores["rmse"])


@pytest.mark.parametrize(
    ("p", "y"),
    [
        (lambda: dist.Bernoulli(logits=torch.full((2,), math.nan)), torch.zeros(2)),
        (lambda: dist.OneHotCategorical(logits=torch.full((2, 3), math.nan)), torch.eye(3)[:2]),
    ],
    ids=["Bernoulli", "OneHotCategorical"],
)
def test_nan_is_no_class(p: Any, y: Tensor) -> None:
    with pyro.validation_enabled(False):
        scores = pm.evaluate(p(), y)
    assert math.isnan(scores["nll"])
    assert scores["accuracy"] == 0


ANGLE = dist.VonMises(torch.tensor([3.1]), torch.tensor([50.0]))
UNIT = torch.tensor([[1.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("p", "y"),
    [
        (ANGLE, torch.tensor([-3.1])),
        (ANGLE.expand([1, 2]).to_event(1), torch.tensor([[-3.1, 3.1]])),
        (pm.linear_pool(dist.VonMises(torch.tensor([[3.1, -3.1]]), torch.tensor(50.0))), torch.tensor([3.1])),
        (dist.VonMises3D(UNIT), UNIT),
    ],
    ids=["angle", "angles", "mixture of angles", "directions"],
)
def test_no_error_on_a_circle(p: Any, y: Tensor) -> None:
    """It has no difference that is a number."""
    assert pm.evaluate(p, y) == {"nll": pytest.approx(-p.log_prob(y).mean().item(), rel=1e-6)}
    with pytest.raises(ValueError, match=r'metrics: .* fit p, got "crps": .* numbers, got .* over angles or dir'):
        pm.evaluate(p, y, ["nll", "crps"])


def test_no_error_without_a_mean() -> None:
    p, y = dist.SkewLogistic(torch.zeros(1), torch.ones(1)), torch.zeros(1)
    assert list(pm.evaluate(p, y)) == ["nll", "crps"]
    with pytest.raises(ValueError, match='metrics: expected ones that fit p, got "rmse": it is not known of SkewLogi'):
        pm.evaluate(p, y, "rmse")


def test_torch_mixture_of_categoricals() -> None:
    probabilities, y = normals(N, 5, 2, CLASSES).softmax(-1), torch.randint(CLASSES, (N, 2))
    p = dist.MixtureSameFamily(dist.Categorical(torch.ones(N, 5)), dist.Categorical(probabilities).to_event(1))
    expected = accuracy_score(y.reshape(-1), probabilities.mean(1).argmax(-1).reshape(-1))
    assert pm.evaluate(p, y)["accuracy"] == pytest.approx(expected)


def test_masked_labels_are_left_out() -> None:
    mask, y = torch.tensor([True, True, False, False]), torch.tensor([0.5, -1.0, 50.0, math.nan])
    p = dist.Normal(torch.zeros(4), 1.0)
    assert pm.evaluate(p.mask(mask), y) == pm.evaluate(dist.Normal(torch.zeros(2), 1.0), y[:2])
    with pytest.raises(ValueError, match="y: expected at least one label, got none that p does not mask"):
        pm.evaluate(p.mask(False), y)


def test_masks_of_single_outputs() -> None:
    """The log-likelihood of a row sums what is seen of it, other metrics average over what is seen."""
    loc, y, seen = normals(4, 3), normals(4, 3), torch.arange(12).reshape(4, 3) % 4 > 0
    seen[2] = False
    p = dist.Normal(loc, 1.0)
    scores = pm.evaluate(p.mask(seen).to_event(1), y.where(seen, math.nan))
    rows = -(p.log_prob(y) * seen).sum(-1)
    expected = pm.evaluate(dist.Normal(loc[seen], 1.0), y[seen]) | {"nll": rows[[0, 1, 3]].mean().item()}
    assert scores == pytest.approx(expected, rel=1e-12)
    by_row = pm.evaluate(p.mask(seen).to_event(1), y.where(seen, math.nan), ["nll", "mse"], reduction="none")
    assert torch.equal(by_row["nll"][[0, 1, 3]], rows[[0, 1, 3]])
    squared = ((y - loc).square() * seen).sum(-1) / seen.sum(-1)
    torch.testing.assert_close(by_row["mse"], squared, equal_nan=True)
    assert by_row["nll"].isnan().tolist() == by_row["mse"].isnan().tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="y: expected at least one label, got none"):
        pm.evaluate(p.mask(torch.zeros(3, dtype=torch.bool)).to_event(1), y)
    with pytest.raises(ValueError, match=r"y: expected finite values, got NaN or inf in 1 of 4 rows \(row 0\)"):
        pm.evaluate(p.mask(seen).to_event(1), y.where(torch.arange(12).reshape(4, 3) != 1, math.nan))


def test_what_a_mask_hides_need_not_be_legal() -> None:
    """Each row has a support of its own."""
    low = torch.tensor([0.0, 10.0, 20.0])
    p = dist.Uniform(low, low + 1).mask(torch.tensor([False, True, True]))
    assert pm.evaluate(p, [math.inf, 10.5, 20.5])["nll"] == 0


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    ("p", "y"),
    [
        (lambda: dist.OneHotCategorical(torch.tensor([[0.6, 0.4]])), torch.tensor([[0.5, 0.5]])),
        (lambda: dist.Categorical(torch.tensor([[0.1, 0.9]])), torch.tensor([1.7])),
        (lambda: dist.Poisson(torch.ones(1)), torch.tensor([-1.0])),
    ],
    ids=["soft label", "between classes", "negative count"],
)
def test_labels_outside_the_support_are_refused(p: Any, y: Tensor, validate: bool) -> None:
    """Whether or not arguments are validated."""
    with pyro.validation_enabled(validate), pytest.raises(ValueError, match=r"y: expected values in"):
        pm.evaluate(p(), y)


def test_single_precision_sums_in_double() -> None:
    p = dist.Normal(torch.zeros(200_000), 1.0)
    y = torch.full((200_000,), 0.1)
    expected = 0.5 * math.log(2 * math.pi) + 0.5 * 0.1**2
    assert pm.evaluate(p, y, NUMBERS) == pytest.approx({"nll": expected, "rmse": 0.1}, rel=1e-6)


def test_no_gradient_is_kept() -> None:
    loc = torch.zeros(N, requires_grad=True)
    assert all(type(score) is float for score in pm.evaluate(dist.Normal(loc, 1.0), torch.zeros(N)).values())


@pytest.mark.parametrize(
    ("p", "y", "error", "message"),
    [
        (
            dist.Normal(torch.zeros(3), 1.0),
            torch.zeros(3, 1),
            ValueError,
            r"y: expected shape \(3,\), got \(3, 1\)",
        ),
        (
            dist.Normal(torch.zeros(3), 1.0),
            torch.zeros(4),
            ValueError,
            r"y: expected shape \(3,\), got \(4,\)",
        ),
        (
            dist.Normal(torch.zeros(3, 2), 1.0).to_event(1),
            torch.zeros(3),
            ValueError,
            r"y: expected shape \(3, 2\), got \(3,\)",
        ),
        (
            dist.Normal(torch.zeros(0), 1.0),
            torch.zeros(0),
            ValueError,
            "y: expected at least one label, got none",
        ),
        (torch.zeros(3), torch.zeros(3), TypeError, "p: expected a distribution, got Tensor"),
        (
            dist.Normal(torch.zeros(3), 1.0),
            ["0"] * 3,
            TypeError,
            "y: expected a tensor or an array of numbers, got list of <U1; a class is its position",
        ),
        (dist.Normal(torch.zeros(2), 1.0), [[0], [0, 0]], TypeError, "y: expected a tensor or an array of numbers"),
        (dist.Normal(torch.zeros(2), 1.0), [0.0, math.nan], ValueError, r"y: expected finite values, .* \(row 1\)"),
        (
            dist.Categorical(logits=torch.zeros(2, 3)),
            torch.tensor([0, 3]),
            ValueError,
            "y: expected values in",
        ),
    ],
    ids=["column", "rows", "outputs", "empty", "no distribution", "texts", "ragged", "NaN", "class"],
)
def test_bad_input(p: Any, y: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pm.evaluate(p, y)


def test_a_row_at_a_time() -> None:
    loc, y = normals(N, 2), normals(N, 2)
    p = dist.Normal(loc, 1.0).to_event(1)
    scores = pm.evaluate(p, y, reduction="none")
    assert list(scores) == ["nll", "crps"]
    torch.testing.assert_close(scores["nll"], -p.log_prob(y))
    expected = torch.as_tensor(scoringrules.crps_normal(y.numpy(), loc.numpy(), 1.0)).mean(-1)
    torch.testing.assert_close(scores["crps"], expected)
    with pytest.raises(ValueError, match='got "rmse": it is no average of values of single rows'):
        pm.evaluate(p, y, ["rmse"], reduction="none")
    probabilities, labels = normals(N, CLASSES).softmax(-1), torch.randint(CLASSES, (N,))
    scores = pm.evaluate(dist.Categorical(probabilities), labels, reduction="none")
    assert torch.equal(scores["accuracy"], (probabilities.argmax(-1) == labels).double())
    means = pm.evaluate(dist.Categorical(probabilities), labels, ["nll", "accuracy", "brier"])
    assert {name: values.mean().item() for name, values in scores.items()} == pytest.approx(means)
    with pytest.raises(ValueError, match='got "ece": it is no average of values of single rows'):
        pm.evaluate(dist.Categorical(probabilities), labels, ["ece"], reduction="none")
    with pytest.raises(ValueError, match='reduction: expected one of "mean", "none", got "sum"'):
        pm.evaluate(p, y, reduction="sum")  # type: ignore[call-overload]


SLICES: dict[str, tuple[Any, Tensor]] = {
    "numbers": (dist.Normal(torch.linspace(-1, 1, 12), 1.0), torch.linspace(-2, 3, 12)),
    "several": (dist.Normal(torch.linspace(-1, 1, 24).reshape(12, 2), 1.0).to_event(1), torch.ones(12, 2)),
    "classes": (dist.Categorical(logits=torch.linspace(-1, 1, 36).reshape(12, 3)), torch.arange(12) % 3),
}


@pytest.mark.parametrize("name", SLICES)
def test_slices_of_the_rows_have_the_scores_of_all(name: str) -> None:
    p, y = SLICES[name]
    metrics = [metric for metric in METRICS.values() if metric.name != "energy_score"]  # which is drawn
    slices = [(0, 5), (5, 11), (11, 12)]
    found = pm.evaluate((pm.rows(p, slice(*ends)) for ends in slices), y, metrics)
    assert found == pytest.approx(pm.evaluate(p, y, metrics), rel=1e-6)
    by_row = pm.evaluate([pm.rows(p, slice(*ends)) for ends in slices], y, "nll", reduction="none")["nll"]
    assert torch.allclose(by_row, pm.evaluate(p, y, "nll", reduction="none")["nll"])


def test_slices_that_do_not_fit_are_refused() -> None:
    p = dist.Normal(torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="y: expected the 3 labels of the slices of p, got 4"):
        pm.evaluate([p], torch.zeros(4))
    with pytest.raises(ValueError, match="y: expected shape"):
        pm.evaluate([p, p], torch.zeros(4))
    with pytest.raises(TypeError, match="p: expected distributions of slices of the rows, got float"):
        pm.evaluate([1.0], torch.zeros(4))
