"""Anybody's table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from pyro_probmix._checks import check_choice
from pyro_probmix.datasets.dataset import Dataset, Task
from pyro_probmix.tables import Cells, Preparation, Reading, read_cells
from pyro_probmix.tables.kinds import Kind, clean_name, did_you_mean, name_cells, quoted, resolve_kinds, warn
from pyro_probmix.tables.preparation import FORMS, drop_reason
from pyro_probmix.tables.suspicions import determination, sentinels
from pyro_probmix.tables.typed import Typed, check_columns, check_last_row, type_column
from pyro_probmix.tables.values import convert

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAX_CLASSES", "Table", "load_table"]

MAX_CLASSES = 100
"""Classes that a target may have; of few rows, half as many as these, and ten at least."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table whose columns are of one kind each, and its target.

    Args:
        name: of the file; ``"X"`` of a frame.
        features: a DataFrame of typed columns. Its index has the rows of the file, from 1, its ``attrs`` how dates
            were written.
        target: numbers of shape ``(n,)``, or ``(n, k)`` of several; or labels of shape ``(n,)``; None where no target
            is asked for.
        target_name: its name, or names.
        task: ``"regression"``, ``"classification"``, or None.
        ids: the columns that name rows, or None.
        notes: what is to be said of the table.
        reading: how it was read.
        kinds: those that were given, by name.
        target_kinds: what the columns of the target are, by name.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"town": ["Bonn", "Ulm"] * 10, "price": np.linspace(1.0, 3.0, 20) ** 2})
        >>> table = load_table(frame, "price")
        >>> len(table), table.task, list(table.features.columns)
        (20, 'regression', ['town'])
    """

    name: str
    features: pd.DataFrame
    target: NDArray[Any] | None
    target_name: str | tuple[str, ...] | None
    task: Task | None
    ids: pd.DataFrame | None
    notes: tuple[str, ...]
    reading: Reading
    kinds: Mapping[str, Any]
    target_kinds: Mapping[str, Kind]

    def __len__(self) -> int:
        return len(self.features)

    def dataset(self) -> Dataset:
        """The table as numbers, for experiments; the columns are prepared by all rows, not those of training alone.

        Raises:
            ValueError: if there is not one target.
        """
        if self.target is None or self.target.ndim != 1:
            raise ValueError(f"{self.name}: expected one target, got {self.target_name!r}")
        preparation = Preparation.fit(self.features, self.kinds)
        x, names = preparation.transform(self.features), preparation.feature_names
        columns = preparation.as_read()
        if self.task == "regression":
            return Dataset(self.name, x, self.target.astype(np.float64), "regression", names, columns=columns)
        classes, y = np.unique(self.target, return_inverse=True)
        labels = tuple(map(str, classes))
        return Dataset(self.name, x, y.astype(np.int64), "classification", names, labels, columns=columns)


def load_table(
    source: Any,
    target: str | int | Sequence[str | int] | None = None,
    *,
    task: Task | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    header: bool = True,
    na: Sequence[str] = (),
    skip_rows: int = 0,
    drop: Sequence[str | int] = (),
    ids: Sequence[str | int] = (),
    kinds: Mapping[Any, Any] | None = None,
    preparation: Preparation | None = None,
) -> Table:
    """A table from a file or a frame: one column or more is the target, the others are features.

    A column that is mostly numbers is numbers: ``"1,923.45"``, ``"$100.00"`` and ``"12 %"`` are, a lone ``"-"`` is a
    missing one, and a table with any other cell there is refused. Text, two integers or a boolean as the target are a
    classification; other numbers are a regression. What is odd is said in a
    :class:`~pyro_probmix.tables.TableWarning`: values such as -999, columns that tell the target, names that come
    twice.

    Args:
        source: a DataFrame; a path: .csv, .tsv, .txt (also .gz), .parquet or .xlsx; or what
            :func:`~pyro_probmix.tables.read_cells` has read, which knows how.
        target: name or position of the target, from the end if negative; several for a regression with several
            outputs. Without a header, names are ``"column 1"``, ``"column 2"``, ….
        task: ``"regression"`` or ``"classification"``; by default as above.
        sep: what separates cells, see :class:`~pyro_probmix.tables.Reading`, as for the next four.
        decimal: the decimal sign.
        encoding: of the text.
        header: whether the first row has the names.
        na: cells that are missing; rows without a target are dropped where their cell is one of these.
        skip_rows: rows of the file above the names of the columns, such as a title.
        drop: columns that are left out.
        ids: columns that name rows, and are no features but of a model that expects them.
        kinds: the kind of a column by name, where it is not to be guessed, see
            :class:`~pyro_probmix.tables.Preparation`.
        preparation: that of a model which new rows are for: columns and their kinds are those it expects; ``kinds``
            is of the target alone.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the table cannot be read rightly; file, row, column and cell are named.
        ImportError: if a package is missing that reads it.

    Example:
        >>> import pandas as pd
        >>> homes = pd.DataFrame({"area": [50, 70, 90], "town": ["Bonn", "Rome", "Bonn"], "price": [1.0, 3.0, 2.5]})
        >>> table = load_table(homes, "price")
        >>> table.target.tolist(), table.task, table.features["town"].dtype.name
        ([1.0, 3.0, 2.5], 'regression', 'category')
    """
    if task is not None:
        check_choice("task", task, get_args(Task))
    reading = Reading(sep, decimal, encoding, header, cast("tuple[str, ...]", na), skip_rows)
    cells = source if isinstance(source, Cells) else read_cells(source, reading)
    names = list(cells.frame.columns)
    if not len(cells.frame):
        raise ValueError(f"{cells.name}: expected rows, got none")
    targets = [] if target is None else _chosen("target", target, cells)
    set_aside, left_out = _chosen("ids", ids, cells), _chosen("drop", drop, cells, preparation is None)
    features = [name for name in names if name not in {*targets, *set_aside, *left_out}]
    notes, warnings = list(cells.notes), list(cells.warnings)
    expected = None if preparation is None else {column.name: column for column in preparation.columns}
    if preparation is not None and expected is not None:
        if used := [name for name in targets if name in expected]:
            raise ValueError(f"target: expected a column that is no feature of the model, got {quoted(used)}")
        features += [name for name in set_aside if name in expected]
        features = _expected(cells, features, list(expected), set(preparation.dropped), warnings)
        if cells.left_out:
            some = ", ".join(map(str, cells.left_out[:5])) + (", ..." if len(cells.left_out) > 5 else "")
            warnings.append(f"no predictions of rows without a cell: {some}")
        kinds = {**(kinds or {}), **preparation.kinds}
    if not features:
        raise ValueError(f"{cells.name}: expected a column besides the target {quoted(targets)}, got none")
    check_last_row(cells.name, cells.frame, known=[] if preparation is None else preparation.columns)
    given = resolve_kinds(kinds, names)
    read = cells.reading
    try:
        typed = {
            name: type_column(
                cells.frame[name],
                given.get(name),
                decimal=read.decimal,
                na=read.na,
                form=getattr(expected[name], "form", None) if expected is not None else None,
                known=expected is not None,
            )
            for name in features
        }
        chosen = {
            name: type_column(cells.frame[name], given.get(name), decimal=read.decimal, na=read.na) for name in targets
        }
    except ValueError as error:
        raise ValueError(f"{cells.name}: {error}") from None
    warnings += check_columns(cells.name, {**typed, **chosen})
    warnings += _odd_numbers({**typed, **chosen})
    if expected is None:
        warnings += _tell_tales(typed, chosen)
    kept, note = _rows_with_target(cells, chosen)
    warnings += [] if note is None else [note]
    found, task = _target(cells, chosen, kept, task, is_new=preparation is not None)
    if found is not None and preparation is None:
        warnings += _odd_targets(targets, found)
    for note in warnings:
        warn(note)
    import pandas as pd

    frame = pd.DataFrame({name: column.series() for name, column in typed.items()})[kept]
    frame.attrs[FORMS] = {name: column.values.form for name, column in typed.items() if column.kind == "date"}
    notes += [note for note in warnings if note not in notes]
    notes += _copies(frame, found)
    return Table(
        cells.name,
        frame,
        found,
        None if target is None else targets[0] if isinstance(target, (str, int, np.integer)) else tuple(targets),
        task,
        cells.frame.loc[kept, set_aside] if set_aside else None,
        tuple(notes),
        read,
        {name: levels or kind for name, (kind, levels) in given.items() if name in typed},
        {name: column.kind for name, column in chosen.items()},
    )


def _chosen(argument: str, wanted: Any, cells: Cells, strict: bool = True) -> list[str]:
    """The names of the columns that are asked for by name or position."""
    names, found = list(cells.frame.columns), []
    if not isinstance(wanted, (str, int, np.integer, Iterable)):
        raise TypeError(f"{argument}: expected names or positions of columns, got {wanted!r}")
    for one in [wanted] if isinstance(wanted, (str, int, np.integer)) else list(wanted):
        name = clean_name(one)
        if isinstance(one, (int, np.integer)) and -len(names) <= one < len(names):
            name = names[one]
        if name not in names:
            if not strict:
                continue
            raise ValueError(
                f"{argument}: expected a column of {cells.name} ({quoted(names, 10)}), got {quoted([one])}"
                f"{did_you_mean(names, one)}"
            )
        twice = [other for other in names if other.rpartition(".")[0] == name and other not in found]
        if argument == "target" and twice and any(f'named "{name}"' in note for note in cells.warnings):
            raise ValueError(f"{argument}: expected a column whose name comes once, got {quoted([name])}; rename one")
        found.append(name)
    if len(set(found)) < len(found):
        raise ValueError(f"{argument}: expected distinct columns, got {quoted(found)}")
    return found


def _expected(cells: Cells, names: list[str], wanted: list[str], dropped: set[str], warnings: list[str]) -> list[str]:
    """The columns that a model expects, in its order."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"{cells.name}: expected the columns of training, got none named {quoted(missing)}")
    extra = [name for name in names if name not in {*wanted, *dropped}]
    if extra:
        warnings.append(f"columns that training did not have are ignored: {quoted(extra)}")
    return wanted


