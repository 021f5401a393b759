#!/usr/bin/env bash
# A Multinomial of PyTorch that has been expanded has no entropy, and every plate of Pyro expands.
#
# Multinomial.expand makes an instance without the Binomial that entropy() asks for. pyro.plate expands what is sampled
# in it, so that an entropy taken from a site of a trace fails where that of the distribution as it was written works.
#
# Packages: torch==2.13.0, pyro-ppl==1.9.2, numpy==2.4.6
# Seen: three draws of two even classes: entropy 1.2555; after expand([4]), and in the trace of a plate of size 4,
# AttributeError: 'Multinomial' object has no attribute '_binomial'.
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

plain = torch.distributions.Multinomial(3, logits=torch.zeros(2))
print("as written:", plain.entropy())
assert abs(plain.entropy().item() - 1.2555) < 1e-3


def model():
    with pyro.plate("rows", 4):
        pyro.sample("counts", dist.Multinomial(3, logits=torch.zeros(2)))


expanded = {
    "expanded": plain.expand([4]),
    "in a plate": poutine.trace(model).get_trace().nodes["counts"]["fn"],
}
for name, p in expanded.items():
    try:
        p.entropy()
    except AttributeError as error:
        print(f"{name}: {error}")
        assert "_binomial" in str(error)
    else:
        raise SystemExit(f"{name}: has an entropy now")
PYTHON
