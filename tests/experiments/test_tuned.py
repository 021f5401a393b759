"""Protocol *tuned*: validation rows choose, test rows are looked at once, and members hold back different rows."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from pyro_probmix.datasets import UCI, load_uci
from pyro_probmix.experiments import TUNED_TABLES, reproduce
from pyro_probmix.experiments import tuned as module
from pyro_probmix.experiments.protocol import LARGE, make_split
from pyro_probmix.experiments.store import Compute, PaperSettings, train_cell
from pyro_probmix.experiments.tuned import TUNED, Candidate, tuned_settings

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
        assert list(found) == ["nll", "rmse", "candidate"]
        assert all(len(values) == 2 for values in found.values())
        assert found["candidate"] == [1, 1]  # the other has learnt nothing
    written = json.loads((tmp_path / "uci_tuned.json").read_text())
    assert written["cells"]["yacht"] == cells
    assert written["settings"]["protocol"] == "tuned"
    assert written["settings"]["datasets"]["yacht"]["candidates"][1]["learning_rate"] == 0.05
    assert "| yacht |" in (tmp_path / "table1-tuned.md").read_text()
    assert (tmp_path / "table1-tuned.png").read_bytes().startswith(b"\x89PNG")
    assert not np.allclose(cells["ensemble"]["nll"], cells["local_ensemble"]["nll"])


def test_test_rows_choose_nothing(data_dir, tmp_path, monkeypatch):
    candidates = (FAST, replace(FAST, learning_rate=0.03), replace(FAST, batch_size=32))
    cells = run(data_dir, tmp_path / "one", candidates=candidates, splits=6)

    def spoil(*arguments):
        split = make_split(*arguments)
        split.test[1].mul_(-3.0)
        return split

    monkeypatch.setattr(module, "make_split", spoil)
    spoilt = run(data_dir, tmp_path / "other", candidates=candidates, splits=6)
    assert len(set(cells["manifold_probmix"]["candidate"])) > 1
    for method, found in cells.items():
        assert spoilt[method]["candidate"] == found["candidate"]
        assert min(np.subtract(spoilt[method]["nll"], found["nll"])) > 0


def test_one_candidate_is_protocol_paper_with_its_settings(data_dir, tmp_path):
    found = run(data_dir, tmp_path, methods=("manifold_probmix",), candidates=(FAST,))["manifold_probmix"]
    settings = PaperSettings(
        hidden_features=(8, 4), splits=2, epochs=4, num_samples=3, validation_every=2, patience=100,
        learning_rate=0.05, batch_size=64, alpha=0.1, beta=1e-5,
    )  # fmt: skip
    expected = train_cell(load_uci("yacht", data_dir), "manifold_probmix", settings, 0, Compute())
    assert {metric: found[metric] for metric in expected} == expected


def test_members_hold_back_different_rows(data_dir, tmp_path, monkeypatch):
    trained, train = [], module.train_splits

    def record(data, method, settings, splits, *rest):
        trained.append(splits)
        return train(data, method, settings, splits, *rest)

    monkeypatch.setattr(module, "train_splits", record)
    run(data_dir, tmp_path)
    members = trained[2]  # after two candidates
    assert len(members) == 6
    for own in (members[:3], members[3:]):
        held_back = [{tuple(row) for row in split.validation[0].tolist()} for split in own]
        assert all(not a & b for i, a in enumerate(held_back) for b in held_back[:i])
        assert len({len(torch.cat([split.train[0], split.validation[0]])) for split in own}) == 1


def test_what_is_chosen_is_trained_anew_on_all_rows(data_dir, tmp_path, monkeypatch):
    """For the epochs chosen, a member for those that its own validation rows chose; what has been scored is that."""
    calls, scored, train, score = [], [], module.train_splits, module.scores

    def record(data, method, settings, splits, seed, compute, progress, epochs, ema_decay):
        assert ema_decay == 0.9
        replicas = train(data, method, settings, splits, seed, compute, progress, epochs, ema_decay)
        calls.append((settings.learning_rate, splits, epochs, replicas))
        return replicas

    def keep(models, *rest):
        scored.append(models)
        return score(models, *rest)

    monkeypatch.setattr(module, "train_splits", record)
    monkeypatch.setattr(module, "scores", keep)
    fast = replace(FAST, learning_rate=0.1)  # so that the last epoch is not the best
    cells = run(data_dir, tmp_path, candidates=(LAZY, fast), refit=True, ema_decay=0.9, splits=3, epochs=8)
    for (searched, again), models in zip((calls[1:3], calls[3:]), scored, strict=True):
        rate, splits, epochs, replicas = again
        assert (rate, searched[0]) == (0.1, 0.1)
        assert epochs == [history.best_epoch + 1 for history in searched[3].histories]
        assert [len(history.train_loss) for history in replicas.histories] == epochs
        assert [model for members in models for model in members] == replicas.models
        for split, other in zip(splits, searched[1], strict=True):
            assert split.held_out is None
            whole = torch.cat([other.train[0], other.validation[0]])
            assert torch.equal(torch.sort(split.train[0].sum(1)).values, torch.sort(whole.sum(1)).values)
            assert torch.equal(split.test[0], other.test[0])
    assert len(set(calls[2][2]) | set(calls[4][2])) > 1
    assert [len(members) for members in scored[1]] == [3, 3, 3]
    first, other = (next(replicas.models[0].parameters()) for *_, replicas in (calls[2], calls[4]))
    assert not torch.equal(first, other)
    assert cells["ensemble"]["candidate"] == cells["manifold_probmix"]["candidate"] == [1, 1, 1]


def test_folds_are_a_partition(data_dir):
    data = load_uci("wine-quality-red", data_dir)  # whose rows are no multiple of five
    splits = [make_split(data, 0, 0, 0.2, fold) for fold in range(5)]
    held_back = torch.cat([split.validation[0] for split in splits])
    whole = torch.cat([splits[0].train[0], splits[0].validation[0]])
    assert torch.equal(torch.sort(held_back.sum(1)).values, torch.sort(whole.sum(1)).values)
    with pytest.raises(ValueError, match="fold must be from 0 to 4; got 5"):
        make_split(data, 0, 0, 0.2, 5)
    with pytest.raises(ValueError, match="fold must be from 0 to 0; got 1"):
        make_split(data, 0, 0, 0.0, 1)


def test_an_ensemble_needs_its_single_model(data_dir, tmp_path):
    with pytest.raises(ValueError, match="ensemble on yacht needs the finished cell of manifold_probmix"):
        run(data_dir, tmp_path, methods=("ensemble",))


def test_a_split_that_no_candidate_fits_is_named(data_dir, tmp_path, monkeypatch):
    def spoil(data, index, *rest):
        split = make_split(data, index, *rest)
        if index == 1:
            split.train[1].fill_(1e30)
        return split

    monkeypatch.setattr(module, "make_split", spoil)
    with pytest.raises(ValueError, match="erm on yacht: no candidate has a finite loss on splits 2"):
        run(data_dir, tmp_path, methods=("erm",))


def test_a_split_that_cannot_be_trained_anew_is_named(data_dir, tmp_path, monkeypatch):
    def spoil(data, index, seed, fraction, *rest):
        split = make_split(data, index, seed, fraction, *rest)
        if index == 1 and not fraction:
            split.train[1].fill_(1e30)
        return split

    monkeypatch.setattr(module, "make_split", spoil)
    with pytest.raises(ValueError, match=r"erm on yacht: the loss is not finite on splits \[2\]"):
        run(data_dir, tmp_path, methods=("erm",), refit=True)
    assert not list(tmp_path.rglob("erm.json"))


@pytest.mark.parametrize(
    ("name", "protocol", "message"),
    [
        ("table1", "best", "unknown protocol 'best'; expected paper or tuned"),
        ("table2", "tuned", "protocol tuned is there for table1 and table3 alone; got table2"),
    ],
)
def test_bad_protocols(name, protocol, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        reproduce(name, protocol=protocol, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"validation_fraction": 0.25},
            "members must be at least 1, and have rows of their own to hold back, 25%",
        ),
        ({"members": 0}, "members must be at least 1"),
        ({"validation_fraction": 0.0}, "validation_fraction must be positive in protocol tuned"),
    ],
)
def test_members_that_cannot_be_are_refused_before_training(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        replace(tuned_settings("yacht"), **change)


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
    rows = {line.split(" | ")[0]: line for line in table.markdown(cells, "Notes.").splitlines()}
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
