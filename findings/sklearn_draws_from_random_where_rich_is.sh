#!/usr/bin/env bash
# Importing scikit-learn draws from Python's global random numbers where rich is installed, and not where it is not.
#
# scikit-learn imports rich for its progress bars when it is there, and rich numbers its styles from
# random.getrandbits at import. A program that seeds `random` and imports scikit-learn late, inside a function, draws
# other numbers than the same program in an environment without rich.
#
# Packages: scikit-learn==1.9.1, rich==15.0.0, numpy==2.4.6, scipy==1.17.1
# Seen: after random.seed(0) and an import of sklearn.neighbors, random.random() is 0.8444218515250481 without rich and
# another number with it. No warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
cat > "$folder/draw.py" <<'PYTHON'
import random

random.seed(0)
import sklearn.neighbors

print(random.random())
PYTHON
without=$("$folder/venv/bin/python" -W error "$folder/draw.py")
"$folder/venv/bin/pip" install --quiet rich==15.0.0
with=$("$folder/venv/bin/python" -W error "$folder/draw.py")
echo "without rich: $without"
echo "with rich:    $with"
[ "$without" = 0.8444218515250481 ]
[ "$with" != "$without" ]
