"""Tables: from a file or a frame to cells, from cells to columns, from columns to features."""

from pyro_probmix.tables.cells import SUFFIXES, Cells, read_cells
from pyro_probmix.tables.columns import (
    BooleanColumn,
    CategoryColumn,
    Column,
    DateColumn,
    NumberColumn,
    OrderedColumn,
)
from pyro_probmix.tables.kinds import KINDS, Kind, TableWarning
from pyro_probmix.tables.preparation import Preparation
from pyro_probmix.tables.reading import Reading
from pyro_probmix.tables.writing import check_suffix, write_table

__all__ = [
    "KINDS",
    "SUFFIXES",
    "BooleanColumn",
    "CategoryColumn",
    "Cells",
    "Column",
    "DateColumn",
    "Kind",
    "NumberColumn",
    "OrderedColumn",
    "Preparation",
    "Reading",
    "TableWarning",
    "check_suffix",
    "read_cells",
    "write_table",
]
