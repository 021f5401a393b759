#!/usr/bin/env bash
# With eleven chains or more, ArviZ's from_pyro puts divergences on chains that had none.
#
# It sorts Pyro's "chain 0", "chain 1", ..., "chain 10" as words: "chain 10" comes before "chain 2".
#
# Packages: torch==2.13.0, pyro-ppl==1.9.2, arviz==0.23.4, numpy==2.4.6
# Seen: twelve chains, chain c diverges at draw c alone: sample_stats has chain 2 diverge at draw 10, 3 at 11, 4 at 2 and
# so on. No warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pyro-ppl==1.9.2 arviz==0.23.4 numpy==2.4.6
"$folder/venv/bin/python" -W error -W 'ignore:\nArviZ is undergoing:FutureWarning' - <<'PYTHON'
import warnings

import arviz
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel

CHAINS = 12


def model():
    pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


class Kernel(MCMCKernel):
    """Chain c says that it diverged at draw c."""

    model, transforms, initial_params, chain = staticmethod(model), {}, {"z": torch.zeros(2)}, -1

    def setup(self, warmup_steps):
        Kernel.chain += 1

    def sample(self, params):
        return {"z": torch.randn(2)}

    def diagnostics(self):
        return {"divergences": [Kernel.chain]}


torch.multiprocessing.cpu_count = lambda: 1  # one chain after the other, in this process
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mcmc = MCMC(Kernel(), num_samples=CHAINS, warmup_steps=0, num_chains=CHAINS, disable_progbar=True)
mcmc.run()
said = [mcmc.diagnostics()["divergences"][f"chain {c}"][0] for c in range(CHAINS)]
found = arviz.from_pyro(mcmc).sample_stats["diverging"].values.argmax(1).tolist()
print("Pyro: ", said, "\nArviZ:", found)
assert said == list(range(CHAINS))
assert found == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
PYTHON
