"""ArviZ's leave-one-out of an export is leave-one-out, and its comparisons, checks and plots work with it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import arviz
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

import pyro_probmix as pm

matplotlib.use("agg")

ARVIZ_1 = int(arviz.__version__.partition(".")[0]) > 0
NOISE, SPREAD, DRAWS = 0.5, 2.0, 20_000
ROWS = 40


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(ROWS, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(ROWS, generator=generator, dtype=torch.float64)
    return x, x @ torch.tensor([1.5, -0.7]).double() + NOISE * noise


def posterior(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of w given y = x w + NOISE ε, w ~ N(0, SPREAD²)."""
    covariance = (x.mT @ x / NOISE**2 + torch.eye(x.shape[1]).double() / SPREAD**2).inverse()
    return covariance @ x.mT @ y / NOISE**2, covariance


def left_out(x: Tensor, y: Tensor) -> float:
    """The sum of log p(y_i | the other rows), each from a posterior of its own."""
    total = 0.0
    for i in range(len(x)):
        others = torch.arange(len(x)) != i
        mean, covariance = posterior(x[others], y[others])
        total += float(dist.Normal(x[i] @ mean, (NOISE**2 + x[i] @ covariance @ x[i]).sqrt()).log_prob(y[i]))
    return total


def model(x: Tensor, y: Tensor | None = None) -> Tensor:
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]).double(), SPREAD).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, NOISE), obs=y)


class Exact(MCMCKernel):
    """Draws the weights from their posterior, one independently of the other."""

    def __init__(self, model: Any) -> None:
        self.model, self.transforms = model, {}

    def setup(self, warmup_steps: int, x: Tensor, y: Tensor) -> None:
        self.law = dist.MultivariateNormal(*posterior(x, y))
        self._initial_params = {"w": self.law.mean}

    @property
    def initial_params(self) -> dict[str, Tensor]:
        return self._initial_params

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        self._initial_params = params

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"w": self.law.sample()}


def by_mcmc() -> Any:
    mcmc = MCMC(Exact(model), num_samples=DRAWS, warmup_steps=0, disable_progbar=True)
    mcmc.run(*data())
    return pm.to_inference_data(mcmc)


def by_svi() -> Any:
    guide, steps = AutoMultivariateNormal(model, init_scale=0.1), 600
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 1e-3 ** (1 / steps)}), Trace_ELBO())
    x, y = data()
    with pyro.validation_enabled(False):
        for _ in range(steps):
            svi.step(x, y)
    return pm.to_inference_data(model, guide=guide, args=(x, y), num_samples=DRAWS)


def ready_model() -> Any:
    """The same regression under mixing, of which λ = 1 leaves nothing."""
    layer = pyro.nn.PyroModule[torch.nn.Linear](2, 1, bias=False)
    prior = dist.Normal(torch.zeros(1, 2).double(), SPREAD).to_event(2)
    layer.weight = pyro.nn.PyroSample(prior)
    likelihood = pm.nn.NormalLikelihood(scale=NOISE).double()
    ready = pm.ProbMix(layer, likelihood, coefficient=dist.Delta(torch.tensor(1.0).double()))
    x, y = data()
    mean, covariance = posterior(x, y)

    def exact(batch: Any) -> None:
        w = pyro.sample("w", dist.MultivariateNormal(mean, covariance), infer={"is_auxiliary": True})
        pyro.sample("decoder.weight", dist.Delta(w.unsqueeze(0), event_dim=2))

    return pm.to_inference_data(ready, guide=ready.guide_for(lambda _: exact), args=(x, y), num_samples=DRAWS)


def given_draws(x: Tensor, y: Tensor, num_samples: int = 1000) -> Any:
    """An export of exact draws, by way of a guide."""
    law = dist.MultivariateNormal(*posterior(x, y))
    return pm.to_inference_data(model, guide=lambda x, y: pyro.sample("w", law), args=(x, y), num_samples=num_samples)


def elpd(found: Any) -> float:
    return float(found.elpd if ARVIZ_1 else found.elpd_loo)


@pytest.mark.parametrize("export", [by_mcmc, by_svi, ready_model], ids=lambda export: export.__name__)
def test_leave_one_out_is_that_of_the_conjugate_posterior(export: Any) -> None:
    idata = export()
    found = arviz.loo(idata, pointwise=True)
    assert elpd(found) == pytest.approx(left_out(*data()), abs=0.1)
    assert float(found.pareto_k.max()) < 0.7
    mean, covariance = posterior(*data())
    (weights,) = idata.posterior.data_vars.values()
    draws = torch.as_tensor(weights.values).reshape(DRAWS, 2)
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0.1, atol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pandas and Matplotlib, in ArviZ 0.23
def test_models_are_compared() -> None:
    x, y = data()
    table = arviz.compare({"both": given_draws(x, y), "first": given_draws(x[:, :1], y)})
    assert list(table.index) == ["both", "first"]
    assert float(table["elpd" if ARVIZ_1 else "elpd_loo"]["both"]) == pytest.approx(left_out(x, y), abs=0.6)
    assert abs(float(table["elpd_diff"]["first"])) > 10


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_checks_are_drawn() -> None:
    idata = given_draws(*data())
    arviz.plot_loo_pit(idata, **({} if ARVIZ_1 else {"y": "y"}))
    assert plt.gcf().axes[0].lines
    plt.close("all")
    arviz.plot_ppc_dist(idata) if ARVIZ_1 else arviz.plot_ppc(idata, num_pp_samples=20)
    lines = plt.gcf().axes[0].lines
    assert len(lines) > 20
    plt.close("all")


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    x, y = data()
    written = given_draws(x, y, 50)
    written.to_netcdf(tmp_path / "idata.nc")
    with warnings.catch_warnings():  # to which xarray adds a filter
        read = arviz.from_netcdf(tmp_path / "idata.nc")
    groups = ("posterior", "posterior_predictive", "log_likelihood", "log_prior", "observed_data")
    for group in groups:
        assert getattr(read, group).identical(getattr(written, group))


def counts(y: Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_pit_of_counts_is_centred() -> None:
    """They are exported as integers; of floats ArviZ 0.23 has a PIT of mean 0.63."""
    y = torch.poisson(torch.full((400,), 2.0), generator=torch.Generator().manual_seed(0))

    def exact(y: Tensor) -> None:
        pyro.sample("rate", dist.Gamma(2 + y.sum(), 1.0 + len(y)))

    idata = pm.to_inference_data(counts, guide=exact, args=(y,), num_samples=1000)
    assert idata.posterior_predictive["y"].dtype == idata.observed_data["y"].dtype == np.int64
    pit = arviz.loo_pit(idata)["y"].values if ARVIZ_1 else arviz.loo_pit(idata, y="y")
    assert float(np.mean(pit)) == pytest.approx(0.5, abs=0.05)
