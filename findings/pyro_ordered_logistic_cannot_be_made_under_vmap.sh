#!/usr/bin/env bash
# Pyro's OrderedLogistic cannot be made under torch.func.vmap over its cutpoints, as other laws of Pyro can.
#
# Its constructor subtracts into a tensor of zeros in place, which vmap refuses where what is subtracted is mapped over
# and the zeros are not. So stacked models, each with cutpoints of its own, cannot have it as their likelihood. The
# Categorical of the same probabilities, made out of place, can be mapped over.
#
# Packages: torch==2.13.0, pyro-ppl==1.9.1, numpy==2.4.6
# Seen: "RuntimeError: vmap: inplace arithmetic(self, *extra_args) is not possible because there exists a Tensor `other`
# in extra_args that has more elements than `self`"; the Categorical has the log-probabilities of OrderedLogistic made
# one by one, -0.790 and -0.929.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pyro-ppl==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import pyro.distributions as dist
import torch
from torch.func import vmap
from torch.nn.functional import pad

cutpoints, predictor = torch.tensor([[-1.0, 1.0], [0.0, 2.0]]), torch.tensor([0.3, 0.1])
label = torch.tensor(1)


def ordered(c, p):
    return dist.OrderedLogistic(p, c).log_prob(label)


def categorical(c, p):
    below = torch.sigmoid(c - p)
    return dist.Categorical(pad(below, (0, 1), value=1.0) - pad(below, (1, 0))).log_prob(label)


one_by_one = torch.stack([ordered(c, p) for c, p in zip(cutpoints, predictor)])
print("one by one", one_by_one.tolist())
print("Categorical under vmap", vmap(categorical)(cutpoints, predictor).tolist())
torch.testing.assert_close(vmap(categorical)(cutpoints, predictor), one_by_one)
try:
    vmap(ordered)(cutpoints, predictor)
except RuntimeError as error:
    print("OrderedLogistic under vmap:", str(error)[:140])
    assert "inplace arithmetic" in str(error)
else:
    raise AssertionError("OrderedLogistic can be mapped over now")
PYTHON
