"""What the ready methods predict, and what they draw where labels are absent."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.models import decoding
from tests.models.cases import (
    FEATURES,
    LIKELIHOODS,
    METHODS,
    make_batch,
    make_model,
)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("method", METHODS)
def test_predictive_has_the_shape_of_the_labels(method: str, likelihood: str) -> None:
    model, batch = make_model(method, likelihood), make_batch(likelihood)
    p = model.predictive(batch.x, num_samples=8)
    assert p.batch_shape == (6,)
    assert p.event_shape == batch.y.shape[1:]
    assert p.log_prob(batch.y).shape == (6,)
    assert p.sample((5,)).shape == (5, *batch.y.shape)
    assert p.log_prob(batch.y).dtype == torch.float64
    assert isinstance(p, pm.LinearPool) == (method == "ManifoldProbMix")


@pytest.mark.parametrize("method", ["ERM", "Mixup", "ProbMix"])
def test_predictive_is_the_likelihood(method: str) -> None:
    model, batch = make_model(method), make_batch()
    expected = model.likelihood(model.decoder(batch.x))
    assert torch.equal(model.predictive(batch.x).loc, expected.loc)
    assert torch.equal(model.predictive(batch.x).scale, expected.scale)


@pytest.mark.parametrize("shared", [True, False])
def test_predictive_of_given_noise_is_the_decoder_row_by_row(shared: bool, monkeypatch: Any) -> None:
    """Whatever the number of rows at a time, and whether rows have the same noise or each its own."""
    model, batch = make_model("ManifoldProbMix").eval(), make_batch()
    rows = len(batch.x)
    noise = model.draw_noise(batch.x, (8, 1 if shared else rows)).expand(-1, rows, -1)
    for at_once in (decoding._DRAWS_IN_CACHE, 3 * noise[:, 0].numel(), 4 * noise[:, 0].numel(), 1):
        monkeypatch.setattr(decoding, "_DRAWS_IN_CACHE", at_once)
        with torch.no_grad():
            p = model.predictive(batch.x, 8, noise=noise)
            for k in range(rows):
                q = model.encoder(batch.x[k]).base_dist
                drawn = model.likelihood(model.decoder(q.loc + q.scale * noise[:, k]))
                expected = drawn.log_prob(batch.y[k]).exp().mean().log()
                torch.testing.assert_close(p.log_prob(batch.y)[k], expected)
    tracked = model.predictive(batch.x, 8, noise=noise)
    torch.testing.assert_close(tracked.mean, p.mean)
    assert all(
        gradient.abs().sum() > 0 for gradient in torch.autograd.grad(tracked.mean.sum(), [*model.encoder.parameters()])
    )


def test_predictive_is_the_mixture_over_embeddings() -> None:
    """The integral of eq. 21, by the same draws written out, and by a second, larger Monte-Carlo estimate."""
    model, batch = make_model("ManifoldProbMix"), make_batch()
    with torch.no_grad():
        p = model.predictive(batch.x, num_samples=4000)
        q = model.encoder(batch.x)
        log_likelihood = model.likelihood(model.decoder(q.sample((40000,)))).log_prob(batch.y)
        density = log_likelihood.exp()
        error = density.std(0) * (1 / 40000 + 1 / 4000) ** 0.5
        assert ((p.log_prob(batch.y).exp() - density.mean(0)).abs() < 5 * error).all()

        pyro.set_rng_seed(9)
        z = q.rsample((16,))
        expected = model.likelihood(model.decoder(z)).log_prob(batch.y).logsumexp(0) - torch.tensor(16.0).log()
        ours = model.predictive(batch.x, num_samples=16, seed=9).log_prob(batch.y)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_predictive_of_propagated_means() -> None:
    model, batch = make_model("ManifoldProbMix", propagate="mean"), make_batch()
    expected = model.likelihood(model.decoder(model.encoder(batch.x).mean))
    assert torch.equal(model.predictive(batch.x).loc, expected.loc)


@pytest.mark.faults("random state disturbed")
def test_predictive_is_reproducible_and_leaves_the_random_state() -> None:
    model, batch = make_model("ManifoldProbMix"), make_batch()
    state = torch.get_rng_state()
    first, again = (model.predictive(batch.x, num_samples=3).log_prob(batch.y) for _ in range(2))
    other = model.predictive(batch.x, num_samples=3, seed=1).log_prob(batch.y)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    from_state = model.predictive(batch.x, num_samples=3, seed=None).log_prob(batch.y)
    assert not torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(from_state, first)


@pytest.mark.parametrize("method", METHODS)
def test_absent_labels_are_drawn(method: str) -> None:
    model = make_model(method)
    batch = make_batch()
    y = model(pm.PairBatch(batch.x, None, batch.partner))
    assert y.shape == (6,)
    samples = Predictive(model, num_samples=4)(pm.PairBatch(batch.x, None, batch.partner))
    assert samples["y"].shape == (4, 6)


def test_absent_labels_are_drawn_from_the_fused_predictive() -> None:
    """Eq. 13, for ProbMix at λ = 1/4."""
    model = make_model("ProbMix", coefficient=dist.Delta(torch.tensor(0.25)))
    x = torch.randn(2000, FEATURES, dtype=torch.float64)
    batch = pm.CompleteGraph(2000).pair_batch(x)
    with torch.no_grad():
        p = model.predictive(x)
        partner = dist.Normal(p.loc[batch.partner], p.scale[batch.partner])
        fused = pm.log_linear_pool([p, partner], [0.25, 0.75])
        y = poutine.trace(model).get_trace(batch).nodes["y"]["value"]
    assert scipy.stats.kstest(((y - fused.loc) / fused.scale).numpy(), "norm").pvalue > 1e-6


class SomeMissing(pm.nn.NormalLikelihood):
    """A likelihood that counts some nodes only."""

    def distribution(self, raw: Tensor) -> Any:
        return super().distribution(raw).mask(torch.tensor([True, True, False, True, True, True]))


@pytest.mark.parametrize("method", ["ERM", "Mixup", "ProbMix"])
def test_masked_likelihood(method: str) -> None:
    """An edge counts where both its nodes do, in the loss of Pyro and in the risk."""
    model = getattr(pm, method)(pm.nn.MLP(FEATURES, [5], 2), SomeMissing()).double()
    batch = make_batch()
    batch = pm.PairBatch(batch.x, batch.y, torch.tensor([1, 2, 3, 4, 5, 0]))
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(model, model.guide, batch) / 6
    pyro.set_rng_seed(1)
    torch.testing.assert_close(loss, model.risk(batch), rtol=1e-13, atol=0)
    trace = poutine.trace(model).get_trace(batch)
    trace.compute_log_prob()
    counted = [True, method == "ERM", False, True, True, True]
    assert (trace.nodes["y"]["log_prob"] != 0).tolist() == counted
