#!/usr/bin/env bash
# ArviZ's from_pyro scores rows that the model masks, by whatever stands in their place.
#
# Its log-likelihood is fn.log_prob(value) of the observed site, without the site's mask, which poutine.mask and
# pyro.sample with a mask set. A row that is missing, and filled with a number, counts with the density of that number.
#
# Packages: torch==2.13.0, pyro-ppl==1.9.2, arviz==0.23.4, numpy==2.4.6
# Seen: three rows of N(m, 1), the third masked and filled with 1000: its mean log-likelihood is -499,500 nats, where
# the model has 0. No warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pyro-ppl==1.9.2 arviz==0.23.4 numpy==2.4.6
"$folder/venv/bin/python" -W error -W 'ignore:\nArviZ is undergoing:FutureWarning' - <<'PYTHON'
import arviz
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS

pyro.set_rng_seed(0)
y, seen = torch.tensor([0.0, 1.0, 1000.0]), torch.tensor([True, True, False])


def model(y):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 3), poutine.mask(mask=seen):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


trace = poutine.trace(model).get_trace(y)
trace.compute_log_prob()
assert trace.nodes["y"]["log_prob"][2] == 0
mcmc = MCMC(NUTS(model), num_samples=50, warmup_steps=50, disable_progbar=True)
mcmc.run(y)
found = arviz.from_pyro(mcmc).log_likelihood["y"].values.mean((0, 1))
print(f"mean log-likelihood of the masked row: {found[2]:,.0f} nats; in the model 0")
assert found[2] < -400_000
PYTHON
