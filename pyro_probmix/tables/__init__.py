"""Tables: from a file or a frame to cells, from cells to columns, from columns to features."""

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

__all__ = [
    "KINDS",
    "BooleanColumn",
    "CategoryColumn",
    "Column",
    "DateColumn",
    "Kind",
    "NumberColumn",
    "OrderedColumn",
    "Preparation",
    "TableWarning",
]
