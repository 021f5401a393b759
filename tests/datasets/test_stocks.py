"""The stocks are the published prices, their windows look back, and no test day is seen in training."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from pyro_probmix.datasets import DATA_VARIABLE, HORIZON, STOCKS, WINDOW, load_stock, stock_split
from pyro_probmix.experiments.splits import make_split


def closes(data_dir, ticker):
    with (data_dir / "stocks" / f"{ticker}.csv").open(newline="") as file:
        return {day["Date"]: float(day["Close"]) for day in csv.DictReader(file)}


@pytest.mark.parametrize("ticker", STOCKS)
def test_windows_are_the_days_before_their_target(ticker, data_dir):
    data = load_stock(ticker, data_dir)
    assert (data.x.shape, data.task) == ((443, 168), "regression")
    period = [close for date, close in closes(data_dir, ticker).items() if "2019" <= date < "2021"]
    assert len(period) == 505
    window = data.x.reshape(-1, WINDOW, 4)
    np.testing.assert_array_equal(window[0, :, 3], period[:WINDOW])
    np.testing.assert_array_equal(window[-1, -1, 3], period[-1 - HORIZON])
    assert data.y[0] == period[WINDOW - 1 + HORIZON]
    assert data.y[-1] == period[-1]
    assert (window[..., 1] >= window[..., 2]).all()  # high and low


def test_no_target_of_training_is_later_than_the_first_test_window(data_dir):
    for n in (1, 20, 26):
        with pytest.raises(ValueError, match=f"n: expected enough rows .*, got {n}"):
            stock_split(n)
    train, test = stock_split(443)
    last_target_day = train[-1] + WINDOW - 1 + HORIZON
    assert last_target_day < test[0] + WINDOW - 1
    assert test[-1] == 442
    data = load_stock("GOOG", data_dir)
    first, second = (make_split(data, index, seed=0) for index in (0, 1))
    np.testing.assert_array_equal(first.test[0], second.test[0])
    np.testing.assert_allclose(first.own_units(*first.test)[1], data.y[test], rtol=1e-5)
    assert not np.array_equal(first.train[0], second.train[0])
    assert len(first.train[0]) + len(first.validation[0]) == len(train)


def test_a_file_with_more_columns_and_days_will_do(data_dir, tmp_path):
    with (data_dir / "stocks" / "RCL.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    wide = [[*row[:5], "9", *row[5:]] for row in rows]
    wide[0][5] = "Adj Close"
    (tmp_path / "RCL.csv").write_text("\n".join(map(",".join, wide)))
    np.testing.assert_array_equal(load_stock("RCL", tmp_path).x, load_stock("RCL", data_dir).x)


def test_other_prices_and_other_files_are_refused(data_dir, tmp_path, monkeypatch):
    text = (data_dir / "stocks" / "GME.csv").read_text()
    path = tmp_path / "GME.csv"
    path.write_text(text.replace("2019-06-03,", "2019-06-03,9"))
    with pytest.raises(
        ValueError, match="expected the published prices of GME from 2019-01-01 to 2021-01-01, got others"
    ):
        load_stock("GME", tmp_path)
    path.write_text(text.replace("Close", "Last"))
    with pytest.raises(ValueError, match="expected daily prices, got another file"):
        load_stock("GME", tmp_path)
    with pytest.raises(ValueError, match=r'ticker: expected one of "GME".*, got "AAPL"'):
        load_stock("AAPL")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(
        FileNotFoundError, match=r"expected a folder that holds stocks/GOOG\.csv or GOOG\.csv, got \S*nowhere"
    ):
        load_stock("GOOG")
