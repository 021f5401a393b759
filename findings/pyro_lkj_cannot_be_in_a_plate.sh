#!/usr/bin/env bash
# LKJ of Pyro, the law of correlation matrices, raises inside any plate; LKJCholesky, that of their factors, does not.
#
# LKJ is built on LKJCholesky without an expand of its own, and a plate expands whatever is sampled in it.
#
# Packages: torch==2.13.0, pyro-ppl==1.9.2, numpy==2.4.6
# Seen: NotImplementedError: Subclass LKJ of LKJCholesky that defines a custom __init__ method must also define a custom
# .expand() method. With LKJCholesky the sample is of shape (4, 3, 3).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pyro-ppl==1.9.2 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import pyro
import pyro.distributions as dist
import torch


def model(law):
    with pyro.plate("groups", 4):
        return pyro.sample("correlations", law(3, torch.tensor(1.0)))


factors = model(dist.LKJCholesky)
print("LKJCholesky:", tuple(factors.shape))
assert factors.shape == (4, 3, 3)
try:
    model(dist.LKJ)
except NotImplementedError as error:
    print("LKJ:", error)
    assert "must also define a custom .expand() method" in str(error)
else:
    raise SystemExit("LKJ works in a plate now")
PYTHON