def _odd_numbers(columns: Mapping[str, Typed]) -> list[str]:
    return [
        f"{quoted([name])}: {value:g} comes {count} {'time' if count == 1 else 'times'}, far from all other numbers; "
        f'where it means a missing one, say so (--na "{value:g}", na=("{value:g}",))'
        for name, column in columns.items()
        if column.kind == "number"
        for value, count in sentinels(column.values)
    ]


def _tell_tales(features: Mapping[str, Typed], targets: Mapping[str, Typed]) -> list[str]:
    """The columns that tell the target, besides those that are of no use anyway."""
    said = []
    for target, column in targets.items():
        kind: Kind = "number" if column.kind == "number" else "category"
        values = column.values if column.kind == "number" else convert(column.cells, "category")
        found = {
            name: determination(values, kind, feature.values, feature.kind)
            for name, feature in features.items()
            if drop_reason(name, feature.kind, feature.values) is None
        }
        told = [f'"{name}" ({how})' for name, how in found.items() if how is not None]
        if told:
            said.append(
                f'the target "{target}" is determined, or nearly so, by {", ".join(told)}; '
                "leave out what is not known beforehand (--drop, drop=)"
            )
    return said


def _rows_with_target(cells: Cells, targets: Mapping[str, Typed]) -> tuple[NDArray[np.bool_], str | None]:
    """Which rows have each target, and what is said of the others."""
    kept = np.ones(len(cells.frame), bool)
    note = None
    rows = cells.frame.index.to_numpy()
    for name, column in targets.items():
        missing = column.values.missing
        unsaid = missing & ~column.gone
        if unsaid.any():
            word = min(cell.strip() if isinstance(cell, str) else "" for cell in column.cells[unsaid].head(100))
            raise ValueError(
                f'{cells.name}: "{name}": expected a target in each row, got {name_cells(unsaid, column.cells, rows)}; '
                f'drop these rows, or have it done (--na "{word}", na=("{word}",))'
            )
        kept &= ~missing
        if missing.any():
            note = f'"{name}": rows without a target are dropped: {name_cells(missing, column.cells, rows)}'
    if not kept.any():
        raise ValueError(f"{cells.name}: expected rows with a target, got none")
    return kept, note


