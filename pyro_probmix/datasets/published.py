"""Files of published data: read from a local folder, or downloaded once into the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["DATA_VARIABLE", "published_file"]

DATA_VARIABLE = "PYRO_PROBMIX_DATA"
"""Environment variable naming a local data folder."""


def published_file(name: str, places: tuple[str, str], url: str, sha256: str, data_dir: str | Path | None) -> Path:
    """The file of a data set: that of the local folder as it is, or one that has been downloaded and verified.

    It may be at some ``places`` in the folder, the first being where it ought to be. The default folder is that in
    :data:`DATA_VARIABLE`; without it the file is downloaded, by pooch.
    """
    folder = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE)
    if folder:
        for place in places:
            if (path := Path(folder, place)).is_file():
                return path
        raise FileNotFoundError(
            f"data_dir: expected a folder that holds {' or '.join(places)}, got {folder}; put the file from {url} "
            f"there, name another folder with --data DIR (data_dir=DIR) or the environment variable {DATA_VARIABLE}, "
            "or name none to have it downloaded"
        )
    instead = f"name a local folder that holds {places[0]} with --data DIR (data_dir=DIR) or {DATA_VARIABLE}"
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f'downloading {name} needs pooch: pip install "pyro-probmix[experiments]", or {instead}'
        ) from error
    try:
        file = pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}",
            fname=name + Path(places[0]).suffix,
            path=pooch.os_cache("pyro_probmix"),
            progressbar=True,
        )
    except OSError as error:
        raise ConnectionError(f"could not download {name} from {url} ({error}); {instead}") from error
    return Path(file)
