"""What torch lacks: rows of many tensors at once, draws that vmap follows, work in blocks, precision, functions."""

from pyro_probmix.ops import autocast, blocks, devices, draws, rows, special, sums, values

__all__ = ["autocast", "blocks", "devices", "draws", "rows", "special", "sums", "values"]
