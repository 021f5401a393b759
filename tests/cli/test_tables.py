"""A model of a table by the command: what it says is what Python says, and what is wrong is one line."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pyro_probmix as pm
from pyro_probmix.cli import app
from pyro_probmix.datasets import load_table
from pyro_probmix.persistence import read_settings
from pyro_probmix.tables import TableWarning

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--epochs", "3", "--hidden-features", "8,4", "--num-samples", "7"]
SAME = {"epochs": 3, "hidden_features": (8, 4), "num_samples": 7, "random_state": 0}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments):
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    return found


def quietly(*arguments, **options):
    """A table, whose oddities other tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        return load_table(*arguments, **options)


def homes(rows: int = 80) -> pd.DataFrame:
    """Numbers, categories, dates, missing cells, and text that is numbers."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "listing": [f"L{i:03d}" for i in range(rows)],
            "area": rng.uniform(30, 150, rows).round(1),
            "town": rng.choice(["Bonn", "Köln", "Trier"], rows),
            "sold": pd.date_range("2024-01-03", periods=rows, freq="3D").strftime("%Y-%m-%d"),
            "balcony": rng.choice(["yes", "no"], rows),
        }
    )
    price = 2000 * frame["area"] + rng.normal(0, 9000, rows)
    frame["price"] = [f"{value:,.2f}" for value in price]
    frame["speed"] = np.where(price > 200_000, "slow", np.where(price > 150_000, "usual", "quick"))
    frame.loc[[3, 9], "area"] = np.nan
    return frame


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with rows of training and new ones, and a model of either kind."""
    folder = tmp_path_factory.mktemp("place") / "homes"
    folder.mkdir()
    frame = homes()
    frame[:60].to_csv(folder / "homes.csv", index=False)
    frame[60:].to_csv(folder / "sold.csv", index=False)
    frame[60:].drop(columns=["price", "speed"]).assign(agent="x").to_csv(folder / "new.csv", index=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        common = ["--id", "listing", *QUICK]
        done("fit", "homes.csv", "--target", "price", "--drop", "speed", "--out", "numbers", *common)
        done("fit", "homes.csv", "--target", "speed", "--drop", "price", "--out", "classes", *common)
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def test_predictions_are_those_of_python_to_the_last_bit(tmp_path):
    said = done("predict", "numbers", "new.csv", "--out", tmp_path / "a.csv", "--id", "listing", "--interval", "0.9")
    found = pd.read_csv(tmp_path / "a.csv", dtype=str)
    table = quietly("homes.csv", "price", ids=["listing"], drop=["speed"])
    model = pm.ProbMixRegressor(**SAME).fit(table.features, table.target)
    rows = quietly("new.csv", preparation=model.preparation_).features
    mean, std = model.predict(rows, return_std=True)
    expected = [mean, std, *model.predict_quantiles(rows, [0.05, 0.5, 0.95]).T, *model.predict_interval(rows, 0.9).T]
    names = ["mean", "std", "q05", "q50", "q95", "lower90", "upper90"]
    assert list(found.columns) == ["listing", *names]
    assert 'note: columns that training did not have are ignored: "agent"' in said.stderr
    assert found["listing"].tolist() == homes()["listing"][60:].tolist()
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_array_equal([float(cell) for cell in found[name]], values)


def test_probabilities_are_those_of_python_to_the_last_bit(tmp_path):
    done("predict", "classes", "new.csv", "--out", tmp_path / "a.parquet")
    found = pd.read_parquet(tmp_path / "a.parquet")
    model = pm.load("classes")
    rows = quietly("new.csv", preparation=model.preparation_).features
    assert list(found.columns) == ["listing", "class", "p[quick]", "p[slow]", "p[usual]"]
    np.testing.assert_array_equal(found.iloc[:, 2:], model.predict_proba(rows))
    assert found["class"].tolist() == model.predict(rows).tolist()


def test_levels_and_shares_name_their_columns(tmp_path):
    options = ["--quantiles", "0.001,0.5,0.975", "--interval", "0.5", "--interval", "0.995"]
    done("predict", "numbers", "new.csv", "--out", tmp_path / "deep" / "a.csv.gz", *options)
    columns = list(pd.read_csv(tmp_path / "deep" / "a.csv.gz").columns)
    assert columns[1:] == ["mean", "std", "q00.1", "q50", "q97.5", "lower50", "upper50", "lower99.5", "upper99.5"]


def test_rows_that_are_odd_are_predicted_and_said(tmp_path):
    frame = homes()[60:].drop(columns=["price", "speed", "listing"])
    frame = frame[frame.columns[::-1]].assign(town=["Ulm", *frame["town"][1:]], area=["big", *frame["area"][1:]])
    frame.to_csv(tmp_path / "odd.csv", index=False)
    found = done("predict", "numbers", tmp_path / "odd.csv", "--out", tmp_path / "a.csv")
    assert 'note: "town": levels that training did not have: 1 cell (row 2: "Ulm")' in found.stderr
    assert '"area"' in found.stderr
    assert '"big"' in found.stderr
    assert len(pd.read_csv(tmp_path / "a.csv")) == 20


def test_a_title_above_the_names_is_skipped(tmp_path):
    titled = tmp_path / "titled.csv"
    titled.write_text("Homes sold\n" + Path("sold.csv").read_text())
    done("predict", "numbers", titled, "--skip-rows", 1, "--out", tmp_path / "titled.parquet")
    done("predict", "numbers", "sold.csv", "--out", tmp_path / "plain.parquet")
    found, plain = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("titled", "plain"))
    np.testing.assert_array_equal(found["mean"], plain["mean"])
    scored = [
        json.loads(done("evaluate", "numbers", *rest, "--json").stdout)["scores"]
        for rest in ([titled, "--skip-rows", 1], ["sold.csv"])
    ]
    assert scored[0] == scored[1]


