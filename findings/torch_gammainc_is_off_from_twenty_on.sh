#!/usr/bin/env bash
# PyTorch's incomplete gamma functions have nine digits where the first argument is above 20, fifteen below.
#
# torch.special.gammainc and gammaincc, and so Gamma.cdf and Chi2.cdf, change to an asymptotic series there for x within
# 30 % of a. The error is largest at x = a and falls as the square root of a, as that of one coefficient of it would.
# A distribution function in double precision jumps by it where a parameter crosses 20.
#
# Packages: torch==2.13.0, scipy==1.17.1, mpmath==1.3.0, numpy==2.4.6
# Seen, as the largest difference from SciPy for x from a/2 to 1.6 a: a = 19 2e-16, a = 21 4.0e-10, a = 300 1.1e-10,
# a = 10000 1.8e-11; at a = x = 50 mpmath has 0.518808315472..., as SciPy to 15 digits, PyTorch 2.6e-10 less.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 scipy==1.17.1 mpmath==1.3.0 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import mpmath
import numpy as np
import scipy.special
import torch


def error(a):
    x = np.linspace(0.5 * a, 1.6 * a, 401)
    ours = torch.special.gammainc(torch.tensor(a, dtype=torch.float64), torch.from_numpy(x)).numpy()
    return np.abs(ours - scipy.special.gammainc(a, x)).max()


found = {a: error(a) for a in (10.0, 19.0, 21.0, 300.0, 10_000.0)}
print({a: f"{value:.1e}" for a, value in found.items()})
assert found[10.0] < 1e-14
assert found[19.0] < 1e-14
assert 3e-10 < found[21.0] < 5e-10
assert 0.9e-10 < found[300.0] < 1.2e-10
assert 1e-11 < found[10_000.0] < 3e-11

exact = float(mpmath.gammainc(50, 0, 50, regularized=True))
fifty = torch.tensor(50.0, dtype=torch.float64)
off = float(torch.special.gammainc(fifty, fifty)) - exact
print(f"a = x = 50: exact {exact:.15f}, SciPy off by {scipy.special.gammainc(50, 50) - exact:.1e}, PyTorch by {off:.1e}")
assert abs(scipy.special.gammainc(50, 50) - exact) < 1e-15
assert -3e-10 < off < -2e-10
PYTHON
