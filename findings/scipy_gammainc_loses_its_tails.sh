#!/usr/bin/env bash
# SciPy's incomplete gamma function is wrong in the lower tail where the first argument is large, without a warning.
#
# It is so from 4.5 standard deviations below a on, where another formula takes over: presumably a series whose terms
# hardly fall, cut short. The cdf of scipy.stats.gamma is this function. Nearer to a all digits are right.
#
# Packages: scipy==1.17.1, mpmath==1.3.0, numpy==2.4.6
# Seen: gammainc(1e9, 1e9 - 1.5e5), 4.74 standard deviations below, is 2.8e-7; by quadrature in forty digits it is
# 1.05e-6. gammainc(1e6, 1e6 - 5000) is 4e-6 of itself too small. Within 4.4 standard deviations both have 12 digits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scipy==1.17.1 mpmath==1.3.0 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import mpmath
import scipy.special
import scipy.stats

mpmath.mp.dps = 40


def exact(a, x):
    """The share of the density of log t below log x, from both sides of it; t = a exp(s)."""
    start, step = mpmath.log(mpmath.mpf(x) / a), 60 / mpmath.sqrt(a) / 8

    def density(s):
        return mpmath.exp(-a * (mpmath.expm1(s) - s))

    below, above = (
        abs(mpmath.quad(density, [start + sign * step * k for k in range(9)])) for sign in (-1, 1)
    )
    return float(below / (below + above))


for a, x in ((1e9, 1e9 - 1.5e5), (1e6, 1e6 - 5000.0), (1e9, 1e9 - 1.35e5), (1e6, 1e6 - 4300.0)):
    found, expected = float(scipy.special.gammainc(a, x)), exact(a, x)
    print(f"gammainc({a:g}, {x:.0f}): SciPy {found:.6e}, exact {expected:.6e}, relative error {found / expected - 1:.1e}")
    if (a, x) == (1e9, 1e9 - 1.5e5):
        assert abs(expected / float(scipy.stats.norm.cdf(-1.5e5 / a**0.5)) - 1) < 0.01  # as it must be, nearly normal
        assert found / expected < 0.5
    elif (a, x) == (1e6, 1e6 - 5000.0):
        assert 1e-6 < 1 - found / expected < 1e-5
    else:
        assert abs(found / expected - 1) < 1e-10
PYTHON
