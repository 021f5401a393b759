#!/usr/bin/env bash
# A category of numbers comes back from a Parquet file as numbers; one of text comes back as a category.
#
# Codes of towns or of treatments are then quantities for whatever reads the file. pandas' own notes in the file name the
# type of the column "categorical" all the same.
#
# Packages: pandas==3.1.1, pyarrow==26.0.1, numpy==2.4.6
# Seen: categories of the integers 10, 20, 30 and of the floats 0.5, 1.5 are int64 and float64 when they are read back,
# their order and an unused category lost; those of text are a category with both. No warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PYTHON'
import json

import pandas as pd
import pyarrow.parquet

categories = {"town": [10, 20, 30], "dose": [0.5, 1.5, 2.5], "grade": ["c", "b", "a"]}
table = pd.DataFrame(
    {name: pd.Categorical([levels[0], levels[1], levels[0]], levels, ordered=True) for name, levels in categories.items()}
)
table.to_parquet("table.parquet")
back = pd.read_parquet("table.parquet")
print({name: (str(table[name].dtype), str(back[name].dtype)) for name in table})
notes = json.loads(pyarrow.parquet.read_schema("table.parquet").metadata[b"pandas"])
said = {column["name"]: column["pandas_type"] for column in notes["columns"]}
print("noted in the file:", said)
assert all(str(table[name].dtype) == "category" for name in table)
assert (back["town"].dtype, back["dose"].dtype) == ("int64", "float64")
assert str(back["grade"].dtype) == "category"
assert list(back["grade"].cat.categories) == ["c", "b", "a"]
assert back["grade"].cat.ordered
assert set(said.values()) == {"categorical"}
PYTHON
