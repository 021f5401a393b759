"""The paper's tables, ablations and figures."""

__all__ = ["reproduce"]
