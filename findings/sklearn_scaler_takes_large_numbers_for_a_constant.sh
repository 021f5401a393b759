#!/usr/bin/env bash
# scikit-learn's StandardScaler takes a column of many large numbers for a constant, and leaves it as it is.
#
# A column counts as constant where its variance is below a bound on the rounding error of the variance, which grows with
# the number of rows and the square of the mean. The variance itself is right all the same: numbers of any size near
# 1e12 are scaled rightly in few rows, and not at all in many. So are times in milliseconds, and identifiers.
#
# Packages: scikit-learn==1.9.1, numpy==2.4.6
# Seen: whole numbers from 1e12 to 1e12 + 39, each equally often, standard deviation 11.54: scale_ is 11.54 in 4,000 rows
# and 1.0 in 200,000, where var_ is 133.25, as it should be. No warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import numpy as np
from sklearn.preprocessing import StandardScaler

for rows, expected in ((4_000, 11.543), (200_000, 1.0)):
    x = 1e12 + np.random.default_rng(0).permutation(rows)[:, None] % 40
    scaler = StandardScaler().fit(x)
    print(f"{rows} rows: scale {scaler.scale_[0]:.3f}, variance {scaler.var_[0]:.2f}; exact {(x - 1e12).std():.3f}")
    assert abs(scaler.scale_[0] - expected) < 0.02
    assert abs(scaler.var_[0] - 133.25) < 0.5
    assert abs((x - 1e12).std() - 11.543) < 0.001
PYTHON
