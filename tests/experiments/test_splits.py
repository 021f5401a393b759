"""A split leaks nothing from test rows, and loses no row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_probmix.datasets import TOY_REGIONS, Dataset, load, load_uci, uci_splits
from pyro_probmix.experiments import settings_for
from pyro_probmix.experiments.splits import make_split


def rows(*parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    table = np.concatenate([np.column_stack(part) for part in parts])
    return table[np.lexsort(table.T)]


@pytest.mark.parametrize("name", ["diabetes", "iris"])
@pytest.mark.parametrize("index", [0, 3])
def test_every_row_is_in_its_part_and_comes_back_in_its_units(name, index):
    data = load(name)
    split = make_split(data, index, seed=0)
    train, test = uci_splits(len(data))[index]
    own = [split.own_units(*part) for part in (split.train, split.validation, split.test)]
    np.testing.assert_allclose(rows(*own[:2]), rows((data.x[train], data.y[train])), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rows(own[2]), rows((data.x[test], data.y[test])), rtol=1e-5, atol=1e-5)
    assert len(split.validation[0]) == round(0.2 * len(train))


def test_training_rows_alone_decide_the_scale():
    data = load("diabetes")
    train, test = uci_splits(len(data))[0]
    outlier = data.x.copy()
    outlier[test] += 1e4
    split = make_split(replace(data, x=outlier), 0, seed=0)
    np.testing.assert_allclose(split.x_scaler.mean_, data.x[train].mean(axis=0))
    np.testing.assert_allclose(split.x_scaler.scale_, data.x[train].std(axis=0))
    np.testing.assert_allclose(split.y_scale, data.y[train].std())


def test_constant_columns_have_scale_one():
    data = load("diabetes")
    x = np.column_stack([data.x, np.full(len(data), 0.998)])
    split = make_split(Dataset("constant", x, data.y, "regression"), 0, seed=0)
    assert split.train[0].isfinite().all()
    assert split.train[0][:, -1].abs().max() < 1e-6
    assert split.x_scaler.scale_[-1] == 1


def test_dtypes_and_labels():
    split = make_split(load("iris"), 0, seed=0)
    assert split.train[0].dtype == torch.float32
    assert split.train[1].dtype == torch.int64
    assert split.y_scaler is None
    assert split.y_scale == 1
    assert make_split(load("diabetes"), 0, seed=0).train[1].dtype == torch.float32


def test_the_seed_moves_validation_rows_but_not_test_rows():
    first, second = (make_split(load("diabetes"), 0, seed) for seed in (0, 1))
    assert torch.equal(first.test[0], second.test[0])
    assert not torch.equal(first.validation[0], second.validation[0])


def test_every_split_of_a_toy_is_a_new_draw_with_its_own_test_region():
    data = load("toy-regression")
    first, again, second, other = (make_split(data, *key) for key in [(0, 0), (0, 0), (1, 0), (0, 1)])
    assert torch.equal(first.train[0], again.train[0])
    for different in (second, other):
        assert not torch.equal(first.train[0], different.train[0])
    x_test = first.own_units(*first.test)[0]
    low, high = TOY_REGIONS["test"]
    assert x_test.min() >= low - 1e-4
    assert x_test.max() <= high + 1e-4
    assert len(first.train[0]) == 80


def test_data_can_stay_in_their_units_and_all_rows_be_trained_on():
    data = load("diabetes")
    split = make_split(data, 0, seed=0, validation_fraction=0.0, standardise=False)
    train, test = uci_splits(len(data))[0]
    for part, chosen in ((split.train, train), (split.test, test)):
        np.testing.assert_array_equal(
            rows([t.numpy() for t in part]), rows((data.x[chosen].astype("f4"), data.y[chosen].astype("f4")))
        )
        np.testing.assert_array_equal(rows(split.own_units(*part)), rows([t.numpy() for t in part]))
    assert split.held_out is None
    assert (split.y_scale, split.y_shift) == (1.0, 0.0)


def test_a_name_makes_no_toy_and_no_stock():
    """Rows of a user that share a name with ours are split as any others."""
    x = np.arange(40.0)[:, None]
    for name in ("toy-regression", "GME"):
        data = Dataset(name, x, x[:, 0] ** 2, "regression")
        first, second = (make_split(data, index, seed=0, standardise=False) for index in range(2))
        assert set(first.test[0].flatten().tolist()) < set(x.flatten().tolist())
        assert not torch.equal(first.test[0], second.test[0])
        assert settings_for(data).hidden_features == (128, 32)


def test_too_few_rows_are_refused():
    tiny = Dataset("tiny", np.arange(3.0)[:, None], np.arange(3.0), "regression")
    with pytest.raises(ValueError, match="tiny: expected training rows on both sides, got 2, of which 20% are"):
        make_split(tiny, 0, seed=0)


def test_folds_are_a_partition(data_dir):
    data = load_uci("wine-quality-red", data_dir)  # whose rows are no multiple of five
    splits = [make_split(data, 0, 0, 0.2, fold) for fold in range(5)]
    held_back = torch.cat([split.validation[0] for split in splits])
    whole = torch.cat([splits[0].train[0], splits[0].validation[0]])
    assert torch.equal(torch.sort(held_back.sum(1)).values, torch.sort(whole.sum(1)).values)
    with pytest.raises(ValueError, match="fold: expected an integer from 0 to 4, got 5"):
        make_split(data, 0, 0, 0.2, 5)
    with pytest.raises(ValueError, match="fold: expected an integer from 0 to 0, got 1"):
        make_split(data, 0, 0, 0.0, 1)
