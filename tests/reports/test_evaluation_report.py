"""A report is one page that needs nothing beside it, is sound HTML, and shows hostile names as the text they are."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import pyro_probmix as pm
from pyro_probmix.reports import REPORT, Predictions, evaluation_report

VOID = {"br", "hr", "img", "input", "link", "meta", "source"}
HOSTILE = '</table><script>alert("x")</script><img src=https://example.com/x.png>{{ 7 * 7 }}${"}"}$'


class Page(HTMLParser):
    """A page taken apart; elements that are not closed in order are faults."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.elements, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        self.faults += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.faults.append(f"{tag} has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"/{tag} closes something else")

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def check(path) -> Page:
    """What every report is."""
    text = path.read_text(encoding="utf-8")
    assert len(text) < 4_000_000
    page = Page(text)
    assert not page.faults
    assert text.startswith("<!DOCTYPE html>")
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))
    for image in page.all("img"):
        assert len(image["alt"]) > 40
        assert image["src"].startswith("data:image/")
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "srcset", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/"))
    styles = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in styles
    assert "@import" not in styles
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.all("a")} == {f"#{name}" for name in ids}
    return page


def numbers(n=60):
    x = torch.linspace(-1.0, 1.0, n)
    return pm.LinearPool([dist.Normal(x, 0.5), dist.Normal(x + 1, 0.5)]), x + 0.4


