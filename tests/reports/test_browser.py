"""A report in a browser: at the width of a phone only what has a box of its own to scroll in is wider than the page."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch

import pyro_probmix as pm
from pyro_probmix.datasets import load
from pyro_probmix.experiments import compare, settings_for
from pyro_probmix.reports import REPORT, evaluation_report
from tests.reports.test_evaluation_report import HOSTILE

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = """headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking
    disable-component-update disable-sync hide-scrollbars virtual-time-budget=20000 dump-dom"""
# The page in a frame as wide as a phone, and what it has measured there, as text.
FRAME = """<!DOCTYPE html>
<iframe id="frame" style="width: {width}px; height: 800px; border: 0" srcdoc="{page}"></iframe>
<pre id="found"></pre><script>
document.getElementById("frame").onload = (event) => {{
  const page = event.target.contentDocument;
  const wide = [...page.querySelectorAll("body *")]
    .filter((one) => !one.closest(".scroll table") && one.getBoundingClientRect().right > {width} + 0.5);
  document.getElementById("found").textContent = JSON.stringify({{
    page: page.documentElement.scrollWidth,
    wide: wide.map((one) => one.tagName),
    unseen: [...page.images].filter((one) => !one.complete || !one.naturalWidth).length,
    images: page.images.length,
    tables: page.querySelectorAll("table").length,
  }});
}};
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed, looked for {', '.join(NAMES)}")


def measured(path: Path, width: int) -> dict:
    frame = path.with_name("frame.html")
    frame.write_text(FRAME.format(width=width, page=html.escape(path.read_text(encoding="utf-8"))), encoding="utf-8")
    command = [
        str(BROWSER),
        *(f"--{flag}" for flag in FLAGS.split()),
        f"--user-data-dir={path.parent / 'browser'}",
        frame.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found[1]))


def comparison(folder: Path) -> Path:
    data = load("iris")
    compare(data, settings=replace(settings_for(data), splits=2, epochs=2), out=folder, progress=False)
    return folder / REPORT


def hostile(folder: Path) -> Path:
    p = dist.StudentT(3.0, torch.zeros(50), 1e-9)
    words = {HOSTILE: HOSTILE, "x" * 300: "y" * 300, "many words " * 40: "word " * 200}
    return evaluation_report(
        folder / REPORT,
        title="w" * 200,
        p=p,
        y=p.sample(),
        scores={"crps": 1e-300, "a score " * 30: 1.0, "s" * 200: 2.0},
        settings={**words, "numbers": list(range(1000))},
        data=words,
        columns=words,
        data_notes=list(words),
        histories=[pm.History([1e12, 2.0], [], 1)],
        warnings=list(words),
        target="t" * 300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [comparison, hostile], ids=lambda make: make.__name__)
def test_nothing_is_wider_than_a_phone(make, tmp_path):
    found = measured(make(tmp_path), 360)
    assert found["page"] == 360
    assert found["wide"] == []
    assert found["unseen"] == 0
    assert found["images"] > 2
    assert found["tables"] > 3


def test_what_is_wider_is_found(tmp_path):
    path = tmp_path / REPORT
    path.write_text("<!DOCTYPE html><body style='margin: 0'><main><p style='width: 400px'>wide</p></main></body>")
    found = measured(path, 360)
    assert (found["page"], found["wide"]) == (400, ["P"])
