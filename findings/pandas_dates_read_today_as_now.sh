#!/usr/bin/env bash
# pandas reads the words "today" and "now" as the moment of the call, whatever format it is told and though it is to coerce.
#
# A cell of a column of dates that says "today" becomes another date in each run, down to the microsecond, where any
# other word becomes NaT. Neither format= nor errors="coerce" or "raise" keeps it from that.
#
# Packages: pandas==3.1.1, numpy==2.4.6
# Seen: to_datetime(Series(["today", "now", "tomorrow"]), format="%d.%m.%Y", errors="coerce") gives the current time twice, and
# NaT; with errors="raise", "today" is no error. No warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pandas==3.1.1 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import pandas

before = pandas.Timestamp.now()
found = pandas.to_datetime(pandas.Series(["today", "now", "tomorrow"]), format="%d.%m.%Y", errors="coerce")
raised = pandas.to_datetime(pandas.Series(["today"]), format="%d.%m.%Y", errors="raise")
after = pandas.Timestamp.now()
print(pandas.__version__, found.tolist(), raised.tolist(), sep="\n")
day = pandas.Timedelta(days=1)  # "now" may be of another time zone
for cell in (found[0], found[1], raised[0]):
    assert before - day < cell < after + day
assert pandas.isna(found[2])
PYTHON