LAWS = {
    "numbers": numbers,
    "counts": lambda: (dist.Poisson(torch.linspace(0.5, 300.0, 30)), torch.arange(30.0)),
    "positive": lambda: (dist.LogNormal(torch.zeros(20), 1.0), torch.linspace(0.1, 5.0, 20)),
    "two outputs": lambda: (dist.Normal(torch.zeros(20, 2), 1.0).to_event(1), torch.randn(20, 2)),
    "classes": lambda: (dist.Categorical(torch.eye(3).repeat(10, 1) + 0.2), torch.arange(30) % 3),
    "yes or no": lambda: (dist.Bernoulli(torch.linspace(0.1, 0.9, 20)), (torch.arange(20) % 2).float()),
    "one row": lambda: (dist.Normal(torch.zeros(1), 1.0), torch.zeros(1)),
    "angles": lambda: (dist.VonMises(torch.zeros(9), 1.0), torch.zeros(9)),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_report_of_predictions(name, tmp_path):
    p, y = LAWS[name]()
    path = evaluation_report(
        tmp_path / REPORT,
        title=f"Evaluation of {name}",
        p=p,
        y=y,
        scores=pm.evaluate(p, y) if name != "angles" else {},
        settings={"method": "probmix", "hidden_features": (128, 32)},
        columns={"rooms": "number", "street": "category, 5 levels", "size": "number"},
        data_notes=["3 cells are missing"],
        histories=[pm.History([1.5, 1.1, float("nan")], [1.6, 1.2, 1.3], best_epoch=1)],
        warnings=["street: 2 cells of a category that training rows did not have"],
    )
    page = check(path)
    assert [p.name for p in tmp_path.iterdir()] == [REPORT]
    for text in ("3 cells are missing", "128, 32", "2 number, 1 category, 5 levels", "2 cells of a category"):
        assert text in page.text
    alternatives = " ".join(image["alt"] for image in page.all("img"))
    assert "1.2 nats in epoch 1" in alternatives
    if name == "numbers":
        assert f"{len(y)} probability integral transforms" in alternatives
        assert "row 0: label -0.6" in alternatives


def test_hostile_names_are_text(tmp_path):
    p = dist.Categorical(torch.ones(12, 2))
    path = evaluation_report(
        tmp_path / REPORT,
        title=HOSTILE,
        p=p,
        y=torch.arange(12) % 2,
        scores={HOSTILE: 1.0},
        settings={HOSTILE: {HOSTILE: [HOSTILE]}},
        data={HOSTILE: HOSTILE},
        columns={HOSTILE: HOSTILE, "\ud800": "a lone surrogate"},
        data_notes=[HOSTILE],
        warnings=[HOSTILE],
        class_names=[HOSTILE, "b"],
        target=HOSTILE,
    )
    page = check(path)
    assert page.text.count(HOSTILE) >= 10
    assert "49" not in page.text.replace("0.49", "")


@pytest.mark.parametrize("target", ["$x^{$", r"\frac{", "price ($)", "€/m²\nand more" * 9, "a" * 300, "温度", ""])
def test_any_name_of_a_target_is_drawn(target, tmp_path):
    p, y = numbers()
    check(evaluation_report(tmp_path / REPORT, title="Names", p=p, y=y, scores={}, settings={}, target=target))


def test_slices_one_after_another_are_as_all_rows_at_once(tmp_path):
    p, y = numbers(1000)
    slices = (pm.rows(p, slice(first, first + 300)) for first in range(0, 1000, 300))
    whole, parts = Predictions.of(p, y), Predictions.of(slices, y)
    np.testing.assert_array_equal(whole.transforms, parts.transforms)
    np.testing.assert_array_equal(whole.labels, parts.labels)
    for one, other in zip(whole.densities, parts.densities, strict=True):
        assert one.row == other.row
        np.testing.assert_allclose(one.density, other.density)
    with pytest.raises(ValueError, match="y: expected a label for each of the rows of p, got 999"):
        Predictions.of(p, y[:-1])


@pytest.mark.parametrize("y", [["a", "b"], [0.0, float("nan")], [[0.0], [1.0]]])
def test_labels_that_are_none_are_refused(y):
    with pytest.raises((TypeError, ValueError), match="y: expected"):
        Predictions.of(dist.Normal(torch.zeros(2), 1.0), y)


def test_what_is_kept_is_bounded_and_in_the_units_of_the_label():
    y = torch.zeros(50_000)
    kept = Predictions.of(dist.Normal(y, 1.0), y, shift=10.0, scale=2.0)
    assert kept.size == 50_000
    assert kept.transforms.shape == kept.labels.shape == (10_000,)
    assert kept.labels[0] == 10
    for row in kept.densities:
        assert row.label == 10
        np.testing.assert_allclose(row.quantiles[3], 10)
        np.testing.assert_allclose(np.trapezoid(row.density, row.places), 0.99, atol=1e-3)
    classes = Predictions.of(dist.Categorical(torch.ones(5000, 1000)), torch.zeros(5000, dtype=torch.long))
    assert classes.probabilities.size <= 200_000


def test_a_page_is_bounded_however_much_there_is_to_say(tmp_path):
    p, y = numbers()
    many = {f"column {k} {'x' * 2000}": "y" * 100_000 for k in range(1000)}
    path = evaluation_report(
        tmp_path / REPORT,
        title="Much",
        p=p,
        y=y,
        scores={},
        settings={"widths": list(range(100_000))},
        columns=many,
        data_notes=list(many),
        warnings=list(many.values()),
        histories=[pm.History(list(np.linspace(2.0, 1.0, 100_000)), [], 99_999)] * 50,
    )
    page = check(path)
    assert path.stat().st_size < 1_000_000
    assert page.text.count("… and 950 more") == 2
    for text in ("The 1000 columns, the first 200", "The first 12 of 50 are drawn."):
        assert text in page.text


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    p, y = numbers()
    path = tmp_path / REPORT
    path.write_text("old")
    with pytest.raises(ValueError, match="y"):
        evaluation_report(path, title="New", p=p, y=y[1:], scores={}, settings={})
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == [REPORT]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_what_is_missing_is_named(package, tmp_path, monkeypatch):
    p, y = numbers()
    for name in [package, *(one for one in sys.modules if one.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=rf'a report needs {package}: pip install "pyro-probmix\[tables\]"'):
        evaluation_report(tmp_path / REPORT, title="New", p=p, y=y, scores={}, settings={})
    assert not list(tmp_path.iterdir())
