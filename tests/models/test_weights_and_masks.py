"""Sample weights and missing outputs: what they mean, under Pyro and in plain torch."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

import pyro_probmix as pm
from tests.models.cases import (
    EMBEDDING,
    METHODS,
    MIXING_METHODS,
    make_batch,
    make_data,
    make_model,
    particles,
)

NAN = float("nan")


def with_rows(batch: pm.PairBatch, **rows: Tensor) -> pm.PairBatch:
    return pm.PairBatch(batch.x, batch.y, batch.partner, **rows)


def agree(model: Any, batch: pm.PairBatch, num_samples: int) -> Tensor:
    """The risk, after a look at Pyro's loss: they are one number with one gradient."""
    pyro.set_rng_seed(1)
    loss = Trace_ELBO(**particles(num_samples)).differentiable_loss(model, model.guide, batch) / len(batch)
    pyro.set_rng_seed(1)
    risk = model.risk(batch, num_samples)
    torch.testing.assert_close(loss, risk, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(v, list(model.parameters()), retain_graph=True) for v in (risk, loss))
    for one, other in zip(ours, theirs, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    return risk


@pytest.mark.faults("weights and masks ignored")
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_weights_are_one_number_under_pyro_and_in_torch(method: str, num_samples: int) -> None:
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    agree(make_model(method), with_rows(make_batch(), weight=weight), num_samples)


@pytest.mark.faults("weights and masks ignored")
@pytest.mark.parametrize("method", METHODS)
def test_integer_weights_are_repeated_rows(method: str) -> None:
    """Over all pairs of the complete graph, for a fixed λ: weight 2 is the row twice."""
    arguments = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    model, (x, y) = make_model(method, **arguments), make_data(size=3)
    repeats = torch.tensor([1, 2, 3])

    def all_pairs(x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """Mean over all cyclic shifts, which together hold every pair once."""
        losses, totals = [], []
        for shift in range(len(x)):
            partner = torch.arange(len(x)).roll(shift)
            batch = pm.PairBatch(x, y, partner, weight)
            coefficient = None if method == "ERM" else torch.full((len(x),), 0.3, dtype=x.dtype)
            losses.append(model.risk(batch, coefficient=coefficient) * len(x))
            ours = torch.ones(len(x)) if weight is None else weight
            totals.append((ours if method == "ERM" else ours * ours[partner]).sum())
        return sum(losses) / sum(totals)

    repeated = all_pairs(x.repeat_interleave(repeats, 0), y.repeat_interleave(repeats), None)
    torch.testing.assert_close(all_pairs(x, y, repeats.double()), repeated, rtol=1e-12, atol=0)


@pytest.mark.faults("weights and masks ignored")
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("labels", ["exact", "sample"])
@pytest.mark.parametrize("method", METHODS)
def test_masked_rows_take_their_edges_out(method: str, labels: Any, num_samples: int) -> None:
    """What stands in a masked row makes no difference, and its edges count as zero."""
    arguments = {} if method == "ERM" else {"labels": labels, "vicinity": pm.NormalVicinity(0.1)}
    model, batch = make_model(method, **arguments), make_batch()
    mask = torch.tensor([True, False, True, True, False, True])
    risks = [
        agree(model, pm.PairBatch(batch.x, torch.where(mask, batch.y, filler), batch.partner, mask=mask), num_samples)
        for filler in (0.0, 7.0)
    ]
    torch.testing.assert_close(risks[0], risks[1], rtol=1e-13, atol=0)
    terms = mask if method == "ERM" else mask & mask[batch.partner]
    pyro.set_rng_seed(1)
    kept = model.risk(batch, num_samples, weight=terms.double())
    torch.testing.assert_close(risks[0], kept * terms.sum() / 6, rtol=1e-12, atol=0)


@pytest.mark.faults("weights and masks ignored")
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("likelihood", ["normals", "bernoullis"])
def test_single_outputs_can_be_missing(method: str, likelihood: str, num_samples: int) -> None:
    """The risk of two outputs is the sum of those of each, masked by itself: they are independent given x."""
    batch = make_batch(likelihood)
    model = make_model(method, likelihood)
    mask = torch.rand(6, 2) < 0.6
    assert not mask.all()
    both = agree(model, with_rows(batch, mask=mask), num_samples)
    parts = [with_rows(batch, mask=mask & torch.tensor(only)) for only in ([True, False], [False, True])]
    torch.testing.assert_close(both, sum(agree(model, part, num_samples) for part in parts), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", MIXING_METHODS)
@pytest.mark.parametrize("likelihood", ["normal", "normals"])
def test_a_node_without_a_share_need_not_be_observed(method: str, likelihood: str) -> None:
    """At λ = 1 the partner's missing label changes nothing, at λ = 0 the node's own."""
    model, batch = make_model(method, likelihood), make_batch(likelihood)
    mask = torch.tensor([True, False, True, True, False, True])
    if likelihood == "normals":
        mask = torch.stack([mask, ~mask], -1)
    noise = None if method != "ManifoldProbMix" else torch.zeros(6, EMBEDDING, dtype=torch.float64)
    for value, theirs in ((1.0, mask), (0.0, mask[batch.partner])):
        coefficient = torch.full((6,), value, dtype=torch.float64)
        arguments = {"coefficient": coefficient, "noise": noise}
        terms = []
        for row in range(6):
            one = torch.zeros(6, dtype=torch.float64)
            one[row] = 1
            terms.append(model.risk(with_rows(batch, mask=mask), weight=one, **arguments))
        seen = theirs if theirs.dim() == 1 else theirs.any(-1)
        assert [bool(term != 0) for term in terms] == seen.tolist()


def test_loader_fills_what_is_missing_and_carries_rows() -> None:
    x, y = make_data("normals", size=7)
    mask = torch.rand(7, 2) < 0.5
    y = y.masked_fill(~mask, NAN)
    weight = torch.arange(7.0)
    loader = pm.PairLoader(x, y, pm.CompleteGraph(7), batch_size=3, weight=weight, mask=mask)
    for batch in loader:
        assert batch.y.isfinite().all()
        rows = (batch.x[:, None] == x).all(-1).long().argmax(1)
        torch.testing.assert_close(batch.weight, weight[rows] / 3)
        assert torch.equal(batch.mask, mask[rows])
        assert torch.equal(batch.y[batch.mask], y[rows][batch.mask])
        agree(make_model("ProbMix", "normals"), batch.to("cpu"), 1)
    counts = torch.tensor([3, 0, 1, 2, 0, 0, 4])
    loader = pm.PairLoader(x, counts, pm.CompleteGraph(7), mask=counts > 0)
    assert set(next(iter(loader)).y.tolist()) == {1, 2, 3, 4}


def test_a_vicinity_without_fusion_asks_a_node_alone() -> None:
    """ERM with label smoothing: neither a weight nor a mask is the partner's."""
    model = make_model("ERM", "categorical", vicinity=pm.LabelVicinity.smoothing(0.2, 3))
    batch, mask = make_batch("categorical"), torch.arange(6) < 4
    terms = torch.nn.functional.cross_entropy(model.decoder(batch.x), batch.y, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(agree(model, with_rows(batch, mask=mask), 1), terms[:4].sum() / 6)
    torch.testing.assert_close(agree(model, with_rows(batch, weight=2 * mask.double()), 1), 2 * terms[:4].sum() / 6)


@pytest.mark.faults("scale of a minibatch")
def test_weighted_mini_batches_are_unbiased() -> None:
    """ERM: the mean over an epoch's batches of equal size is the weighted loss of all rows."""
    x, y = make_data()
    weight = torch.rand(6, dtype=torch.float64) + 0.1
    model = make_model("ERM")
    losses = -model.likelihood(model.decoder(x)).log_prob(y)
    loader = pm.PairLoader(x, y, pm.CompleteGraph(6), batch_size=2, weight=weight)
    epoch = torch.stack([model.risk(batch) for batch in loader]).mean()
    torch.testing.assert_close(epoch, (weight * losses).sum() / weight.sum())


def test_no_output_observed_anywhere_is_refused() -> None:
    x, y = make_data()
    with pytest.raises(ValueError, match="mask: expected at least one observed output, got none"):
        pm.PairLoader(x, y, pm.CompleteGraph(6), mask=torch.zeros(6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ({"weight": torch.ones(5)}, ValueError, r"weight: expected shape \(6,\), got \(5,\)"),
        ({"weight": -torch.ones(6)}, ValueError, "weight: expected numbers of at least 0 that are not all 0"),
        ({"weight": torch.zeros(6)}, ValueError, "weight: expected numbers of at least 0 that are not all 0"),
        (
            {"weight": torch.full((6,), NAN)},
            ValueError,
            "weight: expected finite values, got NaN or inf in 6 of 6 rows",
        ),
        ({"mask": torch.ones(6)}, TypeError, "mask: expected dtype torch.bool, got torch.float32"),
        ({"mask": torch.ones(6, 2) > 0}, ValueError, r"mask: expected shape \(6,\), got \(6, 2\)"),
    ],
)
def test_bad_rows_are_refused(rows: dict[str, Tensor], error: type[Exception], message: str) -> None:
    x, y = make_data()
    with pytest.raises(error, match=message):
        pm.PairLoader(x, y, pm.CompleteGraph(6), **rows)  # type: ignore[arg-type]


def test_outputs_that_are_not_independent_are_masked_by_rows_only() -> None:
    class Correlated(torch.nn.Module):
        num_outputs, event_shape, support = 2, torch.Size([2]), dist.constraints.real_vector

        def forward(self, raw: Tensor) -> Any:
            return dist.MultivariateNormal(raw, torch.eye(2, dtype=raw.dtype))

    model = pm.ProbMix(torch.nn.Linear(3, 2).double(), Correlated())
    batch = make_batch("normals")
    assert agree(model, with_rows(batch, mask=torch.arange(6) < 4), 1).isfinite()
    with pytest.raises(ValueError, match=r"mask: expected shape \(6,\), since the outputs of the likelihood are not"):
        model.risk(with_rows(batch, mask=torch.ones(6, 2) > 0))


@pytest.mark.parametrize("method", MIXING_METHODS)
def test_linear_fusion_refuses_masks_of_single_outputs(method: str) -> None:
    if "Prob" not in method:
        return
    model, batch = make_model(method, "normals", fusion="linear"), make_batch("normals")
    masked = with_rows(batch, mask=torch.rand(6, 2) < 0.5)
    if method == "ProbMix":
        with pytest.raises(ValueError, match='fusion: expected "log-linear" where some outputs'):
            model.risk(masked)
    else:
        agree(model, masked, 1)


def test_a_mask_of_the_models_own_is_that_of_edges_beside_one_of_the_batch() -> None:
    class Masking(pm.nn.NormalLikelihood):
        def distribution(self, raw: torch.Tensor) -> Any:
            return super().distribution(raw).mask(torch.tensor([True, True, False, True, True, True]))

    x, y = torch.randn(6, 2), torch.randn(6)
    model = pm.ProbMix(pm.nn.MLP(2, [4], 2), Masking())
    coefficient, partner = torch.full((6,), 0.3), torch.tensor([1, 2, 3, 4, 5, 0])
    alone = model.risk(pm.PairBatch(x, y, partner), coefficient=coefficient)
    every = torch.ones(6, dtype=torch.bool)
    assert model.risk(pm.PairBatch(x, y, partner, mask=every), coefficient=coefficient) == alone
