"""What torch lacks: rows of many tensors at once, draws that vmap follows, work in blocks, precision, functions."""

from pyro_probmix.ops.autocast import autocasts, full_precision, without_autocast
from pyro_probmix.ops.blocks import has_memory, in_blocks, is_large, is_recorded, tracing, unbatch
from pyro_probmix.ops.devices import double, filled_numbers
from pyro_probmix.ops.rows import take

__all__ = [
    "autocasts",
    "double",
    "filled_numbers",
    "full_precision",
    "has_memory",
    "in_blocks",
    "is_large",
    "is_recorded",
    "take",
    "tracing",
    "unbatch",
    "without_autocast",
]