def test_scores_are_those_of_python(tmp_path):
    for name, target in (("numbers", "price"), ("classes", "speed")):
        found = done("evaluate", name, "sold.csv", "--out", tmp_path / name, "--json")
        told = json.loads(found.stdout)
        assert json.loads((tmp_path / name / "scores.json").read_text()) == told
        report = (tmp_path / name / "report.html").read_text()
        assert f"{target} of sold.csv" in report
        model = pm.load(name)
        table = quietly("sold.csv", target, preparation=model.preparation_)
        y = np.searchsorted(model.classes_, table.target) if name == "classes" else table.target
        names = ["nll", "crps", "rmse", "coverage@0.9"] if name == "numbers" else None
        assert told["scores"] == pytest.approx(pm.evaluate(model.predict_distribution(table.features), y, names))
    found = done("evaluate", "numbers", "sold.csv", "--metrics", "coverage@0.8,mae")
    assert "coverage at 0.8" in found.stdout
    assert "NLL" not in found.stdout


def test_what_was_set_aside_in_training_is_not_said_to_be_new(tmp_path):
    found = done("evaluate", "numbers", "sold.csv")
    assert "ignored" not in found.stderr
    found = done("predict", "numbers", "sold.csv", "--out", tmp_path / "a.csv")
    assert 'note: the target "price" is not used' in found.stderr
    assert "ignored" not in found.stderr


def test_a_fit_is_told_as_json_and_remembers_its_target(tmp_path):
    options = ["--num-members", "2", "--method", "probmix", "--likelihood", "auto"]
    options += ["--fusion", "numerical", "--seed", "3"]
    found = done("fit", "homes.csv", "--target", "price", "--out", tmp_path / "m", "--json", *QUICK, *options)
    told = json.loads(found.stdout)
    assert told["rows"] == 60
    assert len(told["epochs"]) == 2
    settings = read_settings(tmp_path / "m")
    assert settings["about"]["targets"] == ["price"]
    assert settings["fitted"]["params"]["random_state"] == 3
    assert told["likelihood"] == pm.load(tmp_path / "m").likelihood_


