"""What exact label expectations gain: the variance of a stochastic gradient, and its cost, beside sampled labels.

Measured by ``pytest tests/benchmarks/test_labels.py --benchmark-enable``, which prints the ratios.
"""

from __future__ import annotations

import time

import pyro
import pytest
import torch

import pyro_probmix as pm

DRAWS = 200
BETAS = (0.01, 0.1, 1.0)


def gradients(model, batch, labels, draws):
    """Stochastic gradients, one a row, and the processor time of one; λ is the same for both kinds of labels."""
    parameters = list(model.parameters())
    rows, start = [], time.process_time()
    for coefficient in draws:
        loss = model.risk(batch, labels=labels, coefficient=coefficient)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(rows), (time.process_time() - start) / len(draws)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("method", ["Mixup", "ProbMix"])
def test_exact_labels_have_the_lower_gradient_variance(method, beta, reported):
    torch.manual_seed(0)
    x = torch.randn(128, 8, dtype=torch.float64)
    y = x[:, 0] + x[:, 1].sin() + 0.3 * torch.randn(128, dtype=torch.float64)
    likelihood = pm.nn.NormalLikelihood()
    network = pm.nn.MLP(8, [32], likelihood.num_outputs)
    model = getattr(pm, method)(network, likelihood, vicinity=pm.NormalVicinity(beta)).double()
    pm.fit(model, (x, y), epochs=100, progress=False)  # where the variance matters: well into a training
    batch = pm.CompleteGraph(128).pair_batch(x, y)
    draws = [model.draw(batch)["coefficient"] for _ in range(DRAWS)]
    with pyro.validation_enabled(False):
        (exact, exact_time), (sampled, sampled_time) = (
            gradients(model, batch, kind, draws) for kind in ("exact", "sample")
        )
    variances = [rows.var(0).sum().item() for rows in (exact, sampled)]
    reported(
        "gradient variance and time, sampled labels over exact ones",
        f"{method}, beta {beta:g}: variance {variances[1] / variances[0]:.2f}, time {sampled_time / exact_time:.2f}",
    )
    assert variances[0] < variances[1]
    # Given λ the exact gradient is the mean of the sampled one: what remains of the difference is noise of ỹ.
    noise = sampled - exact
    assert noise.mean(0).square().sum() < 3 * noise.var(0).sum() / DRAWS
