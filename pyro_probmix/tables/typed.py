"""From cells of text to columns of their kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_probmix.tables.kinds import Kind, Values, clean_name, name_cells, quoted
from pyro_probmix.tables.numerals import parse_numbers
from pyro_probmix.tables.values import check_values, convert, recognise

if TYPE_CHECKING:
    import pandas as pd

    from pyro_probmix.tables.columns import Column

__all__ = ["Typed", "check_columns", "check_last_row", "type_column"]

_NOTHING = {"", "nan", "NaN", "NA", "None"}
_TOTALS = {
    "total",
    "totals",
    "grand total",
    "sum",
    "sums",
    "subtotal",
    "average",
    "mean",
    "summe",
    "gesamt",
    "insgesamt",
}


class Typed(NamedTuple):
    """A column of one kind.

    Args:
        kind: what it is.
        values: its values.
        cells: the cells it had.
        gone: which cells are missing by the words of the reading, of shape ``(n,)``.
        known: whether the kind was known before the cells were seen, so that others may be among them.
        given: whether the kind was given, and not guessed.
    """

    kind: Kind
    values: Values
    cells: pd.Series
    gone: NDArray[np.bool_]
    known: bool = False
    given: bool = False

    def series(self) -> pd.Series:
        """The values as pandas has them; cells of another kind as they are."""
        found = self._series()
        if self.values.faults.any():
            found = found.astype(object)
            found[self.values.faults] = self.cells[self.values.faults].to_numpy(object)
        return found

    def _series(self) -> pd.Series:
        import pandas as pd

        data, missing, index = self.values.data, self.values.missing, self.cells.index
        if self.kind == "number":
            if data.dtype.kind in "iu":
                whole = pd.array(data, dtype="Int64" if data.dtype.kind == "i" else "UInt64") if missing.any() else data
                found = pd.Series(whole, index)
                return found.mask(missing) if missing.any() else found
            return pd.Series(np.where(missing, np.nan, data), index)
        if self.kind == "date":
            return pd.Series(data, index)
        if self.kind == "boolean":
            return pd.Series(pd.array(data.astype(bool), dtype="boolean"), index).mask(missing)
        codes = np.where(missing, -1, data)
        levels = pd.Index(self.values.levels, dtype="str")
        return pd.Series(pd.Categorical.from_codes(codes, levels, ordered=self.kind == "ordered"), index)


def _says(column: pd.Series, words: Iterable[str]) -> NDArray[np.bool_]:
    """Which cells are one of the words; an empty one is a cell that is not there, too."""
    words = set(words)
    if not words:
        return np.zeros(len(column), bool)
    found = column.astype("str").str.strip().isin(words).to_numpy(bool)
    return found | column.isna().to_numpy(bool) if words & _NOTHING else found


def _numbers(words: Iterable[str]) -> NDArray[np.float64]:
    """The words that are numbers."""
    import pandas as pd

    return pd.to_numeric(pd.Series(list(words), dtype="str"), errors="coerce").dropna().to_numpy(np.float64)


def type_column(
    column: pd.Series,
    given: tuple[Kind, tuple[str, ...] | None] | None = None,
    *,
    decimal: str | None = None,
    na: tuple[str, ...] = (),
    form: str | None = None,
    known: bool = False,
) -> Typed:
    """The values of a column of a table.

    Args:
        column: its cells.
        given: its kind and the order of its levels; by default the kind that most cells are of.
        decimal: the decimal sign of text.
        na: cells that are missing.
        form: how dates are written.
        known: whether cells of another kind stay as they are, and are not refused.
    """
    gone = _says(column, na)
    cells = column.mask(gone) if gone.any() else column
    kind, levels = given or (recognise(cells, decimal or "."), None)
    values = convert(cells, kind, decimal=decimal or ".", levels=levels, form=form)
    if kind == "number" and na:
        also = np.isin(values.data, _numbers(na)) & ~values.missing
        missing, gone = values.missing | also, gone | also
        data = np.where(also, np.nan, values.data) if values.data.dtype.kind == "f" else values.data
        values = values._replace(data=data, missing=missing)
    if kind == "number" and known and values.faults.any():
        values = _without_odd_numbers(column, values)
    return Typed(kind, values, column, gone, known, given is not None)


def _without_odd_numbers(column: pd.Series, values: Values) -> Values:
    """Cells that are numbers by themselves but not beside the others, as of another currency, as missing ones."""
    places = np.flatnonzero(values.faults)
    _, missing, _, _ = parse_numbers(column.iloc[places])
    odd = np.zeros_like(values.faults)
    odd[places] = ~missing
    if not odd.any():
        return values
    cells = name_cells(odd, column, column.index.to_numpy())
    note = f"taken as missing, as numbers of another kind than the others: {cells}"
    return values._replace(faults=values.faults & ~odd, notes=(*values.notes, note))


def check_columns(name: str, columns: Mapping[str, Typed]) -> list[str]:
    """Refuse a table with cells of another kind than most of their column; what is said of the others.

    Raises:
        ValueError: naming the table, column, cells and rows; or the row of units, if it is one.
    """
    said = []
    faulty = {title: column for title, column in columns.items() if column.values.faults.any()}
    rows = next(iter(columns.values())).cells.index.to_numpy() if columns else np.array([])
    refused = {title: column for title, column in faulty.items() if not column.known}
    if (
        len(refused) > 1
        and len(rows) > 1
        and all(c.values.faults.nonzero()[0].tolist() == [0] for c in refused.values())
    ):
        units = [str(column.cells.iloc[0]) for column in refused.values()]
        raise ValueError(
            f"{name}: row {rows[0]}: expected cells like those below, got {quoted(units)} in the columns "
            f"{quoted(refused)}; where these are units, remove the row"
        )
    for title, column in columns.items():
        if not column.known or not column.values.faults.any():
            try:
                check_values(title, column.values, column.cells, column.kind, rows, column.given)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        said += [f"{quoted([title])}: {note}" for note in column.values.notes]
    return said


def check_last_row(name: str, frame: pd.DataFrame, known: Iterable[Column] = ()) -> None:
    """Refuse a last row that sums up the others.

    Args:
        name: of the table.
        frame: its cells.
        known: columns of a model; their levels may be such words.

    Raises:
        ValueError: naming the row and the cell.
    """
    levels = {column.name: [*getattr(column, "levels", ()), *getattr(column, "rare", ())] for column in known}
    for position, title in enumerate(frame.columns):
        cell, column = frame.iloc[-1, position], frame.iloc[:, position]
        is_total = isinstance(cell, str) and clean_name(cell).strip(" :.").lower() in _TOTALS
        if is_total and (column == cell).sum() == 1 and str(cell).strip() not in levels.get(title, ()):
            raise ValueError(
                f"{name}: row {frame.index[-1]}: expected a row like the others, got {quoted([cell])} in the "
                f"column {quoted([title])}; remove the row"
            )
