"""The command: what it prints and writes, and every mistake as one line and exit code 2."""

from __future__ import annotations

import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pyro_probmix import models
from pyro_probmix.cli import REPRODUCTIONS, app
from pyro_probmix.datasets import DATA_VARIABLE, NAMES, UCI
from pyro_probmix.estimators import LIKELIHOODS
from pyro_probmix.experiments import ABLATIONS, CALIBRATION, METHODS, PICTURES, TABLES
from pyro_probmix.reports import REPORT

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--splits", "2", "--epochs", "2", "--methods", "erm,local_probmix,manifold_probmix", "--jobs", "1"]


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_compare_prints_a_table_and_says_where_the_files_are(tmp_path):
    done = run("compare", "toy-regression", *QUICK, "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "NLL (nats)" in done.stdout
    assert "Manifold ProbMix" in done.stdout
    for name in ("results.json", "figure.png"):
        assert str(tmp_path / name) in done.stdout
        assert (tmp_path / name).is_file()


def test_the_default_is_the_toy_regression_in_the_folder_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("compare", *QUICK).exit_code == 0
    found = json.loads((tmp_path / "results" / "toy-regression" / "results.json").read_text())
    assert found["dataset"] == "toy-regression"


def test_options_reach_the_settings(tmp_path):
    options = {
        "alpha": 0.5,
        "beta": 0.1,
        "batch-size": 32,
        "learning-rate": 0.001,
        "num-neighbors": 3,
        "seed": 7,
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    assert run("compare", "iris", *QUICK, *flags, "--out", str(tmp_path)).exit_code == 0
    settings = json.loads((tmp_path / "results.json").read_text())["settings"]
    for name, value in options.items():
        assert settings[name.replace("-", "_")] == value


def test_a_table_of_ones_own(tmp_path):
    rows = [f"{i},{'ab'[i % 2]},{7 * i % 40}" for i in range(40)]
    (tmp_path / "my.csv").write_text("\n".join(["size,kind,price", *rows]))
    done = run("compare", str(tmp_path / "my.csv"), "--target", "price", *QUICK, "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "results.json").read_text())["settings"]["features"] == 3


def test_real_data_from_a_folder(data_dir, tmp_path):
    done = run("compare", "yacht", "--data", str(data_dir), *QUICK, "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "results.json").read_text())["methods"]["erm"]["rmse"]) == 2


MISTAKES = {
    "data of a toy": (["toy-regression", "--data", "x"], ["data: expected none for toy-regression", "got x"]),
    "data set": (["toy-regresion"], ['got "toy-regresion"', *NAMES]),
    "method": (["--methods", "erm,mixop"], ["methods: expected some of", "got mixop", *METHODS]),
    "data folder": (
        ["yacht", "--data", "nowhere"],
        ["nowhere", "uci/yacht/data.txt", "https://", DATA_VARIABLE],
    ),
    "csv": (["nowhere.csv", "--target", "y"], ["nowhere.csv: expected a file, got none"]),
    "target": (["my.csv"], ["--target"]),
    "alpha": (["--alpha", "0"], ["alpha: expected a number in (0, inf), got 0"]),
    "beta": (["--beta", "-1"], ["beta: expected a number in [0, inf), got -1"]),
    "neighbours": (["--num-neighbors", "100"], ["--num-neighbors: expected fewer than the 80 training rows, got 100"]),
    "splits": (["--splits", "0"], ["splits: expected an integer >= 1, got 0"]),
    "epochs": (["--epochs", "0"], ["epochs: expected an integer >= 1, got 0"]),
    "jobs": (["--jobs", "0"], ["jobs: expected an integer >= 1, got 0"]),
    "seed": (["--seed", "-1"], ["seed: expected an integer >= 0, got -1"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected = MISTAKES[mistake]
    done = run("compare", *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert all(text in done.stderr for text in expected)
    assert not list(tmp_path.iterdir())


def test_reproduce_prints_ours_beside_the_papers_and_resumes(data_dir, tmp_path):
    quick = ["--splits", "2", "--epochs", "2", "--out", str(tmp_path)]
    arguments = ["table1", "--data", str(data_dir), "--datasets", "yacht", "--methods", "erm,probmix", *quick]
    done, again = run("reproduce", *arguments), run("reproduce", *arguments)
    assert done.exit_code == again.exit_code == 0, done.output
    assert "(0.44)" in done.stdout
    assert "at or below the paper's" in done.stdout
    for name in ("uci_paper.json", "table1.md", "table1.png"):
        assert str(tmp_path / name) in done.stdout
        assert (tmp_path / name).is_file()
    assert again.stderr.count("(kept)") == 2
    done = run("reproduce", "ablation-classification", "--methods", "erm", *quick)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "ablation-classification.json").is_file()


def test_reproduce_shows_calibration(data_dir, tmp_path):
    quick = ["--splits", "2", "--epochs", "2", "--jobs", "1", "--out", str(tmp_path)]
    chosen = ["--data", str(data_dir), "--datasets", "breast-cancer,bostonHousing", "--methods", "erm,erm_ensemble"]
    done = run("reproduce", "calibration", *chosen, *quick)
    assert done.exit_code == 0, done.output
    for text in ("isotonic", "temperature", "ERM × 5", "is lower after variance scaling", "calibration.png"):
        assert text in done.stdout
    assert (tmp_path / "calibration.json").is_file()


REPRODUCTION_MISTAKES = {
    "name": (["table9"], ["name: expected one of", *REPRODUCTIONS, 'got "table9"']),
    "data folder": (["table1", "--data", "nowhere"], ["nowhere", "uci/bostonHousing/data.txt"]),
    "data set": (["table1", "--datasets", "boston"], ["datasets: expected some of", "got boston", *UCI]),
    "data sets of an ablation": (
        ["ablation-regression", "--datasets", "yacht"],
        ["datasets: expected none for ablation-regression, got yacht"],
    ),
    "method": (["table3", "--methods", "mixop"], ["methods: expected some of", "got mixop", *METHODS]),
    "column": (
        ["ablation-regression", "--methods", "manifold_probmix_separate_variance"],
        ["methods: expected some of", "got man"],
    ),
    "methods of a figure": (["figure2", "--methods", "probmix"], ["methods: expected none for figure2, got probmix"]),
    "protocol": (["table3", "--protocol", "best"], ['protocol: expected one of "paper", "tuned", got "best"']),
    "compilation of a figure": (["figure2", "--compile"], ["compile: expected none for figure2, got True"]),
    "device of a figure": (["figure3", "--device", "abacus"], ["device: expected none for figure3, got abacus"]),
    "data of an ablation": (
        ["ablation-regression", "--data", "x"],
        ["data: expected none for ablation-regression, got x"],
    ),
    "protocol of calibration": (
        ["calibration", "--protocol", "tuned"],
        ["protocol: expected none for calibration, got tuned"],
    ),
    "data sets of calibration": (["calibration", "--datasets", "yacht"], ["datasets: expected some of bostonHousing"]),
    "protocol of a figure": (["figure2", "--protocol", "tuned"], ["protocol: expected none for figure2, got tuned"]),
    "device": (["ablation-regression", "--device", "abacus"], ["device: expected one that is here", "'abacus'"]),
    "epochs": (["figure2", "--epochs", "0"], ["epochs: expected an integer >= 1, got 0"]),
    "jobs": (["ablation-regression", "--jobs", "0"], ["jobs: expected an integer >= 1, got 0"]),
    "compiler": (["ablation-regression", "--compile"], ["compile: expected the C++ compiler no-such-compiler"]),
}


@pytest.mark.parametrize("mistake", REPRODUCTION_MISTAKES)
def test_a_mistake_in_reproduce_is_one_line_and_exit_code_2(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    arguments, expected = REPRODUCTION_MISTAKES[mistake]
    done = run("reproduce", *arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert all(text in done.stderr for text in expected)
    assert not list(tmp_path.iterdir())


def test_the_sub_command_is_needed():
    assert run("toy-regression").exit_code == 2
    assert "compare" in run("--help").stdout


NAMED = {
    "compare": [f"One of {', '.join(NAMES)}, or the path of a table", f"default all: {', '.join(METHODS)}."],
    "evaluate": [f"Folder for scores.json and {REPORT}, "],
    "fit": [f"{', '.join(models.METHODS)} or a plugin's.", f"Of numbers {', '.join(LIKELIHOODS)} or auto;"],
    "reproduce": [f"One of {', '.join([*TABLES, *ABLATIONS, CALIBRATION.name, *PICTURES])}."],
}


@pytest.mark.parametrize("command", NAMED)
def test_help_names_what_there_is(command):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).stdout
    shown = "".join(shown.replace("│", " ").split())
    assert all(text.replace(" ", "") in shown for text in NAMED[command])


def test_version():
    assert run("--version").stdout.startswith("pyro-probmix ")
    left = run("--version", "compare", "nowhere")
    assert (left.exit_code, left.stdout.count("\n"), left.stderr) == (0, 1, "")


def spawn(*arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "pyro_probmix.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, **options)


@pytest.mark.slow
def test_a_process_of_its_own_with_two_workers_finds_the_same_numbers(tmp_path):
    process = spawn("compare", *QUICK[:-1], "2", "--out", "two", cwd=tmp_path)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert run("compare", *QUICK, "--out", str(tmp_path / "one")).stdout.replace(str(tmp_path / "one"), "two") == output
    two, one = ((tmp_path / folder / "results.json").read_text() for folder in ("two", "one"))
    assert two == one


@pytest.mark.parametrize("package", ["typer", "rich", "matplotlib"])
def test_a_missing_extra_is_named(package, monkeypatch, capsys):
    for name in list(sys.modules):
        if name.startswith(("pyro_probmix.experiments", "pyro_probmix.cli")):
            monkeypatch.delitem(sys.modules, name)
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys, "argv", ["pyro-probmix", "compare"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("pyro_probmix.cli", run_name="__main__")
    assert caught.value.code == 2
    expected = f'error: the command needs {package}: pip install "pyro-probmix[tables]"\n'
    assert capsys.readouterr().err == expected


def wait_for(condition, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


LONG: dict[str, tuple[list[str], Callable[[Path], int]]] = {
    "compare": (
        ["--splits", "20", "--epochs", "600"],
        lambda folder: sum(
            found["nll"] != [None] * 20
            for found in json.loads((folder / "results.json").read_text())["methods"].values()
        ),
    ),
    "reproduce": (
        ["ablation-regression", "--splits", "4", "--epochs", "200"],
        lambda folder: len(list((folder / "cells").glob("*/*/*.json"))),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("command", LONG)
def test_an_end_before_its_time_keeps_finished_cells_and_leaves_no_process(command, signal_sent, tmp_path):
    options, count = LONG[command]
    # Where the tests are started with interrupts ignored, as behind nohup, the command would inherit that.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options = [*options, "--jobs", "2", "--out", str(tmp_path)]
    process = spawn(command, *options, start_new_session=True, preexec_fn=heed)
    wait_for(lambda: any(tmp_path.glob("*.json")) and count(tmp_path) > 0)
    process.send_signal(signal_sent)
    _, errors = process.communicate(timeout=60)
    wait_for(lambda: not alive(process.pid), 30.0)
    assert 1 <= count(tmp_path) < (11 if command == "compare" else 90)
    if signal_sent is signal.SIGINT:
        assert process.returncode == 130
        assert "stopped; finished cells are kept" in errors
        assert not any(word in errors for word in ("Traceback", "Warning")), errors
