"""The UCI sets are the published files with the published splits; not having them is one clear error."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
import requests  # noqa: F401 - pooch imports it on its first download, and it adds warning filters when imported

from pyro_probmix.datasets import DATA_VARIABLE, UCI, load_uci, uci, uci_splits, uci_url


@pytest.fixture(autouse=True)
def no_data_variable(monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def published(data_dir):
    return json.loads((data_dir / "uci" / "splits.json").read_text())


@pytest.mark.parametrize("name", UCI)
def test_file_is_the_published_one(name, data_dir, published):
    expected, data = published[name], load_uci(name, data_dir)
    raw = np.genfromtxt(data_dir / "uci" / name / "data.txt")
    assert UCI[name].sha256 == expected["data_sha256"]
    assert data.x.shape == (expected["rows"], expected["features"]) == (UCI[name].rows, UCI[name].features)
    first, last = expected["feature_columns"]
    np.testing.assert_array_equal(data.x, raw[:, first : last + 1])
    np.testing.assert_array_equal(data.y, raw[:, expected["target_column"]])
    assert data.x.dtype == data.y.dtype == np.float64


@pytest.mark.parametrize("name", UCI)
def test_splits_are_the_published_ones(name, published):
    expected, splits = published[name], uci_splits(UCI[name].rows)
    assert len(splits) == expected["n_splits"]
    digest = hashlib.sha256(b"".join(test.astype("<i8").tobytes() for _, test in splits)).hexdigest()
    assert digest == expected["test_indices_sha256"]
    for train, test in splits:
        assert len(test) == expected["test_rows"]
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(expected["rows"]))


def test_splits_leave_the_global_random_state_alone_and_are_nested(global_state):
    before = global_state()
    few, many = uci_splits(30, 2), uci_splits(30, 25)
    np.testing.assert_array_equal(before, global_state())
    np.testing.assert_array_equal(few[1][1], many[1][1])
    assert len(many) == 25


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_smallest_tables_have_both_parts(n):
    assert all(len(train) and len(test) for train, test in uci_splits(n))


@pytest.mark.parametrize(("n", "num_splits"), [(1, 20), (0, 1), (10, 0)])
def test_splits_refuse_too_little(n, num_splits):
    with pytest.raises(ValueError, match=r"expected an integer >= \d"):
        uci_splits(n, num_splits)


@pytest.mark.parametrize("layout", ["uci/yacht", "yacht"])
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_both_folder_layouts_by_argument_and_variable(layout, by, tmp_path, data_dir, monkeypatch):
    (tmp_path / layout).mkdir(parents=True)
    shutil.copy(data_dir / "uci" / "yacht" / "data.txt", tmp_path / layout)
    if by == "variable":
        monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert len(load_uci("yacht", tmp_path if by == "argument" else None)) == 308


def test_unknown_name_lists_the_legal_ones():
    with pytest.raises(ValueError, match=r'^name: expected one of "bostonHousing".*"yacht", got "boston"'):
        load_uci("boston")


def test_missing_folder_says_how_to_get_the_data(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load_uci("yacht", tmp_path / "nowhere")
    for hint in ("uci/yacht/data.txt", uci_url("yacht"), "--data DIR", DATA_VARIABLE):
        assert hint in str(caught.value)


def test_changed_file_is_refused(tmp_path):
    (tmp_path / "yacht").mkdir()
    (tmp_path / "yacht" / "data.txt").write_text("1 2 3 4 5 6 7\n")
    with pytest.raises(ValueError, match=f"expected the published yacht file, of sha256 {UCI['yacht'].sha256}"):
        load_uci("yacht", tmp_path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "pyro_probmix"


def test_download_is_cached_and_needs_the_network_once(tmp_path, data_dir, cache, monkeypatch):
    site = tmp_path / "site"
    (site / "yacht" / "data").mkdir(parents=True)
    shutil.copy(data_dir / "uci" / "yacht" / "data.txt", site / "yacht" / "data")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(uci, "_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        first = load_uci("yacht")
        server.shutdown()
    np.testing.assert_array_equal(load_uci("yacht").x, first.x)
    assert (cache / "yacht.txt").is_file()


def test_offline_says_how_to_get_the_data(cache, monkeypatch):
    monkeypatch.setattr(uci, "_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError) as caught:
        load_uci("yacht")
    for hint in ("could not download yacht", "uci/yacht/data.txt", "--data DIR", DATA_VARIABLE):
        assert hint in str(caught.value)
    assert not list(cache.glob("*")), "a failed download leaves nothing behind"


def test_without_pooch_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pyro-probmix\[experiments\].*--data DIR"):
        load_uci("yacht")
