"""Methods and ensembles on real data, as they are and recalibrated."""

__all__ = ["table"]
