#!/usr/bin/env bash
# Copying or pickling an autoguide of Pyro before its first call takes the model away from the original, too.
#
# The method that says what is copied sets the model of the very guide to None. Both guides then fail at their first
# call. What copies modules before training meets it: averages of parameters, ensembles, trainers that keep a copy.
# A guide that has been called once before it is copied works, as does its copy.
#
# Packages: torch==2.13.0, pyro-ppl==1.9.2, numpy==2.4.6
# Seen: AutoNormal, AutoDelta, AutoDiagonalNormal, AutoMultivariateNormal: after copy.deepcopy(guide) and after
# pickle.dumps(guide) guide(y) raises TypeError: 'NoneType' object is not subscriptable; called before, both work.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pyro-ppl==1.9.2 numpy==2.4.6
cat > "$folder/copies.py" <<'PYTHON'
import copy
import pickle

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal

y = torch.zeros(3)


def model(y):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def works(guide):
    try:
        guide(y)
    except TypeError as error:
        assert "'NoneType' object is not subscriptable" in str(error), error
        return False
    return True


for make in (AutoNormal, AutoDelta, AutoDiagonalNormal, AutoMultivariateNormal):
    for how in (copy.deepcopy, pickle.dumps):
        pyro.clear_param_store()
        fresh, called = make(model), make(model)
        called(y)
        how(fresh)
        how(called)
        found = works(fresh), works(called)
        print(f"{make.__name__}, {how.__name__}: copied before the first call works: {found[0]}, after it: {found[1]}")
        assert found == (False, True)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/copies.py"