def test_a_column_that_training_dropped_is_not_needed(tmp_path):
    arguments = ["--target", "price", "--drop", "speed", "--out", tmp_path / "m", *QUICK]
    assert 'columns dropped: "listing"' in done("fit", "homes.csv", *arguments).stderr
    frame = homes()[60:]
    for name, rows in (("all", frame), ("without", frame.drop(columns=["listing", "price", "speed"]))):
        rows.to_csv(tmp_path / "new.csv", index=False)
        done("predict", tmp_path / "m", tmp_path / "new.csv", "--out", tmp_path / f"{name}.csv")
    assert (tmp_path / "all.csv").read_text() == (tmp_path / "without.csv").read_text()


def test_the_order_of_labels_is_that_of_the_kind_of_the_target(tmp_path):
    order = ["--kind", "speed=quick < usual < slow", "--likelihood", "ordinal", "--method", "erm"]
    done("fit", "homes.csv", "--target", "speed", "--drop", "price", "--out", tmp_path / "m", *order, *QUICK)
    assert pm.load(tmp_path / "m").classes_.tolist() == ["quick", "usual", "slow"]
    done("predict", tmp_path / "m", "sold.csv", "--out", tmp_path / "a.csv")
    assert list(pd.read_csv(tmp_path / "a.csv").columns) == ["class", "p[quick]", "p[usual]", "p[slow]"]
    scores = json.loads(done("evaluate", tmp_path / "m", "sold.csv", "--json").stdout)["scores"]
    assert 0 <= scores["accuracy"] <= 1


def test_tables_without_names_and_with_several_targets(tmp_path):
    rng = np.random.default_rng(1)
    pd.DataFrame(rng.normal(size=(40, 4))).to_csv(tmp_path / "t.csv", index=False, header=False, sep=";", decimal=",")
    reading = ["--no-header", "--sep", ";", "--decimal", ","]
    targets = ["--target", "-1", "--target", "column 1"]
    done("fit", tmp_path / "t.csv", *targets, "--out", tmp_path / "m", "--method", "erm", *QUICK, *reading)
    done("predict", tmp_path / "m", tmp_path / "t.csv", "--out", tmp_path / "a.csv", *reading, "--quantiles", "0.5")
    columns = list(pd.read_csv(tmp_path / "a.csv").columns)
    names = [f"{name}[{target}]" for target in ("column 4", "column 1") for name in ("mean", "std", "q50")]
    assert columns == names
    assert (
        "nll" in json.loads(done("evaluate", tmp_path / "m", tmp_path / "t.csv", *reading, "--json").stdout)["scores"]
    )


def test_compare_reads_a_table_as_fit_does(tmp_path):
    quick = ["--splits", "2", "--epochs", "2", "--methods", "erm,probmix", "--jobs", "1", "--out", tmp_path]
    options = ["--target", "price", "--drop", "speed", "--id", "listing", "--kind", "balcony=category"]
    found = done("compare", "homes.csv", *options, *quick, "--json")
    assert set(json.loads(found.stdout)["methods"]) == {"erm", "probmix"}
    assert "note: " in found.stderr
    assert "thousands separators" in (tmp_path / "report.html").read_text()


