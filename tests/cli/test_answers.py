"""What the command answers beside its files: notes of a table, the terminal, and JSON."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pyro_probmix.cli import app

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--method", "erm", "--epochs", "2", "--hidden-features", "4"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments):
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a table of counts, grades and large numbers, separated by tabs, and a model of the numbers."""
    folder = tmp_path_factory.mktemp("answers")
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 60)
    frame = pd.DataFrame({"flat": [f"F{i:02d}" for i in range(60)], "x": x, "visits": rng.poisson(1 + 3 * x)})
    frame["grade"] = np.where(x > 0.5, 3, np.where(x > 0.2, 2, 1))
    frame["cost"] = 9e4 * x + rng.normal(0, 1e4, 60)
    frame.to_csv(folder / "flats.tsv", index=False, sep="\t")
    frame[:1].to_csv(folder / "one.tsv", index=False, sep="\t")
    frame[["x"]].to_csv(folder / "bare.csv", index=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        done("fit", "flats.tsv", "--target", "cost", *SET_ASIDE, "--out", "costs", *QUICK)
    return folder


SET_ASIDE = ["--id", "flat", "--drop", "visits", "--drop", "grade"]


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def test_columns_that_name_rows_are_remembered(tmp_path):
    said = done("predict", "costs", "flats.tsv", "--out", tmp_path / "a.csv").stderr
    assert list(pd.read_csv(tmp_path / "a.csv").columns) == ["flat", "mean", "std", "q05", "q50", "q95"]
    assert "ignored" not in said
    assert said.count('note: the target "cost" is not used') == 1
    done("predict", "costs", "bare.csv", "--out", tmp_path / "b.csv")
    assert pd.read_csv(tmp_path / "b.csv").columns[0] == "mean"
    done("predict", "costs", "flats.tsv", "--out", tmp_path / "c.csv", "--id", "cost")
    assert list(pd.read_csv(tmp_path / "c.csv").columns)[:2] == ["cost", "mean"]


def test_a_likelihood_tells_the_task(tmp_path):
    grades = ["fit", "flats.tsv", "--target", "grade", "--id", "flat", "--out", tmp_path / "m", *QUICK]
    told = json.loads(done(*grades, "--likelihood", "ordinal", "--json").stdout)
    assert (told["task"], told["likelihood"]) == ("classification", "ordinal")
    found = run(*grades, "--likelihood", "gamma", "--task", "classification", "--overwrite")
    assert found.stderr == "error: --likelihood: expected one of a classification, got gamma, of a regression\n"
    found = run(*grades, "--likelihood", "ordinal", "--task", "regression", "--overwrite")
    assert found.stderr == "error: --likelihood: expected one of a regression, got ordinal, of a classification\n"


def test_counts_are_said_where_no_likelihood_is_chosen(tmp_path):
    fit = ["fit", "flats.tsv", "--id", "flat", "--out", tmp_path / "m", *QUICK, "--overwrite"]
    told = done(*fit, "--target", "visits", "--json")
    note = [note for note in json.loads(told.stdout)["notes"] if "counts" in note]
    assert note == ["the target is counts 0…8; --likelihood auto chooses among the likelihoods of counts"]
    assert f"note: {note[0]}" in told.stderr
    assert "counts" not in done(*fit, "--target", "visits", "--likelihood", "normal").stderr
    assert "counts" not in done(*fit, "--target", "cost").stderr


def test_json_has_the_notes(tmp_path):
    for command in (
        ["fit", "flats.tsv", "--target", "cost", *SET_ASIDE, "--out", tmp_path / "m", *QUICK],
        ["predict", "costs", "flats.tsv", "--out", tmp_path / "a.csv"],
        ["evaluate", "costs", "one.tsv", "--sep", "tab", "--na", "?"],
    ):
        found = done(*command, "--json")
        said = [line.removeprefix("note: ") for line in found.stderr.splitlines() if line.startswith("note: ")]
        assert json.loads(found.stdout)["notes"] == said


@pytest.mark.parametrize(
    ("command", "unit"),
    [
        (["fit", "flats.tsv", "--target", "cost", *SET_ASIDE, *QUICK], "epoch/s"),
        (["predict", "costs", "flats.tsv"], "row/s"),
    ],
    ids=["fit", "predict"],
)
def test_progress_is_shown_on_a_terminal_alone(command, unit, tmp_path):
    script = shutil.which("script")
    if script is None:
        pytest.skip("the program script is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    given = [sys.executable, "-m", "pyro_probmix.cli", *command, "--out"]
    on_a_terminal = [script, "-qec", shlex.join([*given, str(tmp_path / "a.csv")]), "/dev/null"]
    shown = []
    for words in (on_a_terminal, [*given, str(tmp_path / "b.csv")]):
        found = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        shown.append((found.stdout + found.stderr).decode())
    assert unit in shown[0]
    assert unit not in shown[1]


def test_scores_are_plain_numbers_in_the_table_and_the_report(tmp_path):
    found = done("evaluate", "costs", "flats.tsv", "--out", tmp_path / "s", "--metrics", "nll,mse,rmse")
    report = (tmp_path / "s" / "report.html").read_text()
    scores = json.loads((tmp_path / "s" / "scores.json").read_text())["scores"]
    assert scores["mse"] > 1e8
    for name in ("mse", "rmse"):
        assert f" {scores[name]:.0f} " in found.stdout
        assert f">{scores[name]:.0f}<" in report
    assert "e+0" not in found.stdout
    assert ">tab</td>" in report


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "scores.json").mkdir()
    found = run("evaluate", "costs", "flats.tsv", "--out", tmp_path)
    assert found.exit_code == 2
    assert found.stderr.endswith(f"Is a directory: '{tmp_path / 'scores.json'}'\n")
    assert not list(tmp_path.glob("*.tmp"))


def test_one_row_is_no_rows(tmp_path):
    assert "one.tsv: 1 row " in done("evaluate", "costs", "one.tsv", "--out", tmp_path / "s").stdout
    report = (tmp_path / "s" / "report.html").read_text()
    assert "1 row," in report
    assert not re.search(r"\b1 (rows|columns)\b", report)
    assert "coverage at 0.9" in done("evaluate", "costs", "flats.tsv").stdout
    assert done("predict", "costs", "one.tsv", "--out", tmp_path / "a.csv").stdout.endswith("a.csv, 1 row\n")


def test_what_is_missing_in_training_is_missing_in_new_rows(tmp_path):
    flats = pd.read_csv("flats.tsv", sep="\t")[["x", "cost"]].round(2)
    flats.loc[::7, "x"] = -999
    flats.to_csv(tmp_path / "flats.csv", index=False)
    done("fit", tmp_path / "flats.csv", "--target", "cost", "--na", "-999", "--out", tmp_path / "m", *QUICK)
    means = []
    for cells in ("-999\n0.5\n", "\n0.5\n", "-999\n"):
        (tmp_path / "new.csv").write_text("x,y\n" + cells.replace("\n", ",1\n"))
        done("predict", tmp_path / "m", tmp_path / "new.csv", "--out", tmp_path / "p.csv", "--overwrite")
        means.append(pd.read_csv(tmp_path / "p.csv")["mean"][0])
    assert means[0] == means[1] == means[2]
    assert json.loads(done("evaluate", tmp_path / "m", tmp_path / "flats.csv", "--json").stdout)["rows"] == 60


@pytest.mark.parametrize("kind", [[], ["--kind", "code=category"], ["--kind", "code=3 < 7 < 11"]])
def test_classes_that_look_like_numbers_stay_names(kind, tmp_path):
    x = np.linspace(0, 1, 60)
    codes = np.array(["3", "7", "11"] if kind else ["03", "7", "11"])[(3 * x - 1e-9).astype(int)]
    frame = pd.DataFrame({"x": x, "code": codes})
    frame.to_csv(tmp_path / "all.csv", index=False)
    frame[codes == "11"].to_csv(tmp_path / "some.csv", index=False)  # read alone, they are numbers
    done("fit", tmp_path / "all.csv", "--target", "code", "--out", tmp_path / "m", *QUICK, *kind)
    both = [
        json.loads(done("evaluate", tmp_path / "m", tmp_path / name, "--json").stdout)
        for name in ("all.csv", "some.csv")
    ]
    assert [told["rows"] for told in both] == [60, int((codes == "11").sum())]


def test_classes_that_are_no_whole_numbers_are_as_they_are_written(tmp_path):
    pd.DataFrame({"x": np.arange(60) % 7, "stars": np.arange(60) % 5 / 2}).to_csv(tmp_path / "t.csv", index=False)
    done("fit", tmp_path / "t.csv", "--target", "stars", "--task", "classification", "--out", tmp_path / "m", *QUICK)
    done("predict", tmp_path / "m", tmp_path / "t.csv", "--out", tmp_path / "p.csv")
    assert list(pd.read_csv(tmp_path / "p.csv").columns) == ["class", *(f"p[{stars}]" for stars in np.arange(5) / 2)]
    assert "accuracy" in done("evaluate", tmp_path / "m", tmp_path / "t.csv").stdout


def test_a_feature_may_name_the_rows_and_a_known_level_end_them(tmp_path):
    frame = pd.DataFrame({"kind": ["total", "mean", "other"] * 20, "x": np.arange(60.0), "y": np.arange(60) % 11})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame[:1].to_csv(tmp_path / "one.csv", index=False)
    done("fit", tmp_path / "t.csv", "--target", "y", "--out", tmp_path / "m", *QUICK)
    for name in ("t", "one"):
        done("predict", tmp_path / "m", tmp_path / f"{name}.csv", "--id", "kind", "--out", tmp_path / f"p_{name}.csv")
    every, one = pd.read_csv(tmp_path / "p_t.csv"), pd.read_csv(tmp_path / "p_one.csv")
    assert every["kind"].tolist() == frame["kind"].tolist()
    pd.testing.assert_frame_equal(every[:1], one)
    found = run("evaluate", tmp_path / "m", tmp_path / "t.csv", "--target", "x")
    assert (found.exit_code, "--target: expected a column that is no feature" in found.stderr) == (2, True)


def test_what_a_model_does_not_take_is_named_by_table_column_and_row(tmp_path):
    flats = pd.read_csv("flats.tsv", sep="\t")[["x", "cost"]].abs()
    flats.loc[5, "cost"] = -1
    flats.to_csv(tmp_path / "t.csv", index=False)
    found = run("fit", tmp_path / "t.csv", "--target", "cost", "--likelihood", "gamma", "--out", tmp_path / "m", *QUICK)
    assert found.exit_code == 2
    said = 'error: t.csv: "cost": expected positive numbers for likelihood "gamma", got others in 1 of 60 rows (row 7)'
    assert said in found.stderr
    flats.assign(cost=np.where(flats["x"] > 0.5, "b", "a")).to_csv(tmp_path / "t.csv", index=False)
    done("fit", tmp_path / "t.csv", "--target", "cost", "--out", tmp_path / "m", *QUICK)
    flats.assign(cost=["a"] * 59 + ["c"]).to_csv(tmp_path / "t.csv", index=False)
    said = "t.csv: \"cost\": expected the classes of training, 'a', 'b', got others, as 'c', in 1 of 60 rows (row 61)"
    assert said in run("evaluate", tmp_path / "m", tmp_path / "t.csv").stderr
    found = run("fit", tmp_path / "t.csv", "--target", "cost", "--kind", "x=boolean", "--out", tmp_path / "n", *QUICK)
    assert "error: t.csv: --kind: expected two words such as yes and no" in found.stderr


def test_targets_of_new_rows_are_of_the_kind_of_training(tmp_path):
    flats = pd.read_csv("flats.tsv", sep="\t")[["x", "cost"]].assign(rent=lambda own: own["cost"] / 100)
    flats.to_csv(tmp_path / "t.csv", index=False)
    both = ["--target", "cost", "--target", "rent"]
    done("fit", tmp_path / "t.csv", *both, "--out", tmp_path / "m", *QUICK)
    scores = [
        json.loads(done("evaluate", tmp_path / "m", tmp_path / "t.csv", "--json", *order).stdout)["scores"]
        for order in ([], both, [*both[2:], *both[:2]])
    ]
    assert scores[0] == scores[1] == scores[2]
    found = run("evaluate", tmp_path / "m", tmp_path / "t.csv", "--target", "rent")
    assert "error: --target: expected a column for each of cost, rent, got ['rent']" in found.stderr
    flats.assign(rent="t").to_csv(tmp_path / "t.csv", index=False)  # a word for true
    found = run("evaluate", tmp_path / "m", tmp_path / "t.csv")
    assert (found.exit_code, 'expected numbers in "rent", got 60 cells (row 2: "t"' in found.stderr) == (2, True)


def test_a_report_that_cannot_be_written_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyro_probmix.reports.estimator_report", full)
    found = run("evaluate", "costs", "flats.tsv", "--out", tmp_path / "new")
    assert (found.exit_code, "No space left" in found.stderr, (tmp_path / "new").exists()) == (2, True, False)


def test_names_of_tables_may_have_brackets(tmp_path):
    shutil.copy("flats.tsv", tmp_path / "[bold]flats[red].tsv")
    said = done("evaluate", "costs", tmp_path / "[bold]flats[red].tsv").stdout
    assert "[bold]flats[red].tsv: 60 rows" in " ".join(said.split())


def test_predictions_that_are_no_numbers_are_said_by_row(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=60), "y": np.exp(rng.normal(size=60))})
    frame.to_csv(tmp_path / "t.csv", index=False)
    done("fit", tmp_path / "t.csv", "--target", "y", "--likelihood", "lognormal", "--out", tmp_path / "m", *QUICK)
    frame.assign(x=np.where(np.arange(60) == 5, 1e9, frame["x"])).to_csv(tmp_path / "t.csv", index=False)
    said = done("predict", tmp_path / "m", tmp_path / "t.csv", "--out", tmp_path / "p.csv").stderr
    assert "note: predictions are infinite or none in 1 of 60 rows (row 7)" in said


def test_the_order_of_labels_is_asked_for_and_known_by_the_clean_name(tmp_path):
    x = np.arange(60) % 7
    frame = pd.DataFrame({"x": x, "how  big": np.array(["S", "M", "L"])[x // 3]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    fit = ["fit", tmp_path / "t.csv", "--target", "how big", "--likelihood", "ordinal", "--out", tmp_path / "m", *QUICK]
    said = 'error: --kind: expected the order of the labels of how big, such as "how big=S < M < L", got none'
    assert said in run(*fit).stderr
    done(*fit, "--kind", "how  big=L < M < S")
    done("predict", tmp_path / "m", tmp_path / "t.csv", "--out", tmp_path / "p.csv")
    assert list(pd.read_csv(tmp_path / "p.csv").columns) == ["class", "p[L]", "p[M]", "p[S]"]
