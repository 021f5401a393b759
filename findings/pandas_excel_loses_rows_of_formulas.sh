#!/usr/bin/env bash
# Rows of a workbook that hold formulas alone are not there when pandas reads it, if no spreadsheet program has opened it.
#
# openpyxl writes formulas without their values, and reads what has no value as empty; pandas leaves out rows at the end
# that are empty, and reads others as missing. So the sums of a report that a program has written are lost, and rows too.
#
# Packages: pandas==3.1.1, openpyxl==3.1.5, numpy==2.4.6
# Seen: of a column x of the numbers 1 and 2 and the formulas =1+1 and =A2+A3 below them, the frame has two
# rows, those of the numbers; with a formula first it has NaN for it. No error or warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pandas==3.1.1 openpyxl==3.1.5 numpy==2.4.6
cd "$folder"
venv/bin/python -W error - <<'PYTHON'
import openpyxl
import pandas as pd

for cells in ([1, 2, "=1+1", "=A2+A3"], ["=1+1", 1, 2]):
    book = openpyxl.Workbook()
    for cell in ["x", *cells]:
        book.active.append([cell])
    book.save("book.xlsx")
    found = pd.read_excel("book.xlsx")["x"].tolist()
    print(cells, "->", found)
    if cells[0] == 1:
        assert found == [1, 2]
    else:
        assert pd.isna(found[0])
        assert found[1:] == [1, 2]
PYTHON