MISTAKES = {
    "no table": ("fit nowhere.csv --target y --out m", ["nowhere.csv: expected a file, got none"]),
    "no target": ("fit homes.csv --target cost --out m", ["target: expected a column of homes.csv", '"cost"']),
    "method": ("fit homes.csv --target price --out m --method mixop", ["method: expected one of", "mixop"]),
    "likelihood": (
        "fit homes.csv --target price --out m --likelihood cauchy",
        ["likelihood: expected one of", "cauchy"],
    ),
    "fusion": (
        "fit homes.csv --target price --out m --method probmix --likelihood student_t",
        ["likelihood: expected a family that is closed", "StudentT"],
    ),
    "class weight": ("fit homes.csv --target price --out m --class-weight balanced", ["--class-weight: expected none"]),
    "widths": (
        "fit homes.csv --target price --out m --hidden-features 8;4",
        ["--hidden-features: expected numbers with commas"],
    ),
    "half a width": (
        "fit homes.csv --target price --out m --hidden-features 8.5",
        ["--hidden-features: expected whole numbers"],
    ),
    "kind": ("fit homes.csv --target price --out m --kind town", ["--kind: expected NAME=KIND"]),
    "device": ("fit homes.csv --target price --out m --device abacus", ["device: expected one that is here"]),
    "epochs": ("fit homes.csv --target price --out m --epochs 0", ["epochs: expected an integer >= 1, got 0"]),
    "seed": ("fit homes.csv --target price --out m --seed -1", ["seed: expected an integer >= 0, got -1"]),
    "a model is there": (
        "fit homes.csv --target price --out numbers",
        ["numbers: expected a new folder", "; --overwrite"],
    ),
    "a file is there": ("fit homes.csv --target price --out new.csv --overwrite", ["new.csv: expected a new folder"]),
    "no model": ("predict nowhere new.csv --out a.csv", ["nowhere: expected the folder of a model, got none"]),
    "a file": ("predict new.csv new.csv --out a.csv", ["new.csv: expected the folder of a model, got a file"]),
    "suffix": ("predict numbers new.csv --out a.xls", ["out: expected a file that ends in .csv"]),
    "levels": (
        "predict numbers new.csv --out a.csv --quantiles 5,95",
        ["--quantiles: expected a number in (0, 1), got 5; write 0.05 for 5 %"],
    ),
    "a share in percent": (
        "predict numbers new.csv --out a.csv --interval 90",
        ["--interval: expected a number in (0, 1), got 90; write 0.9 for 90 %"],
    ),
    "the table as the file": (
        "predict numbers new.csv --out ../homes/new.csv --overwrite",
        ["--out: expected another file than the table, got ../homes/new.csv"],
    ),
    "a file in the model": (
        "predict numbers new.csv --out numbers/a.csv",
        ["--out: expected a place outside of the model numbers, got numbers/a.csv"],
    ),
    "scores in the model": (
        "evaluate numbers sold.csv --out numbers",
        ["--out: expected a place outside of the model"],
    ),
    "predictions are there": ("predict numbers new.csv --out sold.csv", ["--out: expected a new file", "--overwrite"]),
    "a folder is there": ("predict numbers new.csv --out d.csv", ["--out: expected a file, got the folder d.csv"]),
    "below a file": (
        "predict numbers new.csv --out sold.csv/a.csv",
        ["--out: expected a place that can be written to, got sold.csv/a.csv (sold.csv: not a directory)"],
    ),
    "a model below a file": (
        "fit homes.csv --target price --out sold.csv/m",
        ["--out: expected a place that can be written to, got sold.csv/m (", "sold.csv: not a directory)"],
    ),
    "a comparison below a file": (
        "compare iris --methods erm --out sold.csv",
        ["--out: expected a place that can be written to, got sold.csv (sold.csv: not a directory)"],
    ),
    "levels of classes": ("predict classes new.csv --out a.csv --interval 0.9", ["expected none for classes"]),
    "level twice": ("predict numbers new.csv --out a.csv --quantiles 0.5,0.5", ["expected distinct ones"]),
    "no id": ("predict numbers new.csv --out a.csv --id name", ["--id: expected a column of new.csv", '"name"']),
    "no column": ("predict numbers bare.csv --out a.csv", ["bare.csv: expected the columns of training", '"town"']),
    "metric": ("evaluate numbers sold.csv --metrics nnl", ["metrics: expected one of", "nnl"]),
    "no metric": ("evaluate numbers sold.csv --metrics ,", ["metrics: expected names"]),
    "another class": (
        "evaluate classes other.csv --out s",
        ['other.csv: "speed": expected the classes of training', "never"],
    ),
    "no labels": ("evaluate numbers new.csv --out s", ["target: expected a column of new.csv", '"price"']),
    "options of no table": ("compare iris --sep ;", ["sep: expected none for iris, which is no table"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(mistake, place):
    command, expected = MISTAKES[mistake]
    homes()[60:][["area", "balcony", "sold"]].to_csv("bare.csv", index=False)
    homes()[60:].assign(speed="never").to_csv("other.csv", index=False)
    Path("d.csv").mkdir(exist_ok=True)
    before = sorted(path.name for path in place.rglob("*"))
    found = run(*command.split())
    lines = [line for line in found.stderr.splitlines() if not line.startswith("note: ")]
    assert (found.exit_code, found.stdout, len(lines)) == (2, "", 1), found.output
    assert lines[0].startswith("error: ")
    assert all(text in lines[0] for text in expected)
    assert sorted(path.name for path in place.rglob("*")) == before


def test_another_model_is_no_estimator(tmp_path):
    pm.save(pm.ERM(pm.nn.MLP(3, [4], 2), pm.nn.NormalLikelihood()), tmp_path / "m")
    found = run("predict", tmp_path / "m", "new.csv", "--out", tmp_path / "a.csv")
    assert found.exit_code == 2
    assert "expected an estimator, as fit saves it, got a ERM" in found.stderr


def test_a_folder_that_tells_nonsense_is_refused(tmp_path):
    estimator = pm.load("numbers")
    for about in ({"targets": 3}, {"set_aside": [["x"]]}):
        pm.save(estimator, tmp_path / "m", about=about, overwrite=True)
        for command in (
            ["predict", tmp_path / "m", "new.csv", "--out", "a.csv"],
            ["evaluate", tmp_path / "m", "sold.csv"],
        ):
            found = run(*command)
            assert (found.exit_code, found.stdout) == (2, "")
            assert "expected names of columns as" in found.stderr


def test_predictions_are_replaced_when_that_is_asked_for(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    done("predict", "numbers", "new.csv", "--out", tmp_path / "a.csv", "--overwrite")
    assert len(pd.read_csv(tmp_path / "a.csv")) == 20


def test_a_model_is_replaced_when_that_is_asked_for(tmp_path):
    for seed in ("1", "2"):
        arguments = ["--target", "price", "--out", tmp_path / "m", "--overwrite", "--seed", seed, *QUICK]
        done("fit", "homes.csv", *arguments)
        assert pm.load(tmp_path / "m").random_state == int(seed)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow
def test_a_model_of_a_plugin_is_known_with_the_plugin(tmp_path):
    plugin = ["--plugin", str(ROOT / "tests" / "extending" / "second_layer.py")]

    def spawned(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "pyro_probmix.cli", *arguments]
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )

    model, out = str(tmp_path / "m"), str(tmp_path / "a.csv")
    table = ["homes.csv", "--target", "price", "--drop", "speed", "--id", "listing"]
    fitted = spawned("fit", *table, "--out", model, "--method", "second_layer", *QUICK, *plugin)
    assert fitted.returncode == 0, fitted.stderr
    without = spawned("predict", model, "new.csv", "--out", out)
    assert without.returncode == 2
    assert "second_layer" in without.stderr
    assert "Traceback" not in without.stderr
    assert not Path(out).exists()
    assert spawned("predict", model, "new.csv", "--out", out, *plugin).returncode == 0
    assert len(pd.read_csv(out)) == 20


@pytest.mark.slow
def test_an_interrupted_fit_leaves_nothing(tmp_path):
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options = [
        "--target",
        "price",
        "--out",
        str(tmp_path / "deep" / "m"),
        "--epochs",
        "1000000",
        "--patience",
        "1000000",
    ]
    command = [sys.executable, "-m", "pyro_probmix.cli", "fit", "homes.csv", *options]
    pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)
    for line in process.stderr:
        if "columns dropped" in line:  # which is said when training begins
            break
    for _ in range(3):  # one that comes in a destructor is lost, to Python
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, errors = process.communicate(timeout=30)
            break
    assert (process.returncode, output) == (130, ""), errors
    assert errors.splitlines()[-1] == "stopped; no model is written"
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["", "fit", "predict", "evaluate", "compare", "reproduce"])
def test_help_is_readable_at_80_columns(command):
    found = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert found.exit_code == 0
    assert max(len(line) for line in found.stdout.splitlines()) <= 80
    assert "…│" not in found.stdout.replace(" ", "")
