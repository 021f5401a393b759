"""Protocol *tuned*: its columns, its settings and its tables."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from pyro_probmix.datasets import UCI
from pyro_probmix.experiments import TUNED_TABLES, reproduce
from pyro_probmix.experiments.paper.protocols import TUNED, tuned_settings
from pyro_probmix.experiments.settings import LARGE, Candidate

FAST, LAZY = Candidate(0.05, 64, 0.1, 1e-5), Candidate(1e-9, 128, 0.5, 0.1)
QUICK = {
    "protocol": "tuned",
    "splits": 2,
    "epochs": 4,
    "validation_every": 2,
    "num_samples": 3,
    "hidden_features": (8, 4),
    "members": 3,
    "refit": False,
    "ema_decay": None,
    "progress": False,
}


def run(data_dir, out, methods=("manifold_probmix", "ensemble"), candidates=(LAZY, FAST), **options):
    options = {**QUICK, "datasets": ["yacht"], "methods": methods, "candidates": candidates, **options}
    return reproduce("table1", data_dir, out=out, **options)[1]["yacht"]


def test_every_column_end_to_end(data_dir, tmp_path):
    cells = run(data_dir, tmp_path, methods=tuple(TUNED))
    assert list(cells) == list(TUNED)
    for found in cells.values():
        assert list(found) == ["nll", "crps", "rmse", "candidate"]
        assert all(len(values) == 2 for values in found.values())
        assert found["candidate"] == [1, 1]  # the other has learnt nothing
    written = json.loads((tmp_path / "uci_tuned.json").read_text())
    assert written["cells"]["yacht"] == cells
    assert written["settings"]["protocol"] == "tuned"
    assert written["settings"]["datasets"]["yacht"]["candidates"][1]["learning_rate"] == 0.05
    assert "| yacht |" in (tmp_path / "table1-tuned.md").read_text()
    assert (tmp_path / "table1-tuned.png").read_bytes().startswith(b"\x89PNG")
    assert not np.allclose(cells["ensemble"]["nll"], cells["local_ensemble"]["nll"])


def test_an_ensemble_needs_its_single_model(data_dir, tmp_path):
    with pytest.raises(
        ValueError, match="methods: expected manifold_probmix with or before ensemble, got none of it on yacht"
    ):
        run(data_dir, tmp_path, methods=("ensemble",))


@pytest.mark.parametrize(
    ("name", "protocol", "message"),
    [
        ("table1", "best", 'protocol: expected one of "paper", "tuned", got "best"'),
        ("table2", "tuned", "protocol: expected paper for table2, got tuned, which is for table1 and table3 alone"),
    ],
)
def test_bad_protocols(name, protocol, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        reproduce(name, protocol=protocol, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dataset", UCI)
def test_the_budget_is_that_of_the_protocol(dataset):
    """At most 12 settings, no two alike; those of ERM, which has no α and β, hardly either."""
    settings = tuned_settings(dataset)
    assert len(set(settings.candidates)) == len(settings.candidates)
    assert len({(c.learning_rate, c.batch_size) for c in settings.candidates}) >= len(settings.candidates) - 2
    first = tuned_settings("kin8nm" if UCI[dataset].rows > LARGE else "yacht")
    assert len({*first.candidates, *settings.candidates}) <= 12, "a second search counts with the first"
    assert (settings.splits, settings.members, settings.hidden_features) == (20, 5, (128, 32))


def test_claims_and_tables():
    def cell(nll):
        return {"nll": [nll - 0.1, nll + 0.1], "rmse": [0.08, 0.09], "candidate": [0, 1]}

    cells = {
        "yacht": {"erm": cell(0.3), "mixup": cell(0.5), "manifold_probmix": cell(-0.1),
                  "local_manifold_probmix": cell(0.2), "ensemble": cell(0.1)},
        "kin8nm": {"erm": cell(-1.3), "mixup": cell(-1.0), "manifold_probmix": cell(-1.1),
                   "local_manifold_probmix": cell(-1.2), "ensemble": cell(-1.24)},
        "energy": {"erm": cell(0.1)},
    }  # fmt: skip
    table = TUNED_TABLES["table1"]
    paper, simple, published = table.claims(cells)
    assert (paper.holds, paper.fails) == (("yacht", "kin8nm"), ())
    assert (simple.holds, simple.fails) == (("yacht",), ("kin8nm",))
    assert (published.holds, published.fails) == (("yacht",), ("kin8nm",))
    text = table.markdown(cells, "Notes.").partition("Our best mean")[0]
    rows = {line.split(" | ")[0]: line for line in text.splitlines()}
    assert rows["| yacht"].split(" | ")[3] == "**-0.10 ± 0.14**"
    assert rows["| yacht"].endswith("| not run | 0.26 | 1.18 | 1.25 | 0.16 | 0.20 | 1.03 |")
    assert rows["| concrete"].count("not run") == len(TUNED)
    assert len(TUNED_TABLES["table3"].claims(cells)) == 2
    assert "| kin8nm (× 100) | **8.50 ± 0.71** |" in TUNED_TABLES["table3"].markdown(cells, "")
    console = Console(record=True, width=80, force_terminal=True, file=io.StringIO())
    for panel in table.terminal(cells):
        console.print(panel)
    shown = console.export_text(styles=True)
    assert "\x1b[1m-0.10\x1b[0m" in shown
    assert "…" not in shown


@pytest.mark.parametrize("name", ["learning_rate", "batch_size", "alpha", "beta"])
def test_what_is_chosen_cannot_be_changed(name, data_dir, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: expected no change in protocol tuned, which chooses it"):
        reproduce("table1", data_dir, protocol="tuned", out=tmp_path / "out", **{name: 3})
    assert not (tmp_path / "out").exists()
