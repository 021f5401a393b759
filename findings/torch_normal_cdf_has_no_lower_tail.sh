#!/usr/bin/env bash
# PyTorch's Normal cdf is zero from 8.3 standard deviations below the mean on, in double precision; SciPy's is not.
#
# torch.special.ndtr and Normal.cdf are (1 + erf) / 2, which has no digits left where erf is near -1:
# torch.special.log_ndtr is exact. Who takes the logarithm of a cdf, or the ratio of two, as for censored or truncated
# laws, gets -inf or nan for points that are merely unlikely.
#
# Packages: torch==2.13.0, scipy==1.17.1, numpy==2.4.6
# Seen: at -8 6.106e-16 (SciPy 6.221e-16), at -8.25 5.55e-17 (7.92e-17), at -8.5 0 (9.48e-18), at -20 0 (2.75e-89); the
# exponential of log_ndtr agrees with SciPy to 13 digits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import scipy.stats
import torch

points = torch.tensor([-6.0, -8.0, -8.25, -8.5, -20.0], dtype=torch.float64)
exact = torch.from_numpy(scipy.stats.norm.cdf(points.numpy()))
normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
ways = {
    "torch.special.ndtr": torch.special.ndtr(points),
    "Normal.cdf": normal.cdf(points),
    "exp of log_ndtr": torch.special.log_ndtr(points).exp(),
}
for name, values in ways.items():
    print(name, [f"{value:.3e}" for value in values.tolist()])
print("SciPy", [f"{value:.3e}" for value in exact.tolist()])
for name in ("torch.special.ndtr", "Normal.cdf"):
    error = (ways[name] / exact - 1).abs()
    assert error[0] < 1e-8
    assert 0.01 < error[1] < 0.03
    assert ways[name][3:].tolist() == [0.0, 0.0]
assert ((ways["exp of log_ndtr"] / exact - 1).abs() < 1e-12).all()
PYTHON