def _target(
    cells: Cells, targets: Mapping[str, Typed], kept: NDArray[np.bool_], task: Task | None, is_new: bool
) -> tuple[NDArray[Any] | None, Task | None]:
    """The targets of rows, and the task that they ask for; new rows may be of few classes."""
    if not targets:
        return None, task
    columns = list(targets.items())
    if len(columns) > 1 or task == "regression":
        if task == "classification":
            raise ValueError(
                f"task: expected a regression for several targets, got classification of {quoted(targets)}"
            )
        for name, column in columns:
            if column.kind not in ("number", "boolean"):
                text = name_cells(kept & ~column.values.missing, column.cells, cells.frame.index.to_numpy())
                expected = "expected numbers, as the target of a regression"
                raise ValueError(f'{cells.name}: "{name}": {expected}, got a {column.kind}: {text}')
        found = np.stack([column.values.data[kept].astype(np.float64) for _, column in columns], axis=1)
        return (found if len(columns) > 1 else found[:, 0]), "regression"
    name, column = columns[0]
    numbers = _as_written(column, kept)
    if column.kind == "date":
        raise ValueError(f'{cells.name}: "{name}": expected numbers or classes as the target, got dates')
    if task is None and column.kind == "number" and not (numbers.dtype.kind == "i" and len(np.unique(numbers)) == 2):
        return numbers.astype(np.float64), "regression"
    labels = _labels(column, kept)
    classes = np.unique(labels)
    limit = min(MAX_CLASSES, max(10, len(labels) // 2))
    if not (is_new or 2 <= len(classes) <= limit):
        shown = quoted(classes, 5) or "no rows"
        expected = f"expected two to {limit} classes of {len(labels)} rows"
        raise ValueError(f'{cells.name}: "{name}": {expected}, got {len(classes)}: {shown}')
    return labels, "classification"


def _odd_targets(names: list[str], found: NDArray[Any]) -> list[str]:
    """What is said of targets that do not vary, and of classes that differ in capitals alone."""
    if found.dtype.kind == "f":
        columns = zip(names, found.reshape(len(found), -1).T, strict=True)
        return [
            f'"{name}": the same in all rows: {column[0]:g}' for name, column in columns if (column == column[0]).all()
        ]
    alike: dict[str, list[str]] = {}
    for label in np.unique(found):
        alike.setdefault(str(label).casefold(), []).append(str(label))
    return [f'"{names[0]}": classes that are spelt alike: {quoted(many)}' for many in alike.values() if len(many) > 1]


def _as_written(column: Typed, kept: NDArray[np.bool_]) -> NDArray[Any]:
    """The values of rows; integers that are floats for the sake of missing ones are integers."""
    import pandas as pd

    found = column.values.data[kept]
    if column.kind == "number" and found.dtype.kind == "f" and column.values.missing.any():
        cells = pd.to_numeric(column.cells[kept], errors="coerce").to_numpy()
        return cells if cells.dtype.kind == "i" else found
    return found


def _labels(column: Typed, kept: NDArray[np.bool_]) -> NDArray[Any]:
    """Labels as they are written; whole numbers where all are."""
    import pandas as pd

    numbers = column.values.data[kept]
    if column.kind == "number" and (numbers == np.floor(numbers)).all():
        return numbers if numbers.dtype.kind in "iu" else numbers.astype(np.int64)
    if pd.api.types.is_bool_dtype(column.cells.dtype):
        return numbers.astype(bool)
    values = convert(column.cells[kept], "category")
    return np.array(values.levels)[values.data]


def _copies(features: pd.DataFrame, target: NDArray[Any] | None) -> list[str]:
    """What is said of rows that come more than once."""
    frame = features
    if target is not None:
        for i, column in enumerate(target.reshape(len(target), -1).T):
            frame = frame.assign(**{f"target {i}": column})
    again = frame.duplicated().to_numpy()
    if not again.any():
        return []
    count = int(again.sum())
    return [f"{count} {'row is a copy of an earlier one' if count == 1 else 'rows are copies of earlier ones'}, kept"]
