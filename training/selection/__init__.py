"""Choosing features: GL-RFE, how it rates them, and the selectors it is compared with."""

__all__ = ["comparators", "elimination", "importance"]
