#!/usr/bin/env bash
# The log-density of stacked transforms is one number for each entry of a vector, where it should be one number.
#
# StackTransform says of its domain that it is of vectors, but its log-Jacobian is not summed over them (pytorch #121220
# has the shape). TransformedDistribution trusts the first: its log_prob has the entries as one more batch dimension, each
# number lacks the Jacobians of the other entries, and a sum over them counts the base's density once an entry. Where the
# number of entries is that of the rows the shape looks right. CatTransform of the same transforms is right.
#
# Packages: torch==2.13.0, numpy==2.4.6
# Seen: two standard Normals, (exp y1, 2 y2) at (3, 1): two numbers, -3.665 and -3.259, of which the density is neither
# (-4.358 by CatTransform and by hand); for a batch of two rows a (2, 2) table instead of two numbers; no error, no warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.distributions import Independent, LogNormal, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, CatTransform, ExpTransform, StackTransform

print("torch", torch.__version__)


def base(*batch):
    return Independent(Normal(torch.zeros(*batch, 2), 1.0), 1)


parts = [ExpTransform(), AffineTransform(0.0, 2.0)]
y = torch.tensor([3.0, 1.0])
right = LogNormal(0.0, 1.0).log_prob(y[0]) + Normal(0.0, 2.0).log_prob(y[1])
joined = TransformedDistribution(base(), [CatTransform(parts, dim=-1, lengths=[1, 1])])
stacked = TransformedDistribution(base(), [StackTransform(parts, dim=-1)])
print("by hand:", right, "CatTransform:", joined.log_prob(y))
found = stacked.log_prob(y)
print("batch shape:", tuple(stacked.batch_shape), "StackTransform:", found)
assert stacked.batch_shape == () and stacked.event_shape == (2,)
assert joined.log_prob(y).shape == () and (joined.log_prob(y) - right).abs() < 1e-5
assert found.shape == (2,) and (found - right).abs().min() > 0.5
rows = TransformedDistribution(base(2), [StackTransform(parts, dim=-1)])
print("two rows:", rows.log_prob(y.expand(2, 2)))
assert rows.log_prob(y.expand(2, 2)).shape == (2, 2)
PYTHON
