"""Tables as files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_probmix._files import write_bytes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_suffix", "write_table"]

_SUFFIXES = (".csv", ".csv.gz", ".parquet")


def check_suffix(path: str | Path) -> None:
    """Refuses a file that is to be written whose suffix does not tell its kind.

    >>> check_suffix("new.xls")
    Traceback (most recent call last):
        ...
    ValueError: out: expected a file that ends in .csv, .csv.gz or .parquet, got new.xls
    """
    if not str(path).endswith(_SUFFIXES):
        raise ValueError(
            f"out: expected a file that ends in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}, got {path}"
        )


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a table whole or not at all; numbers are read back as they are, to the last bit.

    Args:
        frame: the table; its index is left out.
        path: its file, whose suffix is one of ``.csv``, ``.csv.gz`` and ``.parquet``; missing folders are made.

    Raises:
        ValueError: if the suffix is another.
        ImportError: if pandas has no writer of Parquet.

    Example:
        >>> import pandas as pd, pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "new", "means.csv")
        >>> write_table(pd.DataFrame({"mean": [0.1 + 0.2]}), path)
        >>> path.read_text().split()
        ['mean', '0.30000000000000004']
        >>> folder.cleanup()
    """
    check_suffix(path)
    content = io.BytesIO()
    if str(path).endswith(".parquet"):
        frame.to_parquet(content, index=False)
    else:
        compression: Any = {"method": "gzip", "mtime": 0} if str(path).endswith(".gz") else None
        frame.to_csv(content, index=False, compression=compression)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(Path(path), content.getvalue())
