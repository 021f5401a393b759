"""The four stocks of the paper, as windows of daily prices and the price a month later."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyro_probmix._checks import check_choice
from pyro_probmix.datasets.dataset import Dataset
from pyro_probmix.datasets.published import published_file

__all__ = ["HORIZON", "STOCKS", "WINDOW", "load_stock", "stock_split", "stock_url"]

WINDOW, HORIZON = 42, 21
"""Trading days of a window, and from its last day to the target."""

_PRICES = ("Open", "High", "Low", "Close")
_BEGIN, _END = "2019-01-01", "2021-01-01"
_BASE_URL = (
    "https://raw.githubusercontent.com/dieperdev/yfinance-stock-data/a342efb774eb9ba994d553f735372ec04e944063/data"
)


@dataclass(frozen=True)
class _Source:
    """Checksums of the published file, and of the prices in the paper's period in units of 1e-6."""

    file: str
    prices: str


STOCKS: dict[str, _Source] = {
    "GME": _Source(
        "b98f428e7207957fe57198f7ee32b0dd5549d9a24ecec01a8c78002a13a47bfa",
        "f7ec339846e9e19ceb3c6a28c1b4f46a4c6e2d12a6a89631e0c227fa56e48dfa",
    ),
    "GOOG": _Source(
        "30f726b36224a2237ed77c6fc62d3751f00d52e72f3347907d396396b2c2be3b",
        "f206fac777e98a0a59ddfc1256f96969ea25bdf79a4a9821961aa7d770a87afa",
    ),
    "NVDA": _Source(
        "c39ec8e83d4292100544cb2b6d1dbb8756d0bf9ba1bdbae3b8810edeb7f6dff2",
        "8f7df00e8d5885f29238dfc600f528091434c6fe4f7c6ced92d9c35788c9ae36",
    ),
    "RCL": _Source(
        "e3df1cbfa99e5bf0fd6876629e5f2eac8adc7d06a76886721498c4012e80fdc2",
        "70962b57699db39824950541750bebe3b1eb2b1d43827d7d89d7f6a50156e84f",
    ),
}
"""The stocks by ticker."""


def stock_url(ticker: str) -> str:
    """The pinned public address of a stock's file.

    >>> stock_url("GOOG").endswith("/data/GOOG.csv")
    True
    """
    return f"{_BASE_URL}/{ticker}.csv"


def load_stock(ticker: str, data_dir: str | Path | None = None) -> Dataset:
    r"""The windows of a stock in 2019 and 2020, split-adjusted and not dividend-adjusted.

    A row of ``x`` has the open, high, low and close of 42 consecutive trading days, one day after the other; ``y`` is
    the close 21 trading days after the last of them. The prices are verified by their sha256.

    Args:
        ticker: one of the names in :data:`STOCKS`.
        data_dir: local folder that holds ``stocks/TICKER.csv`` or ``TICKER.csv``; by default the folder in the
            environment variable ``PYRO_PROBMIX_DATA``, and without it the file is downloaded into the user's cache.

    Returns:
        A regression of 443 rows and 168 features, in dollars.

    Raises:
        ValueError: if the ticker is unknown or the prices are not the published ones.
        FileNotFoundError: if the local folder does not hold the file.
        ConnectionError: if the download fails.

    Source: El-Laham et al. (2025), section 6.3.

    >>> load_stock("AAPL")
    Traceback (most recent call last):
        ...
    ValueError: ticker: expected one of "GME", "GOOG", "NVDA", "RCL", got "AAPL"
    """
    check_choice("ticker", ticker, STOCKS)
    places = f"stocks/{ticker}.csv", f"{ticker}.csv"
    path = published_file(ticker, places, stock_url(ticker), STOCKS[ticker].file, data_dir)
    with path.open(encoding="utf-8", newline="") as file:
        try:
            days = [day for day in csv.DictReader(file) if _BEGIN <= day["Date"] < _END]
            prices = np.array([[float(day[name]) for name in _PRICES] for day in days])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected daily prices, got another file: {error!r}") from error
    digest = hashlib.sha256(np.rint(prices * 1e6).astype("<i8").tobytes()).hexdigest()
    if digest != STOCKS[ticker].prices:
        raise ValueError(
            f"{path}: expected the published prices of {ticker} from {_BEGIN} to {_END}, got others; get it again from "
            f"{stock_url(ticker)}"
        )
    starts = range(len(prices) - WINDOW - HORIZON + 1)
    x = np.stack([prices[start : start + WINDOW].ravel() for start in starts])
    y = np.array([prices[start + WINDOW - 1 + HORIZON, -1] for start in starts])
    return Dataset(ticker, x, y, "regression", splitting="last")


def stock_split(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and test rows: the last fifth is tested on, and no training target is later than its first window.

    Args:
        n: number of rows, in the order of time.

    Raises:
        ValueError: if there are too few rows for both.

    >>> train, test = stock_split(443)
    >>> len(train), int(test[0] - train[-1]), len(test)
    (333, 22, 89)
    """
    num_test = round(0.2 * n)
    if num_test < 1 or n - num_test <= HORIZON:
        raise ValueError(f"n: expected enough rows to train on {HORIZON} days before the last fifth, got {n}")
    return np.arange(n - num_test - HORIZON), np.arange(n - num_test, n)
