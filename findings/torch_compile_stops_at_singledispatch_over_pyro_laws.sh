#!/usr/bin/env bash
# torch.compile cannot follow a functools.singledispatch function once a distribution of Pyro is registered with it.
#
# Pyro's distributions have a metaclass derived from ABCMeta, and with such a class in its registry singledispatch asks
# for the cache token of abstract classes at every call, a built-in that Dynamo does not know. With PyTorch's class of
# the same name registered, the same call is one graph. A table of rules looked up along type(p).__mro__ is followed.
#
# Packages: torch==2.13.0, pyro-ppl==1.9.1, numpy==2.4.6
# Seen: "Unsupported: ... Dynamo does not know how to trace the Python builtin `_abc.get_cache_token`"; with PyTorch's
# Normal registered, the result.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pyro-ppl==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import functools

import pyro.distributions as dist
import torch


def compiled(law):
    @functools.singledispatch
    def rule(p, x):
        return x

    rule.register(law, lambda p, x: x + p.loc)
    shift = torch.tensor(2.0)

    def function(x):
        return rule(law(shift, 1.0, validate_args=False), x)

    assert function(torch.ones(1)).item() == 3.0
    return torch.compile(function, fullgraph=True, backend="eager")(torch.ones(1)).item()


print("PyTorch's Normal", compiled(torch.distributions.Normal))
try:
    compiled(dist.Normal)
except torch._dynamo.exc.Unsupported as error:
    print("Pyro's Normal:", str(error)[:160])
    assert "get_cache_token" in str(error)
else:
    raise AssertionError("torch.compile follows it now")
PYTHON
