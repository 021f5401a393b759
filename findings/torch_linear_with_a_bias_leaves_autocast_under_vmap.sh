#!/usr/bin/env bash
# Under torch.func.vmap, torch.nn.functional.linear with a bias of each model is single precision inside autocast.
#
# Alone it gives bfloat16, and so does vmap without a bias. With one, the batched product is cast down and the bias, in
# single precision, is added behind it, which promotes: a stack of models computes in another precision than each of them,
# layer by layer, and every next layer casts down again. Results differ by about 1e-3, and half of the memory is not saved.
#
# Packages: torch==2.13.0, numpy==2.4.6
# Seen: linear alone bfloat16, with and without a bias; under vmap float32 with a bias, bfloat16 without.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import torch
from torch.func import vmap
from torch.nn.functional import linear

torch.manual_seed(0)
x, weight, bias = torch.randn(3, 7, 5), torch.randn(3, 4, 5), torch.randn(3, 4)
with torch.autocast("cpu", torch.bfloat16):
    alone = [linear(x[0], weight[0], bias[0]).dtype, linear(x[0], weight[0]).dtype]
    stacked = [vmap(linear)(x, weight, bias).dtype, vmap(linear)(x, weight).dtype]
print("alone", alone)
print("under vmap", stacked)
assert alone == [torch.bfloat16, torch.bfloat16]
assert stacked == [torch.float32, torch.bfloat16]
PYTHON
