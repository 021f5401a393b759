#!/usr/bin/env bash
# A messenger guide of Pyro that is called inside a function takes the likelihood out of the ELBO.
#
# SVI(model, guide) with guide = AutoNormalMessenger(model) knows such a guide and takes the observed sites for the
# model's. SVI(model, lambda y: guide(y)), the usual way to adapt arguments, does not: the run of the guide records the
# observed sites as its own, and their log-probability is subtracted. The parameters are then fitted to the prior.
# poutine.block(function, hide=[names of the observed sites]) mends it.
#
# Packages: torch==2.13.0, pyro-ppl==1.9.2, numpy==2.4.6
# Seen: 50 values about 3, prior N(0, 1): the loss is 310 for the guide, 1.8 for the function around it, 311 with the
# observed site hidden. A UserWarning "Found non-auxiliary vars in guide but not model" names the observed site.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pyro-ppl==1.9.2 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormalMessenger

torch.manual_seed(0)
y = torch.randn(50) + 3


def model(y):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


guide = AutoNormalMessenger(model)
ways = {
    "itself": guide,
    "in a function": lambda y: guide(y),
    "in a function, y hidden": poutine.block(lambda y: guide(y), hide=["y"]),
}
guide(y)  # its parameters are made by the first call
losses = {}
for name, way in ways.items():
    pyro.set_rng_seed(1)
    losses[name] = Trace_ELBO(num_particles=100).loss(model, way, y)
print({name: round(loss, 1) for name, loss in losses.items()})
assert losses["itself"] > 250
assert abs(losses["in a function"]) < 20
assert losses["in a function, y hidden"] > 250
PYTHON
